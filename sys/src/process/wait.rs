//! Reaping children (waitid(2)).
//!
//! Always with `__WALL`: a child that was made without SIGCHLD as its exit signal would be left out otherwise. Not through
//! nix, which fails on a process that a real-time signal killed, after it was reaped.

use std::mem::MaybeUninit;

use nix::libc;

use super::Pid;
use crate::Errno;
use crate::error::{Error, Result, retry};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It called exit with this status, 0–255.
    Code(i32),
    /// A signal killed it.
    Signal {
        /// 1–64.
        signal: i32,
        /// The kernel wrote a core dump.
        core_dumped: bool,
    },
}

impl Exit {
    /// The status as shells and the CRI give it: a signal is 128 plus its number.
    pub fn status(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal { signal, .. } => 128 + signal,
        }
    }

    /// True for exit status 0.
    pub fn is_success(self) -> bool {
        self == Exit::Code(0)
    }
}

/// Reaps the next child that has ended. `None` if there is no child, or with `nohang` if none has ended yet.
pub fn wait_any(nohang: bool) -> Result<Option<(Pid, Exit)>> {
    let how = if nohang { libc::WNOHANG } else { 0 };
    match waitid(libc::P_ALL, 0, how) {
        Err(Errno::ECHILD) => Ok(None),
        result => result.map_err(|errno| Error::new("waitid", errno, "P_ALL, 0, WEXITED|__WALL")),
    }
}

/// Waits for the end of the child `pid` and reaps it.
pub fn wait_for(pid: Pid) -> Result<Exit> {
    loop {
        let ended = waitid(libc::P_PID, pid.as_raw().cast_unsigned(), 0)
            .map_err(|errno| Error::new("waitid", errno, format_args!("P_PID, {pid}, WEXITED|__WALL")))?;
        if let Some((_, exit)) = ended {
            return Ok(exit);
        }
    }
}

pub(super) fn waitid(kind: libc::idtype_t, id: libc::id_t, how: i32) -> nix::Result<Option<(Pid, Exit)>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `info` is a siginfo_t for the kernel to fill in, the rest are integers.
    let call =
        || Errno::result(unsafe { libc::waitid(kind, id, info.as_mut_ptr(), libc::WEXITED | libc::__WALL | how) });
    retry(call)?;
    // SAFETY: all zeroes is a valid siginfo_t, and what the kernel wrote is one too.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid sets si_pid and si_status for CLD_* codes, and leaves the zeroes where nothing has ended.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let exit = match info.si_code {
        libc::CLD_EXITED => Exit::Code(status),
        code => Exit::Signal { signal: status, core_dumped: code == libc::CLD_DUMPED },
    };
    Ok(Some((Pid::from_raw(pid), exit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_what_a_shell_would_show() {
        assert_eq!(Exit::Code(3).status(), 3);
        assert_eq!(Exit::Signal { signal: 9, core_dumped: false }.status(), 137);
        assert!(Exit::Code(0).is_success() && !Exit::Code(1).is_success());
    }
}
