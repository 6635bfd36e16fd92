//! clone3(2) and fork(2), for processes with one thread only.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

use super::{CloneFlags, Pid, PidFd, Signal};
use crate::Errno;
use crate::error::{Error, Result, flags};
use crate::fd::own;

/// What the child shall be.
#[derive(Clone, Copy, Debug)]
pub struct CloneArgs<'a> {
    /// New namespaces, and `CLONE_PARENT` to make a sibling instead of a child. All others are refused.
    pub flags: CloneFlags,
    /// A cgroup v2 directory that the child is born in (`CLONE_INTO_CGROUP`, Linux 5.7).
    pub into_cgroup: Option<BorrowedFd<'a>>,
    /// The signal that the parent gets when the child ends. With `CLONE_PARENT` it must be `None`: the kernel then takes
    /// the caller's own (clone(2), EINVAL since Linux 5.10).
    pub exit_signal: Option<Signal>,
    /// Return a pidfd of the child (`CLONE_PIDFD`).
    pub pidfd: bool,
}

impl Default for CloneArgs<'_> {
    /// A plain child, as fork(2) makes it.
    fn default() -> Self {
        CloneArgs { flags: CloneFlags::empty(), into_cgroup: None, exit_signal: Some(Signal::SIGCHLD), pidfd: false }
    }
}

/// Which of the two processes we are now.
#[derive(Debug)]
pub enum Fork {
    /// The caller.
    Parent(Child),
    /// The new process. Every fd and buffer exists twice now: end with [`exit_now`](super::exit_now) or an exec, so that
    /// no destructor of the parent's state runs here.
    Child,
}

/// A process that was just made.
#[derive(Debug)]
pub struct Child {
    /// Its number in the caller's PID namespace.
    pub pid: Pid,
    /// Its pidfd, if it was asked for.
    pub pidfd: Option<PidFd>,
}

/// `struct clone_args` of linux/sched.h, up to `cgroup` (size 88, Linux 5.7).
#[repr(C, align(8))]
#[derive(Default)]
struct RawArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// The flags that neither share memory with the child nor write into it.
const ALLOWED: CloneFlags = CloneFlags::CLONE_PARENT
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWCGROUP)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUSER)
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNET);

/// Makes a process with clone3(2) that goes on from here with a copy of our memory.
///
/// Refused with EINVAL unless the caller has exactly one thread: the child has only the calling one, and a lock that
/// another held (the allocator's) would stay locked in it for ever.
///
/// In the child, glibc's cache of the thread number is the parent's until an exec, which only raise(3), abort(3) and
/// error-checking mutexes would notice; a panic still ends the child.
pub fn clone3(arguments: &CloneArgs<'_>) -> Result<Fork> {
    refuse(arguments)?;
    clone3_alone(arguments, &require_single_thread()?)
}

