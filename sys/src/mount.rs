//! Mounts by fd: the mount API of Linux 5.2, where a mount is made detached, gets its attributes, and is attached to a
//! target that we hold open.
//!
//! A file system comes from [`Fs`], a copy of an existing mount from [`clone_tree`]; both give an fd whose mount goes away
//! with it unless [`move_mount`] attached it. Nothing here falls back from an fd to a path when the kernel refuses.

#![allow(unsafe_code, reason = "open_tree, move_mount and mount_setattr are not in nix")]

mod attributes;
mod context;

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::{self, OFlag};
use nix::libc;
use nix::mount::MntFlags;
pub use nix::mount::MsFlags;
use nix::sys::stat::Mode;
use nix::unistd;

pub use self::attributes::{Attr, MountFlags, Propagation, attributes_of, mount_setattr, set_propagation_root};
pub use self::context::{Fs, MAX_STRING};
use crate::error::{Error, Result, c_path, fd, flags, quoted, retry};
use crate::fd::own;
use crate::{Errno, at};

bitflags::bitflags! {
    /// How [`open_tree`] opens (open_tree(2)). `OPEN_TREE_CLOEXEC` is always set.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct OpenTree: u32 {
        /// Make a detached copy of the mount instead of a handle to it.
        const CLONE = 1;
        /// With `CLONE`: the mounts below too.
        const RECURSIVE = 0x8000;
        /// The empty path means the fd itself.
        const EMPTY_PATH = libc::AT_EMPTY_PATH as u32;
        /// Don't follow a symbolic link in the last component.
        const SYMLINK_NOFOLLOW = libc::AT_SYMLINK_NOFOLLOW as u32;
    }
}

/// Opens or copies the mount at `path` below `directory` (open_tree(2)).
/// `path` is resolved as usual: it must be one of the host's own, or empty with [`OpenTree::EMPTY_PATH`].
pub fn open_tree(directory: &impl AsFd, path: &Path, how: OpenTree) -> Result<OwnedFd> {
    let c_path = c_path("open_tree", path)?;
    let bits = how.bits() | libc::O_CLOEXEC as u32;
    let number = directory.as_fd().as_raw_fd();
    // SAFETY: the fd is borrowed for the call and the path NUL terminated; the kernel returns a new fd or an error.
    let result = unsafe { libc::syscall(libc::SYS_open_tree, number, c_path.as_ptr(), bits) };
    let opened = Errno::result(result).map_err(|errno| {
        Error::new("open_tree", errno, format_args!("{}, {}, {}", fd(directory), quoted(path), flags(how)))
    })?;
    // SAFETY: a new fd that nothing else owns.
    Ok(unsafe { own(opened) })
}

/// A detached copy of the mount at the host path `path`, with all below it if `recursive`.
pub fn clone_tree(path: impl AsRef<Path>, recursive: bool) -> Result<OwnedFd> {
    let more = if recursive { OpenTree::RECURSIVE } else { OpenTree::empty() };
    open_tree(&fcntl::AT_FDCWD, path.as_ref(), OpenTree::CLONE | more)
}

/// As [`open_tree`] of the host path `path`.
pub fn open_tree_at(path: impl AsRef<Path>, how: OpenTree) -> Result<OwnedFd> {
    open_tree(&fcntl::AT_FDCWD, path.as_ref(), how)
}

/// A detached bind mount of what `source` refers to, a file or a directory (open_tree(2) with an empty path).
pub fn clone_fd(source: &impl AsFd, recursive: bool) -> Result<OwnedFd> {
    let more = if recursive { OpenTree::RECURSIVE } else { OpenTree::empty() };
    open_tree(source, Path::new(""), OpenTree::CLONE | OpenTree::EMPTY_PATH | more)
}

const F_EMPTY_PATH: u32 = 0x4;
const T_EMPTY_PATH: u32 = 0x40;

