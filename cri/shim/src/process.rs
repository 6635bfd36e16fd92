//! What the shim is as a process: nobody's job, nobody's terminal, hard to kill by accident.

use shim_protocol::Process;
use std::os::fd::OwnedFd;
use sys::process::Pid;
use sys::signal::{SigSet, Signal, SignalFd};

/// Cuts what binds the shim to whoever started it, and takes its children's ends as an fd.
///
/// Signals that end a daemon or a session are not for the pod: it ends by StopSandbox, or by SIGKILL. Orphans of
/// containers without a PID namespace of their own become our children, so that they are reaped in every pod alike.
pub(crate) fn detach() -> sys::Result<SignalFd> {
    // EPERM: a process group leader, for example under a debugger, is a session leader or as good as one.
    let _ = sys::process::set_session();
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGPIPE] {
        sys::signal::ignore(signal)?;
    }
    sys::process::set_child_subreaper(true)?;
    SignalFd::new(&SigSet::from(Signal::SIGCHLD))
}

/// The listening socket that came through exec.
pub(crate) fn inherit_listener(number: i32) -> sys::Result<OwnedFd> {
    let listener = sys::fd::claim_inherited(number)?;
    sys::fd::set_nonblocking(&listener, true)?;
    Ok(listener)
}

/// The shim.
pub(crate) fn own() -> sys::Result<Process> {
    let own = sys::process::Process::of(Pid::this())?;
    Ok(Process { pid: own.pid.as_raw(), start_time: own.start_time })
}
