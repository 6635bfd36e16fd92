//! A root file system: the image's layers below a writable directory, as a detached overlay mount.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::overlay::{Stack, Upper};
use super::{ImageId, Store};

/// How a root file system is mounted.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountOptions {
    /// No writable layer: the mount is read-only, and the writable directory is not touched.
    pub readonly: bool,
    /// Never sync the writable layer, not even when it is unmounted, where the kernel would sync the whole file system
    /// below it. For containers: what they wrote does not outlive a power cut anyway.
    pub volatile: bool,
}

/// Why a root file system could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// No such image.
    #[error("image {0} is not here")]
    NotFound(ImageId),
    /// The writable directory can't be prepared.
    #[error("prepare {path}")]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A system call.
    #[error("mount the root file system of image {image}")]
    Overlay {
        /// Which image.
        image: ImageId,
        /// The call, with the kernel's own words.
        #[source]
        source: sys::Error,
    },
}

impl Store {
    /// Mounts the image's layers below `writable/fs` (work directory `writable/work`; both are made if missing) and
    /// returns the detached mount.
    pub fn mount_rootfs(&self, image: &ImageId, writable: &Path, options: MountOptions) -> Result<OwnedFd, MountError> {
        let lower = self.visible_layers(image).ok_or_else(|| MountError::NotFound(image.clone()))?;
        let upper = if options.readonly { None } else { Some(prepare(writable, options.volatile)?) };
        let stack = Stack { lower, empty: self.inner.root.join("empty"), upper };
        stack.mount().map_err(|source| MountError::Overlay { image: image.clone(), source })
    }

    /// The directories of an image's layers, uppermost first, down to the first that hides all below it.
    fn visible_layers(&self, image: &ImageId) -> Option<Vec<PathBuf>> {
        let state = self.inner.state();
        let image = state.by_id(image)?;
        let mut paths = Vec::with_capacity(image.layers.len());
        for chain in image.layers.iter().rev() {
            let row = state.snapshot(chain)?;
            paths.push(self.inner.snapshot_path(row.directory).join("fs"));
            if row.opaque_root {
                break;
            }
        }
        Some(paths)
    }
}

/// Makes the writable part's directories.
fn prepare(writable: &Path, volatile: bool) -> Result<Upper, MountError> {
    let upper = Upper { fs: writable.join("fs"), work: writable.join("work"), volatile };
    for (path, mode) in [(&upper.fs, 0o755), (&upper.work, 0o700)] {
        let failed = |source| MountError::Writable { path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed)?;
    }
    // A volatile mount leaves this mark, and the kernel refuses to mount over it: after a power cut the directory
    // may be incomplete. Within one boot it is not, and after a boot no container of ours starts again.
    let mark = upper.work.join("work/incompat");
    match fs::remove_dir_all(&mark) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(MountError::Writable { path: mark, source })
        }
        _ => Ok(upper),
    }
}
