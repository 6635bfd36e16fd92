//! Which version of a file is there.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// Tells versions of a file apart without reading it. Unlike its mtime, nobody sets its ctime: some installers give the same
/// mtime to all that they put there. A version that replaces another in the same tick of the kernel's clock (some ms) has an
/// inode of its own; one that is written in place within it, with as many bytes, is not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
    length: u64,
}

impl Stamp {
    pub(crate) fn of(meta: &Metadata) -> Stamp {
        let changed = (meta.ctime(), meta.ctime_nsec());
        Stamp { device: meta.dev(), inode: meta.ino(), changed, length: meta.len() }
    }
}
