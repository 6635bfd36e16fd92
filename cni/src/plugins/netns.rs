//! The pod's network namespace.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

use crate::error::{PluginError, code};

/// The network namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// An open network namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    path: PathBuf,
    file: File,
    own: File,
}

impl Namespace {
    /// Opens the namespace at `path`; `None` if nothing is there any more, or only the file that it was mounted on.
    pub(super) fn open(path: &Path) -> Result<Option<Namespace>, PluginError> {
        let refused = |error: std::io::Error| {
            let message = format!("failed to open netns {path:?}: {error}");
            PluginError::new(code::INVALID_NETNS, message)
        };
        let file = match File::open(path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            other => other.map_err(refused)?,
        };
        if !is_on_nsfs(&file).map_err(refused)? {
            return Ok(None);
        }
        let own = File::open(OWN).map_err(refused)?;
        Ok(Some(Namespace { path: path.into(), file, own }))
    }

    /// Opens the namespace of an ADD or CHECK, where it must be.
    pub(super) fn require(path: &Path) -> Result<Namespace, PluginError> {
        let missing = || PluginError::new(code::INVALID_NETNS, format!("failed to open netns {path:?}: not there"));
        Namespace::open(path)?.ok_or_else(missing)
    }

    /// Runs `work` inside and comes back.
    pub(super) fn enter<T>(&self, work: impl FnOnce() -> Result<T, PluginError>) -> Result<T, PluginError> {
        let switch = |to: &File, path: &Path| {
            setns(to, CloneFlags::CLONE_NEWNET).map_err(|errno| {
                let message = format!("enter the network namespace {}: {} ({errno:?})", path.display(), errno.desc());
                PluginError::new(code::INVALID_NETNS, message)
            })
        };
        switch(&self.file, &self.path)?;
        let outcome = work();
        switch(&self.own, OWN.as_ref())?;
        outcome
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Namespace files are on nsfs; what is left of one after its unmount is an ordinary file.
fn is_on_nsfs(file: &File) -> std::io::Result<bool> {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    Ok(nix::sys::statfs::fstatfs(file)?.filesystem_type().0 == NSFS_MAGIC)
}

/// Whether `path` is the calling thread's own namespace; false if it is not there.
pub(super) fn is_own(path: &Path) -> Result<bool, PluginError> {
    let Some(namespace) = (!path.as_os_str().is_empty()).then(|| Namespace::open(path)).transpose()?.flatten() else {
        return Ok(false);
    };
    let identity = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
    match (identity(&namespace.file), identity(&namespace.own)) {
        (Ok(theirs), Ok(own)) => Ok(theirs == own),
        (Err(error), _) | (_, Err(error)) => Err(PluginError::new(code::INVALID_NETNS, error.to_string())),
    }
}
