//! Signals to all processes of a cgroup.
//!
//! A list of pids is stale the moment it is read: a process on it may have ended and its number be taken by a
//! stranger, and a new one may have been forked. v2's `cgroup.kill` has neither problem and is used where the v2
//! side exists; without it the cgroup is frozen first, and every number is turned into a pidfd while it is.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sys::process::{Pid, PidFd};
use sys::signal::{Number, Signal};

use crate::cgroup::pause;
use crate::freeze::FREEZE_DEADLINE;
use crate::{Cgroup, Error, Result};

/// How long a cgroup may take to freeze before its processes are killed as they run: one of them in an uninterruptible
/// sleep can't be frozen, and is no reason to spare the others.
const FREEZE_BEFORE_KILL: Duration = Duration::from_secs(1);

impl Cgroup {
    /// Kills every process, here and below, and waits until none is left. A frozen cgroup is thawed for it.
    ///
    /// Processes that have ended but were not reaped yet do not count: they use nothing and hold nothing.
    pub fn kill(&self, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline;
        let mut tried = self.kill_unified()?;
        if tried {
            self.thaw()?;
            self.wait_unpopulated(end)?;
        }
        // Whoever is left was in the v1 side only, moved there by somebody else; or the kernel is older than cgroup.kill.
        let mut step = Duration::from_micros(200);
        let mut unfrozen = None;
        while !self.processes()?.is_empty() {
            // A deadline that passed while nobody let us run is no reason to spare them.
            if tried && Instant::now() > end {
                let path = self.members().first().map(|member| member.dir.path().to_owned()).unwrap_or_default();
                let populated = Error::Deadline { path, state: "empty", seconds: deadline.as_secs() };
                return Err(unfrozen.unwrap_or(populated));
            }
            match unfrozen {
                None => unfrozen = self.kill_frozen(end)?,
                // What is forked meanwhile is on the next list.
                Some(_) => self.signal_each(Signal::SIGKILL.into())?,
            }
            tried = true;
            pause(step);
            step = (step * 2).min(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Sends a signal to every process, here and below, that is there now. Ones forked meanwhile get it too: the
    /// cgroup is frozen while the signal is sent. It stays frozen if it was before, except for SIGKILL.
    pub fn signal(&self, signal: impl Into<Number>) -> Result<()> {
        let signal = signal.into();
        let was_frozen = self.is_frozen()?;
        if !was_frozen {
            self.freeze_unless_gone(FREEZE_DEADLINE)?;
        }
        let sent = self.signal_each(signal);
        if !was_frozen || signal == Signal::SIGKILL.into() {
            self.thaw()?;
        }
        sent
    }

    /// Kills every process that is there now, frozen if that works; else the reason why not.
    fn kill_frozen(&self, end: Instant) -> Result<Option<Error>> {
        let left = end.saturating_duration_since(Instant::now());
        let frozen = if self.is_frozen()? { Ok(()) } else { self.freeze_unless_gone(left.min(FREEZE_BEFORE_KILL)) };
        let sent = self.signal_each(Signal::SIGKILL.into());
        self.thaw()?;
        sent.map(|()| frozen.err())
    }

    fn signal_each(&self, signal: Number) -> Result<()> {
        for pid in self.processes()? {
            let sent = PidFd::open(Pid::from_raw(pid)).and_then(|process| process.send_signal(signal));
            match sent {
                Err(error) if error.is(Errno::ESRCH) => {}
                result => result.map_err(|source| Error::Signal { signal, pid, source })?,
            }
        }
        Ok(())
    }

    fn freeze_unless_gone(&self, deadline: Duration) -> Result<()> {
        match self.freeze_within(deadline) {
            Err(error) if error.is_gone() => Ok(()),
            result => result,
        }
    }

    /// True if the kernel took the order (5.14 and newer).
    fn kill_unified(&self) -> Result<bool> {
        let Some(dir) = self.unified_dir() else { return Ok(false) };
        match dir.write("cgroup.kill", "1") {
            Ok(()) => Ok(true),
            Err(error) if error.is_gone() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits for `populated 0` in `cgroup.events`, which raises POLLPRI at each change.
    fn wait_unpopulated(&self, end: Instant) -> Result<()> {
        let Some(dir) = self.unified_dir() else { return Ok(()) };
        let events = match dir.open_file("cgroup.events", OFlag::O_RDONLY) {
            Err(error) if error.is_gone() => return Ok(()),
            events => events?,
        };
        loop {
            // Reading through the same fd is what arms the next POLLPRI.
            let mut text = [0; 256];
            let read = match nix::sys::uio::pread(&events, &mut text, 0) {
                Err(Errno::ENODEV) => return Ok(()),
                read => read.map_err(|source| Error::Read { path: dir.path().join("cgroup.events"), source })?,
            };
            if text[..read].split(|&byte| byte == b'\n').any(|line| line == b"populated 0") {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // The caller's own check has the last word, and the error.
                return Ok(());
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(source) => return Err(Error::Call { what: "poll cgroup.events".to_owned(), source }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;
    use crate::{Kind, Layout};

    #[test]
    fn processes_are_killed_although_one_cannot_be_frozen() {
        check_killed(Duration::from_millis(300));
    }

    #[test]
    fn processes_are_killed_although_the_deadline_has_passed() {
        check_killed(Duration::ZERO);
    }

    /// Checks that a process is killed which can't be frozen, nor seen to leave the list of its cgroup.
    #[track_caller]
    fn check_killed(deadline: Duration) {
        let mut sleeper = std::process::Command::new("sleep").arg("1000").spawn().expect("a process");
        let fixture = Fixture::new(&[
            ("c/cgroup.procs", &format!("{}\n", sleeper.id())),
            ("c/cgroup.events", "populated 1\nfrozen 0\n"),
            ("c/cgroup.freeze", "0\n"),
        ]);
        let layout = Layout::fixture(vec![(Kind::V2, fixture.dir.path().to_owned())]).expect("a layout");
        let cgroup = Cgroup::open(&layout, "/c").expect("a cgroup");
        // The list in the fixture stays as it is.
        let error = cgroup.kill(deadline).expect_err("a process is left").to_string();
        let process = PidFd::open(Pid::from_raw(sleeper.id().cast_signed())).expect("its pidfd");
        let ended = sys::poll::poll(&[(process.as_fd(), sys::poll::Interest::READ)], Some(Duration::from_secs(10)));
        sleeper.kill().and_then(|()| sleeper.wait()).expect("its end");
        assert_eq!(ended.expect("a wait"), [sys::poll::Interest::READ]);
        assert!(error.contains("frozen"), "{error}");
        assert_eq!(fixture.content("c/cgroup.freeze"), "0");
    }
}
