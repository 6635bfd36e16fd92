//! Cloning a process for a container, and hearing from it.
//!
//! One `SOCK_SEQPACKET` pair serves both ways: the process sends [`Message`]s, and waits on it for one byte after each
//! [`Request`], and for the byte that starts its program. So it sees the end of its creator as an end of file, and no second
//! pipe can keep it waiting.

use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cgroup::Cgroup;
use sys::Errno;
use sys::namespace::{self, Kind};
use sys::process::{Child, CloneArgs, CloneFlags, Fork, Pid, PidFd, Signal, clone3, exit_now};
use sys::procfs::ProcFd;

use crate::error::{Error, Step};
use crate::inputs::{Born, Parent};
use crate::status::{MESSAGE_BYTES, Message, Request};

/// The new process's end of the status channel.
pub(crate) struct Channel(File);

impl Channel {
    /// Tells that a stage begins. Nobody listening is no failure: the creator may have stopped at its deadline.
    pub(crate) fn stage(&self, name: &str) {
        self.send(&Message::Stage(name.to_owned()), None);
    }

    /// Tells what is strange but no failure.
    pub(crate) fn warn(&self, warning: &str) {
        self.send(&Message::Warning(warning.to_owned()), None);
    }

    /// Tells of the process that goes on in place of this one.
    pub(crate) fn born(&self, pidfd: &PidFd) -> bool {
        self.send(&Message::Born, Some(pidfd.as_fd()))
    }

    /// Tells that all is set up; false if that can't be told.
    pub(crate) fn ready(&self, console: Option<BorrowedFd<'_>>) -> bool {
        self.send(&Message::Ready, console)
    }

    /// Has the creator do something and waits until it is done. `fd` is handed over with it.
    ///
    /// # Errors
    /// The creator is gone. What it fails with it tells its caller itself, and ends this process.
    pub(crate) fn ask(&self, request: Request, fd: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let message = Message::Asks(request);
        // By a plain write where that will do: a filter may be in force that has anything but it decided by the agent that is
        // yet to get its listener from the creator.
        let sent = if fd.is_some() { self.send(&message, fd) } else { self.write(&message.encode()) };
        match sent && self.wait() {
            true => Ok(()),
            false => Err(Error::Refused(format!("the creator ended before it had done its part: {request:?}"))),
        }
    }

    /// Waits for the byte that starts the program, or that says that what was asked for is done; false if the creator is gone
    /// instead.
    pub(crate) fn wait(&self) -> bool {
        // A plain read: a filter that is in force by now may know less than recvmsg.
        matches!((&self.0).read(&mut [0]), Ok(1))
    }

    fn send(&self, message: &Message, fd: Option<BorrowedFd<'_>>) -> bool {
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        let message = message.encode();
        match sys::socket::send(&self.0, &message, &fds) {
            Ok(()) => true,
            // Nobody listens: a write would raise SIGPIPE.
            Err(error) if error.is(Errno::EPIPE) => false,
            // A filter that knows no sendmsg knows write, or no program could print a word.
            Err(_) => fds.is_empty() && self.write(&message),
        }
    }

    fn write(&self, message: &[u8]) -> bool {
        matches!((&self.0).write(message), Ok(length) if length == message.len())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// How a process is cloned.
pub(crate) struct Launch<'a> {
    /// New namespaces that it is born in; the others it enters itself.
    pub(crate) namespaces: CloneFlags,
    /// The cgroup whose v2 side it is born in.
    pub(crate) cgroup: Option<&'a Cgroup>,
    /// An existing PID namespace that it is born in.
    pub(crate) pid_namespace: Option<BorrowedFd<'a>>,
    /// Whose child it is.
    pub(crate) parent: Parent,
}

/// What a process asks of its creator, which it waits for.
pub(crate) struct Asked<'a> {
    pub(crate) request: Request,
    /// Who asks.
    pub(crate) process: &'a Child,
    /// What it handed over with the request.
    pub(crate) fd: Option<OwnedFd>,
}

/// Does what a process asks for; a failure ends the process.
pub(crate) type Attend<'a> = dyn FnMut(Asked<'_>) -> Result<(), Error> + 'a;

/// A cloned process as its creator sees it.
pub(crate) struct Launched {
    pub(crate) child: Child,
    pub(crate) status: OwnedFd,
    /// Clock ticks since boot; 0 if it had ended already, which [`Launched::hear`] explains.
    pub(crate) start_time: u64,
    parent: Parent,
    /// What it said last that it would do.
    stage: String,
    /// What was strange but no failure.
    pub(crate) warnings: Vec<String>,
    /// What it waits for, and what it handed over with that.
    asked: Option<(Request, Option<OwnedFd>)>,
    /// Set once it has said that it is ready: its terminal's master, if it has one.
    console: Option<Option<OwnedFd>>,
    /// Room for one message, the same for all: clearing it each time would cost more than the messages do.
    buffer: Vec<u8>,
}

