//! Creating a container: everything but running its program.

use crate::{Created, Error, Inputs, Plan};

/// Creates the container: on success its first process waits behind [`Inputs::gate`], ready to run the program.
///
/// # Errors
/// Nothing is left of a container that could not be created: its process is dead and its cgroup removed.
pub fn create(plan: Plan, inputs: Inputs<'_>) -> Result<Created, Error> {
    let _ = (plan, inputs);
    Err(Error::Missing("create"))
}
