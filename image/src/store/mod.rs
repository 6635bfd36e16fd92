//! The image store: what is on disk, who may use it, and the operations that callers know.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::ImageConfig;
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::platform::Platform;
use crate::progress::ProgressSink;
use crate::reference::Reference;

/// An image's id: the digest of its config.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ImageId(pub Digest);

impl std::fmt::Display for ImageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Settings of a store.
#[derive(Debug, Clone)]
pub struct Config {
    /// Layers that are downloaded and unpacked at once, over all pulls.
    pub parallel_layers: usize,
    /// A registry that sends nothing for this long is given up on.
    pub stall_timeout: Duration,
}

/// An image that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The digest of its config.
    pub id: ImageId,
    /// `host/path:tag` names, under the host that callers used, whatever mirror served it.
    pub repo_tags: Vec<String>,
    /// `host/path@digest` names, of the manifest or index that was pulled.
    pub repo_digests: Vec<String>,
    /// Bytes on disk of its unpacked layers, shared ones included.
    pub size: u64,
    /// How it wants to be run.
    pub config: Arc<ImageConfig>,
    /// The chain ids of its layers, lowest first.
    pub layers: Vec<Digest>,
    /// Never to be collected by a caller's garbage collection.
    pub pinned: bool,
}

/// What one pull is given.
#[derive(Clone, Default)]
pub struct PullOptions {
    /// Sent to their own registry only; `None` is anonymous.
    pub auth: Option<Credentials>,
    /// `certs.d` directories, first wins; read again at each pull.
    pub hosts_dirs: Vec<PathBuf>,
    /// `None`: this machine's.
    pub platform: Option<Platform>,
    /// Told of every step.
    pub progress: Option<ProgressSink>,
}

/// How a root file system is mounted.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountOptions {
    /// No writable layer: the mount is read-only, and the writable directory is not touched.
    pub readonly: bool,
}

/// What the store takes on its file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of unpacked layers and metadata.
    pub bytes: u64,
    /// Inodes of the same.
    pub inodes: u64,
    /// The store's directory.
    pub mountpoint: PathBuf,
}

/// An image that is held for a container: neither it nor its layers go away before [`Store::release`].
#[derive(Debug, Clone)]
pub struct Lease {
    /// What is held.
    pub image: Arc<Image>,
}

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("image store {root} is in use by {holder}")]
    InUse {
        /// The store's directory.
        root: PathBuf,
        /// Process id and name, as far as they are known.
        holder: String,
    },
}

/// Why an operation on an open store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such image.
    #[error("image {0:?} is not here")]
    NotFound(String),
}

/// What a failed pull means to a caller; each has its gRPC code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullErrorKind {
    /// The registry has no such image, or none for this platform.
    NotFound,
    /// The registry wants credentials, or refuses those given.
    Denied,
    /// The registry can't be reached, or answers that it can't serve now.
    Unavailable,
    /// The registry limits our rate.
    RateLimited,
    /// What the registry sent is wrong: a digest, a length, a manifest, a layer.
    Corrupt,
    /// The image uses something that is not built, named in the message.
    Unsupported,
    /// No space, or no inodes.
    DiskFull,
    /// Anything else on this machine.
    Internal,
}

/// Why a pull failed. Displays the whole reason; `source` goes deeper.
#[derive(Debug, thiserror::Error)]
#[error("pull {reference}")]
pub struct PullError {
    /// What was pulled.
    pub reference: String,
    /// What it means.
    pub kind: PullErrorKind,
}

/// An open image store; clones share it.
#[derive(Clone)]
pub struct Store {}

impl Store {
    /// Opens the store in `root`, or makes one. What a killed predecessor left half-done is removed.
    pub fn open(root: &Path, config: Config) -> Result<Self, OpenError> {
        let _ = (root, config);
        unimplemented!()
    }

    /// Pulls an image and returns its id. Dropping the future cancels the pull, unless another pull waits for the
    /// same layers; two pulls of the same layer at once do the work once.
    pub async fn pull(&self, reference: &Reference, options: PullOptions) -> Result<ImageId, PullError> {
        let _ = (reference, options);
        unimplemented!()
    }

    /// Every image, from memory.
    pub fn list(&self) -> Vec<Arc<Image>> {
        unimplemented!()
    }

    /// The image that `name` means: an id, a unique prefix of one, or a reference by tag or digest.
    pub fn find(&self, name: &str) -> Option<Arc<Image>> {
        let _ = name;
        unimplemented!()
    }

    /// Removes the image that `name` means, with all its names. `false`: there was none. Layers that are still in use
    /// stay until they are not. Blocks for a synced transaction.
    pub fn remove(&self, name: &str) -> Result<bool, StoreError> {
        let _ = name;
        unimplemented!()
    }

    /// What the store takes, from memory.
    pub fn usage(&self) -> Usage {
        unimplemented!()
    }

    /// Holds `image` for `container`, even if it is removed meanwhile. In memory: taken again after a restart, before
    /// [`Store::start_gc`].
    pub fn lease(&self, container: &str, image: &ImageId) -> Result<Lease, StoreError> {
        let _ = (container, image);
        unimplemented!()
    }

    /// Gives a lease back. Unknown names are fine.
    pub fn release(&self, container: &str) {
        let _ = container;
        unimplemented!()
    }

    /// Allows removed images to be collected. To be called once all leases from before a restart are taken again:
    /// until then nothing that any container may use is deleted.
    pub fn start_gc(&self) {
        unimplemented!()
    }

    /// Mounts the image's layers below `writable/fs` (work directory `writable/work`; both are made if missing) and
    /// returns the detached mount.
    pub fn mount_rootfs(&self, image: &ImageId, writable: &Path, options: MountOptions) -> Result<OwnedFd, MountError> {
        let _ = (image, writable, options);
        unimplemented!()
    }
}

/// Why a root file system could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// No such image.
    #[error("image {0} is not here")]
    NotFound(ImageId),
}
