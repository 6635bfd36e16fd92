//! Attributes and propagation of mounts (mount_setattr(2), Linux 5.12).

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::fcntl::AT_FDCWD;
use nix::libc;

use crate::Errno;
use crate::error::{Error, Result, fd, flags};

bitflags::bitflags! {
    /// The attributes of one mount, `MOUNT_ATTR_*` of linux/mount.h. Access times are one field of three bits:
    /// relatime is none of them set, so clear [`ATIME`](Self::ATIME) for it.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct MountFlags: u64 {
        /// Read only.
        const RDONLY = 0x1;
        /// setuid, setgid and file capabilities are ignored.
        const NOSUID = 0x2;
        /// Devices can't be opened.
        const NODEV = 0x4;
        /// Nothing can be executed.
        const NOEXEC = 0x8;
        /// The field that holds the next two.
        const ATIME = 0x70;
        /// Access times are never written.
        const NOATIME = 0x10;
        /// Access times are always written.
        const STRICTATIME = 0x20;
        /// Access times of directories are not written.
        const NODIRATIME = 0x80;
        /// Symbolic links are not followed (Linux 5.14).
        const NOSYMFOLLOW = 0x0020_0000;
    }
}

/// Who sees mounts made below this one (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Nobody else, in neither direction.
    Private,
    /// Mounts of the peer group appear here, ours do not appear there.
    Slave,
    /// Both ways.
    Shared,
    /// As private, and the mount can't be bound.
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Propagation::Unbindable => libc::MS_UNBINDABLE,
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Shared => libc::MS_SHARED,
        }
    }
}

/// A change to a mount, for [`mount_setattr`]. Nothing by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attr<'a> {
    /// Attributes to set. An access time here replaces the old one.
    pub set: MountFlags,
    /// Attributes to clear.
    pub clr: MountFlags,
    /// The new propagation, if it shall change.
    pub propagation: Option<Propagation>,
    /// Show owners as this user namespace maps them (`MOUNT_ATTR_IDMAP`); only for a detached mount.
    pub userns: Option<BorrowedFd<'a>>,
}

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the mount `mount`, with all below it if `recursive`; either all change or none (mount_setattr(2)).
pub fn mount_setattr(mount: &impl AsFd, recursive: bool, change: &Attr<'_>) -> Result<()> {
    change_attributes(mount, c"", recursive, change)
}

/// With an empty path, of the mount that the fd is of.
fn change_attributes(mount: &impl AsFd, path: &CStr, recursive: bool, change: &Attr<'_>) -> Result<()> {
    const IDMAP: u64 = 0x0010_0000;
    const AT_RECURSIVE: i32 = 0x8000;
    // The kernel wants the whole field cleared when a part of it is set.
    let clr = if change.set.intersects(MountFlags::ATIME) { change.clr | MountFlags::ATIME } else { change.clr };
    let attr = MountAttr {
        attr_set: change.set.bits() | change.userns.map_or(0, |_| IDMAP),
        attr_clr: clr.bits(),
        propagation: change.propagation.map_or(0, Propagation::bits),
        userns_fd: change.userns.map_or(0, |userns| userns.as_raw_fd() as u64),
    };
    let at = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    let number = mount.as_fd().as_raw_fd();
    // SAFETY: the fds and the path are borrowed for the call; `attr` has the layout of struct mount_attr and its size is
    // passed.
    let result = unsafe {
        libc::syscall(libc::SYS_mount_setattr, number, path.as_ptr(), at, &raw const attr, size_of::<MountAttr>())
    };
    Errno::result(result).map(drop).map_err(|errno| {
        let at = if recursive { "AT_EMPTY_PATH|AT_RECURSIVE" } else { "AT_EMPTY_PATH" };
        let (set, clr, propagation) = (flags(change.set), flags(clr), change.propagation);
        let shown = format!("attr_set={set}, attr_clr={clr}, propagation={propagation:?}");
        Error::new("mount_setattr", errno, format_args!("{}, {path:?}, {at}, {{{shown}}}", fd(mount)))
    })
}

/// The attributes of the mount through which `file` was opened (statvfs(3)).
///
/// Read-only it is too if its file system is; a kernel that does not tell of links that are not followed has them followed.
pub fn attributes_of(file: &impl AsFd) -> Result<MountFlags> {
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the fd is borrowed for the call, and the C library writes a struct statvfs to where it may.
    let result = unsafe { libc::fstatvfs(file.as_fd().as_raw_fd(), stat.as_mut_ptr()) };
    Errno::result(result).map_err(|errno| Error::new("fstatfs", errno, fd(file)))?;
    // SAFETY: all zeroes is a valid struct statvfs, and the call succeeded.
    let bits = unsafe { stat.assume_init() }.f_flag;
    // ST_* of linux/statfs.h, of which the C library knows most and keeps all. Strict access times have no bit there.
    const NOATIME: u64 = 0x400;
    const RELATIME: u64 = 0x1000;
    let times = match bits & (NOATIME | RELATIME) {
        0 => MountFlags::STRICTATIME,
        NOATIME => MountFlags::NOATIME,
        _ => MountFlags::empty(),
    };
    let named = [
        (0x1, MountFlags::RDONLY),
        (0x2, MountFlags::NOSUID),
        (0x4, MountFlags::NODEV),
        (0x8, MountFlags::NOEXEC),
        (0x800, MountFlags::NODIRATIME),
        (0x2000, MountFlags::NOSYMFOLLOW),
    ];
    let set = named.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, flag)| flag);
    Ok(set.fold(times, |all, flag| all | flag))
}

/// Sets the propagation of `/` and all below it: the first step in a new mount namespace.
pub fn set_propagation_root(propagation: Propagation) -> Result<()> {
    change_attributes(&AT_FDCWD, c"/", true, &Attr { propagation: Some(propagation), ..Attr::default() })
}
