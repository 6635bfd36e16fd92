//! pause and resume: all processes of a container at once.

use super::Error;
use super::args::{self, Stop};
use super::help::Help;
use super::store::{Status, Store, StoreError};

pub(crate) const PAUSE: Help =
    Help { about: "stops all processes of a container where they are", usage: "ID", details: "", flags: &[] };

pub(crate) const RESUME: Help =
    Help { about: "lets the processes of a paused container go on", usage: "ID", details: "", flags: &[] };

pub(crate) fn parse(parser: &mut lexopt::Parser, verb: &str) -> Result<String, Stop> {
    args::only_id(parser, verb, args::no_flag)
}

/// Freezes the container's cgroup; one that waits for its start can be paused too.
pub(crate) fn pause(store: &Store<'_>, id: &str) -> Result<(), Error> {
    let container = store.load(id)?;
    match container.status()? {
        Status::Running | Status::Created => Ok(container.cgroup()?.freeze()?),
        Status::Paused | Status::Stopped => Err(StoreError::NotRunning.into()),
    }
}

/// Thaws it.
pub(crate) fn resume(store: &Store<'_>, id: &str) -> Result<(), Error> {
    let container = store.load(id)?;
    match container.status()? {
        Status::Paused => Ok(container.cgroup()?.thaw()?),
        Status::Running | Status::Created | Status::Stopped => Err(StoreError::NotPaused.into()),
    }
}
