//! What the shim is as a process: nobody's job, nobody's terminal, hard to kill by accident.

use shim_protocol::Process;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use sys::credentials::{self, Limit, Resource};
use sys::process::Pid;
use sys::procfs::ProcFd;
use sys::signal::{SigSet, Signal, SignalFd};

/// Cuts what binds the shim to whoever started it, and takes its children's ends as an fd.
///
/// Signals that end a daemon or a session are not for the pod: it ends by StopSandbox, or by SIGKILL. Orphans of
/// containers without a PID namespace of their own become our children, so that they are reaped in every pod alike.
pub(crate) fn detach() -> sys::Result<SignalFd> {
    // An exec by the number of an fd has left that number as the name.
    sys::process::set_name(c"orlop-shim")?;
    // A directory that somebody works in can't be unmounted.
    std::env::set_current_dir("/").map_err(|error| sys::Error::from_io("chdir", &error, "\"/\""))?;
    sys::credentials::set_umask(0o022);
    // EPERM: a process group leader, for example under a debugger, is a session leader or as good as one.
    let _ = sys::process::set_session();
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGPIPE] {
        sys::signal::ignore(signal)?;
    }
    sys::process::set_child_subreaper(true)?;
    SignalFd::new(&SigSet::from(Signal::SIGCHLD))
}

/// The last process that the kernel shall kill for want of memory: the pod's containers would lose their parent.
const OOM_SCORE: &str = "-999";

/// What the shim was started with and has changed for itself only.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// `oom_score_adj`.
    oom_score: Option<String>,
    /// `RLIMIT_NOFILE`.
    files: Option<Limit>,
}

/// Takes what the host lets the shim have: protection from the OOM killer, and fds, of which each container takes up
/// to ten.
pub(crate) fn raise() -> Inherited {
    Inherited { oom_score: lower_oom_score(), files: raise_files() }
}

fn lower_oom_score() -> Option<String> {
    let procfs = ProcFd::open().ok()?;
    let inherited = procfs.read("self/oom_score_adj").ok()?.trim().to_owned();
    // Lowering it takes CAP_SYS_RESOURCE.
    procfs.write_self("oom_score_adj", OOM_SCORE).ok()?;
    (inherited != OOM_SCORE).then_some(inherited)
}

fn raise_files() -> Option<Limit> {
    let inherited = credentials::limit(Resource::NOFILE).ok()?;
    credentials::set_limit(Resource::NOFILE, Limit { soft: inherited.hard, ..inherited }).ok()?;
    (inherited.soft != inherited.hard).then_some(inherited)
}

impl Inherited {
    /// Gives the calling process back what the shim was started with.
    pub(crate) fn restore(&self) -> sys::Result<()> {
        if let Some(score) = &self.oom_score {
            ProcFd::open()?.write_self("oom_score_adj", score)?;
        }
        self.files.map_or(Ok(()), |limit| credentials::set_limit(Resource::NOFILE, limit))
    }
}

/// The listening socket that came through exec, if there is one; whatever else did is closed. Nothing may be open yet but
/// that and the first three. Standard input is `/dev/null` afterwards.
pub(crate) fn inherit(listener: Option<i32>) -> sys::Result<Option<OwnedFd>> {
    let listener = match listener {
        None => None,
        Some(0) => Some(sys::fd::duplicate(&std::io::stdin())?),
        Some(number) => Some(sys::fd::claim_inherited(number)?),
    };
    let kept: Vec<_> = listener.iter().map(AsFd::as_fd).collect();
    sys::fd::close_all_but(3, &kept)?;
    let null = File::open("/dev/null").map_err(|error| sys::Error::from_io("open", &error, "\"/dev/null\""))?;
    sys::fd::install_table(&[null.as_fd()], Vec::new())?;
    listener.iter().try_for_each(|listener| sys::fd::set_nonblocking(listener, true))?;
    Ok(listener)
}

/// The shim.
pub(crate) fn own() -> sys::Result<Process> {
    let own = sys::process::Process::of(Pid::this())?;
    Ok(Process { pid: own.pid.as_raw(), start_time: own.start_time })
}
