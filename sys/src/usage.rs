//! How much space a tree takes that somebody hostile may have built, and may be changing while we count.
//!
//! As in [`remove`](crate::remove) no path is resolved: each step is one name under a directory fd, links are not
//! followed, mounts are not entered, and one directory is open at a time whatever the depth.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::dir::Dir;
use nix::fcntl::{OFlag, ResolveFlag};

use crate::error::{Error, Result, fd};
use crate::rootfd::openat2;
use crate::{Errno, at};

/// What a tree takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes allocated for it (`st_blocks`), each file once however many names it has.
    pub bytes: u64,
    /// Files, directories and everything else.
    pub inodes: u64,
    /// False if counting ended at the bound: then there is at least so much.
    pub complete: bool,
}

/// Counts `directory` and all below it on the same mount, at most `max` entries. What disappears meanwhile is not counted.
pub fn of_tree(directory: &impl AsFd, max: u64) -> Result<Usage> {
    let mut count = Count { usage: Usage { complete: true, ..Usage::default() }, left: max, linked: HashSet::new() };
    let mut directory = open(directory, OsStr::new("."))?;
    count.add(&at::fstat(&directory)?);
    let mut above: Vec<Level> = Vec::new();
    let mut waiting = count.entries(&directory)?;
    while count.usage.complete {
        match waiting.pop() {
            Some(name) => {
                let Some(child) = enter(&directory, &name)? else { continue };
                let below = count.entries(&child)?;
                above.push(Level { identity: identity(&directory)?, waiting: std::mem::replace(&mut waiting, below) });
                directory = child;
            }
            None => {
                let Some(level) = above.pop() else { break };
                directory = leave(&directory, level.identity)?;
                waiting = level.waiting;
            }
        }
    }
    Ok(count.usage)
}

/// Device and inode number.
type Identity = (u64, u64);

/// A directory that we are below, and its subdirectories that are still to be counted.
struct Level {
    identity: Identity,
    waiting: Vec<OsString>,
}

struct Count {
    usage: Usage,
    left: u64,
    /// Files with several names that were counted already.
    linked: HashSet<Identity>,
}

impl Count {
    /// Counts everything in `directory` and returns the names of the directories in it.
    fn entries(&mut self, directory: &OwnedFd) -> Result<Vec<OsString>> {
        let listing = Dir::from_fd(open(directory, OsStr::new("."))?)
            .map_err(|errno| Error::new("fdopendir", errno, fd(directory)))?;
        let mut directories = Vec::new();
        for entry in listing {
            let entry = entry.map_err(|errno| Error::new("getdents64", errno, fd(directory)))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let Some(left) = self.left.checked_sub(1) else {
                self.usage.complete = false;
                break;
            };
            self.left = left;
            match at::fstatat(directory, name) {
                Ok(stat) if at::file_type(&stat) == at::SFlag::S_IFDIR => {
                    self.add(&stat);
                    directories.push(name.to_owned());
                }
                Ok(stat) => self.add(&stat),
                Err(error) if error.is(Errno::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(directories)
    }

    fn add(&mut self, stat: &at::FileStat) {
        let several = stat.st_nlink > 1 && at::file_type(stat) != at::SFlag::S_IFDIR;
        if several && !self.linked.insert((stat.st_dev, stat.st_ino)) {
            return;
        }
        self.usage.inodes += 1;
        self.usage.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512; // stat(3type): units of 512
    }
}

/// Opens a child directory; `None` if it has gone, is none any more, or is a mount.
fn enter(directory: &OwnedFd, name: &OsStr) -> Result<Option<OwnedFd>> {
    match open(directory, name) {
        Ok(child) => Ok(Some(child)),
        Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Goes back up, to the directory that we came from and no other one.
fn leave(directory: &OwnedFd, expected: Identity) -> Result<OwnedFd> {
    let parent = openat2(directory, "..".as_ref(), OFlag::O_RDONLY | OFlag::O_DIRECTORY, ResolveFlag::empty())?;
    if identity(&parent)? != expected {
        let arguments = format!("{}, \"..\"", fd(directory));
        return Err(Error::new("openat2", Errno::ESTALE, arguments).with_detail("moved while it was counted"));
    }
    Ok(parent)
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_file_counts_once_and_links_lead_nowhere() {
        let tree = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        crate::fs::atomic_write(elsewhere.path().join("big"), &[1; 1 << 20], crate::fs::Durability::Rename, 0o600)
            .unwrap();
        fs::create_dir_all(tree.path().join("a/b")).unwrap();
        crate::fs::atomic_write(tree.path().join("a/f"), &[1; 8192], crate::fs::Durability::Rename, 0o600).unwrap();
        fs::hard_link(tree.path().join("a/f"), tree.path().join("a/b/again")).unwrap();
        symlink(elsewhere.path(), tree.path().join("out")).unwrap();
        let usage = of_tree(&File::open(tree.path()).unwrap(), 100).unwrap();
        assert_eq!((usage.inodes, usage.complete), (5, true), "the tree, a, a/b, the file, the link");
        assert!((8192..1 << 20).contains(&usage.bytes), "{usage:?}");
    }

    #[test]
    fn counting_ends_at_the_bound() {
        let tree = tempfile::tempdir().unwrap();
        for number in 0..20 {
            File::create(tree.path().join(number.to_string())).unwrap();
        }
        let usage = of_tree(&File::open(tree.path()).unwrap(), 10).unwrap();
        assert_eq!((usage.inodes, usage.complete), (11, false));
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_counted() {
        let tree = tempfile::tempdir().unwrap();
        let mut directory: OwnedFd = File::open(tree.path()).unwrap().into();
        for _ in 0..3000 {
            at::mkdirat(&directory, "deep", 0o700).unwrap();
            directory = at::openat(&directory, "deep", OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0).unwrap();
        }
        let root = File::open(tree.path()).unwrap();
        let usage = of_tree(&root, 100_000).unwrap();
        assert_eq!((usage.inodes, usage.complete), (3001, true));
        crate::remove::remove_content(&root).unwrap();
    }
}
