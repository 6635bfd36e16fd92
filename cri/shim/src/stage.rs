//! Stage children: each verb that touches the world runs in a short-lived fork of the shim.
//!
//! A path on a dead NFS server, a full cgroup, a spec of a megabyte: all that stops, fails or costs memory in the
//! child. What it made it sends as fds on a socket pair that the shim polls. Processes that it clones with
//! `CLONE_PARENT` are the shim's children. It ends with its verb; at the deadline it is killed.

use crate::cgroups::Cgroups;
use crate::failure::{failure, internal};
use crate::process::Inherited;
use crate::report::{Note, Outcome, Report};
use shim_protocol::{CodecError, ErrorKind, Failure, MAX_MESSAGE, decode, encode};
use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use sys::Errno;
use sys::process::{CloneArgs, Fork, PidFd};
use sys::signal::Signal;

/// A running stage child.
#[derive(Debug)]
pub(crate) struct StageChild {
    /// Our child, so until we reap it the number is its own.
    pub(crate) pid: i32,
    /// There is always one: it was asked for.
    pidfd: Option<PidFd>,
    reports: OwnedFd,
    notes: File,
    begun: Instant,
    /// Its socket is at its end; its own end is told by a signal.
    silent: bool,
}

/// What a stage child's work gives: the outcome and the fds beside it.
pub(crate) type Work = Result<(Outcome, Vec<OwnedFd>), Failure>;

/// Runs `work` in a fork of the shim. It gets `fds`; all other fds of the shim but the first three are closed in it. What the
/// shim has of its own is not for its children: they have again what it has `inherited`.
pub(crate) fn spawn(
    inherited: &Inherited,
    cgroups: &Cgroups,
    fds: Vec<OwnedFd>,
    work: impl FnOnce(Vec<OwnedFd>, &Reporter) -> Work,
) -> Result<StageChild, Failure> {
    let begun = Instant::now();
    let connect = |error| internal("connect a stage", &error);
    let (reports, socket) = sys::socket::pair().map_err(connect)?;
    let (notes, notebook) = sys::fd::pipe().map_err(connect)?;
    // Neither side ever waits for the other: what doesn't fit is not told.
    for fd in [&reports, &notes, &notebook] {
        sys::fd::set_nonblocking(fd, true).map_err(connect)?;
    }
    // With its pidfd, and so killable, from the moment that it exists.
    let arguments = CloneArgs { pidfd: true, ..CloneArgs::default() };
    match sys::process::clone3(&arguments).map_err(|error| internal("fork a stage", &error))? {
        Fork::Child => {
            run(inherited, fds, Reporter::new(socket, notebook, cgroups.clone(), begun), work);
            // No destructor may run: the shim's fds are closed here, and their numbers may be taken again.
            sys::process::exit_now(0)
        }
        Fork::Parent(child) => {
            let notes = File::from(notes);
            Ok(StageChild { pid: child.pid.as_raw(), pidfd: child.pidfd, reports, notes, begun, silent: false })
        }
    }
}

/// The child's life.
fn run(
    inherited: &Inherited,
    fds: Vec<OwnedFd>,
    reporter: Reporter,
    work: impl FnOnce(Vec<OwnedFd>, &Reporter) -> Work,
) {
    let result = prepare(inherited, &fds, &reporter).and_then(|()| work(fds, &reporter));
    let (last, fds) = match result {
        Ok((outcome, fds)) => (Report::Done(outcome), fds),
        Err(failure) => (Report::Failed(failure), Vec::new()),
    };
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    reporter.send(&last, &fds);
}

/// Lets go of everything that the shim needs and a stage must not keep: a stage may hang for long, and a pipe whose
/// other end it held would never end.
fn prepare(inherited: &Inherited, fds: &[OwnedFd], reporter: &Reporter) -> Result<(), Failure> {
    let mut kept: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    kept.extend([reporter.socket.as_fd(), reporter.notebook.as_fd()]);
    sys::fd::close_all_but(3, &kept).map_err(|error| internal("close the shim's files in a stage", &error))?;
    sys::signal::reset_all().map_err(|error| internal("reset signals of a stage", &error))?;
    sys::process::set_pdeathsig(Some(Signal::SIGKILL)).map_err(|error| internal("tie a stage to the shim", &error))?;
    inherited.restore().map_err(|error| internal("give a stage the limits of others", &error))?;
    sys::process::set_name(c"orlop-stage").map_err(|error| internal("name a stage", &error))
}

