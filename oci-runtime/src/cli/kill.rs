//! kill: a signal to the container's first process.

use std::time::Duration;

use sys::Errno;
use sys::signal::{Number, Signal};

use super::Error;
use super::store::{Container, Status, Store, StoreError};

/// How long the processes of a cgroup may take to die of SIGKILL: one that waits for a dead disk does not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Sends a signal; `all` makes a container that does not run no error.
pub(crate) fn kill(store: &Store<'_>, id: &str, signal: &str, all: bool) -> Result<(), Error> {
    let container = store.load(id)?;
    let signal = parse(signal)?;
    match send(&container, signal) {
        Err(error) if all && matches!(error.downcast_ref(), Some(StoreError::NotRunning)) => Ok(()),
        result => result,
    }
}

/// By name with or without `SIG`, or by number; `None` is 0, which only asks.
fn parse(signal: &str) -> Result<Option<Number>, Error> {
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
        container.cgroup()?.thaw()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_a_name_or_a_number() {
        let number = |text| parse(text).unwrap().map(Number::get);
        assert_eq!(["KILL", "SIGKILL", "9", "kill"].map(number), [Some(9); 4]);
        assert_eq!(number("0"), None);
        assert_eq!(parse("FROB").unwrap_err().to_string(), "unknown signal \"FROB\"");
    }
}
