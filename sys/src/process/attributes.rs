//! What a process sets for itself: exec, session, name, and the switches of prctl(2).

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

use nix::libc;
use nix::sys::prctl;
use nix::unistd;

use super::Signal;
use crate::Errno;
use crate::error::{Error, Result, fd, quoted};

/// Replaces this process by the program `path` (execve(2)); returns only on failure.
/// The error shows the arguments, and of the environment only the size: it holds secrets.
pub fn execve(path: &CStr, arguments: &[CString], environment: &[CString]) -> Result<Infallible> {
    unistd::execve(path, arguments, environment).map_err(|errno| {
        let shown: Vec<String> = arguments.iter().map(|argument| quoted(&os(argument)).to_string()).collect();
        let (path, shown) = (quoted(&os(path)).to_string(), shown.join(", "));
        Error::new("execve", errno, format_args!("{path}, [{shown}], [{} vars]", environment.len()))
    })
}

fn os(text: &CStr) -> std::ffi::OsString {
    std::os::unix::ffi::OsStringExt::from_vec(text.to_bytes().to_vec())
}

/// Ends this process at once, without destructors and without flushing (_exit(2)): the only right end of a child made by
/// [`clone3`](super::clone3) or [`fork`](super::fork) that does not exec.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit has no preconditions; the kernel releases everything.
    unsafe { libc::_exit(status) }
}

/// Orphans below us become our children instead of init's (`PR_SET_CHILD_SUBREAPER`).
pub fn set_child_subreaper(on: bool) -> Result<()> {
    prctl::set_child_subreaper(on)
        .map_err(|errno| Error::new("prctl", errno, format_args!("PR_SET_CHILD_SUBREAPER, {on}")))
}

/// Whether others may ptrace us and read our memory and fds through `/proc` (`PR_SET_DUMPABLE`). An exec of an ordinary
/// program turns it on again.
pub fn set_dumpable(on: bool) -> Result<()> {
    prctl::set_dumpable(on).map_err(|errno| Error::new("prctl", errno, format_args!("PR_SET_DUMPABLE, {on}")))
}

/// The signal we get when the *thread* that made us ends (`PR_SET_PDEATHSIG`). Look at getppid(2) afterwards: it may have
/// ended before.
pub fn set_pdeathsig(signal: Option<Signal>) -> Result<()> {
    prctl::set_pdeathsig(signal)
        .map_err(|errno| Error::new("prctl", errno, format_args!("PR_SET_PDEATHSIG, {signal:?}")))
}

/// The name in `/proc/[pid]/comm`, cut at 15 bytes (`PR_SET_NAME`).
pub fn set_name(name: &CStr) -> Result<()> {
    prctl::set_name(name).map_err(|errno| Error::new("prctl", errno, format_args!("PR_SET_NAME, {name:?}")))
}

/// Makes this process the leader of a new session without a terminal (setsid(2)).
pub fn set_session() -> Result<()> {
    unistd::setsid().map(drop).map_err(|errno| Error::new("setsid", errno, ""))
}

/// Sets the execution domain (personality(2)), `PER_*` of linux/personality.h: what uname(2) says of the machine, and how the
/// programs that are executed from now on are laid out.
pub fn set_personality(persona: u32) -> Result<()> {
    // SAFETY: a number.
    let result = unsafe { libc::personality(persona.into()) };
    Errno::result(result).map(drop).map_err(|errno| Error::new("personality", errno, format_args!("{persona:#x}")))
}

/// Makes `directory` the working directory (fchdir(2)).
pub fn change_directory(directory: &impl AsFd) -> Result<()> {
    unistd::fchdir(directory).map_err(|errno| Error::new("fchdir", errno, fd(directory)))
}

/// Joins a new session keyring, so that the keys of the caller's session are not inherited (keyctl(2),
/// `KEYCTL_JOIN_SESSION_KEYRING`). ENOSYS on a kernel without keyrings.
// Without a name: with one, the kernel joins whatever keyring has that name already.
pub fn join_new_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: an operation and NULL for the name.
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    Errno::result(result).map(drop).map_err(|errno| Error::new("keyctl", errno, "KEYCTL_JOIN_SESSION_KEYRING, NULL"))
}
