//! The `*at` calls on one name inside a directory that we hold by fd.
//!
//! Everything here takes a *single* path component (`..`, `.`, the empty name and anything with a slash are refused
//! with EINVAL before the kernel sees them) and never follows it when it is a symbolic link. So a caller that got its
//! directory from [`RootFd`](crate::rootfd::RootFd) can't leave the root through this module, whatever an image or a
//! container puts there meanwhile. Owners, modes, times and attributes can also be set on an fd itself, `O_PATH`
//! ones included.

#![allow(unsafe_code, reason = "fchmodat2, utimensat with AT_EMPTY_PATH and the xattr calls are not in nix")]

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fmt::Display;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{self, AtFlags};
pub use nix::fcntl::{OFlag, RenameFlags};
use nix::libc;
use nix::sys::stat::{self, Mode};
pub use nix::sys::stat::{FileStat, SFlag};
use nix::unistd::{self, Gid, LinkatFlags, Uid, UnlinkatFlags};

use crate::Errno;
use crate::error::{Error, Result, fd, flags, quoted, retry};

/// A point in time as the kernel stores it in an inode: seconds and nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// Opens `name` in `directory`, never following it (openat(2) with `O_NOFOLLOW|O_CLOEXEC`).
/// `mode` counts only with `O_CREAT` and is subject to the umask.
pub fn openat(directory: &impl AsFd, name: impl AsRef<OsStr>, how: OFlag, mode: u32) -> Result<OwnedFd> {
    let name = component("openat", directory, name.as_ref())?;
    let how = how | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    retry(|| fcntl::openat(directory, name, how, permissions(mode))).map_err(|errno| {
        let (directory, name) = (fd(directory), quoted(name));
        Error::new("openat", errno, format_args!("{directory}, {name}, {}, {mode:#o}", flags(how)))
    })
}

/// Makes a directory (mkdirat(2)); `mode` is subject to the umask.
pub fn mkdirat(directory: &impl AsFd, name: impl AsRef<OsStr>, mode: u32) -> Result<()> {
    let name = component("mkdirat", directory, name.as_ref())?;
    stat::mkdirat(directory, name, permissions(mode))
        .map_err(|errno| failed("mkdirat", errno, directory, name, format_args!("{mode:#o}")))
}

/// Makes a device, FIFO, socket or empty regular file (mknodat(2)). `device` counts for devices only; see [`device`].
pub fn mknodat(directory: &impl AsFd, name: impl AsRef<OsStr>, kind: SFlag, mode: u32, device: u64) -> Result<()> {
    let name = component("mknodat", directory, name.as_ref())?;
    stat::mknodat(directory, name, kind, permissions(mode), device).map_err(|errno| {
        let (major, minor) = (stat::major(device), stat::minor(device));
        let arguments = format_args!("{}|{mode:#o}, makedev({major}, {minor})", flags(kind));
        failed("mknodat", errno, directory, name, arguments)
    })
}

/// The device number `major:minor` (makedev(3)).
pub fn device(major: u64, minor: u64) -> u64 {
    stat::makedev(major, minor)
}

/// The parts of a device number (major(3), minor(3)).
pub fn device_parts(device: u64) -> (u64, u64) {
    (stat::major(device), stat::minor(device))
}

/// Makes a symbolic link that holds `target`, whatever that is (symlinkat(2)).
pub fn symlinkat(target: impl AsRef<OsStr>, directory: &impl AsFd, name: impl AsRef<OsStr>) -> Result<()> {
    let (target, name) = (target.as_ref(), component("symlinkat", directory, name.as_ref())?);
    unistd::symlinkat(target, directory, name).map_err(|errno| {
        let arguments = format_args!("{}, {}, {}", quoted(target), fd(directory), quoted(name));
        Error::new("symlinkat", errno, arguments)
    })
}

/// What the symbolic link `name` holds (readlinkat(2)).
pub fn readlinkat(directory: &impl AsFd, name: impl AsRef<OsStr>) -> Result<PathBuf> {
    let name = component("readlinkat", directory, name.as_ref())?;
    let target =
        fcntl::readlinkat(directory, name).map_err(|errno| failed("readlinkat", errno, directory, name, ""))?;
    Ok(target.into())
}

