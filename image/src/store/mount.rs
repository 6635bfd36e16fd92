//! A root file system: the image's layers below a writable directory, as a detached overlay mount.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sys::mount::{Fs, MountFlags};
use sys::rootfd::RootFd;

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
        let layers = self.visible_layers(image).ok_or_else(|| MountError::NotFound(image.clone()))?;
        let upper = if options.readonly { None } else { Some(Upper::prepare(writable)?) };
        let overlay = || {
            let overlay = Fs::open("overlay")?;
            overlay.set_string("source", "orlop")?;
            for layer in &layers {
                set_directory(&overlay, "lowerdir+", layer)?;
            }
            // Off: they tie an upper directory to its lower ones by handles, and a pod's root is never exported.
            overlay.set_string("index", "off")?;
            overlay.set_string("xino", "off")?;
            if let Some(upper) = &upper {
                set_directory(&overlay, "upperdir", &upper.fs)?;
                set_directory(&overlay, "workdir", &upper.work)?;
                if options.volatile {
                    overlay.set_flag("volatile")?;
                }
            }
            let attributes = if options.readonly { MountFlags::RDONLY } else { MountFlags::empty() };
            overlay.mount(attributes)
        };
        overlay().map_err(|source| MountError::Overlay { image: image.clone(), source })
    }

    /// The directories of an image's layers, uppermost first, down to the first that hides all below it; and an empty
    /// one at the bottom, because an overlay of read-only layers has two at least.
    fn visible_layers(&self, image: &ImageId) -> Option<Vec<PathBuf>> {
        let state = self.inner.state();
        let image = state.by_id(image)?;
        let mut paths = Vec::with_capacity(image.layers.len() + 1);
        for chain in image.layers.iter().rev() {
            let row = state.snapshot(chain)?;
            paths.push(self.inner.snapshot_path(row.directory).join("fs"));
            if row.opaque_root {
                break;
            }
        }
        paths.push(self.inner.root.join("empty"));
        Some(paths)
    }
}

/// By fd: a value is at most 255 bytes, and a store may lie deeper than that.
fn set_directory(overlay: &Fs, key: &str, path: &Path) -> sys::Result<()> {
    let directory = RootFd::open(path)?;
    match overlay.set_fd(key, &directory) {
        // Layers by fd came with Linux 6.13, `lowerdir+` with 6.8.
        Err(error) if error.is(sys::Errno::EINVAL) && path.to_str().is_some_and(|path| path.len() < 256) => {
            overlay.set_string(key, path.to_str().unwrap_or_default()).map(drop)
        }
        result => result.map(drop),
    }
}

/// The writable part of a container's root.
struct Upper {
    fs: PathBuf,
    work: PathBuf,
}

impl Upper {
    fn prepare(writable: &Path) -> Result<Self, MountError> {
        let upper = Self { fs: writable.join("fs"), work: writable.join("work") };
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
}
