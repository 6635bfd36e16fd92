//! The image store: what is on disk, who may use it, and the operations that callers know.
//!
//! ```text
//! <root>/lock                     held while the store is open
//!        store.redb               what is true: images, snapshots (database.rs)
//!        blobs/sha256/<hex>       indexes, manifests, configs: the bytes that digests were made of
//!        snapshots/<n>/fs         one unpacked layer; without a row in the database it is rubbish
//!        snapshots/<n>/chain      which layer it is; a row that says otherwise is lost
//!        trash/                   on its way out
//!        empty/                   an empty lowest layer
//! ```
//!
//! Compressed layers are not kept: the unpacked tree is the layer, and a third of the disk is saved. All answers come
//! from memory ([`state`]), which is what the database says plus leases. A pull writes trees and blobs, syncs the file
//! system once, and makes the image visible by one transaction ([`commit`]); whatever else is found at the next start
//! is removed.

mod blobs;
mod commit;
mod database;
mod flight;
mod lock;
mod mount;
mod open;
mod overlay;
mod pull;
mod pull_error;
mod records;
mod remove;
mod snapshot;
mod state;
mod trash;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::database::DatabaseError;
pub use self::mount::{MountError, MountOptions};
pub use self::pull::PullOptions;
pub use self::pull_error::{FetchError, PullError, PullErrorKind, PullFailure};
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::registry::{Proxies, Tokens, Transport};

/// An image's id: the digest of its config.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ImageId(pub Digest);

impl std::fmt::Display for ImageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for ImageId {
    type Err = crate::digest::DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Settings of a store.
#[derive(Debug, Clone)]
pub struct Config {
    /// Layers that are downloaded and unpacked at once, over all pulls.
    pub parallel_layers: usize,
    /// A registry that sends nothing for this long is given up on.
    pub stall_timeout: Duration,
    /// How registries are reached.
    pub proxies: Proxies,
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
    /// A file or directory of the store can't be used.
    #[error("{what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The database can't be used.
    #[error("open the image store")]
    Database(#[from] DatabaseError),
}

/// Why an operation on an open store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such image.
    #[error("image {0:?} is not here")]
    NotFound(String),
    /// A file or directory of the store can't be used.
    #[error("{what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Not all of an image reached the disk.
    #[error("sync the image store")]
    Sync(#[source] sys::Error),
    /// A directory that a layer only implies could not take its metadata from the layers below.
    #[error("stack layer {layer}")]
    Stack {
        /// The layer's chain id.
        layer: Digest,
        /// Why not.
        #[source]
        source: sys::Error,
    },
    /// A layer that another pull had unpacked is gone; the pull can be tried again.
    #[error("layer {0} was removed meanwhile")]
    LayerGone(Digest),
    /// The database said no.
    #[error("change the image store")]
    Database(#[from] DatabaseError),
}

/// An open image store; clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    /// Opened before anything was written, so that a failed write-back of anything is reported to its syncfs(2).
    directory: File,
    database: database::Database,
    state: Mutex<state::State>,
    /// Held from deciding what to commit until memory says the same as the database.
    committing: Mutex<()>,
    next_snapshot: AtomicU64,
    flights: flight::Flights,
    layer_slots: Arc<tokio::sync::Semaphore>,
    trash: Arc<trash::Trash>,
    transport: Arc<Transport>,
    tokens: Arc<Tokens>,
    _lock: lock::Lock,
}

impl Store {
    /// Every image, from memory.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.inner.state().images()
    }

    /// The image that `name` means: an id, a unique prefix of one, or a reference by tag or digest.
    pub fn find(&self, name: &str) -> Option<Arc<Image>> {
        self.inner.state().find(name)
    }

    /// What the store takes, from memory.
    pub fn usage(&self) -> Usage {
        let (bytes, inodes) = self.inner.state().usage();
        Usage { bytes, inodes, mountpoint: self.inner.root.clone() }
    }
}

impl Inner {
    /// The state; no operation leaves it half-changed, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, state::State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot_path(&self, directory: u64) -> PathBuf {
        self.root.join("snapshots").join(directory.to_string())
    }
}

/// The error of a file operation of the store.
fn file_error(what: &'static str, path: &Path) -> impl Fn(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File { what, path: path.clone(), source }
}

#[cfg(test)]
mod tests;
