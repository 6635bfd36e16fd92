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
use crate::{Cgroup, Error, Result};

impl Cgroup {
    /// Kills every process, here and below, and waits until none is left. A frozen cgroup is thawed for it.
    ///
    /// Processes that have ended but were not reaped yet do not count: they use nothing and hold nothing.
    pub fn kill(&self, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline;
        if self.kill_unified()? {
            self.thaw()?;
            self.wait_unpopulated(end)?;
        }
        // Whoever is left was in the v1 side only, moved there by somebody else; or the kernel is older than cgroup.kill.
        let mut step = Duration::from_micros(200);
        while !self.processes()?.is_empty() {
            if Instant::now() > end {
                let path = self.members().first().map(|member| member.dir.path().to_owned()).unwrap_or_default();
                return Err(Error::Deadline { path, state: "empty", seconds: deadline.as_secs() });
            }
            self.signal(Signal::SIGKILL)?;
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
            self.freeze_unless_gone()?;
        }
        let sent = self.signal_each(signal);
        if !was_frozen || signal == Signal::SIGKILL.into() {
            self.thaw()?;
        }
        sent
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

    fn freeze_unless_gone(&self) -> Result<()> {
        match self.freeze() {
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
