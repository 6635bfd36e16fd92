//! Cloning a process for a container, and hearing from it.
//!
//! One `SOCK_SEQPACKET` pair serves both ways: the process sends [`Message`]s, and waits on it for the byte that starts
//! its program. So it sees the end of its creator as an end of file, and no second pipe can keep it waiting.

use std::convert::Infallible;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cgroup::Cgroup;
use sys::Errno;
use sys::namespace::{self, Kind};
use sys::poll::Interest;
use sys::process::{Child, CloneArgs, CloneFlags, Fork, PidFd, Signal, clone3, exit_now};

use crate::error::{Error, Step};
use crate::inputs::{Born, Parent};
use crate::status::{MESSAGE_BYTES, Message};

/// The new process's end of the status channel.
pub(crate) struct Channel(OwnedFd);

impl Channel {
    /// Tells that a stage begins. Nobody listening is no failure: the creator may have stopped at its deadline.
    pub(crate) fn stage(&self, name: &str) {
        self.send(&Message::Stage(name.to_owned()), None);
    }

    /// Tells that all is set up.
    pub(crate) fn ready(&self, console: Option<BorrowedFd<'_>>) {
        self.send(&Message::Ready, console);
    }

    /// Waits for the byte that starts the program; false if the creator is gone instead.
    pub(crate) fn wait(&self) -> bool {
        // A plain read: a filter that is in force by now may know less than recvmsg.
        let Ok(copy) = self.0.try_clone() else { return false };
        matches!(std::fs::File::from(copy).read(&mut [0]), Ok(1))
    }

    fn send(&self, message: &Message, fd: Option<BorrowedFd<'_>>) -> bool {
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        sys::socket::send(&self.0, &message.encode(), &fds).is_ok()
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

/// A cloned process as its creator sees it.
pub(crate) struct Launched {
    pub(crate) child: Child,
    pub(crate) status: OwnedFd,
    /// Clock ticks since boot; 0 if it had ended already, which [`Launched::hear`] explains.
    pub(crate) start_time: u64,
    parent: Parent,
}

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
        run(&Channel(channel), body);
    }
    let left = guard.map_or(Ok(()), namespace::Guard::leave).step(|| "leave the PID namespace".to_owned());
    let Fork::Parent(child) = forked? else { unreachable!("the child does not get here") };
    let mut launched = Launched { child, status, start_time: 0, parent: launch.parent };
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

    /// Hears from the process until it is ready; the terminal's master, if it sent one.
    ///
    /// # Errors
    /// What it failed with, or [`Error::Silent`]. It has been ended then.
    pub(crate) fn hear(&self, progress: &mut dyn FnMut(&str)) -> Result<Option<OwnedFd>, Error> {
        let mut stage = "its first steps".to_owned();
        let mut buffer = vec![0; MESSAGE_BYTES];
        loop {
            let (length, fds) = match sys::socket::recv(&self.status, &mut buffer) {
                Err(error) if error.is(Errno::EINTR) => continue,
                received => received.step(|| "hear from the container's process".to_owned())?,
            };
            if length == 0 {
                self.end();
                return Err(Error::Silent { stage, hint: String::new() });
            }
            match Message::decode(&buffer[..length]) {
                Message::Stage(name) => {
                    progress(&name);
                    stage = name;
                }
                Message::Ready => return Ok(fds.into_iter().next()),
                Message::Failed(error) => {
                    self.end();
                    return Err(error.into());
                }
            }
        }
    }

    /// Starts a process that is ready, and waits until its program was executed.
    ///
    /// # Errors
    /// Why it was not.
    pub(crate) fn start(self) -> Result<Launched, Error> {
        sys::socket::send(&self.status, b"0", &[]).step(|| "start the process".to_owned())?;
        let mut buffer = vec![0; MESSAGE_BYTES];
        let (length, _) = sys::socket::recv(&self.status, &mut buffer).step(|| "hear from the process".to_owned())?;
        match crate::StartError::from_status(&buffer[..length]) {
            None => Ok(self),
            Some(error) => {
                self.end();
                Err(error.into())
            }
        }
    }

    /// Kills the process; reaps it if it is ours. Nothing more can be done about a failure here.
    pub(crate) fn end(&self) {
        let Some(pidfd) = &self.child.pidfd else { return };
        let _ = pidfd.send_signal(Signal::SIGKILL);
        match self.parent {
            Parent::Caller => drop(pidfd.wait()),
            Parent::CallersParent => drop(wait_for_end(pidfd)),
        }
    }
}

/// Until the process has left its cgroup, so that the cgroup can be removed.
fn wait_for_end(pidfd: &PidFd) -> sys::Result<()> {
    let patience = Some(std::time::Duration::from_secs(1));
    sys::poll::poll(&[(pidfd.as_fd(), Interest::READ)], patience).map(drop)
}
