//! What a process may do: ids, capabilities, resource limits, no_new_privs, seccomp (credentials(7)).
//!
//! Each call changes the calling *thread* or process at once; the order that makes sense is the caller's: with
//! no_new_privs off, seccomp comes before capabilities and ids, with it on after them.

#![allow(unsafe_code, reason = "capget, capset, prlimit64 and seccomp are not in nix")]

mod capabilities;
mod limits;

use std::os::fd::OwnedFd;

use nix::libc;
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::unistd::{self, Gid, Uid};

pub use self::capabilities::{
    Capabilities, CapabilitySets, UnknownCapability, clear_ambient, drop_bounding, last_capability, raise_ambient,
    set_keep_capabilities,
};
pub use self::limits::{Limit, Resource, UnknownResource, limit, set_limit, set_limit_of};
use crate::Errno;
use crate::error::{Error, Result, flags};

/// Sets the supplementary groups (setgroups(2)).
pub fn set_groups(groups: &[u32]) -> Result<()> {
    let gids: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    unistd::setgroups(&gids)
        .map_err(|errno| Error::new("setgroups", errno, format_args!("{}, {groups:?}", groups.len())))
}

/// The supplementary groups (getgroups(2)).
pub fn groups() -> Result<Vec<u32>> {
    let groups = unistd::getgroups().map_err(|errno| Error::new("getgroups", errno, ""))?;
    Ok(groups.into_iter().map(Gid::as_raw).collect())
}

/// Sets real, effective and saved group (setresgid(2)). Before the user: afterwards the right to is gone.
pub fn set_gid(gid: u32) -> Result<()> {
    let group = Gid::from_raw(gid);
    unistd::setresgid(group, group, group)
        .map_err(|errno| Error::new("setresgid", errno, format_args!("{gid}, {gid}, {gid}")))
}

/// Sets real, effective and saved user (setresuid(2)). Leaving 0 clears the effective and, without
/// [`set_keep_capabilities`], the permitted capabilities.
pub fn set_uid(uid: u32) -> Result<()> {
    let user = Uid::from_raw(uid);
    unistd::setresuid(user, user, user)
        .map_err(|errno| Error::new("setresuid", errno, format_args!("{uid}, {uid}, {uid}")))
}

/// Sets the umask and returns the one from before (umask(2)). Of the whole process: not in a program with threads.
pub fn set_umask(mask: u32) -> u32 {
    nix::sys::stat::umask(Mode::from_bits_truncate(mask)).bits()
}

/// Takes away, for ever and from all that is executed later, the gain of privileges by setuid, setgid and file capabilities
/// (`PR_SET_NO_NEW_PRIVS`).
pub fn set_no_new_privs() -> Result<()> {
    prctl::set_no_new_privs().map_err(|errno| Error::new("prctl", errno, "PR_SET_NO_NEW_PRIVS, 1"))
}

/// True after [`set_no_new_privs`].
pub fn no_new_privs() -> Result<bool> {
    prctl::get_no_new_privs().map_err(|errno| Error::new("prctl", errno, "PR_GET_NO_NEW_PRIVS"))
}

bitflags::bitflags! {
    /// `SECCOMP_FILTER_FLAG_*` of linux/seccomp.h, those that change nothing about what the call returns.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SeccompFlags: u32 {
        /// All threads of the process get the filter.
        const TSYNC = 1;
        /// All actions but allow may be logged.
        const LOG = 2;
        /// Don't turn on the mitigation of speculative store bypass.
        const SPEC_ALLOW = 4;
        /// With a listener (seccomp_unotify(2)): a wait for the answer is ended by fatal signals only.
        const WAIT_KILLABLE_RECV = 32;
    }
}

/// Installs a filter: an array of `struct sock_filter` (linux/filter.h, 8 bytes each, at most 4,096), as bytes in the
/// machine's order (seccomp(2), `SECCOMP_SET_MODE_FILTER`). Needs no_new_privs or CAP_SYS_ADMIN.
pub fn seccomp_load(program: &[u8], how: SeccompFlags) -> Result<()> {
    seccomp(program, how.bits(), how).map(drop)
}

