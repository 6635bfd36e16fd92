//! Namespaces (namespaces(7)): made, joined, left again, kept by a bind mount.

#![allow(unsafe_code, reason = "NS_GET_NSTYPE and setdomainname are not in nix")]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::libc;
pub use nix::sched::CloneFlags;

use crate::error::{Error, Result, fd, flags, quoted};
use crate::process::Pid;
use crate::{Errno, at, mount};

/// The kinds of namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// user_namespaces(7)
    User,
    /// mount_namespaces(7)
    Mount,
    /// pid_namespaces(7)
    Pid,
    /// network_namespaces(7)
    Net,
    /// ipc_namespaces(7)
    Ipc,
    /// uts_namespaces(7)
    Uts,
    /// cgroup_namespaces(7)
    Cgroup,
    /// time_namespaces(7)
    Time,
}

/// `CLONE_NEWTIME` of linux/sched.h, which nix lacks.
const CLONE_NEWTIME: i32 = 0x80;

impl Kind {
    /// All of them, user first: the others are made inside it.
    pub const ALL: [Kind; 8] =
        [Kind::User, Kind::Mount, Kind::Pid, Kind::Net, Kind::Ipc, Kind::Uts, Kind::Cgroup, Kind::Time];

    /// The flag of clone(2), unshare(2) and setns(2).
    pub fn flag(self) -> CloneFlags {
        match self {
            Kind::User => CloneFlags::CLONE_NEWUSER,
            Kind::Mount => CloneFlags::CLONE_NEWNS,
            Kind::Pid => CloneFlags::CLONE_NEWPID,
            Kind::Net => CloneFlags::CLONE_NEWNET,
            Kind::Ipc => CloneFlags::CLONE_NEWIPC,
            Kind::Uts => CloneFlags::CLONE_NEWUTS,
            Kind::Cgroup => CloneFlags::CLONE_NEWCGROUP,
            Kind::Time => CloneFlags::from_bits_retain(CLONE_NEWTIME),
        }
    }

    /// The name of the file in `/proc/[pid]/ns`.
    pub fn file_name(self) -> &'static str {
        match self {
            Kind::User => "user",
            Kind::Mount => "mnt",
            Kind::Pid => "pid",
            Kind::Net => "net",
            Kind::Ipc => "ipc",
            Kind::Uts => "uts",
            Kind::Cgroup => "cgroup",
            Kind::Time => "time",
        }
    }
}

/// Moves the calling *thread* into new namespaces (unshare(2)); with `CLONE_NEWPID` its children. A process with threads
/// can't make a user namespace, and needs `CLONE_FS` for a mount namespace.
pub fn unshare(what: CloneFlags) -> Result<()> {
    nix::sched::unshare(what).map_err(|errno| Error::new("unshare", errno, flags(what)))
}

/// Moves the calling thread into an existing namespace (setns(2)); with a PID namespace its children. The kernel
/// refuses (EINVAL) if `namespace` is not of this kind.
pub fn setns(namespace: &impl AsFd, kind: Kind) -> Result<()> {
    nix::sched::setns(namespace, kind.flag())
        .map_err(|errno| Error::new("setns", errno, format_args!("{}, {}", fd(namespace), flags(kind.flag()))))
}

/// Moves the calling thread into namespaces of the process behind a pidfd, into all of these kinds or none (setns(2), Linux
/// 5.8).
pub fn join(process: &impl AsFd, kinds: &[Kind]) -> Result<()> {
    let all = kinds.iter().fold(CloneFlags::empty(), |all, kind| all | kind.flag());
    nix::sched::setns(process, all)
        .map_err(|errno| Error::new("setns", errno, format_args!("{}, {}", fd(process), flags(all))))
}

/// A namespace of the calling thread.
pub fn current(kind: Kind) -> Result<OwnedFd> {
    open_path(Path::new("/proc/thread-self/ns").join(kind.file_name()).as_ref())
}

/// A namespace of another process. Open a pidfd first and check afterwards that it still runs, or the number may have come
/// to mean another.
pub fn of(pid: Pid, kind: Kind) -> Result<OwnedFd> {
    open_path(Path::new(&format!("/proc/{pid}/ns")).join(kind.file_name()).as_ref())
}

/// The PID namespace that children of the calling thread will be in (`ns/pid_for_children`).
pub fn pid_for_children() -> Result<OwnedFd> {
    open_path(Path::new("/proc/thread-self/ns/pid_for_children"))
}

/// The namespace pinned at the host path `path`; EINVAL if what is there is not one of this kind.
pub fn open(path: impl AsRef<Path>, kind: Kind) -> Result<OwnedFd> {
    let namespace = open_path(path.as_ref())?;
    let found = flag_of(&namespace)?;
    if found != kind.flag() {
        let detail = format!("not a namespace of kind {}", kind.file_name());
        return Err(
            Error::new("ioctl", Errno::EINVAL, format_args!("{}, NS_GET_NSTYPE", fd(&namespace))).with_detail(detail)
        );
    }
    Ok(namespace)
}

fn open_path(path: &Path) -> Result<OwnedFd> {
    File::open(path)
        .map(OwnedFd::from)
        .map_err(|error| Error::from_io("open", &error, format_args!("{}, O_RDONLY|O_CLOEXEC", quoted(path))))
}

