//! Standing in for a process that was not detached: its streams are copied, signals passed on, its exit code ours.
//!
//! The process gets pipes, or a terminal of its own, never our fds: what a container holds of the host's terminal it
//! could type into. One loop does it all, and no write in it may wait: signals would, too, and a process that writes
//! before it reads on would for ever. A pipe that says that it is writable takes a piece whole (pipe(7), `PIPE_BUF`). A
//! terminal says so for a single byte, so terminals are written to without blocking, or by single bytes.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use oci_runtime::StdioFds;
use sys::poll::Interest;
use sys::process::{Exit, Process};
use sys::pty::{self, Raw};
use sys::signal::{SigSet, Signal, SignalFd};

use super::Error;
use super::notify::Ear;

/// As much as goes into a pipe at once.
const PIECE: usize = 4096;

/// How long output may be silent after the end of the process before it is taken to be complete: what was left running in
/// the container may hold the streams open.
const SILENCE: Duration = Duration::from_millis(500);

/// Everything that has to be in place before the process is.
pub(crate) struct Foreground {
    signals: SignalFd,
    /// Our ends of the pipes; none with a terminal.
    channels: Vec<Channel>,
    /// Who waits for the container's word, until there was one.
    ear: Option<Ear>,
}

impl Foreground {
    /// Blocks signals, so that none is lost, and makes the process's streams.
    pub(crate) fn prepare(terminal: bool) -> Result<(Foreground, StdioFds), Error> {
        let signals = SignalFd::new(&SigSet::all())?;
        if terminal {
            return Ok((Foreground { signals, channels: Vec::new(), ear: None }, StdioFds::default()));
        }
        let ((stdin, to_stdin), (from_stdout, stdout), (from_stderr, stderr)) =
            (sys::fd::pipe()?, sys::fd::pipe()?, sys::fd::pipe()?);
        let channels = vec![
            Channel::new(own(std::io::stdin().as_fd())?, to_stdin, Direction::In),
            Channel::to_host(from_stdout, std::io::stdout().as_fd())?,
            Channel::to_host(from_stderr, std::io::stderr().as_fd())?,
        ];
        let stdio = StdioFds { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr) };
        Ok((Foreground { signals, channels, ear: None }, stdio))
    }

    /// Also passes on the container's word that it is ready.
    pub(crate) fn listening_to(self, ear: Option<Ear>) -> Foreground {
        Foreground { ear, ..self }
    }

    /// Stays until the process has ended and all that it said is told; its exit code.
    pub(crate) fn attend(mut self, pid: i32, process: Process, console: Option<OwnedFd>) -> Result<u8, Error> {
        let terminal = console.map(Terminal::attach).transpose()?;
        if let Some(terminal) = &terminal {
            let master = || own(terminal.master.as_fd());
            self.channels.push(Channel::new(own(std::io::stdin().as_fd())?, master()?, Direction::In));
            self.channels.push(Channel::to_host(master()?, std::io::stdout().as_fd())?);
        }
        let mut ended: Option<Exit> = None;
        let mut heard = Instant::now();
        loop {
            // Output that our reader has not taken yet is not silence, however long it takes.
            let silent = ended.is_some() && self.channels.iter().all(|channel| channel.pending.is_empty());
            let timeout = silent.then(|| SILENCE.saturating_sub(heard.elapsed()));
            if self.wait(timeout)? {
                heard = Instant::now();
            } else if timeout.is_some_and(|timeout| timeout.is_zero()) {
                break;
            }
            while let Some(received) = self.signals.read()? {
                match Signal::try_from(received.signal.get()) {
                    Ok(Signal::SIGCHLD) => ended = reap(pid)?.or(ended),
                    Ok(Signal::SIGWINCH) => terminal.iter().for_each(Terminal::resize),
                    // Nobody else is left for it to end.
                    Ok(Signal::SIGHUP | Signal::SIGINT | Signal::SIGTERM) if ended.is_some() => self.channels.clear(),
                    // A process that is ending needs no signal any more.
                    _ => drop(process.open().and_then(|process| process.send_signal(received.signal))),
                }
            }
            if ended.is_some() {
                self.channels.retain(|channel| channel.direction == Direction::Out);
            }
            self.channels.retain(|channel| !channel.is_done());
            if ended.is_some() && self.channels.is_empty() {
                break;
            }
        }
        // Its end may have been seen before its last word, which may be the one.
        if let Some(ear) = &self.ear {
            // A manager that can't be told is no reason to lose the exit code.
            let _ = ear.hear_rest(std::process::id());
        }
        let code = ended.map_or(255, Exit::status);
        Ok(u8::try_from(code).unwrap_or(255))
    }

    /// Waits for a signal or a stream, and copies. True if a stream had something.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, Error> {
        let mut files = vec![(self.signals.as_fd(), Interest::READ)];
        files.extend(self.channels.iter().map(Channel::interest));
        files.extend(self.ear.as_ref().map(|ear| (ear.as_fd(), Interest::READ)));
        let happened = sys::poll::poll(&files, timeout)?;
        if let (Some(ear), Some(true)) = (&self.ear, happened.get(1 + self.channels.len()).map(|it| !it.is_empty())) {
            // It is us whom the manager sees end, and since we stay no barrier is needed. A manager that can't be told is no
            // reason to leave the container.
            if ear.hear(std::process::id()).unwrap_or(true) {
                self.ear = None;
            }
        }
        let mut copied = false;
        for (channel, happened) in self.channels.iter_mut().zip(&happened[1..]) {
            if !happened.is_empty() {
                channel.copy();
                copied = true;
            }
        }
        Ok(copied)
    }
}