/// The child's side of reports and notes, and what it has of the shim's.
#[derive(Debug)]
pub(crate) struct Reporter {
    socket: OwnedFd,
    notebook: File,
    /// Where cgroups are.
    pub(crate) cgroups: Cgroups,
    begun: Instant,
    /// How many bytes of stages are noted.
    noted: Cell<usize>,
}

/// The most bytes of stages that are noted: the pipe holds 64 KiB, and what is to be cleaned up has to fit in too.
const NOTED_LIMIT: usize = 48 * 1024;

impl Reporter {
    fn new(socket: OwnedFd, notebook: OwnedFd, cgroups: Cgroups, begun: Instant) -> Self {
        Self { socket, notebook: File::from(notebook), cgroups, begun, noted: Cell::new(0) }
    }

    /// The next stage begins.
    pub(crate) fn stage(&self, name: &str) {
        let at = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let name = crate::stages::cut(name).to_owned();
        if self.noted.get() < NOTED_LIMIT {
            self.noted.set(self.noted.get() + self.note(&Note::Stage { name, at }));
        }
    }

    /// Leaves a note, for the case that the stage fails; how many bytes it has.
    pub(crate) fn note(&self, note: &Note) -> usize {
        let Ok(mut line) = serde_json::to_vec(note) else { return 0 };
        line.push(b'\n');
        // Up to PIPE_BUF bytes go in whole or not at all (pipe(7)).
        (&self.notebook).write(&line).unwrap_or(0)
    }

    /// Sends one report. If the shim is gone there is nobody to tell, and the child dies with it.
    pub(crate) fn send(&self, report: &Report, fds: &[BorrowedFd<'_>]) {
        if let Ok(datagram) = encode(report) {
            let _ = sys::socket::send(&self.socket, &datagram, fds);
        }
    }
}

impl StageChild {
    /// The next report, with its fds; `None` when there is none now. A stage child that ends without one is told of by its
    /// parent's signal.
    pub(crate) fn next_report(&mut self, buffer: &mut [u8]) -> Result<Option<(Report, Vec<OwnedFd>)>, Failure> {
        let (length, fds) = match sys::socket::recv(&self.reports, &mut buffer[..MAX_MESSAGE]) {
            Ok((0, _)) => {
                self.silent = true;
                return Ok(None);
            }
            Ok(received) => received,
            Err(error) if error.is(Errno::EAGAIN) || error.is(Errno::EINTR) => return Ok(None),
            Err(error) => return Err(internal("hear from the stage's process", &error)),
        };
        let report = decode(&buffer[..length]).map_err(|error: CodecError| internal("understand the stage", &error))?;
        Ok(Some((report, fds)))
    }

    /// Nothing more will be reported. Its end may take long: the last close of a log file can hang.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent
    }

    /// When it was started.
    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// All notes so far, and when each stage began.
    pub(crate) fn notes(&mut self) -> Vec<(Instant, Note)> {
        let mut text = Vec::new();
        // It ends with EAGAIN while the child lives.
        let _ = self.notes.read_to_end(&mut text);
        let notes = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        let begun = |note: &Note| match note {
            Note::Stage { at, .. } => self.begun + Duration::from_micros(*at),
            Note::Place(_) | Note::Group(_) | Note::CgroupMade => self.begun,
        };
        notes.map(|note| (begun(&note), note)).collect()
    }

    /// Its pidfd, for [`see_off`].
    pub(crate) fn into_pidfd(self) -> Option<PidFd> {
        self.pidfd
    }

    /// Kills it. One that hangs inside the kernel dies when that lets go of it; nothing waits for that.
    pub(crate) fn kill(&self) {
        let _ = self.pidfd.as_ref().map(|pidfd| pidfd.send_signal(Signal::SIGKILL));
    }
}

impl AsFd for StageChild {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reports.as_fd()
    }
}

/// How long a stage child that was killed may take to come back from its last system call. One that hangs in a volume does not
/// come back, and makes nothing.
pub(crate) const LAST_CALL: Duration = Duration::from_secs(2);

/// Waits in one stage child for the end of another, which was killed and whose pidfd this is: what it is about to make is made
/// before it dies.
///
/// # Errors
/// It is still there after [`LAST_CALL`].
pub(crate) fn see_off(child: Vec<OwnedFd>) -> Result<(), Failure> {
    for pidfd in child {
        if !PidFd::from_fd(pidfd).ends_within(LAST_CALL).unwrap_or(false) {
            let lives_on = "a stage's process was killed and has not ended: it may leave something";
            return Err(failure(ErrorKind::Internal, lives_on));
        }
    }
    Ok(())
}
