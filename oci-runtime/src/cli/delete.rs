//! delete: what is left of a container.

use super::Error;
use super::args::{self, Stop};
use super::help::Help;
use super::hooks;
use super::kill::PATIENCE;
use super::log::Log;
use super::store::{Container, Status, Store, StoreError};

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
    let container = match store.load(id) {
        Err(error) if matches!(error.downcast_ref(), Some(StoreError::NotExist)) => {
            // The creation of one may have been cut short before there was a state.json.
            store.remove_leftover(id)?;
            return if *force { Ok(()) } else { Err(error) };
        }
        container => container?,
    };
    if *force {
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
