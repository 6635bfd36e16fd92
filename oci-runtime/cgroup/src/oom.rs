//! Out of memory, as a pollable fd.
//!
//! v1 announces that a cgroup is out of memory through an eventfd registered in `cgroup.event_control`, just
//! *before* it kills, and announces the removal of the cgroup in the same way. So the event says "look", and the
//! counter of kills says what happened.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::uio::pread;

use crate::{Cgroup, Error, Result};

/// A watch on one cgroup's memory; it ends when dropped. Readable when the cgroup has run out of memory since the
/// last [`OomWatch::acknowledge`], or was removed.
#[derive(Debug)]
pub struct OomWatch {
    event: OwnedFd,
    /// `memory.oom_control`, whose `oom_kill` counts processes killed.
    control: OwnedFd,
}

impl Cgroup {
    /// Starts to watch; `None` without the v1 memory controller.
    pub fn oom_watch(&self) -> Result<Option<OomWatch>> {
        let Some(dir) = self.controller("memory") else { return Ok(None) };
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|source| Error::Call { what: "eventfd2(0, EFD_CLOEXEC|EFD_NONBLOCK)".to_owned(), source })?;
        let control = dir.open_file("memory.oom_control", OFlag::O_RDONLY)?;
        dir.write("cgroup.event_control", &format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd()))?;
        Ok(Some(OomWatch { event: event.into(), control }))
    }
}

impl OomWatch {
    /// The watch as two fds, to be sent to another process, which makes it a watch again with [`OomWatch::from_fds`].
    pub fn into_fds(self) -> [OwnedFd; 2] {
        [self.event, self.control]
    }

    /// The watch that [`OomWatch::into_fds`] took apart.
    pub fn from_fds([event, control]: [OwnedFd; 2]) -> OomWatch {
        OomWatch { event, control }
    }

    /// Clears the event, so that the fd can be polled again. False once the cgroup is gone: then the fd would be
    /// readable for ever, and the watch should be dropped.
    pub fn acknowledge(&self) -> Result<bool> {
        match nix::unistd::read(&self.event, &mut [0; size_of::<u64>()]) {
            Ok(_) | Err(Errno::EAGAIN) => Ok(self.control_text()?.is_some()),
            Err(source) => Err(Error::Call { what: "read from the out-of-memory eventfd".to_owned(), source }),
        }
    }

    /// How many processes of this very cgroup the kernel has killed for want of memory; `None` once it is gone.
    pub fn kills(&self) -> Result<Option<u64>> {
        let Some(text) = self.control_text()? else { return Ok(None) };
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.parse().ok());
        let malformed =
            || Error::Malformed { path: "memory.oom_control".into(), text, expected: "a list with oom_kill in it" };
        count.ok_or_else(malformed).map(Some)
    }

    fn control_text(&self) -> Result<Option<String>> {
        let mut text = [0; 256];
        match pread(&self.control, &mut text, 0) {
            Ok(n) => Ok(Some(String::from_utf8_lossy(&text[..n]).into_owned())),
            Err(Errno::ENODEV) => Ok(None),
            Err(source) => Err(Error::Read { path: "memory.oom_control".into(), source }),
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
