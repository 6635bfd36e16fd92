//! The hooks that come when the library is done: `poststart` and `poststop`.

use std::ffi::CString;

use oci_runtime::plan::Hooks;
use oci_runtime::{Identity, Status, hooks};

use super::Error;
use super::log::Log;
use super::store::{Container, Record};

/// Whether there are hooks in a list of the config.
pub(super) fn list(hooks: &Option<Vec<oci_spec::runtime::Hook>>) -> bool {
    hooks.as_ref().is_some_and(|hooks| !hooks.is_empty())
}

/// What hooks without an environment of their own have: ours, as those of runc.
pub(super) fn environment(hooks: &Hooks) -> Vec<CString> {
    match *hooks == Hooks::default() {
        true => Vec::new(),
        false => hooks::own_environment(),
    }
}

/// For a container whose program runs. One that fails ends the container, which is left to be deleted.
pub(super) fn poststart(container: &Container) -> Result<(), Error> {
    let record = &container.record;
    let hooks = checked(record)?;
    let run = hooks::poststart(&hooks, &identity(record).state(Status::Running, record.pid), &environment(&hooks));
    run.map_err(|error| {
        // The error that led here is the one to tell.
        let _ = container.cgroup().and_then(|cgroup| cgroup.kill(super::kill::PATIENCE));
        error.into()
    })
}

/// Removes a container that has stopped, and runs its `poststop` hooks, whose failures are only told.
pub(super) fn destroy(container: &Container, log: &mut Log) -> Result<(), Error> {
    container.destroy()?;
    let hooks = checked(&container.record)?;
    poststop(&hooks, &identity(&container.record), log);
    Ok(())
}

/// For a container that is gone, or never came to be.
pub(super) fn poststop(hooks: &Hooks, identity: &Identity, log: &mut Log) {
    for error in hooks::poststop(hooks, &identity.state(Status::Stopped, 0), &environment(hooks)) {
        log.warn(&super::chain(&error));
    }
}

pub(super) fn identity(record: &Record) -> Identity {
    Identity {
        id: record.id.clone(),
        bundle: record.bundle.clone(),
        annotations: record.annotations.clone().into_iter().collect(),
    }
}

fn checked(record: &Record) -> Result<Hooks, Error> {
    Ok(Hooks::from_spec(record.hooks.as_ref())?)
}
