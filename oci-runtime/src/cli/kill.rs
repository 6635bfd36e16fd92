//! kill: a signal to the container's first process.

use std::time::Duration;

use oci_runtime::cgroup::Cgroup;
use sys::Errno;
use sys::signal::{Number, Signal};

use super::Error;
use super::args::{self, Stop, Token};
use super::help::Help;
use super::store::{Container, Status, Store, StoreError};

/// kill
#[derive(Debug)]
pub(crate) struct Flags {
    pub(crate) id: String,
    pub(crate) signal: String,
    pub(crate) all: bool,
}

pub(crate) const HELP: Help = Help {
    about: "sends a signal to a container's first process",
    usage: "ID [SIGNAL]",
    details: "A signal is a name, with or without SIG, or a number; TERM without one. KILL ends all processes of a\n\
              container that has no PID namespace of its own.",
    flags: &[],
};

pub(crate) fn parse(parser: &mut lexopt::Parser) -> Result<Flags, Stop> {
    let (mut all, mut values) = (false, Vec::new());
    while let Some(token) = args::next_token(parser)? {
        match token {
            Token::Plain(value) => values.push(value),
            // Obsolete: means that a container which does not run is no error.
            Token::Flag(name) if ["-a", "--all"].contains(&name.as_str()) => all = args::switch(parser, &name)?,
            Token::Flag(name) => return Err(args::unknown(&name)),
        }
    }
    let mut values = values.into_iter();
    match (values.next(), values.next(), values.next()) {
        (Some(id), signal, None) => Ok(Flags { id, signal: signal.unwrap_or_else(|| "SIGTERM".to_owned()), all }),
        (None, ..) => Err(args::count_is_wrong("kill", "a minimum of 1")),
        _ => Err(args::count_is_wrong("kill", "a maximum of 2")),
    }
}

/// How long the processes of a cgroup may take to die of SIGKILL: one that waits for a dead disk does not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Sends a signal; with `all` a container that does not run is no error.
pub(crate) fn kill(store: &Store<'_>, flags: &Flags) -> Result<(), Error> {
    let container = store.load(&flags.id)?;
    let signal = signal_of(&flags.signal)?;
    match send(&container, signal) {
        Err(error) if flags.all && matches!(error.downcast_ref(), Some(StoreError::NotRunning)) => Ok(()),
        result => result,
    }
}

/// By name with or without `SIG`, or by number; `None` is 0, which only asks.
fn signal_of(signal: &str) -> Result<Option<Number>, Error> {
    match signal {
        "0" => Ok(None),
        signal => Ok(Some(signal.parse()?)),
    }
}

/// SIGKILL means all of the container: without a PID namespace of its own the others would outlive its first
/// process, and a frozen process would not die.
fn send(container: &Container, signal: Option<Number>) -> Result<(), Error> {
    let is_kill = signal == Some(Signal::SIGKILL.into());
    if is_kill && container.record.shares_pids {
        return Ok(container.cgroup()?.kill(PATIENCE)?);
    }
    if container.status()? == Status::Stopped {
        return Err(StoreError::NotRunning.into());
    }
    let Some(signal) = signal else { return Ok(()) };
    let sent = container.process().open().and_then(|process| process.send_signal(signal));
    match sent {
        Err(error) if error.is(Errno::ESRCH) => return Err(StoreError::NotRunning.into()),
        result => result?,
    }
    if is_kill {
        Cgroup::thaw_at(container.layout()?, &container.record.cgroup)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_a_name_or_a_number() {
        let number = |text| signal_of(text).unwrap().map(Number::get);
        assert_eq!(["KILL", "SIGKILL", "9", "kill"].map(number), [Some(9); 4]);
        assert_eq!(number("0"), None);
        assert_eq!(signal_of("FROB").unwrap_err().to_string(), "unknown signal \"FROB\"");
    }
}