/// What the symbolic link that `link` (`O_PATH|O_NOFOLLOW`) refers to holds (readlinkat(2) with an empty path).
pub fn readlink_fd(link: &impl AsFd) -> Result<PathBuf> {
    let target = fcntl::readlinkat(link, "")
        .map_err(|errno| Error::new("readlinkat", errno, format_args!("{}, \"\"", fd(link))))?;
    Ok(target.into())
}

/// Gives the file `old` a second name; `old` itself is never followed (linkat(2)).
pub fn linkat(
    old_directory: &impl AsFd,
    old: impl AsRef<OsStr>,
    new_directory: &impl AsFd,
    new: impl AsRef<OsStr>,
) -> Result<()> {
    let old = component("linkat", old_directory, old.as_ref())?;
    let new = component("linkat", new_directory, new.as_ref())?;
    unistd::linkat(old_directory, old, new_directory, new, LinkatFlags::empty())
        .map_err(|errno| failed_pair("linkat", errno, (old_directory, old), (new_directory, new)))
}

/// Gives the file behind `file` (`O_PATH` or `O_TMPFILE`) a name (linkat(2) with `AT_EMPTY_PATH`).
pub fn link_fd(file: &impl AsFd, directory: &impl AsFd, name: impl AsRef<OsStr>) -> Result<()> {
    let name = component("linkat", directory, name.as_ref())?;
    unistd::linkat(file, "", directory, name, LinkatFlags::AT_EMPTY_PATH)
        .map_err(|errno| failed_pair("linkat", errno, (file, OsStr::new("")), (directory, name)))
}

/// Removes a name that is not a directory (unlinkat(2)).
pub fn unlinkat(directory: &impl AsFd, name: impl AsRef<OsStr>) -> Result<()> {
    let name = component("unlinkat", directory, name.as_ref())?;
    unistd::unlinkat(directory, name, UnlinkatFlags::NoRemoveDir)
        .map_err(|errno| failed("unlinkat", errno, directory, name, "0"))
}

/// Removes an empty directory (unlinkat(2) with `AT_REMOVEDIR`).
pub fn rmdirat(directory: &impl AsFd, name: impl AsRef<OsStr>) -> Result<()> {
    let name = component("unlinkat", directory, name.as_ref())?;
    unistd::unlinkat(directory, name, UnlinkatFlags::RemoveDir)
        .map_err(|errno| failed("unlinkat", errno, directory, name, "AT_REMOVEDIR"))
}

/// Moves a name, or with `RENAME_NOREPLACE`, `RENAME_EXCHANGE`, `RENAME_WHITEOUT` what these say (renameat2(2)).
pub fn renameat(
    old_directory: &impl AsFd,
    old: impl AsRef<OsStr>,
    new_directory: &impl AsFd,
    new: impl AsRef<OsStr>,
    how: RenameFlags,
) -> Result<()> {
    let old = component("renameat2", old_directory, old.as_ref())?;
    let new = component("renameat2", new_directory, new.as_ref())?;
    fcntl::renameat2(old_directory, old, new_directory, new, how).map_err(|errno| {
        failed_pair("renameat2", errno, (old_directory, old), (new_directory, new))
            .with_detail(format!("flags {}", flags(how)))
    })
}

/// The inode behind `name`, which is not followed (fstatat(2)).
pub fn fstatat(directory: &impl AsFd, name: impl AsRef<OsStr>) -> Result<FileStat> {
    let name = component("fstatat", directory, name.as_ref())?;
    stat::fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(|errno| failed("fstatat", errno, directory, name, "AT_SYMLINK_NOFOLLOW"))
}

/// The inode behind an fd, `O_PATH` included (fstat(2)).
pub fn fstat(file: &impl AsFd) -> Result<FileStat> {
    stat::fstat(file).map_err(|errno| Error::new("fstat", errno, fd(file)))
}

