//! Waiting for fds: [`poll`] for a few, [`Poller`] for a loop (poll(2), epoll(7)).

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::Errno;
use crate::error::{Error, Result, fd, flags};

bitflags::bitflags! {
    /// What to wait for, and what has happened. `HANGUP` and `ERROR` are always reported.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Interest: u8 {
        /// A read would not wait: there is data, or the end.
        const READ = 1;
        /// A write would not wait.
        const WRITE = 2;
        /// The other end is closed. Data may be left to read.
        const HANGUP = 4;
        /// The other end can't take any more (a pipe without readers), or the fd is broken.
        const ERROR = 8;
        /// Exceptional: the file of a cgroup or of procfs has changed (`POLLPRI`).
        const PRIORITY = 16;
    }
}

impl Interest {
    const TABLE: [(Interest, EpollFlags, PollFlags); 5] = [
        (Interest::READ, EpollFlags::EPOLLIN, PollFlags::POLLIN),
        (Interest::WRITE, EpollFlags::EPOLLOUT, PollFlags::POLLOUT),
        (Interest::HANGUP, EpollFlags::EPOLLHUP, PollFlags::POLLHUP),
        (Interest::ERROR, EpollFlags::EPOLLERR, PollFlags::POLLERR),
        (Interest::PRIORITY, EpollFlags::EPOLLPRI, PollFlags::POLLPRI),
    ];

    fn to_epoll(self) -> EpollFlags {
        let wanted = Self::TABLE.iter().filter(|row| self.contains(row.0));
        wanted.fold(EpollFlags::empty(), |bits, row| bits | row.1)
    }

    fn to_poll(self) -> PollFlags {
        let wanted = Self::TABLE.iter().filter(|row| self.contains(row.0));
        wanted.fold(PollFlags::empty(), |bits, row| bits | row.2)
    }
}

/// Waits until something happens to one of `files` or `timeout` is over, and returns what, in their order; all empty after the
/// timeout. `None` waits for ever. Interrupting signals don't prolong it (poll(2)).
pub fn poll(files: &[(BorrowedFd<'_>, Interest)], timeout: Option<Duration>) -> Result<Vec<Interest>> {
    let deadline = deadline(timeout);
    let mut raw: Vec<PollFd<'_>> =
        files.iter().map(|(file, interest)| PollFd::new(*file, interest.to_poll())).collect();
    loop {
        let left = PollTimeout::try_from(milliseconds_until(deadline)).unwrap_or(PollTimeout::MAX);
        match nix::poll::poll(&mut raw, left) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::new("poll", errno, format_args!("{} fds, {timeout:?}", files.len()))),
            // A wait of more than 24 days is cut by the call's range: go on.
            Ok(0) if deadline.is_none_or(|deadline| Instant::now() < deadline) => {}
            Ok(_) => return Ok(raw.iter().map(|file| happened(file.revents())).collect()),
        }
    }
}

/// Whether a read of `file` would not wait now: there is data, or the end; a pidfd's process has ended.
pub fn is_readable(file: &impl AsFd) -> Result<bool> {
    poll(&[(file.as_fd(), Interest::READ)], Some(Duration::ZERO)).map(|seen| is_first_ready(&seen))
}

/// Waits, for ever, until `speaker` is [readable](is_readable) or the process behind `pidfd` has ended; true if `speaker` is
/// readable then, so that false says that the process has ended and that all it said was read.
pub fn word_or_end(speaker: &impl AsFd, pidfd: &impl AsFd) -> Result<bool> {
    let files = [(speaker.as_fd(), Interest::READ), (pidfd.as_fd(), Interest::READ)];
    has_word(speaker, &poll(&files, None)?)
}

/// `seen` is of the speaker and of the process. poll(2) looks at one file after the other (fs/select.c do_poll), and a process
/// can speak and end between the two looks: one that is seen to have ended, and no word of it, is asked for that once more.
fn has_word(speaker: &impl AsFd, seen: &[Interest]) -> Result<bool> {
    if is_first_ready(seen) { Ok(true) } else { is_readable(speaker) }
}