/// What a process does before it says anything.
const FIRST_STAGE: &str = "its first steps";

/// Clones; in the child `body` runs, and what it fails with is sent.
///
/// The caller loses its dumpability for good: the child inherits it, and must not be open to a process of the PID
/// namespace that it is born into for a single moment (CVE-2016-9962, CVE-2019-5736). The executed program is
/// dumpable again.
pub(crate) fn launch(
    launch: &Launch<'_>,
    body: impl FnOnce(&Channel) -> Result<Infallible, Error>,
) -> Result<Launched, Error> {
    let (status, channel) = sys::socket::pair().step(|| "make the status channel".to_owned())?;
    sys::process::set_dumpable(false).step(|| "hide from the container".to_owned())?;
    let guard = launch
        .pid_namespace
        .map(|namespace| namespace::enter(&namespace, Kind::Pid))
        .transpose()
        .step(|| "join the PID namespace".to_owned())?;
    let mut arguments = CloneArgs {
        flags: launch.namespaces,
        into_cgroup: launch.cgroup.and_then(Cgroup::unified),
        exit_signal: Some(Signal::SIGCHLD),
        pidfd: true,
    };
    if launch.parent == Parent::CallersParent {
        arguments.flags |= CloneFlags::CLONE_PARENT;
        arguments.exit_signal = None;
    }
    let forked = clone3(&arguments).step(|| "clone the container's process".to_owned());
    if let Ok(Fork::Child) = forked {
        drop(status);
        run(&Channel(File::from(channel)), body);
    }
    let left = guard.map_or(Ok(()), namespace::Guard::leave).step(|| "leave the PID namespace".to_owned());
    let Fork::Parent(child) = forked? else { unreachable!("the child does not get here") };
    let mut launched = Launched {
        child,
        status,
        start_time: 0,
        parent: launch.parent,
        stage: FIRST_STAGE.to_owned(),
        warnings: Vec::new(),
        asked: None,
        console: None,
        buffer: vec![0; MESSAGE_BYTES],
    };
    // At once: after its start a sibling may have ended and been reaped by its parent.
    match sys::process::start_time(launched.child.pid) {
        Ok(start_time) => launched.start_time = start_time,
        Err(error) if error.is(Errno::ESRCH) => {}
        Err(error) => {
            launched.end();
            return Err(error).step(|| "read the start time".to_owned());
        }
    }
    left.inspect_err(|_| launched.end())?;
    Ok(launched)
}

/// The child's life. Its exit code is what a shell would give, if anybody looks.
fn run(channel: &Channel, body: impl FnOnce(&Channel) -> Result<Infallible, Error>) -> ! {
    let Err(error) = body(channel);
    let error = error.to_start_error();
    let code = error.exit_code();
    if !channel.send(&Message::Failed(error.clone()), None) {
        // Behind a FIFO the creator is long gone: what the container's log shows is the only place left.
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let text: Vec<String> = causes.map(ToString::to_string).collect();
        eprintln!("{}", text.join(": "));
    }
    exit_now(code.into())
}

impl Launched {
    /// Leaves word of the process.
    pub(crate) fn announce(&self, born: Option<&mut Born<'_>>) {
        if let (Some(born), Some(pidfd)) = (born, &self.child.pidfd) {
            born(self.child.pid.as_raw(), pidfd.as_fd());
        }
    }

    /// Hears from the process until it is ready, and has `attend` do what it asks for meanwhile; the terminal's master, if
    /// it sent one.
    ///
    /// # Errors
    /// What it or `attend` failed with, or [`Error::Silent`]. It has been ended then.
    pub(crate) fn hear(
        &mut self,
        progress: &mut dyn FnMut(&str),
        attend: &mut Attend<'_>,
    ) -> Result<Option<OwnedFd>, Error> {
        while self.console.is_none() {
            let done = match self.asked.take() {
                Some((request, fd)) => self.answer(request, fd, attend),
                None => self.hear_next(progress).map(drop),
            };
            done.inspect_err(|_| self.end())?;
        }
        Ok(self.console.take().flatten())
    }

    fn answer(&self, request: Request, fd: Option<OwnedFd>, attend: &mut Attend<'_>) -> Result<(), Error> {
        attend(Asked { request, process: &self.child, fd })?;
        match sys::socket::send(&self.status, b"0", &[]) {
            // It ended meanwhile: what it said before that, or that it said nothing, is heard next.
            Err(error) if error.is(Errno::EPIPE) || error.is(Errno::ECONNRESET) => Ok(()),
            sent => sent.step(|| "answer the container's process".to_owned()),
        }
    }