/// The type of an inode, to compare with `SFlag::S_IFDIR` and the others (inode(7)).
pub fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// True if two fds refer to the same inode.
pub fn same_file(a: &impl AsFd, b: &impl AsFd) -> Result<bool> {
    let (a, b) = (fstat(a)?, fstat(b)?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// Sets owner and group of `name`, which is not followed (fchownat(2)). Clears setuid and setgid: chmod afterwards.
pub fn fchownat(directory: &impl AsFd, name: impl AsRef<OsStr>, uid: u32, gid: u32) -> Result<()> {
    let name = component("fchownat", directory, name.as_ref())?;
    let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    unistd::fchownat(directory, name, owner, group, AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(|errno| failed("fchownat", errno, directory, name, format_args!("{uid}, {gid}, AT_SYMLINK_NOFOLLOW")))
}

/// Sets owner and group of what `file` refers to, `O_PATH` and symbolic links included (fchownat(2), `AT_EMPTY_PATH`).
pub fn fchown(file: &impl AsFd, uid: u32, gid: u32) -> Result<()> {
    let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    unistd::fchownat(file, "", owner, group, AtFlags::AT_EMPTY_PATH)
        .map_err(|errno| Error::new("fchownat", errno, format_args!("{}, \"\", {uid}, {gid}, AT_EMPTY_PATH", fd(file))))
}

/// Sets the permissions of `name`, which is not followed; a symbolic link is EOPNOTSUPP (fchmodat2(2), Linux 6.6;
/// before that through an `O_PATH` fd, see [`fchmod`]). The umask has no say.
pub fn fchmodat(directory: &impl AsFd, name: impl AsRef<OsStr>, mode: u32) -> Result<()> {
    let name = component("fchmodat2", directory, name.as_ref())?;
    match fchmodat2(directory, name, mode, libc::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOSYS) => fchmod(&openat(directory, name, OFlag::O_PATH, 0)?, mode),
        result => result.map_err(|errno| {
            failed("fchmodat2", errno, directory, name, format_args!("{mode:#o}, AT_SYMLINK_NOFOLLOW"))
        }),
    }
}

/// Sets the permissions of what `file` refers to, `O_PATH` included (fchmodat2(2) with `AT_EMPTY_PATH`; before
/// Linux 6.6 fchmod(2), and for `O_PATH` chmod(2) on `/proc/self/fd`, proc_pid_fd(5)).
///
/// A process that is in the mounts of a container takes [`ProcFd::chmod`](crate::procfs::ProcFd::chmod) for `O_PATH`.
pub fn fchmod(file: &impl AsFd, mode: u32) -> Result<()> {
    match fchmodat2_empty(file, mode) {
        Err(error) if error.is(Errno::ENOSYS) => match stat::fchmod(file, permissions(mode)) {
            Err(Errno::EBADF) => {
                let path = proc_path(file);
                stat::fchmodat(fcntl::AT_FDCWD, path.as_c_str(), permissions(mode), stat::FchmodatFlags::FollowSymlink)
                    .map_err(|errno| Error::new("chmod", errno, format_args!("{}, {mode:#o}", fd(file))))
            }
            result => result.map_err(|errno| Error::new("fchmod", errno, format_args!("{}, {mode:#o}", fd(file)))),
        },
        result => result,
    }
}

/// fchmodat2(2) with `AT_EMPTY_PATH`: ENOSYS before Linux 6.6.
pub(crate) fn fchmodat2_empty(file: &impl AsFd, mode: u32) -> Result<()> {
    fchmodat2(file, OsStr::new(""), mode, libc::AT_EMPTY_PATH)
        .map_err(|errno| Error::new("fchmodat2", errno, format_args!("{}, \"\", {mode:#o}, AT_EMPTY_PATH", fd(file))))
}

fn fchmodat2(directory: &impl AsFd, name: &OsStr, mode: u32, at: i32) -> nix::Result<()> {
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?;
    let directory = directory.as_fd().as_raw_fd();
    // SAFETY: the fd is borrowed for the call, `name` is NUL terminated; the kernel only reads it.
    Errno::result(unsafe { libc::syscall(libc::SYS_fchmodat2, directory, name.as_ptr(), mode, at) }).map(drop)
}

/// Sets access and modification time of `name`, which is not followed (utimensat(2)).
pub fn utimensat(
    directory: &impl AsFd,
    name: impl AsRef<OsStr>,
    accessed: Timestamp,
    modified: Timestamp,
) -> Result<()> {
    let name = component("utimensat", directory, name.as_ref())?;
    set_times(directory, name, accessed, modified, libc::AT_SYMLINK_NOFOLLOW)
}

/// Sets access and modification time of what `file` refers to, `O_PATH` included (utimensat(2), `AT_EMPTY_PATH`).
pub fn futimens(file: &impl AsFd, accessed: Timestamp, modified: Timestamp) -> Result<()> {
    set_times(file, OsStr::new(""), accessed, modified, libc::AT_EMPTY_PATH)
}

fn set_times(directory: &impl AsFd, name: &OsStr, accessed: Timestamp, modified: Timestamp, at: i32) -> Result<()> {
    let times =
        [accessed, modified].map(|t| libc::timespec { tv_sec: t.seconds, tv_nsec: libc::c_long::from(t.nanoseconds) });
    let path = crate::error::c_path("utimensat", Path::new(name))?;
    // SAFETY: the fd is borrowed for the call; `path` is NUL terminated and `times` holds the two values it must.
    let done = unsafe { libc::utimensat(directory.as_fd().as_raw_fd(), path.as_ptr(), times.as_ptr(), at) };
    Errno::result(done).map(drop).map_err(|errno| {
        let shown = format_args!("[{}.{:09}, ", accessed.seconds, accessed.nanoseconds).to_string();
        let arguments = format!("{shown}{}.{:09}], {at:#x}", modified.seconds, modified.nanoseconds);
        failed("utimensat", errno, directory, name, arguments)
    })
}

/// Sets an extended attribute of what `file` refers to, `O_PATH` and symbolic links included.
pub fn fsetxattr(file: &impl AsFd, name: impl AsRef<OsStr>, value: &[u8]) -> Result<()> {
    let name = name.as_ref();
    let attribute = crate::error::c_path("setxattr", Path::new(name))?;
    let (attribute, value_at) = (attribute.as_ptr(), value.as_ptr().cast());
    let by_fd = |number| {
        // SAFETY: a NUL-terminated string and a buffer of the length we name, both read only.
        Errno::result(unsafe { libc::fsetxattr(number, attribute, value_at, value.len(), 0) })
    };
    let by_path = |path: &CStr| {
        // SAFETY: as above, and one more NUL-terminated string.
        Errno::result(unsafe { libc::setxattr(path.as_ptr(), attribute, value_at, value.len(), 0) })
    };
    by_fd_or_path(file, by_fd, by_path).map(drop).map_err(|errno| {
        Error::new("setxattr", errno, format_args!("{}, {}, {} bytes", fd(file), quoted(name), value.len()))
    })
}

/// As [`fsetxattr`] for a name in a directory, which is not followed (lsetxattr(2)).
pub fn lsetxattr(
    directory: &impl AsFd,
    name: impl AsRef<OsStr>,
    attribute: impl AsRef<OsStr>,
    value: &[u8],
) -> Result<()> {
    fsetxattr(&openat(directory, name, OFlag::O_PATH, 0)?, attribute, value)
}

/// The value of an extended attribute of what `file` refers to (`O_PATH` too), `None` if it has none of that name
/// (getxattr(2)). At most 64 KiB, the kernel's own limit.
pub fn fgetxattr(file: &impl AsFd, name: impl AsRef<OsStr>) -> Result<Option<Vec<u8>>> {
    let name = name.as_ref();
    let attribute = crate::error::c_path("getxattr", Path::new(name))?;
    let mut value = vec![0_u8; XATTR_MAX];
    let (attribute, value_at, room) = (attribute.as_ptr(), value.as_mut_ptr().cast(), value.len());
    let by_fd = |number| {
        // SAFETY: a NUL-terminated string; the kernel writes at most the length of `value` into it.
        Errno::result(unsafe { libc::fgetxattr(number, attribute, value_at, room) })
    };
    let by_path = |path: &CStr| {
        // SAFETY: as above, and one more NUL-terminated string.
        Errno::result(unsafe { libc::getxattr(path.as_ptr(), attribute, value_at, room) })
    };
    match by_fd_or_path(file, by_fd, by_path) {
        Ok(length) => {
            value.truncate(usize::try_from(length).unwrap_or(0));
            Ok(Some(value))
        }
        Err(Errno::ENODATA) => Ok(None),
        Err(errno) => Err(Error::new("getxattr", errno, format_args!("{}, {}", fd(file), quoted(name)))),
    }
}

/// The names of the extended attributes of what `file` refers to, `O_PATH` included (listxattr(2)).
pub fn flistxattr(file: &impl AsFd) -> Result<Vec<OsString>> {
    let mut names = vec![0_u8; XATTR_MAX];
    let (names_at, room) = (names.as_mut_ptr().cast(), names.len());
    // SAFETY: the kernel writes at most the length of `names` into it.
    let by_fd = |number| Errno::result(unsafe { libc::flistxattr(number, names_at, room) });
    // SAFETY: as above, and a NUL-terminated string.
    let by_path = |path: &CStr| Errno::result(unsafe { libc::listxattr(path.as_ptr(), names_at, room) });
    let length = by_fd_or_path(file, by_fd, by_path).map_err(|errno| Error::new("listxattr", errno, fd(file)))?;
    let names = names.get(..usize::try_from(length).unwrap_or(0)).unwrap_or_default();
    let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| OsString::from_vec(name.to_vec())).collect())
}