fn is_first_ready(seen: &[Interest]) -> bool {
    seen.first().is_some_and(|file| !file.is_empty())
}

fn happened(events: Option<PollFlags>) -> Interest {
    let events = events.unwrap_or(PollFlags::POLLERR);
    let rows = Interest::TABLE.iter().filter(|row| events.contains(row.2));
    let closed = if events.contains(PollFlags::POLLNVAL) { Interest::ERROR } else { Interest::empty() };
    rows.fold(closed, |set, row| set | row.0)
}

/// When a wait that begins now is over; `None` if it has no end, or one that the clock can't count to.
pub fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(timeout?)
}

/// Milliseconds from now to the deadline, rounded up so that a wait never ends early and spins; -1 for none.
fn milliseconds_until(deadline: Option<Instant>) -> i32 {
    let Some(deadline) = deadline else { return -1 };
    let left = deadline.saturating_duration_since(Instant::now());
    i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

/// A set of fds to wait for, each under a token of the caller's choice (epoll(7), level triggered).
#[derive(Debug)]
pub struct Poller(Epoll);

/// Something happened to the fd that was added under `token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// As given to [`Poller::add`].
    pub token: u64,
    /// What.
    pub interest: Interest,
}

impl Poller {
    /// An empty set.
    pub fn new() -> Result<Poller> {
        Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map(Poller)
            .map_err(|errno| Error::new("epoll_create1", errno, "EPOLL_CLOEXEC"))
    }

    /// Adds `file`. It must be [deleted](Self::delete) before it is closed if a duplicate of it stays open anywhere (in a child
    /// that was forked, in a message): the kernel would go on reporting it. EPERM for a regular file.
    pub fn add(&self, file: &impl AsFd, token: u64, interest: Interest) -> Result<()> {
        let event = EpollEvent::new(interest.to_epoll(), token);
        self.0.add(file, event).map_err(|errno| failed("EPOLL_CTL_ADD", errno, file, interest))
    }

    /// Changes what to wait for.
    pub fn modify(&self, file: &impl AsFd, token: u64, interest: Interest) -> Result<()> {
        let mut event = EpollEvent::new(interest.to_epoll(), token);
        self.0.modify(file, &mut event).map_err(|errno| failed("EPOLL_CTL_MOD", errno, file, interest))
    }

    /// Takes `file` out again.
    pub fn delete(&self, file: &impl AsFd) -> Result<()> {
        self.0.delete(file).map_err(|errno| failed("EPOLL_CTL_DEL", errno, file, Interest::empty()))
    }

    /// Waits until something happens or `timeout` is over, and puts what into `events`, which is emptied first: at most 64 at a
    /// time. `None` waits for ever. An interrupting signal ends the wait early, with no events.
    pub fn wait(&self, events: &mut Vec<Event>, timeout: Option<Duration>) -> Result<()> {
        let deadline = deadline(timeout);
        let left = EpollTimeout::try_from(milliseconds_until(deadline)).unwrap_or(EpollTimeout::MAX);
        let mut raw = [EpollEvent::empty(); 64];
        events.clear();
        let count = match self.0.wait(&mut raw, left) {
            Err(Errno::EINTR) => 0,
            result => result.map_err(|errno| Error::new("epoll_wait", errno, format_args!("{timeout:?}")))?,
        };
        events.extend(raw[..count].iter().map(|event| {
            let rows = Interest::TABLE.iter().filter(|row| event.events().contains(row.1));
            Event { token: event.data(), interest: rows.fold(Interest::empty(), |set, row| set | row.0) }
        }));
        Ok(())
    }
}

