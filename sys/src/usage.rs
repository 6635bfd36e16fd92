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

/// The most memory that names of directories yet to be entered may take, in bytes.
const MAX_WAITING: usize = 8 << 20;
/// The most files with several names that are told apart: some 4 MB.
const MAX_LINKED: usize = 200_000;

/// What a tree takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes allocated for it (`st_blocks`), each file once however many names it has.
    pub bytes: u64,
    /// Files, directories and everything else.
    pub inodes: u64,
    /// False if counting ended at a bound, or lost its way in a tree that was being moved: then there is at least so much.
    pub complete: bool,
}

/// Counts `directory` and all below it on the same mount, at most `max` entries. What disappears meanwhile is not counted;
/// if a directory is moved while it is counted, what lies beside it may not be, and the rest of the tree is.
pub fn of_tree(directory: &impl AsFd, max: u64) -> Result<Usage> {
    let bounds = Bounds { entries: max, waiting: MAX_WAITING, linked: MAX_LINKED };
    let mut walk = Walk::begin(directory, bounds)?;
    while walk.step()? {}
    Ok(walk.count.usage)
}

/// Device and inode number.
type Identity = (u64, u64);

/// A directory that we are below, and its subdirectories that are still to be counted.
struct Level {
    identity: Identity,
    waiting: Vec<OsString>,
}

/// Where counting is.
struct Walk<'a, D> {
    root: &'a D,
    directory: OwnedFd,
    /// From the root to where we are.
    above: Vec<Level>,
    /// What is to be counted where we are.
    waiting: Vec<OsString>,
    count: Count,
}

