//! Unpacked layers on disk: new ones that no image has yet, and what a layer takes from those below it.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sys::Errno;
use sys::at::{self, SFlag, Timestamp};
use sys::rootfd::RootFd;

use super::trash::Trash;
use crate::digest::Digest;

/// The file in a snapshot's directory that has the layer's chain id, for the next start to compare with the database.
const CHAIN: &str = "chain";
/// No digest is longer.
const MAX_CHAIN: u64 = 256;

/// A directory below `snapshots/` that belongs to no image yet. Dropped before [`NewSnapshot::keep`], it is removed.
pub(super) struct NewSnapshot {
    pub(super) number: u64,
    path: PathBuf,
    kept: AtomicBool,
    trash: Arc<Trash>,
}

impl NewSnapshot {
    /// Makes `<path>/fs`, and beside it a note of which layer it is.
    pub(super) fn make(number: u64, path: PathBuf, chain: &Digest, trash: Arc<Trash>) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700).create(&path)?;
        let new = Self { number, path, kept: AtomicBool::new(false), trash };
        builder.create(new.tree())?;
        File::create_new(new.path.join(CHAIN))?.write_all(chain.as_str().as_bytes())?;
        Ok(new)
    }

    /// Where the layer's files are.
    pub(super) fn tree(&self) -> PathBuf {
        self.path.join("fs")
    }

    /// The directory belongs to an image now.
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for NewSnapshot {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed) {
            self.trash.take(&self.path);
        }
    }
}

/// True if `directory` has the tree of the layer `chain`.
pub(super) fn holds(directory: &Path, chain: &Digest) -> bool {
    let note = sys::fs::read_bounded(directory.join(CHAIN), MAX_CHAIN);
    note.is_ok_and(|note| note == chain.as_str().as_bytes()) && directory.join("fs").is_dir()
}

/// Gives the root of a layer the mode that every root has.
pub(super) fn finish_root(layer: &RootFd) -> sys::Result<()> {
    at::fchmod(layer, 0o755)
}

/// Gives each of the directories `implied`, which the layer's archive never named, the owner, mode, times and
/// attributes of the same directory in the nearest of the layers below (`lowers`, nearest first). Where none has it,
/// or it is hidden, root:root 0755 stays.
pub(super) fn adopt(layer: &RootFd, implied: &[PathBuf], lowers: &[RootFd]) -> sys::Result<()> {
    for path in implied {
        for lower in lowers {
            match look(lower, path)? {
                Look::Directory(model) => {
                    copy_metadata(&model, &layer.open_dir(path)?)?;
                    break;
                }
                Look::Hidden => break,
                Look::Nothing => {}
            }
        }
    }
    Ok(())
}

/// What one lower layer says about a path.
enum Look {
    Directory(OwnedFd),
    /// Whatever the layers below this one have there is not seen.
    Hidden,
    Nothing,
}

fn look(lower: &RootFd, path: &Path) -> sys::Result<Look> {
    let mut hidden = false;
    let mut current = lower.open_path(Path::new(""))?;
    for component in path.components() {
        let next = match at::openat(&current, component, at::OFlag::O_PATH, 0) {
            Ok(next) => next,
            Err(error) if error.is(Errno::ENOENT) => return Ok(if hidden { Look::Hidden } else { Look::Nothing }),
            Err(error) => return Err(error),
        };
        if at::file_type(&at::fstat(&next)?) != SFlag::S_IFDIR {
            return Ok(Look::Hidden); // a whiteout, a file or a link
        }
        hidden |= at::fgetxattr(&next, "trusted.overlay.opaque")?.is_some_and(|value| value == b"y");
        current = next;
    }
    Ok(Look::Directory(current))
}

fn copy_metadata(from: &impl AsFd, to: &impl AsFd) -> sys::Result<()> {
    let stat = at::fstat(from)?;
    at::fchown(to, stat.st_uid, stat.st_gid)?;
    for name in at::flistxattr(from)? {
        if !name.as_bytes().starts_with(b"trusted.")
            && let Some(value) = at::fgetxattr(from, &name)?
        {
            at::fsetxattr(to, &name, &value)?;
        }
    }
    at::fchmod(to, stat.st_mode & 0o7777)?;
    let time =
        |seconds: i64, nanoseconds: i64| Timestamp { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or(0) };
    at::futimens(to, time(stat.st_atime, stat.st_atime_nsec), time(stat.st_mtime, stat.st_mtime_nsec))
}