/// Reaps all children that have ended; the exit of `pid` if it is among them. Others are what the container left behind.
fn reap(pid: i32) -> Result<Option<Exit>, Error> {
    let mut ended = None;
    while let Some((child, exit)) = sys::process::wait_any(true)? {
        if child.as_raw() == pid {
            ended = Some(exit);
        }
    }
    Ok(ended)
}

fn own(stream: BorrowedFd<'_>) -> Result<File, Error> {
    let copy = stream.try_clone_to_owned().map_err(|error| format!("duplicate a standard stream: {error}"))?;
    Ok(copy.into())
}

/// Which way a channel goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// To the process.
    In,
    /// From the process.
    Out,
}

/// One stream on its way from one fd to another.
struct Channel {
    /// `None` after its end.
    from: Option<File>,
    /// `None` once nobody takes it any more.
    to: Option<File>,
    /// Read but not written yet.
    pending: Vec<u8>,
    /// As much as `to` takes at once without a wait, once it is writable.
    piece: usize,
    direction: Direction,
}

impl Channel {
    fn new(from: impl Into<File>, to: impl Into<File>, direction: Direction) -> Channel {
        Channel { from: Some(from.into()), to: Some(to.into()), pending: Vec::new(), piece: PIECE, direction }
    }

    /// To one of our own streams, which others write to as well.
    fn to_host(from: impl Into<File>, stream: BorrowedFd<'_>) -> Result<Channel, Error> {
        let (to, piece) = match stream.is_terminal().then(|| pty::reopen_nonblocking(&stream)) {
            None => (own(stream)?, PIECE),
            Some(Ok(terminal)) => (terminal.into(), PIECE),
            Some(Err(_)) => (own(stream)?, 1),
        };
        Ok(Channel { piece, ..Channel::new(from, to, Direction::Out) })
    }

    fn is_done(&self) -> bool {
        self.to.is_none() || (self.from.is_none() && self.pending.is_empty())
    }

    /// Done ones are not asked.
    fn interest(&self) -> (BorrowedFd<'_>, Interest) {
        match (&self.from, &self.to) {
            (_, Some(to)) if !self.pending.is_empty() => (to.as_fd(), Interest::WRITE),
            (Some(from), _) => (from.as_fd(), Interest::READ),
            (None, Some(to)) => (to.as_fd(), Interest::WRITE),
            (None, None) => unreachable!("a channel without ends is done"),
        }
    }

    /// One read or one write.
    fn copy(&mut self) {
        if self.pending.is_empty() {
            self.pending.resize(PIECE, 0);
            let read = count(self.from.as_mut().map_or(Ok(0), |from| from.read(&mut self.pending)));
            self.pending.truncate(read.unwrap_or(0));
            if read == Some(0) {
                self.from = None;
            }
        } else {
            let piece = &self.pending[..self.piece.min(self.pending.len())];
            let written = count(self.to.as_mut().map_or(Ok(0), |to| to.write(piece)));
            self.pending.drain(..written.unwrap_or(0));
            if written == Some(0) {
                // Closing our end tells the process that nobody listens.
                (self.from, self.to) = (None, None);
            }
        }
    }
}

/// The bytes that were copied; `None` if it would have had to wait, as with a stream that somebody else has made
/// non-blocking. Any other error is the end of the stream: a terminal says EIO when its other end is closed.
fn count(copied: std::io::Result<usize>) -> Option<usize> {
    match copied {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => None,
        copied => Some(copied.unwrap_or(0)),
    }
}

/// The process's terminal, shown on ours.
struct Terminal {
    master: OwnedFd,
    /// Which of our streams is a terminal; in raw mode until the end, so that every key goes to the process.
    host: Option<(OwnedFd, Raw<OwnedFd>)>,
}

impl Terminal {
    fn attach(master: OwnedFd) -> Result<Terminal, Error> {
        // Nobody shares it: the process has the other end.
        sys::fd::set_nonblocking(&master, true)?;
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let host = match (stdin.is_terminal(), stdout.is_terminal(), stderr.is_terminal()) {
            (true, _, _) => Some(own(stdin.as_fd())?),
            (_, true, _) => Some(own(stdout.as_fd())?),
            (_, _, true) => Some(own(stderr.as_fd())?),
            _ => None,
        };
        let raw = |host: File| {
            let host = OwnedFd::from(host);
            let copy = sys::fd::duplicate(&host)?;
            Ok::<_, sys::Error>((host, pty::make_raw(copy)?))
        };
        let terminal = Terminal { master, host: host.map(raw).transpose()? };
        terminal.resize();
        Ok(terminal)
    }

    /// Best effort: a terminal that is being closed has no size.
    fn resize(&self) {
        if let Some((host, _)) = &self.host {
            let _ = pty::size(host).and_then(|size| pty::set_size(&self.master, size));
        }
    }
}