impl<D: AsFd> Walk<'_, D> {
    fn begin(root: &D, left: Bounds) -> Result<Walk<'_, D>> {
        let usage = Usage { complete: true, ..Usage::default() };
        let mut count = Count { usage, left, full: false, linked: HashSet::new() };
        let directory = open(root, OsStr::new("."))?;
        count.add(&at::fstat(&directory)?);
        let waiting = count.entries(&directory)?;
        Ok(Walk { root, directory, above: Vec::new(), waiting, count })
    }

    /// Goes into one directory, or back out of one; false at the end.
    fn step(&mut self) -> Result<bool> {
        if self.count.full {
            return Ok(false);
        }
        if let Some(name) = self.waiting.pop() {
            self.count.left.waiting += cost(&name);
            if let Some(child) = enter(&self.directory, &name)? {
                let waiting = self.count.entries(&child)?;
                let above = std::mem::replace(&mut self.waiting, waiting);
                self.above.push(Level { identity: identity(&self.directory)?, waiting: above });
                self.count.keep(size_of::<Level>());
                self.directory = child;
            }
            return Ok(true);
        }
        let Some(level) = self.above.pop() else { return Ok(false) };
        self.count.left.waiting += size_of::<Level>();
        match leave(&self.directory, level.identity) {
            Ok(parent) => (self.directory, self.waiting) = (parent, level.waiting),
            Err(error) if error.is(Errno::ESTALE) => self.restart(level)?,
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// The way back is lost: whoever moves directories about must not switch counting off. What the root still has to
    /// show goes on.
    fn restart(&mut self, lost: Level) -> Result<()> {
        self.count.usage.complete = false;
        self.directory = open(self.root, OsStr::new("."))?;
        let mut levels = std::mem::take(&mut self.above).into_iter().chain([lost]);
        self.waiting = levels.next().map(|level| level.waiting).unwrap_or_default();
        for level in levels {
            let names: usize = level.waiting.iter().map(|name| cost(name)).sum();
            self.count.left.waiting += names + size_of::<Level>();
        }
        Ok(())
    }
}

/// What a name that waits takes of memory, in bytes.
fn cost(name: &OsStr) -> usize {
    // The allocator's own share is some words.
    size_of::<OsString>() + name.len() + 16
}

/// What may still be counted, and remembered.
struct Bounds {
    entries: u64,
    waiting: usize,
    linked: usize,
}

struct Count {
    usage: Usage,
    left: Bounds,
    /// One of the bounds was met.
    full: bool,
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
            match self.left.entries.checked_sub(1) {
                Some(left) if !self.full => self.left.entries = left,
                _ => {
                    self.end();
                    break;
                }
            }
            match at::fstatat(directory, name) {
                Ok(stat) if at::file_type(&stat) == at::SFlag::S_IFDIR => {
                    self.add(&stat);
                    self.keep(cost(name));
                    directories.push(name.to_owned());
                }
                Ok(stat) => self.add(&stat),
                Err(error) if error.is(Errno::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(directories)
    }

    fn end(&mut self) {
        (self.full, self.usage.complete) = (true, false);
    }

    /// Takes memory for what waits.
    fn keep(&mut self, bytes: usize) {
        match self.left.waiting.checked_sub(bytes) {
            Some(left) => self.left.waiting = left,
            None => self.end(),
        }
    }

    fn add(&mut self, stat: &at::FileStat) {
        let several = stat.st_nlink > 1 && at::file_type(stat) != at::SFlag::S_IFDIR;
        if several {
            if self.linked.contains(&(stat.st_dev, stat.st_ino)) {
                return;
            }
            if self.linked.len() >= self.left.linked {
                return self.end();
            }
            self.linked.insert((stat.st_dev, stat.st_ino));
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

    /// What a walk takes of memory is bounded too: a pod may make a million directories with long names.
    #[test]
    fn counting_ends_where_too_much_would_have_to_be_remembered() {
        let tree = tempfile::tempdir().unwrap();
        for number in 0..20 {
            fs::create_dir(tree.path().join(number.to_string())).unwrap();
            let file = tree.path().join(format!("f{number}"));
            File::create(&file).unwrap();
            fs::hard_link(&file, tree.path().join(format!("g{number}"))).unwrap();
        }
        let root = File::open(tree.path()).unwrap();
        let counted = |waiting, linked| {
            let mut walk = Walk::begin(&root, Bounds { entries: 1000, waiting, linked }).unwrap();
            while walk.step().unwrap() {}
            assert!(walk.waiting.len() <= 20);
            walk.count.usage
        };
        let all = counted(4096, 20);
        assert_eq!((all.inodes, all.complete), (41, true));
        let few_names = counted(10 * cost(OsStr::new("19")), 20);
        assert!(few_names.inodes < 41 && !few_names.complete, "{few_names:?}");
        let few_links = counted(4096, 5);
        assert!(few_links.inodes < 41 && !few_links.complete, "{few_links:?}");
    }

    #[test]
    fn what_waits_gives_its_room_back() {
        let tree = tempfile::tempdir().unwrap();
        for number in 0..100 {
            fs::create_dir_all(tree.path().join(number.to_string()).join("below")).unwrap();
        }
        let root = File::open(tree.path()).unwrap();
        let mut walk = Walk::begin(&root, Bounds { entries: 1000, waiting: 1 << 20, linked: 0 }).unwrap();
        while walk.step().unwrap() {}
        assert_eq!((walk.count.usage.inodes, walk.count.left.waiting), (201, 1 << 20));
    }

    /// Mutant: the error of `leave` ends the count, and with it what is known of the pod.
    #[test]
    fn a_tree_that_is_moved_while_it_is_counted_is_counted_all_the_same() {
        let tree = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        for path in ["top/a/b", "other/c"] {
            fs::create_dir_all(tree.path().join(path)).unwrap();
        }
        let root = File::open(tree.path()).unwrap();
        let mut walk = Walk::begin(&root, Bounds { entries: 1000, waiting: 1 << 20, linked: 0 }).unwrap();
        walk.waiting.sort();
        while walk.above.len() < 3 {
            assert!(walk.step().unwrap());
        }
        fs::rename(tree.path().join("top/a/b"), elsewhere.path().join("b")).unwrap();
        while walk.step().unwrap() {}
        let usage = walk.count.usage;
        assert_eq!((usage.inodes, usage.complete), (6, false), "the tree, top, a, b, other, c");
        assert_eq!(walk.count.left.waiting, 1 << 20);
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
