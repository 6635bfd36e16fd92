//! run: create and start, and unless detached stand in for the container until it ends.

use std::io::Write;

use oci_runtime::{Created, StartError};

use super::Error;
use super::args::{self, Stop};
use super::bundle;
use super::create::{self, New, Request};
use super::foreground::Foreground;
use super::help::Help;
use super::hooks;
use super::log::Log;
use super::notify;
use super::store::Store;
use super::streams::{self, Inherited, Sockets};

/// run
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) create: create::Flags,
    pub(crate) detach: bool,
    pub(crate) keep: bool,
    pub(crate) no_subreaper: bool,
}

const FLAGS: &[(&str, &str)] = &[
    ("--detach, -d", "leave the container running, with the standard streams"),
    ("--keep", "don't delete the container when it has ended"),
    ("--no-subreaper", "don't become the parent of what the container leaves behind"),
];

pub(crate) const HELP: Help = Help {
    about: "makes and starts a container, and stands in for it until it ends",
    usage: "[flags] ID",
    details: "The exit code is the container's, or 128 and the number of the signal that ended it.",
    flags: &[FLAGS, create::FLAGS, streams::FLAGS],
};

pub(crate) fn parse(parser: &mut lexopt::Parser) -> Result<Flags, Stop> {
    let mut flags = Flags::default();
    flags.create.id = args::only_id(parser, "run", |name, parser| {
        match name {
            "-d" | "--detach" => flags.detach = args::switch(parser, name)?,
            "--keep" => flags.keep = args::switch(parser, name)?,
            "--no-subreaper" => flags.no_subreaper = args::switch(parser, name)?,
            name => flags.create.read(name, parser)?,
        }
        Ok(())
    })?;
    Ok(flags)
}

/// The exit code is the container's own, or 0 if it was detached.
pub(crate) fn run(store: &Store<'_>, flags: &Flags, inherited: Inherited, log: &mut Log) -> Result<u8, Error> {
    let bundle = bundle::load(flags.create.bundle.as_deref(), log)?;
    let terminal = bundle.plan.process.terminal;
    streams::check_terminal(&flags.create.streams, terminal, flags.detach)?;
    let sockets = Sockets::connect(&flags.create.streams)?;
    let (foreground, stdio) = match flags.detach {
        true => (None, streams::own()),
        false => {
            if !flags.no_subreaper {
                sys::process::set_child_subreaper(true)?;
            }
            let (foreground, stdio) = Foreground::prepare(terminal)?;
            (Some(foreground), stdio)
        }
    };
    let request = Request { flags: &flags.create, bundle, inherited: &inherited, stdio, behind_fifo: false };
    let New { container, mut created } = create::make(store, request, log)?;
    created.warnings.iter().for_each(|warning| log.warn(warning));
    let ear = notify::listen(&container).inspect_err(|_| create::undo(&container, &created, log))?;
    let started = sockets
        .send(created.console.as_ref(), created.pidfd.as_ref())
        .and_then(|()| streams::write_pid_file(flags.create.streams.pid_file.as_deref(), created.pid))
        .and_then(|()| start(&mut created))
        .and_then(|()| hooks::poststart(&container));
    started.inspect_err(|_| create::undo(&container, &created, log))?;
    let Some(foreground) = foreground else {
        ear.map_or(Ok(()), |ear| ear.wait(&container.process()))?;
        return Ok(0);
    };
    let code = foreground.listening_to(ear).attend(created.pid, container.process(), created.console.take())?;
    if !flags.keep {
        hooks::destroy(&container, log)?;
    }
    Ok(code)
}

/// Writes the byte that the container waits for, and hears whether its program was executed.
fn start(created: &mut Created) -> Result<(), Error> {
    let start = created.start.take().ok_or("the container does not wait for us")?;
    std::fs::File::from(start).write_all(b"0").map_err(|error| format!("start the container: {error}"))?;
    let mut message = vec![0; 64 * 1024];
    let (length, _) = sys::socket::recv(&created.status, &mut message)?;
    match StartError::from_status(&message[..length]) {
        None => Ok(()),
        Some(error) => Err(error.into()),
    }
}