fn failed(request: &str, errno: Errno, file: &impl AsFd, interest: Interest) -> Error {
    Error::new("epoll_ctl", errno, format_args!("{request}, {}, {}", fd(file), flags(interest)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;
    use crate::process::{Pid, PidFd};

    #[test]
    fn a_poller_reports_what_happened_under_the_token() {
        let (read, write) = crate::fd::pipe().unwrap();
        let poller = Poller::new().unwrap();
        let mut events = vec![Event { token: 1, interest: Interest::READ }];
        poller.add(&read, 7, Interest::READ).unwrap();
        poller.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events, []);
        let mut write = File::from(write);
        write.write_all(b"x").unwrap();
        poller.wait(&mut events, None).unwrap();
        assert_eq!(events, [Event { token: 7, interest: Interest::READ }]);
        drop(write);
        // First, because it waits: another test's child has our fds until it executes its program.
        poller.modify(&read, 8, Interest::empty()).unwrap();
        poller.wait(&mut events, None).unwrap();
        assert_eq!(events, [Event { token: 8, interest: Interest::HANGUP }]);
        poller.modify(&read, 9, Interest::READ).unwrap();
        poller.wait(&mut events, None).unwrap();
        assert_eq!(events, [Event { token: 9, interest: Interest::READ | Interest::HANGUP }]);
        poller.delete(&read).unwrap();
        assert!(poller.delete(&read).unwrap_err().is(Errno::ENOENT));
    }

    #[test]
    fn a_word_that_came_after_the_look_at_it_and_before_the_look_at_the_end_is_heard() {
        let (read, write) = crate::fd::pipe().unwrap();
        let the_end_alone = [Interest::empty(), Interest::READ];
        assert!(!has_word(&read, &the_end_alone).unwrap());
        File::from(write).write_all(b"x").unwrap();
        assert!(has_word(&read, &the_end_alone).unwrap());
    }

    #[test]
    fn the_end_of_a_process_is_told_once_all_that_it_said_was_read() {
        let (word, speaker) = crate::fd::pipe().unwrap();
        // Ours, so that it is the process's end that ends the wait and not the pipe's.
        let _held = speaker.try_clone().unwrap();
        let mut echo = std::process::Command::new("echo").arg("x").stdout(speaker).spawn().unwrap();
        let process = PidFd::open(Pid::from_raw(echo.id().cast_signed())).unwrap();
        assert!(word_or_end(&word, &process).unwrap());
        assert_eq!(nix::unistd::read(&word, &mut [0; 3]).unwrap(), 2);
        assert!(!word_or_end(&word, &process).unwrap());
        echo.wait().unwrap();
    }

    #[test]
    fn a_writer_without_a_reader_sees_an_error() {
        let (read, write) = crate::fd::pipe().unwrap();
        assert_eq!(poll(&[(write.as_fd(), Interest::WRITE)], None).unwrap(), [Interest::WRITE]);
        drop(read);
        let events = poll(&[(write.as_fd(), Interest::empty())], None).unwrap();
        assert_eq!(events, [Interest::ERROR]);
    }

    #[test]
    fn a_timeout_is_waited_out_in_full() {
        let (read, _write) = crate::fd::pipe().unwrap();
        let begin = Instant::now();
        let events = poll(&[(read.as_fd(), Interest::READ)], Some(Duration::from_micros(1500))).unwrap();
        assert_eq!(events, [Interest::empty()]);
        assert!(begin.elapsed() >= Duration::from_micros(1500));
    }

    #[test]
    fn a_timeout_beyond_what_the_clock_counts_is_none() {
        let (read, write) = crate::fd::pipe().unwrap();
        File::from(write).write_all(b"x").unwrap();
        let endless = Some(Duration::MAX);
        let ready = poll(&[(read.as_fd(), Interest::READ)], endless).unwrap();
        assert!(ready[0].contains(Interest::READ));
        let poller = Poller::new().unwrap();
        poller.add(&read, 7, Interest::READ).unwrap();
        let mut events = Vec::new();
        poller.wait(&mut events, endless).unwrap();
        assert_eq!(events.len(), 1);
    }

    #[test]
    fn a_wait_is_rounded_up_and_an_endless_one_is_minus_one() {
        assert_eq!(milliseconds_until(None), -1);
        assert_eq!(milliseconds_until(Some(Instant::now())), 0);
        assert_eq!(milliseconds_until(Some(Instant::now() + Duration::from_secs(1 << 40))), i32::MAX);
    }
}