/// Attaches the mount `from` (detached, or moved away from where it was) on `to`, an `O_PATH` fd in this mount
/// namespace (move_mount(2) with both paths empty).
pub fn move_mount(from: &impl AsFd, to: &impl AsFd) -> Result<()> {
    let (source, target) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    let how = F_EMPTY_PATH | T_EMPTY_PATH;
    // SAFETY: both fds are borrowed for the call, both paths are the static empty string.
    let result = unsafe { libc::syscall(libc::SYS_move_mount, source, c"".as_ptr(), target, c"".as_ptr(), how) };
    Errno::result(result).map(drop).map_err(|errno| {
        let how = "MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH";
        Error::new("move_mount", errno, format_args!("{}, \"\", {}, \"\", {how}", fd(from), fd(to)))
    })
}

/// As [`move_mount`], on what `name` is in the directory `to`; a symbolic link is not followed.
pub fn move_mount_at(from: &impl AsFd, to: &impl AsFd, name: impl AsRef<OsStr>) -> Result<()> {
    move_mount_to(from, to, Path::new(at::component("move_mount", to, name.as_ref())?))
}

fn move_mount_to(from: &impl AsFd, to: &impl AsFd, path: &Path) -> Result<()> {
    let (source, target) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    let c_path = c_path("move_mount", path)?;
    // SAFETY: both fds are borrowed for the call, the empty path is static, and `c_path` lives for the length of it.
    let result =
        unsafe { libc::syscall(libc::SYS_move_mount, source, c"".as_ptr(), target, c_path.as_ptr(), F_EMPTY_PATH) };
    Errno::result(result).map(drop).map_err(|errno| {
        let (from, to, path) = (fd(from), fd(to), quoted(path));
        Error::new("move_mount", errno, format_args!("{from}, \"\", {to}, {path}, MOVE_MOUNT_F_EMPTY_PATH"))
    })
}

/// Attaches the mount `from` at the host path `to`, whose last component is not followed.
pub fn attach(from: &impl AsFd, to: impl AsRef<Path>) -> Result<()> {
    move_mount_to(from, &fcntl::AT_FDCWD, to.as_ref())
}

/// Binds what `source` refers to (a namespace, a file) at the existing host path `target`.
pub fn bind_file(source: &impl AsFd, target: impl AsRef<Path>) -> Result<()> {
    attach(&clone_fd(source, false)?, target)
}

/// mount(2), the old call, on a target that we hold by fd.
///
/// For what the new API can't say: overlay below Linux 6.8, whose strings end at 255 bytes and which has no `lowerdir+`.
/// Use it in a private mount namespace and take the result out with [`clone_tree`].
// The target is named by /proc/self/fd/N, which mount(2) follows to the very inode.
pub fn mount_on(source: &str, target: &impl AsFd, fstype: &str, how: MsFlags, data: &str) -> Result<()> {
    /// The kernel copies so much and drops the rest without a word (fs/namespace.c copy_mount_options).
    const PAGE: usize = 4096;
    let path = at::proc_path(target);
    let mounted = match data.len() {
        PAGE.. => Err(Errno::E2BIG),
        _ => nix::mount::mount(Some(source), path.as_c_str(), Some(fstype), how, Some(data)),
    };
    mounted.map_err(|errno| {
        let (source, fstype, data) = (quoted(source), quoted(fstype), quoted(data));
        Error::new("mount", errno, format_args!("{source}, {}, {fstype}, {}, {data}", fd(target), flags(how)))
    })
}