/// As [`clone3`], for a process that has entered a mount namespace whose `/proc` says nothing about it: the proof is from before,
/// and no thread was made since.
pub fn clone3_alone(arguments: &CloneArgs<'_>, _alone: &SingleThread) -> Result<Fork> {
    const CLONE_PIDFD: u64 = 0x1000;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    refuse(arguments)?;
    let mut pidfd: libc::c_int = -1;
    let mut raw = RawArgs {
        flags: u64::from(arguments.flags.bits().cast_unsigned()),
        exit_signal: arguments.exit_signal.map_or(0, |signal| signal as u64),
        ..RawArgs::default()
    };
    if arguments.pidfd {
        raw.flags |= CLONE_PIDFD;
        raw.pidfd = (&raw mut pidfd) as u64;
    }
    if let Some(cgroup) = arguments.into_cgroup {
        raw.flags |= CLONE_INTO_CGROUP;
        raw.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `raw` has the layout of struct clone_args and its size is passed; `pidfd` outlives the call. Without
    // CLONE_VM the child has its own copy of our memory and this stack, so returning twice is sound, and with one thread
    // (checked) nothing in that copy is half done.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut raw, size_of::<RawArgs>()) };
    match Errno::result(result).map_err(|errno| failed(arguments, errno))? {
        0 => Ok(Fork::Child),
        pid => {
            // SAFETY: the kernel stored a new fd there before it returned to us, since CLONE_PIDFD was set.
            let pidfd = arguments.pidfd.then(|| PidFd::from_fd(unsafe { own(pidfd.into()) }));
            Ok(Fork::Parent(Child { pid: Pid::from_raw(pid as i32), pidfd }))
        }
    }
}

/// A plain child, as [`clone3`] without arguments, but through the C library, which renews its caches in the child.
pub fn fork() -> Result<Fork> {
    fork_alone(&require_single_thread()?)
}

/// As [`fork`], with the proof that [`clone3_alone`] takes.
pub fn fork_alone(_alone: &SingleThread) -> Result<Fork> {
    // SAFETY: with one thread (checked) the child may go on like any process.
    match unsafe { nix::unistd::fork() } {
        Ok(nix::unistd::ForkResult::Child) => Ok(Fork::Child),
        Ok(nix::unistd::ForkResult::Parent { child }) => Ok(Fork::Parent(Child { pid: child, pidfd: None })),
        Err(errno) => Err(Error::new("fork", errno, "")),
    }
}

/// What must not be asked for.
fn refuse(arguments: &CloneArgs<'_>) -> Result<()> {
    if !ALLOWED.contains(arguments.flags) {
        return Err(failed(arguments, Errno::EINVAL).with_detail("only namespaces and CLONE_PARENT"));
    }
    if arguments.flags.contains(CloneFlags::CLONE_PARENT) && arguments.exit_signal.is_some() {
        return Err(failed(arguments, Errno::EINVAL).with_detail("CLONE_PARENT takes no exit signal"));
    }
    Ok(())
}

/// The calling process was found to have one thread only. Whoever makes another one spoils it.
#[derive(Debug)]
pub struct SingleThread(std::marker::PhantomData<*const ()>);

/// EINVAL if `/proc/self/task` has more than one entry.
// The link count of the directory is two plus the threads (fs/proc/base.c proc_task_getattr): one call, no listing.
pub fn require_single_thread() -> Result<SingleThread> {
    const TASKS: &str = "/proc/self/task";
    let links = nix::sys::stat::stat(TASKS).map_err(|errno| Error::new("stat", errno, TASKS))?.st_nlink;
    match links.saturating_sub(2) {
        1 => Ok(SingleThread(std::marker::PhantomData)),
        threads => Err(Error::new("clone3", Errno::EINVAL, "…")
            .with_detail(format!("{TASKS} has {threads} entries; a copy of one thread only would not be sound"))),
    }
}

fn failed(arguments: &CloneArgs<'_>, errno: Errno) -> Error {
    let mut shown = format!("{{flags={}", flags(arguments.flags));
    if arguments.pidfd {
        shown.push_str("|CLONE_PIDFD");
    }
    if let Some(cgroup) = &arguments.into_cgroup {
        shown.push_str(&format!("|CLONE_INTO_CGROUP, cgroup={}", crate::error::fd(cgroup)));
    }
    let signal = arguments.exit_signal.map_or("0", Signal::as_str);
    Error::new("clone3", errno, format_args!("{shown}, exit_signal={signal}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_may_not_clone() {
        let error = std::thread::scope(|_| clone3(&CloneArgs::default()).unwrap_err()); // the test harness has two
        assert!(error.is(Errno::EINVAL), "{error}");
        assert!(error.to_string().contains("/proc/self/task"), "{error}");
        assert!(fork().unwrap_err().is(Errno::EINVAL));
    }

    #[test]
    fn sharing_memory_and_a_signal_for_a_sibling_are_refused() {
        let shared = CloneArgs { flags: CloneFlags::CLONE_VM, ..CloneArgs::default() };
        assert!(clone3(&shared).unwrap_err().to_string().contains("flags=CLONE_VM"));
        let sibling = CloneArgs { flags: CloneFlags::CLONE_PARENT, ..CloneArgs::default() };
        assert!(clone3(&sibling).unwrap_err().to_string().contains("takes no exit signal"));
    }

    #[test]
    fn the_arguments_have_the_kernels_size() {
        assert_eq!(size_of::<RawArgs>(), 88); // CLONE_ARGS_SIZE_VER2
    }
}
