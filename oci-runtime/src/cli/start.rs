//! start: runs the program of a container that was created.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use sys::at::OFlag;
use sys::poll::Interest;

use super::args::{self, Stop};
use super::help::Help;
use super::store::{Container, Status, Store};
use super::{Error, hooks, notify};

pub(crate) const HELP: Help =
    Help { about: "runs the program of a container that was created", usage: "ID", details: "", flags: &[] };

pub(crate) fn parse(parser: &mut lexopt::Parser) -> Result<String, Stop> {
    args::only_id(parser, "start", args::no_flag)
}

/// Opens the FIFO that the container waits behind.
pub(crate) fn start(store: &Store<'_>, id: &str) -> Result<(), Error> {
    // Two starts at once: the second one has to find that there is nothing left to start.
    let (container, lock) = store.load_locked(id)?;
    match container.status()? {
        Status::Created => {
            let ear = notify::listen(&container)?;
            let gate = open_gate(&container)?;
            // A hook may want to change the container itself.
            drop(lock);
            run_hooks(&container, gate)?;
            ear.map_or(Ok(()), |ear| ear.wait(&container.process()))
        }
        Status::Stopped => Err("cannot start a container that has stopped".into()),
        Status::Running => {
            // That of a start that was killed before it came to remove it.
            remove_fifo(&container)?;
            Err("cannot start an already running container".into())
        }
        Status::Paused => Err("cannot start a container in the paused state".into()),
    }
}

/// Lets the program run.
fn open_gate(container: &Container) -> Result<File, Error> {
    let path = container.fifo();
    let named = |error: std::io::Error| format!("open {}: {error}", path.display());
    // First: once the FIFO is open the program may run, end and be reaped before we look for it.
    let process = container.process().open().map_err(|_| "container process is already dead")?;
    // Without waiting: if the container dies now, nobody will ever open the other end.
    let mut fifo =
        std::fs::OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path).map_err(named)?;
    let events = [(fifo.as_fd(), Interest::READ), (process.as_fd(), Interest::READ)];
    sys::poll::poll(&events, None)?;
    let mut byte = [0];
    match fifo.read(&mut byte) {
        Ok(1) => {}
        // The container's own end is what woke us.
        _ => return Err("container process is already dead".into()),
    }
    remove_fifo(container)?;
    Ok(fifo)
}

/// One that is not there is removed.
fn remove_fifo(container: &Container) -> Result<(), Error> {
    let path = container.fifo();
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("remove {}: {error}", path.display()).into())
        }
        _ => Ok(()),
    }
}

/// The container has the other end of `gate` until its program is executed, or it ends.
fn run_hooks(container: &Container, mut gate: File) -> Result<(), Error> {
    if container.record.hooks.as_ref().and_then(|hooks| hooks.poststart().as_ref()).is_none_or(Vec::is_empty) {
        return Ok(());
    }
    sys::fd::set_nonblocking(&gate, false)?;
    let word = gate.read(&mut [0]).map_err(|error| format!("wait for the container's program: {error}"))?;
    // Without a word it has either executed its program or was ended before; as long as nobody has reaped it, that can be told.
    let process = container.process();
    let was_ended = || {
        let stat = sys::process::stat(process.pid);
        stat.is_ok_and(|stat| stat.start_time == process.start_time && !stat.has_executed)
    };
    if word > 0 || was_ended() {
        return Err("the container has ended before its program could run".into());
    }
    hooks::poststart(container)
}