    /// Hears until the process has been followed by the one that it made, which this is about from here on. It is reaped if
    /// it is ours. `procfs` is of the creator's PID namespace.
    ///
    /// # Errors
    /// As [`Launched::hear`]'s.
    pub(crate) fn follow(mut self, procfs: &ProcFd, progress: &mut dyn FnMut(&str)) -> Result<Launched, Error> {
        let born = loop {
            let heard = self.wait_for_word().and_then(|()| self.hear_next(progress));
            if let Some(born) = heard.inspect_err(|_| self.end())? {
                break PidFd::from_fd(born);
            }
        };
        // It ends with this message, and is in the container's cgroup until then.
        match (self.parent, self.child.pidfd.take()) {
            (Parent::Caller, Some(first)) => drop(first.wait()),
            (Parent::CallersParent, Some(first)) => wait_for_end(&first),
            (_, None) => {}
        }
        // The number comes from the pidfd: nobody in the container can name another process than one of it.
        let pid = procfs.pid_of(&born);
        let found = pid.and_then(|pid| Ok((pid, procfs.stat(pid)?.start_time)));
        self.child.pidfd = Some(born);
        match found.step(|| "find the new process".to_owned()) {
            Ok((pid, start_time)) => (self.child.pid, self.start_time) = (pid, start_time),
            // Its parent may have reaped it by now. What it said before, why it could not go on, is still to be heard.
            Err(_) if self.has_ended() => (self.child.pid, self.start_time) = (Pid::from_raw(0), 0),
            Err(error) => {
                self.end();
                return Err(error);
            }
        }
        Ok(self)
    }

    fn has_ended(&self) -> bool {
        let Some(pidfd) = &self.child.pidfd else { return false };
        matches!(sys::poll::is_readable(pidfd), Ok(true))
    }

    /// Until there is a message; the end of the process without one is [`Error::Silent`], though the one that it made may live.
    fn wait_for_word(&self) -> Result<(), Error> {
        let Some(pidfd) = &self.child.pidfd else { return Ok(()) };
        let heard = sys::poll::word_or_end(&self.status, pidfd);
        match heard.step(|| "wait for the process that joins the container".to_owned())? {
            true => Ok(()),
            false => Err(self.silent()),
        }
    }

    fn silent(&self) -> Error {
        Error::Silent { stage: self.stage.clone(), hint: String::new() }
    }

    /// One message. The process that follows the first one may be ready before that is told of it.
    fn hear_next(&mut self, progress: &mut dyn FnMut(&str)) -> Result<Option<OwnedFd>, Error> {
        let (length, fds) = sys::socket::recv(&self.status, &mut self.buffer)
            .step(|| "hear from the container's process".to_owned())?;
        if length == 0 {
            return Err(self.silent());
        }
        let fd = fds.into_iter().next();
        match Message::decode(&self.buffer[..length]) {
            Message::Stage(name) => {
                progress(&name);
                self.stage = name;
                Ok(None)
            }
            Message::Warning(warning) => {
                self.warnings.push(warning);
                Ok(None)
            }
            Message::Ready => {
                self.console = Some(fd);
                Ok(None)
            }
            // Answered by `hear`: the process that asks may be one that this is not yet about.
            Message::Asks(request) => {
                self.asked = Some((request, fd));
                Ok(None)
            }
            Message::Born => Ok(fd),
            Message::Failed(error) => Err(error.into()),
        }
    }

    /// Starts a process that is ready, and waits until its program was executed. `procfs` is of the creator's PID namespace.
    ///
    /// # Errors
    /// Why it was not.
    pub(crate) fn start(self, procfs: &ProcFd) -> Result<Launched, Error> {
        match self.run_program(procfs) {
            Ok(()) => Ok(self),
            Err(error) => {
                self.end();
                Err(error)
            }
        }
    }

    fn run_program(&self, procfs: &ProcFd) -> Result<(), Error> {
        sys::socket::send(&self.status, b"0", &[]).step(|| "start the process".to_owned())?;
        let mut buffer = vec![0; MESSAGE_BYTES];
        let (length, _) = sys::socket::recv(&self.status, &mut buffer).step(|| "hear from the process".to_owned())?;
        if let Some(error) = crate::StartError::from_status(&buffer[..length]) {
            return Err(error.into());
        }
        // The channel was closed by the exec, or by the end of a process that a filter kept from telling.
        match procfs.stat(self.child.pid) {
            Ok(stat) if stat.start_time == self.start_time && !stat.has_executed => {
                Err(Error::Silent { stage: "the execution of its program".to_owned(), hint: String::new() })
            }
            _ => Ok(()),
        }
    }

    /// Kills the process; reaps it if it is ours. Nothing more can be done about a failure here.
    pub(crate) fn end(&self) {
        let Some(pidfd) = &self.child.pidfd else { return };
        let _ = pidfd.send_signal(Signal::SIGKILL);
        match self.parent {
            Parent::Caller => drop(pidfd.wait()),
            Parent::CallersParent => wait_for_end(pidfd),
        }
    }
}

/// Until the process has left its cgroup, so that the cgroup can be removed.
fn wait_for_end(pidfd: &PidFd) {
    let _ = pidfd.ends_within(std::time::Duration::from_secs(1));
}