/// The kind of a namespace, as its flag (ioctl_ns(2), `NS_GET_NSTYPE`); ENOTTY for another file.
fn flag_of(namespace: &impl AsFd) -> Result<CloneFlags> {
    // SAFETY: the fd is borrowed for the call; this request takes no argument.
    let result = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), libc::NS_GET_NSTYPE) };
    Errno::result(result)
        .map(CloneFlags::from_bits_retain)
        .map_err(|errno| Error::new("ioctl", errno, format_args!("{}, NS_GET_NSTYPE", fd(namespace))))
}

/// True if both fds refer to the same namespace.
pub fn same(a: &impl AsFd, b: &impl AsFd) -> Result<bool> {
    at::same_file(a, b)
}

/// Keeps `namespace` alive at the host path `target`, an existing empty file: a bind mount (namespaces(7)).
pub fn pin(namespace: &impl AsFd, target: impl AsRef<Path>) -> Result<()> {
    mount::bind_file(namespace, target)
}

/// Takes away what [`pin`] did and the empty file; what is not there any more is fine.
pub fn unpin(target: impl AsRef<Path>) -> Result<()> {
    let target = target.as_ref();
    match mount::umount_detach(target) {
        // EINVAL: the file is there and not a mount (the pin was interrupted, or half undone)
        Err(error) if !error.is(Errno::ENOENT) && !error.is(Errno::EINVAL) => return Err(error),
        _ => {}
    }
    match std::fs::remove_file(target) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::from_io("unlink", &error, quoted(target)))
        }
        _ => Ok(()),
    }
}

/// Enters `namespace` until the guard is dropped or [left](Guard::leave). For the kinds that can be left again: net, ipc,
/// uts, cgroup, and pid (for children). Mount would lose the working directory, user the capabilities to return, and a time
/// namespace takes effect at the next exec: EINVAL.
///
/// The guard must be dropped on the thread that made it, which its being `!Send` ensures.
pub fn enter(namespace: &impl AsFd, kind: Kind) -> Result<Guard> {
    if matches!(kind, Kind::Mount | Kind::User | Kind::Time) {
        let arguments = format!("{}, {}", fd(namespace), flags(kind.flag()));
        return Err(Error::new("setns", Errno::EINVAL, arguments).with_detail("no way back from there"));
    }
    let home = if kind == Kind::Pid { pid_for_children()? } else { current(kind)? };
    setns(namespace, kind)?;
    Ok(Guard { home: Some(home), kind, _this_thread: std::marker::PhantomData })
}

/// Brings the calling thread back to its own namespace when dropped. Made by [`enter`].
#[derive(Debug)]
pub struct Guard {
    kind: Kind,
    /// Where to go back to; taken when that was tried.
    home: Option<OwnedFd>,
    _this_thread: std::marker::PhantomData<*const ()>,
}

impl Guard {
    /// Goes back and says whether that worked.
    pub fn leave(mut self) -> Result<()> {
        self.home.take().map_or(Ok(()), |home| setns(&home, self.kind))
    }
}

impl Drop for Guard {
    /// Aborts if there is no way back: all that this thread did next would happen in the wrong namespace.
    fn drop(&mut self) {
        if let Some(home) = self.home.take()
            && setns(&home, self.kind).is_err()
        {
            std::process::abort();
        }
    }
}

/// Runs `work` on the calling thread inside `namespace`.
pub fn with_ns<T>(namespace: BorrowedFd<'_>, kind: Kind, work: impl FnOnce() -> T) -> Result<T> {
    let guard = enter(&namespace, kind)?;
    let result = work();
    guard.leave()?;
    Ok(result)
}

/// Sets the host name of the UTS namespace (sethostname(2)), at most 64 bytes.
pub fn set_hostname(name: &str) -> Result<()> {
    nix::unistd::sethostname(name).map_err(|errno| Error::new("sethostname", errno, quoted(name)))
}

/// Sets the NIS domain name of the UTS namespace (setdomainname(2)), at most 64 bytes.
pub fn set_domainname(name: &str) -> Result<()> {
    // SAFETY: a buffer of the length we name, read only.
    let result = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    Errno::result(result).map(drop).map_err(|errno| Error::new("setdomainname", errno, quoted(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_our_own_namespaces_is_recognised() {
        for kind in Kind::ALL {
            let namespace = current(kind).unwrap();
            assert_eq!(flag_of(&namespace).unwrap(), kind.flag(), "{kind:?}");
            assert!(same(&namespace, &of(Pid::this(), kind).unwrap()).unwrap());
        }
    }

    #[test]
    fn a_namespace_of_another_kind_or_no_namespace_is_refused() {
        let error = open("/proc/self/ns/net", Kind::Uts).unwrap_err();
        assert!(error.is(Errno::EINVAL) && error.to_string().contains("not a namespace of kind uts"), "{error}");
        assert!(open("/etc/passwd", Kind::Net).unwrap_err().is(Errno::ENOTTY));
    }

    #[test]
    fn a_namespace_without_a_way_back_can_not_be_entered() {
        for kind in [Kind::Mount, Kind::User, Kind::Time] {
            let error = enter(&current(kind).unwrap(), kind).unwrap_err();
            assert!(error.to_string().contains("no way back"), "{error}");
        }
    }

    #[test]
    fn a_pin_that_never_was_can_be_removed() {
        unpin("/nonexistent/netns").unwrap();
    }
}
