//! Out of memory, as a pollable fd.
//!
//! v1 announces that a cgroup is out of memory through an eventfd registered in `cgroup.event_control`, just
//! *before* it kills, and announces the removal of the cgroup in the same way. So the event says "look", and the
//! counter of kills says what happened. v2 says by POLLPRI that `memory.events` has changed; an epoll instance makes of
//! that an fd that is readable, without one of the few inotify instances that a user has.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::uio::pread;

use crate::dir::Dir;
use crate::{Cgroup, Error, Result};

/// A watch on one cgroup's memory; it ends when dropped. Readable when something has happened to its memory since the
/// last [`OomWatch::acknowledge`]; on v1 also when it was removed.
#[derive(Debug)]
pub struct OomWatch {
    /// v1's eventfd, or v2's epoll instance.
    event: OwnedFd,
    /// `memory.oom_control` or `memory.events`, whose `oom_kill` counts processes killed.
    control: OwnedFd,
}

impl Cgroup {
    /// Starts to watch; `None` without a memory controller.
    pub fn oom_watch(&self) -> Result<Option<OomWatch>> {
        match (self.controller("memory"), self.unified_dir()) {
            (Some(dir), _) => watch_v1(dir).map(Some),
            (None, Some(dir)) => watch_v2(dir),
            (None, None) => Ok(None),
        }
    }
}

fn watch_v1(dir: &Dir) -> Result<OomWatch> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|source| Error::Call { what: "eventfd2(0, EFD_CLOEXEC|EFD_NONBLOCK)".to_owned(), source })?;
    let control = dir.open_file("memory.oom_control", OFlag::O_RDONLY)?;
    dir.write("cgroup.event_control", &format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd()))?;
    Ok(OomWatch { event: event.into(), control })
}

fn watch_v2(dir: &Dir) -> Result<Option<OomWatch>> {
    let control = match dir.open_file("memory.events", OFlag::O_RDONLY) {
        Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(None),
        control => control?,
    };
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
        .map_err(|source| Error::Call { what: "epoll_create1(EPOLL_CLOEXEC)".to_owned(), source })?;
    epoll
        .add(&control, EpollEvent::new(EpollFlags::EPOLLPRI, 0))
        .map_err(|source| Error::Call { what: "watch memory.events".to_owned(), source })?;
    let watch = OomWatch { event: epoll.0, control };
    // A file that was never read counts as changed.
    watch.control_text()?;
    Ok(Some(watch))
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
            // EINVAL: an epoll instance can't be read; that its file is read is what clears it.
            Ok(_) | Err(Errno::EAGAIN | Errno::EINVAL) => Ok(self.control_text()?.is_some()),
            Err(source) => Err(Error::Call { what: "read from the out-of-memory eventfd".to_owned(), source }),
        }
    }

    /// How many processes the kernel has killed for want of memory, of this very cgroup on v1, of those below it too on
    /// v2; `None` once it is gone.
    pub fn kills(&self) -> Result<Option<u64>> {
        let Some(text) = self.control_text()? else { return Ok(None) };
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.parse().ok());
        let malformed =
            || Error::Malformed { path: "memory.events".into(), text, expected: "a list with oom_kill in it" };
        count.ok_or_else(malformed).map(Some)
    }

    fn control_text(&self) -> Result<Option<String>> {
        let mut text = [0; 512];
        match pread(&self.control, &mut text, 0) {
            Ok(n) => Ok(Some(String::from_utf8_lossy(&text[..n]).into_owned())),
            Err(Errno::ENODEV) => Ok(None),
            Err(source) => Err(Error::Read { path: "memory.events".into(), source }),
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