/// The f*xattr calls refuse `O_PATH` (EBADF), and setxattrat(2) and the others came with Linux 6.13 only; such an fd is named by
/// `/proc/self/fd/N`.
fn by_fd_or_path<T>(
    file: &impl AsFd,
    by_fd: impl FnOnce(i32) -> nix::Result<T>,
    by_path: impl FnOnce(&CStr) -> nix::Result<T>,
) -> nix::Result<T> {
    match by_fd(file.as_fd().as_raw_fd()) {
        Err(Errno::EBADF) => by_path(&proc_path(file)),
        done => done,
    }
}

/// `XATTR_SIZE_MAX` and `XATTR_LIST_MAX` of linux/limits.h.
const XATTR_MAX: usize = 64 * 1024;

/// The directory that an `O_PATH` fd refers to, now for reading; without the help of `/proc`.
pub fn reopen_directory(directory: &impl AsFd) -> Result<OwnedFd> {
    let how = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    retry(|| fcntl::openat(directory, ".", how, Mode::empty()))
        .map_err(|errno| Error::new("openat", errno, format_args!("{}, \".\", {}", fd(directory), flags(how))))
}

/// Opens what an `O_PATH` fd refers to, now for reading or writing (open(2) on `/proc/self/fd/N`).
///
/// The new fd is checked to be the same inode, so that a `/proc` that is not procfs can't give us another file; but that one
/// was opened then. A process that is in the mounts of a container takes [`ProcFd::reopen`](crate::procfs::ProcFd::reopen).
pub fn reopen(file: &impl AsFd, how: OFlag) -> Result<OwnedFd> {
    let how = (how | OFlag::O_CLOEXEC) - OFlag::O_NOFOLLOW;
    let opened = retry(|| fcntl::open(proc_path(file).as_c_str(), how, Mode::empty()))
        .map_err(|errno| Error::new("open", errno, format_args!("{}, {}", fd(file), flags(how))))?;
    if !same_file(file, &opened)? {
        let arguments = format!("{}, {}", fd(file), flags(how));
        return Err(Error::new("open", Errno::ESTALE, arguments).with_detail("/proc/self/fd led elsewhere"));
    }
    Ok(opened)
}

