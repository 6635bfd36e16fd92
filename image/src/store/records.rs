//! The rows of the database. Unknown fields are kept out of the way of older programs, missing ones have defaults.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::ImageId;
use crate::digest::Digest;

/// An image: its names, and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    pub(super) id: ImageId,
    /// `host/path:tag`; a tag belongs to one image at a time.
    pub(super) tags: BTreeSet<String>,
    /// `host/path@digest`, of the manifest or index that was asked for.
    pub(super) digests: BTreeSet<String>,
    /// Blobs that are kept beside the layers: indexes, the manifest, the config.
    pub(super) blobs: BTreeSet<Digest>,
    /// Chain ids, lowest first.
    pub(super) layers: Vec<Digest>,
    #[serde(default)]
    pub(super) pinned: bool,
    /// Removed while a container used it: nobody sees it, and it goes when the container does.
    #[serde(default)]
    pub(super) removed: bool,
}

/// An unpacked layer, by its chain id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SnapshotRecord {
    /// `snapshots/<directory>/fs` holds the tree.
    pub(super) directory: u64,
    pub(super) diff_id: Digest,
    /// Bytes on disk, counted while unpacking.
    pub(super) bytes: u64,
    pub(super) inodes: u64,
    /// Nothing of the layers below is seen.
    #[serde(default)]
    pub(super) opaque_root: bool,
}

/// What one transaction does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) put_images: Vec<ImageRecord>,
    pub(super) delete_images: Vec<ImageId>,
    pub(super) put_snapshots: Vec<(Digest, SnapshotRecord)>,
    pub(super) delete_snapshots: Vec<Digest>,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
