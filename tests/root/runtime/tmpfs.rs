//! A file system of its own, so that files that are made elsewhere can be counted.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A mounted one; it goes when this is dropped.
pub(crate) struct Tmpfs(pub(crate) PathBuf);

impl Tmpfs {
    pub(crate) fn mount(dir: PathBuf) -> Tmpfs {
        let none: Option<&str> = None;
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), none).expect("a tmpfs");
        Tmpfs(dir)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _busy = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// How many inodes the file system at `path` has in use.
pub(crate) fn inodes(path: &Path) -> u64 {
    let facts = nix::sys::statvfs::statvfs(path).expect("statvfs");
    facts.files() - facts.files_free()
}
