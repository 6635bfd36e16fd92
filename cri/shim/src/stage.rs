//! Stage children: each verb that touches the world runs in a short-lived fork of the shim.
//!
//! A path on a dead NFS server, a full cgroup, a spec of a megabyte: all that stops, fails or costs memory in the
//! child. The child tells what it does on a socket pair that the shim polls, and sends what it made as fds. Processes
//! that it clones with `CLONE_PARENT` are the shim's children. It ends with its verb; at the deadline it is killed.

use crate::failure::{failure, internal};
use crate::report::{Outcome, Report};
use shim_protocol::{CodecError, ErrorKind, Failure, MAX_MESSAGE, decode, encode};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use sys::Errno;
use sys::process::{Fork, PidFd};
use sys::procfs::ProcFd;
use sys::signal::Signal;

/// A running stage child.
#[derive(Debug)]
pub(crate) struct StageChild {
    /// Our child, so until we reap it the number is its own.
    pub(crate) pid: i32,
    pidfd: PidFd,
    reports: OwnedFd,
}

/// What a stage child's work gives: the outcome and the fds beside it.
pub(crate) type Work = Result<(Outcome, Vec<OwnedFd>), Failure>;

/// Runs `work` in a fork of the shim. It gets `fds`; all other fds of the shim but the first three are closed in it. The
/// shim's own protection from the OOM killer is not for its children: they get `oom_score`.
pub(crate) fn spawn(
    oom_score: Option<&str>,
    fds: Vec<OwnedFd>,
    work: impl FnOnce(Vec<OwnedFd>, &Reporter) -> Work,
) -> Result<StageChild, Failure> {
    let (reports, reporter) = sys::socket::pair().map_err(|error| internal("make a stage's socket", &error))?;
    match sys::process::fork().map_err(|error| internal("fork a stage", &error))? {
        Fork::Child => {
            drop(reports);
            run(oom_score, fds, Reporter { socket: reporter }, work);
            // No destructor may run: the shim's fds are closed here, and their numbers may be taken again.
            sys::process::exit_now(0)
        }
        Fork::Parent(child) => {
            sys::fd::set_nonblocking(&reports, true).map_err(|error| internal("make a stage's socket", &error))?;
            let pidfd = PidFd::open(child.pid).map_err(|error| internal("watch a stage", &error))?;
            Ok(StageChild { pid: child.pid.as_raw(), pidfd, reports })
        }
    }
}

/// The child's life.
fn run(
    oom_score: Option<&str>,
    fds: Vec<OwnedFd>,
    reporter: Reporter,
    work: impl FnOnce(Vec<OwnedFd>, &Reporter) -> Work,
) {
    let result = prepare(oom_score, &fds, &reporter).and_then(|()| work(fds, &reporter));
    let (last, fds) = match result {
        Ok((outcome, fds)) => (Report::Done(outcome), fds),
        Err(failure) => (Report::Failed(failure), Vec::new()),
    };
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    reporter.send(&last, &fds);
}

/// Lets go of everything that the shim needs and a stage must not keep: a stage may hang for long, and a pipe whose
/// other end it held would never end.
fn prepare(oom_score: Option<&str>, fds: &[OwnedFd], reporter: &Reporter) -> Result<(), Failure> {
    let mut kept: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    kept.push(reporter.socket.as_fd());
    sys::fd::close_all_but(3, &kept).map_err(|error| internal("close the shim's files in a stage", &error))?;
    sys::signal::reset_all().map_err(|error| internal("reset signals of a stage", &error))?;
    sys::process::set_pdeathsig(Some(Signal::SIGKILL)).map_err(|error| internal("tie a stage to the shim", &error))?;
    if let Some(score) = oom_score {
        let restored = ProcFd::open().and_then(|procfs| procfs.write_self("oom_score_adj", score));
        restored.map_err(|error| internal("give a stage its OOM score", &error))?;
    }
    sys::process::set_name(c"orlop-stage").map_err(|error| internal("name a stage", &error))
}

/// The child's side of the reports.
#[derive(Debug)]
pub(crate) struct Reporter {
    socket: OwnedFd,
}

impl Reporter {
    /// The next stage begins.
    pub(crate) fn stage(&self, name: &str) {
        self.send(&Report::Stage(name.to_owned()), &[]);
    }

    /// Sends one report. If the shim is gone there is nobody to tell, and the child dies with it.
    pub(crate) fn send(&self, report: &Report, fds: &[BorrowedFd<'_>]) {
        if let Ok(datagram) = encode(report) {
            let _ = sys::socket::send(&self.socket, &datagram, fds);
        }
    }
}

impl StageChild {
    /// The next report, with its fds; `None` when there is none now.
    pub(crate) fn next_report(&self, buffer: &mut [u8]) -> Result<Option<(Report, Vec<OwnedFd>)>, Failure> {
        let (length, fds) = match sys::socket::recv(&self.reports, &mut buffer[..MAX_MESSAGE]) {
            Ok((0, _)) => return Err(failure(ErrorKind::Internal, "its process ended without a word")),
            Ok(received) => received,
            Err(error) if error.is(Errno::EAGAIN) || error.is(Errno::EINTR) => return Ok(None),
            Err(error) => return Err(internal("hear from the stage's process", &error)),
        };
        let report = decode(&buffer[..length]).map_err(|error: CodecError| internal("understand the stage", &error))?;
        Ok(Some((report, fds)))
    }

    /// Kills it. One that hangs inside the kernel dies when that lets go of it; nothing waits for that.
    pub(crate) fn kill(&self) {
        let _ = self.pidfd.send_signal(Signal::SIGKILL);
    }
}

impl AsFd for StageChild {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reports.as_fd()
    }
}
