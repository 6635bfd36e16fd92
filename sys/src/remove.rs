//! Removal of a tree that somebody hostile may have built, and may be changing while we remove it.
//!
//! No path is resolved: each step is one name under a directory fd. Symbolic links are removed and never followed, and
//! a mount inside the tree is an error (`RESOLVE_NO_XDEV`, EXDEV), so nothing outside can be hit. One directory is open at
//! a time whatever the depth: we descend by name and come back by `..`, and check that it is the directory
//! we came from.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::dir::Dir;
use nix::fcntl::{OFlag, ResolveFlag};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Error, Result, fd, quoted};
use crate::rootfd::openat2;
use crate::{Errno, at};

/// Device and inode number of a directory.
type Identity = (u64, u64);

/// Removes `name` in `parent` and everything below it. A name that is not there is success.
pub fn remove_all(parent: &impl AsFd, name: impl AsRef<OsStr>) -> Result<()> {
    let name = at::component("unlinkat", parent, name.as_ref())?;
    if remove_leaf(parent, name)? {
        return Ok(());
    }
    let Some(directory) = descend(parent, name)? else { return Ok(()) };
    empty(directory)?;
    absent_is_fine(at::rmdirat(parent, name))
}

/// Removes everything below `directory`, which stays.
pub fn remove_content(directory: &impl AsFd) -> Result<()> {
    empty(open(directory, OsStr::new("."))?)
}

/// Empties `directory` without recursion: a tree can be deeper than any stack or fd table.
fn empty(mut directory: OwnedFd) -> Result<()> {
    let mut above: Vec<(Identity, OsString)> = Vec::new();
    loop {
        if let Some((name, child)) = remove_leaves(&directory)? {
            above.push((identity(&directory)?, name));
            directory = child;
            continue;
        }
        let Some((expected, name)) = above.pop() else { return Ok(()) };
        let parent = openat2(&directory, "..".as_ref(), OFlag::O_RDONLY | OFlag::O_DIRECTORY, ResolveFlag::empty())?;
        if identity(&parent)? != expected {
            let arguments = format!("{}, \"..\"", fd(&directory));
            return Err(Error::new("openat2", Errno::ESTALE, arguments).with_detail("moved while it was removed"));
        }
        absent_is_fine(at::rmdirat(&parent, &name))?;
        directory = parent;
    }
}

/// Removes what can go at once, and returns the first directory that is not empty.
fn remove_leaves(directory: &OwnedFd) -> Result<Option<(OsString, OwnedFd)>> {
    let copy = open(directory, OsStr::new("."))?; // a listing of its own, from the start
    let listing = Dir::from_fd(copy).map_err(|errno| Error::new("fdopendir", errno, fd(directory)))?;
    for entry in listing {
        let entry = entry.map_err(|errno| Error::new("getdents64", errno, fd(directory)))?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." || remove_leaf(directory, name)? {
            continue;
        }
        if let Some(child) = descend(directory, name)? {
            return Ok(Some((name.to_owned(), child)));
        }
    }
    Ok(None)
}

/// Removes a file or an empty directory; false if it is a directory with content (or a mount point).
// Straight to nix: these failures are the normal course, and an `Error` would look up the directory's path each time.
fn remove_leaf(directory: &impl AsFd, name: &OsStr) -> Result<bool> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(true),
        Err(Errno::EISDIR) => {}
        Err(_) => return absent_is_fine(at::unlinkat(directory, name)).map(|()| true),
    }
    match unlinkat(directory, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        // ENOTDIR: swapped for a file meanwhile; the caller's descend says the same and reports it.
        Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::EBUSY | Errno::ENOTDIR) => Ok(false),
        Err(_) => absent_is_fine(at::rmdirat(directory, name)).map(|()| true),
    }
}

/// Opens a child directory on the same mount, `None` if it has gone.
fn descend(directory: &impl AsFd, name: &OsStr) -> Result<Option<OwnedFd>> {
    match open(directory, name) {
        Ok(child) => Ok(Some(child)),
        Err(error) if error.is(Errno::ENOENT) => Ok(None),
        Err(error) if error.is(Errno::EXDEV) => {
            let detail = format!("{} is a mount point", quoted(name));
            Err(error.with_detail(detail))
        }
        Err(error) => Err(error),
    }
}

fn open(directory: &impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    let how = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    openat2(directory, name.as_ref(), how, resolve)
}

fn identity(directory: &impl AsFd) -> Result<Identity> {
    let stat = at::fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn absent_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is(Errno::ENOENT) => Ok(()),
        result => result,
    }
}