/// Takes the mount at the host path `path` out of the tree at once, in use or not (umount2(2) with
/// `MNT_DETACH|UMOUNT_NOFOLLOW`).
pub fn umount_detach(path: impl AsRef<Path>) -> Result<()> {
    umount(path.as_ref(), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
}

/// Unmounts the host path `path`; EBUSY while something uses it (umount2(2) with `UMOUNT_NOFOLLOW`).
pub fn umount_idle(path: impl AsRef<Path>) -> Result<()> {
    umount(path.as_ref(), MntFlags::UMOUNT_NOFOLLOW)
}

/// Unmounts what lies on `name` in `directory`, which is held by fd: for a mount point that somebody hostile may be
/// renaming. EBUSY while something uses it; an `O_PATH` fd to the mount itself would.
// umount2(2) takes no fd: the parent is named by /proc/self/fd/N, and the last component is not followed.
pub fn umount_idle_at(directory: &impl AsFd, name: impl AsRef<OsStr>) -> Result<()> {
    let name = at::component("umount2", directory, name.as_ref())?;
    let how = MntFlags::UMOUNT_NOFOLLOW;
    let parent = at::proc_path(directory);
    let path = Path::new(OsStr::from_bytes(parent.as_bytes())).join(name);
    nix::mount::umount2(&path, how).map_err(|errno| {
        Error::new("umount2", errno, format_args!("{}, {}, {}", fd(directory), quoted(name), flags(how)))
    })
}

fn umount(path: &Path, how: MntFlags) -> Result<()> {
    nix::mount::umount2(path, how)
        .map_err(|errno| Error::new("umount2", errno, format_args!("{}, {}", quoted(path), flags(how))))
}

/// Makes the mount `new_root` the root of this mount namespace and takes the old root away, so that nothing of it
/// can be reached (pivot_root(2), the section `pivot_root(".", ".")`). The working directory is `/` afterwards.
pub fn pivot_root_to(new_root: &impl AsFd) -> Result<()> {
    let how = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let old_root = retry(|| fcntl::open("/", how, Mode::empty()))
        .map_err(|errno| Error::new("open", errno, format_args!("\"/\", {}", flags(how))))?;
    change_directory(new_root)?;
    unistd::pivot_root(".", ".")
        .map_err(|errno| Error::new("pivot_root", errno, "\".\", \".\"").with_detail(format!("in {}", fd(new_root))))?;
    // The old root now lies on top of the new one. Private first: a shared one would pass the unmount on to the host.
    let private = Attr { propagation: Some(Propagation::Private), ..Attr::default() };
    mount_setattr(&old_root, true, &private)?;
    change_directory(&old_root)?;
    umount(Path::new("."), MntFlags::MNT_DETACH)?;
    // What was mounted over the old root went first, and the old root would stay, over the new one: whoever joins this
    // namespace would land in it. It is gone when there is nothing left to unmount here.
    loop {
        match umount(Path::new("."), MntFlags::MNT_DETACH) {
            Err(error) if error.is(Errno::EINVAL) => break,
            more => more?,
        }
    }
    unistd::chdir("/").map_err(|errno| Error::new("chdir", errno, "\"/\""))
}

/// Makes `new_root` the root directory and the working directory (chroot(2)) where the mount namespace is not ours to change.
pub fn change_root_to(new_root: &impl AsFd) -> Result<()> {
    change_directory(new_root)?;
    unistd::chroot(".")
        .map_err(|errno| Error::new("chroot", errno, "\".\"").with_detail(format!("in {}", fd(new_root))))?;
    unistd::chdir("/").map_err(|errno| Error::new("chdir", errno, "\"/\""))
}

fn change_directory(directory: &impl AsFd) -> Result<()> {
    unistd::fchdir(directory).map_err(|errno| Error::new("fchdir", errno, fd(directory)))
}

/// The type of the file system that `file` lies on, as statfs(2) gives it, to compare with the `*_SUPER_MAGIC` of
/// linux/magic.h.
pub fn filesystem_magic(file: &impl AsFd) -> Result<i64> {
    let stat = nix::sys::statfs::fstatfs(file).map_err(|errno| Error::new("fstatfs", errno, fd(file)))?;
    Ok(stat.filesystem_type().0)
}

/// Whether the *mount* through which `file` was opened is read-only, or its file system (statfs(2), `ST_RDONLY`).
pub fn is_read_only(file: &impl AsFd) -> Result<bool> {
    let stat = nix::sys::statvfs::fstatvfs(file).map_err(|errno| Error::new("fstatfs", errno, fd(file)))?;
    Ok(stat.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
}

/// A file system type or key as a C string; a NUL in it is EINVAL of `call`.
fn c_text(call: &'static str, text: &str) -> Result<std::ffi::CString> {
    c_path(call, Path::new(text))
}

/// A pointer to the text or NULL, as fsconfig(2) takes it.
fn pointer(text: Option<&CStr>) -> *const libc::c_char {
    text.map_or(std::ptr::null(), CStr::as_ptr)
}
