//! [`RootFd`]: the only type that resolves a path that an image or a container can influence.
//!
//! It holds a directory and resolves every path with openat2(2) `RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS`: `/`, `..` and
//! absolute symbolic links mean this directory, links of `/proc` are refused, and what comes back is an fd, so nothing
//! that happens to the path later matters. What creates or removes resolves the parent this way and then uses
//! [`at`] on a single name, which is never followed.
//!
//! The kernel can't prove that `..` stayed inside while anything on the host mounts or renames, and then says EAGAIN
//! (openat2(2), fs/namei.c `handle_dots`); that is tried again, [`ATTEMPTS`] times.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{self, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{Mode, SFlag};

use crate::error::{Error, Result, fd, flags, quoted, retry};
use crate::{Errno, at};

/// How often openat2 is asked before EAGAIN is an error. One thread that mounts and renames without pause costs single retries
/// (`tests/root/rootfd.rs`); a node can have dozens of them, and an attempt costs microseconds, so the bound is generous: it
/// ends a livelock after milliseconds.
pub const ATTEMPTS: u32 = 1024;

/// How many symbolic links we follow ourselves where the kernel can't, because the target is yet to be made. The
/// kernel's own `MAXSYMLINKS`.
const MAX_LINKS: u32 = 40;

/// A directory that is `/` for every path resolved through it. See the module.
#[derive(Debug)]
pub struct RootFd(OwnedFd);

impl AsFd for RootFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl RootFd {
    /// Opens the directory `path` of the host, which must be trusted: it is followed as usual.
    pub fn open(path: impl AsRef<Path>) -> Result<RootFd> {
        let path = path.as_ref();
        let how = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = retry(|| fcntl::open(path, how, Mode::empty()))
            .map_err(|errno| Error::new("open", errno, format_args!("{}, {}", quoted(path), flags(how))))?;
        Ok(RootFd(directory))
    }

    /// Uses a directory that is open already: a detached mount, the handle of a volume.
    pub fn from_fd(directory: OwnedFd) -> RootFd {
        RootFd(directory)
    }

    /// A second handle to the same root.
    pub fn try_clone(&self) -> Result<RootFd> {
        let copy = self.0.try_clone().map_err(|error| Error::from_io("fcntl", &error, fd(self)))?;
        Ok(RootFd(copy))
    }

    /// Opens `path` inside the root with any flags but `O_CREAT`. Opening a FIFO or a device has effects: prefer
    /// [`open_path`](Self::open_path) and look at the type first.
    pub fn open_with(&self, path: &Path, how: OFlag) -> Result<OwnedFd> {
        self.resolve(path, how - OFlag::O_CREAT, ResolveFlag::empty())
    }

    /// An `O_PATH` handle to `path`, symbolic links followed.
    pub fn open_path(&self, path: &Path) -> Result<OwnedFd> {
        self.resolve(path, OFlag::O_PATH, ResolveFlag::empty())
    }

    /// As [`open_path`](Self::open_path); `None` if there is no such path, without the cost of an error that names it.
    pub fn find(&self, path: &Path) -> Result<Option<OwnedFd>> {
        self.find_with(path, OFlag::O_PATH)
    }

    fn find_with(&self, path: &Path, how: OFlag) -> Result<Option<OwnedFd>> {
        match try_openat2(self, path, how, IN_ROOT) {
            Ok(opened) => Ok(Some(opened)),
            Err((Errno::ENOENT, _)) => Ok(None),
            Err((errno, attempts)) => Err(openat2_error(self, path, how, IN_ROOT, errno, attempts)),
        }
    }

    /// An `O_PATH` handle to `path`; if its last component is a symbolic link, to the link.
    pub fn open_path_nofollow(&self, path: &Path) -> Result<OwnedFd> {
        self.resolve(path, OFlag::O_PATH | OFlag::O_NOFOLLOW, ResolveFlag::empty())
    }

    /// An `O_PATH` handle to `path`, which may hold no symbolic link at all (`RESOLVE_NO_SYMLINKS`, ELOOP): for
    /// `/proc`, `/sys` and `/dev`, where a link in an image is an attack and not a convenience.
    pub fn open_path_no_symlinks(&self, path: &Path) -> Result<OwnedFd> {
        self.resolve(path, OFlag::O_PATH, ResolveFlag::RESOLVE_NO_SYMLINKS)
    }

    /// The directory `path`, readable.
    pub fn open_dir(&self, path: &Path) -> Result<OwnedFd> {
        self.resolve(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, ResolveFlag::empty())
    }