/// The magic link that leads to what `file` refers to (proc_pid_fd(5)): a name for calls that take no fd, as long as it is open. Only
/// where the caller's `/proc` is to be trusted.
pub fn proc_path(file: &impl AsFd) -> CString {
    let digits = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    CString::new(digits).unwrap_or_default() // no NUL in it
}

/// `name` if it is one real component, EINVAL of `call` otherwise.
pub(crate) fn component<'a>(call: &'static str, directory: &impl AsFd, name: &'a OsStr) -> Result<&'a OsStr> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') || bytes.contains(&0) {
        let arguments = format!("{}, {}", fd(directory), quoted(name));
        return Err(Error::new(call, Errno::EINVAL, arguments).with_detail("not the name of one file"));
    }
    Ok(name)
}

fn permissions(mode: u32) -> Mode {
    Mode::from_bits_truncate(mode)
}

fn failed(call: &'static str, errno: Errno, directory: &impl AsFd, name: &OsStr, rest: impl Display) -> Error {
    let rest = rest.to_string();
    let comma = if rest.is_empty() { "" } else { ", " };
    Error::new(call, errno, format_args!("{}, {}{comma}{rest}", fd(directory), quoted(name)))
}

fn failed_pair(
    call: &'static str,
    errno: Errno,
    (old_directory, old): (&impl AsFd, &OsStr),
    (new_directory, new): (&impl AsFd, &OsStr),
) -> Error {
    let (from, to) = (fd(old_directory), fd(new_directory));
    Error::new(call, errno, format_args!("{from}, {}, {to}, {}", quoted(old), quoted(new)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn directory() -> (tempfile::TempDir, File) {
        let directory = tempfile::tempdir().unwrap();
        let handle = File::open(directory.path()).unwrap();
        (directory, handle)
    }

    #[test]
    fn a_name_that_is_not_one_component_is_refused() {
        let (_keep, directory) = directory();
        for name in ["", ".", "..", "/", "a/b", "../x", "a/", "\0"] {
            let error = mkdirat(&directory, name, 0o755).unwrap_err();
            assert!(error.is(Errno::EINVAL), "{name:?}: {error}");
        }
    }

    #[test]
    fn opening_a_symbolic_link_does_not_follow_it() {
        let (_keep, directory) = directory();
        symlinkat("/etc/passwd", &directory, "link").unwrap();
        assert!(openat(&directory, "link", OFlag::O_RDONLY, 0).unwrap_err().is(Errno::ELOOP));
        assert_eq!(readlinkat(&directory, "link").unwrap(), Path::new("/etc/passwd"));
        let link = openat(&directory, "link", OFlag::O_PATH, 0).unwrap();
        assert_eq!(readlink_fd(&link).unwrap(), Path::new("/etc/passwd"));
    }

    #[test]
    fn permissions_and_times_are_set_on_a_path_only_fd() {
        let (_keep, directory) = directory();
        openat(&directory, "file", OFlag::O_CREAT | OFlag::O_WRONLY, 0o600).unwrap();
        let file = openat(&directory, "file", OFlag::O_PATH, 0).unwrap();
        fchmod(&file, 0o4711).unwrap();
        let then = Timestamp { seconds: 1_000_000_000, nanoseconds: 7 };
        futimens(&file, then, then).unwrap();
        let stat = fstat(&file).unwrap();
        assert_eq!(stat.st_mode & 0o7777, 0o4711);
        assert_eq!((stat.st_mtime, stat.st_mtime_nsec), (1_000_000_000, 7));
        fchmodat(&directory, "file", 0o640).unwrap();
        assert_eq!(fstatat(&directory, "file").unwrap().st_mode & 0o7777, 0o640);
    }

    #[test]
    fn the_time_of_a_link_is_its_own() {
        let (_keep, directory) = directory();
        openat(&directory, "file", OFlag::O_CREAT | OFlag::O_WRONLY, 0o600).unwrap();
        symlinkat("file", &directory, "link").unwrap();
        let then = Timestamp { seconds: 5, nanoseconds: 0 };
        utimensat(&directory, "link", then, then).unwrap();
        assert_eq!(fstatat(&directory, "link").unwrap().st_mtime, 5);
        assert_ne!(fstatat(&directory, "file").unwrap().st_mtime, 5);
    }

    #[test]
    fn a_path_only_fd_can_be_reopened_for_reading() {
        let (_keep, directory) = directory();
        openat(&directory, "file", OFlag::O_CREAT | OFlag::O_WRONLY, 0o600).unwrap();
        let path_only = openat(&directory, "file", OFlag::O_PATH, 0).unwrap();
        let file = reopen(&path_only, OFlag::O_RDONLY).unwrap();
        assert!(same_file(&path_only, &file).unwrap());
    }

    #[test]
    fn user_attributes_are_written_listed_and_read_through_a_path_only_fd() {
        let (_keep, directory) = directory();
        openat(&directory, "file", OFlag::O_CREAT | OFlag::O_WRONLY, 0o600).unwrap();
        let file = openat(&directory, "file", OFlag::O_PATH, 0).unwrap();
        fsetxattr(&file, "user.orlop", b"1\x002").unwrap();
        assert_eq!(fgetxattr(&file, "user.orlop").unwrap().unwrap(), b"1\x002");
        assert_eq!(fgetxattr(&file, "user.none").unwrap(), None);
        assert!(flistxattr(&file).unwrap().contains(&OsString::from("user.orlop")));
    }

    #[test]
    fn a_failure_names_directory_and_name() {
        let (keep, directory) = directory();
        let error = unlinkat(&directory, "absent").unwrap_err().to_string();
        let path = keep.path().display();
        assert!(error.contains(&format!("\"{path}\", \"absent\", 0): No such file")), "{error}");
    }
}
