//! delete: what is left of a container.

use oci_runtime::resctrl;

use super::Error;
use super::args::{self, Stop};
use super::help::Help;
use super::hooks;
use super::log::Log;
use super::making::Abandoned;
use super::store::{self, Status, Store, StoreError};

/// delete
#[derive(Debug)]
pub(crate) struct Flags {
    pub(crate) id: String,
    pub(crate) force: bool,
}

pub(crate) const HELP: Help = Help {
    about: "removes what is left of a container",
    usage: "[-f] ID",
    details: "",
    flags: &[&[("--force, -f", "kill it first if it runs; one that is not there is no error")]],
};

pub(crate) fn parse(parser: &mut lexopt::Parser) -> Result<Flags, Stop> {
    let mut force = false;
    let id = args::only_id(parser, "delete", |name, parser| {
        match name {
            "-f" | "--force" => force = args::switch(parser, name)?,
            name => return Err(args::unknown(name)),
        }
        Ok(())
    })?;
    Ok(Flags { id, force })
}

/// Removes a container that has stopped, or was never started; with `force` any.
pub(crate) fn delete(store: &Store<'_>, flags: &Flags, log: &mut Log) -> Result<(), Error> {
    let Flags { id, force } = flags;
    if *force && let Ok(container) = store.load(id) {
        // Before we wait for the lock: who holds it may be waiting for the container. Also if it has stopped: without a PID
        // namespace of its own some processes may be left.
        container.kill()?;
    }
    let (container, _lock) = match store.load_locked(id) {
        Err(error) if does_not_exist(&error) => match store.abandoned(id, *force)? {
            None if *force => return Ok(()),
            None => return Err(error),
            Some(abandoned) => match store.load(id) {
                // It came to be after all.
                Ok(_) => {
                    drop(abandoned);
                    store.load_locked(id)?
                }
                Err(_) => {
                    remove_abandoned(&abandoned, log)?;
                    return if *force { Ok(()) } else { Err(error) };
                }
            },
        },
        container => container?,
    };
    match container.status()? {
        Status::Stopped if !force => hooks::destroy(&container, log),
        status @ (Status::Running | Status::Paused) if !force => {
            Err(format!("cannot delete container {id} that is not stopped: {status}").into())
        }
        _ => {
            container.kill()?;
            hooks::destroy(&container, log)
        }
    }
}

fn does_not_exist(error: &Error) -> bool {
    matches!(error.downcast_ref(), Some(StoreError::NotExist))
}

/// What a creator left that was killed.
fn remove_abandoned(abandoned: &Abandoned, log: &mut Log) -> Result<(), Error> {
    let Some(container) = abandoned.container() else { return store::remove(&abandoned.dir) };
    let owns_cgroup = abandoned.owns_cgroup();
    if owns_cgroup {
        container.kill()?;
    }
    resctrl::remove_unused(&abandoned.groups())?;
    if owns_cgroup {
        return hooks::destroy(&container, log);
    }
    // Made or not, it was to be new or empty; processes in it are somebody else's.
    let cgroup = container.cgroup()?;
    if cgroup.processes()?.is_empty() {
        cgroup.delete()?;
    }
    store::remove(&abandoned.dir)
}
