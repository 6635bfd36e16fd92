//! `KillExec`: a signal to an exec'd process.

use super::Begun;
use crate::exec_process::ExecLife;
use crate::failure::{failure, internal};
use crate::supervisor::Shim;
use shim_protocol::{Answer, ErrorKind, KillExec};
use sys::Errno;

pub(super) fn kill_exec(shim: &Shim, kill: &KillExec) -> Begun {
    let KillExec { exec: id, signal } = kill;
    let exec = shim.execs.iter().find(|exec| exec.id == *id);
    let exec = exec.ok_or_else(|| failure(ErrorKind::NotFound, format_args!("no exec {id}")))?;
    let signal = super::signal(*signal)?;
    let not_running = || failure(ErrorKind::NotRunning, format_args!("exec {id} is not running"));
    let (ExecLife::Starting { pidfd, .. } | ExecLife::Running { pidfd, .. }) = &exec.life else {
        return Err(not_running());
    };
    match pidfd.send_signal(signal) {
        Ok(()) => Ok(Some(Answer::Done)),
        Err(error) if error.is(Errno::ESRCH) => Err(not_running()),
        Err(error) => Err(internal(format_args!("send signal {signal} to exec {id}"), &error)),
    }
}