/// As [`seccomp_load`], and returns the fd on which a supervisor answers (seccomp_unotify(2)).
pub fn seccomp_load_with_listener(program: &[u8], how: SeccompFlags) -> Result<OwnedFd> {
    const NEW_LISTENER: u32 = 8;
    let listener = seccomp(program, how.bits() | NEW_LISTENER, how)?;
    // SAFETY: with NEW_LISTENER the kernel returns a new fd, close-on-exec, that nothing else owns.
    Ok(unsafe { crate::fd::own(listener) })
}

fn seccomp(program: &[u8], bits: u32, how: SeccompFlags) -> Result<libc::c_long> {
    const SIZE: usize = size_of::<libc::sock_filter>();
    const MAX: usize = 4096; // BPF_MAXINSNS
    let length = program.len() / SIZE;
    let shown =
        |errno| Error::new("seccomp", errno, format_args!("SECCOMP_SET_MODE_FILTER, {}, {{len={length}}}", flags(how)));
    if program.is_empty() || !program.len().is_multiple_of(SIZE) || length > MAX {
        return Err(
            shown(Errno::EINVAL).with_detail(format!("{} bytes are not 1 to {MAX} instructions", program.len()))
        );
    }
    // Copied: the kernel doesn't care about alignment, Rust does.
    let instructions: Vec<libc::sock_filter> = program
        .chunks_exact(SIZE)
        .map(|bytes| libc::sock_filter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
        .collect();
    let filter = libc::sock_fprog { len: length as u16, filter: instructions.as_ptr().cast_mut() };
    // SAFETY: `filter` names `length` instructions that live through the call; the kernel copies and checks them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, bits, &raw const filter) };
    match Errno::result(result).map_err(shown)? {
        // TSYNC reports the thread that could not follow as a positive number.
        thread if how.contains(SeccompFlags::TSYNC) && thread > 0 && bits == how.bits() => {
            Err(shown(Errno::EBUSY).with_detail(format!("thread {thread} could not take the filter")))
        }
        value => Ok(value),
    }
}

/// The seccomp mode of this thread as `/proc/self/status` would show it: 0 none, 2 filter (`PR_GET_SECCOMP`).
pub fn seccomp_mode() -> Result<i32> {
    // SAFETY: this request takes no pointers.
    Errno::result(unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) })
        .map_err(|errno| Error::new("prctl", errno, "PR_GET_SECCOMP"))
}

/// The effective user and group (geteuid(2), getegid(2)).
pub fn effective_ids() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

/// True if the effective user is 0 in our user namespace (geteuid(2)).
pub fn is_root() -> bool {
    unistd::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `BPF_RET | BPF_K` of linux/bpf_common.h with `SECCOMP_RET_ALLOW`.
    const ALLOW_ALL: [u8; 8] = [0x06, 0, 0, 0, 0, 0, 0xff, 0x7f];

    #[test]
    fn a_program_of_the_wrong_size_never_reaches_the_kernel() {
        for size in [0, 7, 9, 8 * 4097] {
            let error = seccomp_load(&vec![0; size], SeccompFlags::empty()).unwrap_err();
            assert!(error.is(Errno::EINVAL) && error.to_string().contains("instructions"), "{error}");
        }
    }

    #[test]
    fn a_filter_is_loaded_on_a_thread_without_new_privileges() {
        let thread = std::thread::spawn(|| {
            set_no_new_privs().unwrap();
            assert!(no_new_privs().unwrap());
            assert_eq!(seccomp_mode().unwrap(), 0);
            seccomp_load(&ALLOW_ALL, SeccompFlags::LOG).unwrap();
            assert_eq!(seccomp_mode().unwrap(), 2);
        });
        thread.join().unwrap();
    }

    #[test]
    fn a_program_that_the_kernel_does_not_take_is_an_error() {
        let thread = std::thread::spawn(|| {
            set_no_new_privs().unwrap();
            let error = seccomp_load(&[0xff; 8], SeccompFlags::empty()).unwrap_err().to_string();
            assert!(error.contains("seccomp(SECCOMP_SET_MODE_FILTER, 0, {len=1}): Invalid argument"), "{error}");
        });
        thread.join().unwrap();
    }
}