    /// The *regular* file `path` for reading; anything else is EINVAL and is not opened, so no FIFO blocks us and no
    /// device notices. Opens by `/proc`, as [`at::reopen`]: not for a process in a container's mounts.
    pub fn open_read(&self, path: &Path) -> Result<File> {
        Ok(File::from(at::reopen(&self.open_path_regular(path)?, OFlag::O_RDONLY | OFlag::O_NOCTTY)?))
    }

    /// An `O_PATH` handle to the *regular* file `path`, to be reopened; anything else is EINVAL.
    pub fn open_path_regular(&self, path: &Path) -> Result<OwnedFd> {
        let handle = self.open_path(path)?;
        let kind = at::file_type(&at::fstat(&handle)?);
        if kind != SFlag::S_IFREG {
            let arguments = format!("{}, {}, {{O_RDONLY}}", fd(self), quoted(path));
            let detail = format!("not a regular file but {}", flags(kind));
            return Err(Error::new("openat2", Errno::EINVAL, arguments).with_detail(detail));
        }
        Ok(handle)
    }

    /// The content of the regular file `path`; EFBIG if it is longer than `max` bytes.
    pub fn read_bounded(&self, path: &Path, max: u64) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        let file = self.open_read(path)?;
        let read = (&file).take(max.saturating_add(1)).read_to_end(&mut content);
        read.map_err(|error| Error::from_io("read", &error, fd(&file)))?;
        if content.len() as u64 > max {
            let detail = format!("longer than {max} bytes");
            return Err(Error::new("read", Errno::EFBIG, fd(&file)).with_detail(detail));
        }
        Ok(content)
    }

    /// Type, owner, size and times of `path`, symbolic links followed.
    pub fn metadata(&self, path: &Path) -> Result<Metadata> {
        metadata(self.open_path(path)?)
    }

    /// As [`metadata`](Self::metadata), of the link itself if the last component is one.
    pub fn symlink_metadata(&self, path: &Path) -> Result<Metadata> {
        metadata(self.open_path_nofollow(path)?)
    }

    /// The parent directory of `path`, resolved in the root, and the last component, which is not looked at.
    /// A path without one (`/`, `..`) is EINVAL.
    pub fn open_parent(&self, path: &Path) -> Result<(OwnedFd, OsString)> {
        let Some(name) = path.file_name() else {
            let arguments = format!("{}, {}", fd(self), quoted(path));
            return Err(Error::new("openat2", Errno::EINVAL, arguments).with_detail("the path names no file"));
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let parent = self.resolve(parent, OFlag::O_PATH | OFlag::O_DIRECTORY, ResolveFlag::empty())?;
        Ok((parent, name.to_owned()))
    }

    /// Makes the directory `path` and all that is missing above it, and returns an `O_PATH` handle to it.
    ///
    /// A dangling symbolic link is followed as if its target were a path of its own in the root (`/var/run -> /run`
    /// of an image without `/run`). `..` below something that does not exist is ENOENT, a file in the way ENOTDIR.
    /// `mode` is subject to the umask and counts only for what is made.
    pub fn mkdir_all(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            match self.mkdir_until_link(&path, mode)? {
                Made::Directory(directory) => return Ok(directory),
                Made::DanglingLink(continued) => path = continued,
            }
        }
        Err(self.too_many_links("mkdirat", &path))
    }

    /// Makes what is missing of `path`, up to the first component that turns out to be a symbolic link.
    fn mkdir_until_link(&self, path: &Path, mode: u32) -> Result<Made> {
        let (mut directory, mut done, missing) = self.longest_existing(path)?;
        let mut missing = missing.components();
        while let Some(component) = missing.next() {
            let Component::Normal(name) = component else {
                let arguments = format!("{}, {}", fd(&directory), quoted(component.as_os_str()));
                let detail = format!("{} goes up from a directory that does not exist", quoted(path));
                return Err(Error::new("mkdirat", Errno::ENOENT, arguments).with_detail(detail));
            };
            match at::mkdirat(&directory, name, mode) {
                Err(error) if !error.is(Errno::EEXIST) => return Err(error),
                _ => {} // made by us, by another one at the same time, or in the way
            }
            match at::openat(&directory, name, OFlag::O_PATH | OFlag::O_DIRECTORY, 0) {
                Err(error) if error.is(Errno::ENOTDIR) => {}
                next => {
                    directory = next?;
                    done.push(name);
                    continue;
                }
            }
            let there = at::openat(&directory, name, OFlag::O_PATH, 0)?;
            if at::file_type(&at::fstat(&there)?) == SFlag::S_IFLNK {
                let target = at::readlink_fd(&there)?;
                return Ok(Made::DanglingLink(done.join(target).join(missing.as_path())));
            }
            let arguments = format!("{}, {}, {mode:#o}", fd(&directory), quoted(name));
            return Err(Error::new("mkdirat", Errno::ENOTDIR, arguments));
        }
        Ok(Made::Directory(directory))
    }

    /// The deepest directory on the way to `path` that exists, its path, and the rest of `path`.
    fn longest_existing(&self, path: &Path) -> Result<(OwnedFd, PathBuf, PathBuf)> {
        let mut existing = path;
        loop {
            let how = OFlag::O_PATH | OFlag::O_DIRECTORY;
            match (self.find_with(existing, how)?, existing.parent()) {
                (Some(directory), _) => {
                    let missing = path.strip_prefix(existing).unwrap_or(Path::new(""));
                    return Ok((directory, existing.to_owned(), missing.to_owned()));
                }
                (None, Some(parent)) => existing = parent,
                // The root itself was removed.
                (None, None) => return Err(openat2_error(self, existing, how, IN_ROOT, Errno::ENOENT, 1)),
            }
        }
    }

    /// An `O_PATH` handle to `path`, which must stay beneath the root by itself (`RESOLVE_BENEATH`): a symbolic link that is
    /// absolute or leads out is EXDEV, where [`open_path`](Self::open_path) would read it as if the root were `/`.
    pub fn open_path_beneath(&self, path: &Path) -> Result<OwnedFd> {
        openat2(self, path, OFlag::O_PATH, ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS)
    }

    /// As [`open_path_beneath`](Self::open_path_beneath); directories that are missing are made, each with exactly the
    /// permissions `mode`. A dangling link is ENOTDIR: nothing is made through it.
    pub fn make_path_beneath(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        let mut existing = path;
        let mut directory = loop {
            match (self.open_path_beneath(existing), existing.parent()) {
                (Err(error), Some(parent)) if error.is(Errno::ENOENT) => existing = parent,
                (result, _) => break result?,
            }
        };
        for component in path.strip_prefix(existing).unwrap_or(Path::new("")).components() {
            let name = component.as_os_str(); // `..` is not the name of one file: EINVAL
            let ours = match at::mkdirat(&directory, name, 0o700) {
                Ok(()) => true,
                Err(error) if error.is(Errno::EEXIST) => false, // by another one just now, or in the way: opening tells
                Err(error) => return Err(error),
            };
            directory = at::openat(&directory, name, OFlag::O_PATH | OFlag::O_DIRECTORY, 0)?;
            if ours {
                at::fchmod(&directory, mode)?;
            }
        }
        Ok(directory)
    }

    /// Makes a new regular file and opens it for reading and writing (`O_CREAT|O_EXCL|O_NOFOLLOW`).
    /// `mode` is subject to the umask. The parent must exist.
    pub fn create_file(&self, path: &Path, mode: u32) -> Result<File> {
        let (parent, name) = self.open_parent(path)?;
        let how = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        Ok(File::from(at::openat(&parent, name, how, mode)?))
    }

    /// A handle to `path`, to be mounted on; if nothing is there, an empty regular file is made, with the directories above it
    /// (`mode` for the file, `0o755` for them). It is `O_PATH`, but for a file that was made. Dangling links as in
    /// [`mkdir_all`](Self::mkdir_all). What exists may be of any type.
    pub fn ensure_file(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            match self.open_path(&path) {
                Err(error) if error.is(Errno::ENOENT) => {}
                result => return result,
            }
            let Some(name) = path.file_name() else {
                return self.mkdir_all(&path, 0o755); // a way back up: the error says so
            };
            let parent_path = path.parent().unwrap_or(Path::new(""));
            let parent = self.mkdir_all(parent_path, 0o755)?;
            match at::openat(&parent, name, OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDONLY, mode) {
                Err(error) if error.is(Errno::EEXIST) => {}
                made => return made,
            }
            // Something is there now. A link that leads nowhere: continue at its target. Anything else: open it.
            match at::readlinkat(&parent, name) {
                Ok(target) => path = parent_path.join(target),
                Err(error) if error.is(Errno::EINVAL) || error.is(Errno::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Err(self.too_many_links("openat2", &path))
    }

    /// Makes the symbolic link `path` that holds `target`, which is not interpreted.
    pub fn symlink(&self, target: impl AsRef<OsStr>, path: &Path) -> Result<()> {
        let (parent, name) = self.open_parent(path)?;
        at::symlinkat(target, &parent, name)
    }

    /// What the symbolic link `path` holds.
    pub fn readlink(&self, path: &Path) -> Result<PathBuf> {
        let (parent, name) = self.open_parent(path)?;
        at::readlinkat(&parent, name)
    }

    /// Makes a device, FIFO or socket node; `device` from [`at::device`]. `mode` is subject to the umask.
    pub fn mknod(&self, path: &Path, kind: SFlag, mode: u32, device: u64) -> Result<()> {
        let (parent, name) = self.open_parent(path)?;
        at::mknodat(&parent, name, kind, mode, device)
    }

    /// Gives the file `existing` the second name `path`; a symbolic link as last component is linked itself.
    pub fn hard_link(&self, existing: &Path, path: &Path) -> Result<()> {
        let (old_parent, old) = self.open_parent(existing)?;
        let (new_parent, new) = self.open_parent(path)?;
        at::linkat(&old_parent, old, &new_parent, new)
    }

    /// Removes the name `path`, which is not a directory and is not followed.
    pub fn remove_file(&self, path: &Path) -> Result<()> {
        let (parent, name) = self.open_parent(path)?;
        at::unlinkat(&parent, name)
    }

    /// Removes the empty directory `path`.
    pub fn remove_dir(&self, path: &Path) -> Result<()> {
        let (parent, name) = self.open_parent(path)?;
        at::rmdirat(&parent, name)
    }

    /// Removes `path` and everything below it, see [`crate::remove::remove_all`]. No such path: success.
    pub fn remove_all(&self, path: &Path) -> Result<()> {
        match self.open_parent(path) {
            Ok((parent, name)) => crate::remove::remove_all(&parent, name),
            Err(error) if error.is(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The one resolution: openat2(2) in the root, bounded retries.
    fn resolve(&self, path: &Path, how: OFlag, more: ResolveFlag) -> Result<OwnedFd> {
        openat2(self, path, how, IN_ROOT | more)
    }

    fn too_many_links(&self, call: &'static str, path: &Path) -> Error {
        Error::new(call, Errno::ELOOP, format_args!("{}, {}", fd(self), quoted(path)))
            .with_detail(format!("more than {MAX_LINKS} dangling links"))
    }
}

/// How far one walk of [`RootFd::mkdir_all`] came.
enum Made {
    Directory(OwnedFd),
    /// A symbolic link that leads nowhere: the path to go on with, still inside the root.
    DanglingLink(PathBuf),
}

/// How every path is resolved.
const IN_ROOT: ResolveFlag = ResolveFlag::RESOLVE_IN_ROOT.union(ResolveFlag::RESOLVE_NO_MAGICLINKS);

/// openat2(2) with `O_CLOEXEC`, EINTR and a bounded number of EAGAIN tried again. `how` must not create.
pub(crate) fn openat2(directory: &impl AsFd, path: &Path, how: OFlag, resolve: ResolveFlag) -> Result<OwnedFd> {
    try_openat2(directory, path, how, resolve)
        .map_err(|(errno, attempts)| openat2_error(directory, path, how, resolve, errno, attempts))
}

/// As [`openat2`]; the error is the kernel's number and how often it was asked.
fn try_openat2(
    directory: &impl AsFd,
    path: &Path,
    how: OFlag,
    resolve: ResolveFlag,
) -> std::result::Result<OwnedFd, (Errno, u32)> {
    let request = OpenHow::new().flags(how | OFlag::O_CLOEXEC).resolve(resolve);
    let mut attempts = 1;
    loop {
        match retry(|| fcntl::openat2(directory, or_dot(path), request)) {
            Ok(opened) => return Ok(opened),
            // O_NONBLOCK opens may say EAGAIN for their own reasons (fcntl leases); the bound covers that too.
            Err(Errno::EAGAIN) if attempts < ATTEMPTS => attempts += 1,
            Err(errno) => return Err((errno, attempts)),
        }
    }
}

fn openat2_error(
    directory: &impl AsFd,
    path: &Path,
    how: OFlag,
    resolve: ResolveFlag,
    errno: Errno,
    attempts: u32,
) -> Error {
    let set = format!("{}, {}", flags(how | OFlag::O_CLOEXEC), flags(resolve));
    let error = Error::new("openat2", errno, format_args!("{}, {}, {{{set}}}", fd(directory), quoted(or_dot(path))));
    if attempts == 1 { error } else { error.with_detail(format!("{attempts} attempts")) }
}

/// An empty path means the directory itself, which openat2 calls "." (it has no `AT_EMPTY_PATH`).
fn or_dot(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

fn metadata(handle: OwnedFd) -> Result<Metadata> {
    let file = File::from(handle); // statx(2) with AT_EMPTY_PATH works on O_PATH
    file.metadata().map_err(|error| Error::from_io("statx", &error, fd(&file)))
}

/// True if `path` has no component but plain names: nothing to resolve upwards, nothing absolute.
pub fn is_plain_relative(path: &Path) -> bool {
    !path.as_os_str().as_bytes().contains(&0)
        && path.components().next().is_some()
        && path.components().all(|component| matches!(component, Component::Normal(_)))
}

#[cfg(test)]
mod tests;
