//! delete: what is left of a container.

use super::Error;
use super::hooks;
use super::kill::PATIENCE;
use super::log::Log;
use super::store::{Container, Status, Store, StoreError};

/// Removes a container that has stopped, or was never started; with `force` any.
pub(crate) fn delete(store: &Store<'_>, id: &str, force: bool, log: &mut Log) -> Result<(), Error> {
    let container = match store.load(id) {
        Err(error) if matches!(error.downcast_ref(), Some(StoreError::NotExist)) => {
            // The creation of one may have been cut short before there was a state.json.
            store.remove_leftover(id)?;
            return if force { Ok(()) } else { Err(error) };
        }
        container => container?,
    };
    if force {
        // Also if it has stopped: without a PID namespace of its own some processes may be left.
        return kill_and_destroy(&container, log);
    }
    match container.status()? {
        Status::Stopped => hooks::destroy(&container, log),
        Status::Created => kill_and_destroy(&container, log),
        status => Err(format!("cannot delete container {id} that is not stopped: {status}").into()),
    }
}

fn kill_and_destroy(container: &Container, log: &mut Log) -> Result<(), Error> {
    container.cgroup()?.kill(PATIENCE)?;
    hooks::destroy(container, log)
}
