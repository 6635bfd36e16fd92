//! [`PidFd`]: a process that can't be mistaken for another (pidfd_open(2)).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::libc;

use super::Pid;
use super::wait::{self, Exit};
use crate::Errno;
use crate::error::{Error, Result, fd};
use crate::fd::own;
use crate::poll::{Interest, poll};
use crate::signal::Number;

/// A handle to a process. It becomes readable when the process has ended.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<PidFd> for OwnedFd {
    fn from(pidfd: PidFd) -> OwnedFd {
        pidfd.0
    }
}

impl PidFd {
    /// The process that has the number `pid` now (pidfd_open(2)). To be sure which one, open a
    /// [`Process`](super::Process).
    ///
    /// # Errors
    /// ESRCH if it is gone. Older kernels (seen on 6.1) say EINVAL of one that is just being reaped, as of a thread's number.
    pub fn open(pid: Pid) -> Result<PidFd> {
        // SAFETY: two integers; the kernel returns a new fd, always close-on-exec, or an error.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        let opened = Errno::result(result).map_err(|errno| {
            let errno = if errno == Errno::EINVAL && pid.as_raw() > 0 { Errno::ESRCH } else { errno };
            Error::new("pidfd_open", errno, format_args!("{pid}, 0"))
        })?;
        // SAFETY: a new fd that nothing else owns.
        Ok(PidFd(unsafe { own(opened) }))
    }

    /// Takes a pidfd that came over a socket.
    pub fn from_fd(pidfd: OwnedFd) -> PidFd {
        PidFd(pidfd)
    }

    /// Sends a signal (pidfd_send_signal(2)); ESRCH if the process has ended and was reaped.
    pub fn send_signal(&self, signal: impl Into<Number>) -> Result<()> {
        let signal = signal.into();
        let info = std::ptr::null::<libc::siginfo_t>();
        let number = self.0.as_raw_fd();
        // SAFETY: our own fd and integers; NULL for the siginfo is what kill(2) would fill in.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, number, signal.get(), info, 0) };
        Errno::result(result)
            .map(drop)
            .map_err(|errno| Error::new("pidfd_send_signal", errno, format_args!("{}, {signal}, NULL, 0", fd(self))))
    }

    /// A copy of what the process has open under `number` (pidfd_getfd(2)): for a process that may not make the calls that
    /// would send it. It takes the right to trace the process.
    pub fn take_fd(&self, number: RawFd) -> Result<OwnedFd> {
        // SAFETY: our own fd and integers; the kernel returns a new fd, always close-on-exec, or an error.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.0.as_raw_fd(), number, 0) };
        let taken = Errno::result(result)
            .map_err(|errno| Error::new("pidfd_getfd", errno, format_args!("{}, {number}, 0", fd(self))))?;
        // SAFETY: a new fd that nothing else owns.
        Ok(unsafe { own(taken) })
    }

    /// Waits for the end of this child and reaps it (waitid(2), `P_PIDFD`). ECHILD if it is not ours.
    pub fn wait(&self) -> Result<Exit> {
        loop {
            if let Some((_, exit)) = self.wait_with(0)? {
                return Ok(exit);
            }
        }
    }

    /// Waits until the process has ended, whose child it may be and whether or not it was reaped, for `patience` at most; true
    /// if it has (pidfd_open(2), poll(2)).
    pub fn ends_within(&self, patience: Duration) -> Result<bool> {
        let happened = poll(&[(self.as_fd(), Interest::READ)], Some(patience))?;
        Ok(happened.iter().any(|happened| !happened.is_empty()))
    }

    /// Reaps this child if it has ended, `None` if it has not.
    pub fn try_wait(&self) -> Result<Option<Exit>> {
        Ok(self.wait_with(libc::WNOHANG)?.map(|(_, exit)| exit))
    }

    fn wait_with(&self, how: i32) -> Result<Option<(Pid, Exit)>> {
        wait::waitid(libc::P_PIDFD, self.0.as_raw_fd().cast_unsigned(), how)
            .map_err(|errno| Error::new("waitid", errno, format_args!("P_PIDFD, {}, WEXITED|__WALL", fd(self))))
    }
}
