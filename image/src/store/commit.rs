//! An image becomes visible: its layers are stacked, everything is synced once, and one transaction says so.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use sys::rootfd::RootFd;

use super::database::DatabaseError;
use super::flight::Landed;
use super::records::{Change, ImageRecord, SnapshotRecord};
use super::{ImageId, Inner, StoreError, snapshot};
use crate::config::ImageConfig;
use crate::digest::Digest;

/// An image whose parts are all on disk, or in hand.
pub(super) struct Pulled {
    pub(super) record: ImageRecord,
    pub(super) config: Arc<ImageConfig>,
    /// Indexes, manifest and config.
    pub(super) documents: Vec<(Digest, Bytes)>,
    /// For every layer, lowest first: what was unpacked, or `None` if it was here.
    pub(super) layers: Vec<Option<Arc<Landed>>>,
}

impl Inner {
    /// Makes `pulled` durable and visible.
    pub(super) fn commit_image(&self, pulled: &Pulled) -> Result<ImageId, StoreError> {
        let _committing = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut change = Change { put_images: self.state().named(pulled.record.clone()), ..Change::default() };
        let mut stack = Stack { inner: self, lowers: Vec::new(), kept: Vec::new() };
        for (chain, landed) in pulled.record.layers.iter().zip(&pulled.layers) {
            if let Some(row) = stack.add(chain, landed.as_deref(), &pulled.config)? {
                change.put_snapshots.push((chain.clone(), row));
            }
        }
        let mut wrote = !change.put_snapshots.is_empty();
        for (digest, bytes) in &pulled.documents {
            wrote |= self.write_blob(digest, bytes)?;
        }
        if wrote {
            sys::fs::syncfs(&self.directory).map_err(StoreError::Sync)?;
        }
        self.write(&change)?;
        stack.kept.iter().for_each(|landed| landed.snapshot.keep());
        let configs = HashMap::from([(pulled.record.id.clone(), pulled.config.clone())]);
        self.take_over(&change, &configs);
        Ok(pulled.record.id.clone())
    }

    /// Makes `change` durable; the caller holds `committing`. If the database failed, now or before, it is opened again,
    /// corrected to what memory says (which is what callers were told, whatever became of a commit that failed), and
    /// asked once more: the space that it lacked may be what a removal is about to give back.
    pub(super) fn write(&self, change: &Change) -> Result<(), DatabaseError> {
        match self.database.commit(change) {
            Err(error) if error.is_latched() => {
                let cause: &dyn std::error::Error = &error;
                tracing::warn!(error = cause, "opening the image store's database again");
                self.database.reopen()?;
                let correction = self.state().correction(&self.database.read()?);
                if !correction.is_empty() {
                    self.database.commit(&correction)?;
                }
                self.database.commit(change)
            }
            result => result,
        }
    }
}

/// The layers of an image, from the lowest up.
struct Stack<'a> {
    inner: &'a Inner,
    /// Lowest first.
    lowers: Vec<RootFd>,
    kept: Vec<&'a Landed>,
}

impl<'a> Stack<'a> {
    /// Adds the next layer. Returns its row if it is new.
    fn add(
        &mut self,
        chain: &Digest,
        landed: Option<&'a Landed>,
        config: &ImageConfig,
    ) -> Result<Option<SnapshotRecord>, StoreError> {
        let stacking = |source| StoreError::Stack { layer: chain.clone(), source };
        let known = self.inner.state().snapshot(chain).map(|row| row.directory);
        let (number, landed) = match (known, landed) {
            (Some(number), _) => (number, None),
            (None, Some(landed)) => (landed.snapshot.number, Some(landed)),
            (None, None) => return Err(StoreError::LayerGone(chain.clone())),
        };
        let root = RootFd::open(self.inner.snapshot_path(number).join("fs")).map_err(stacking)?;
        let mut row = None;
        if let Some(landed) = landed {
            snapshot::finish_root(&root).map_err(stacking)?;
            if !landed.tree.implied.is_empty() {
                self.lowers.reverse();
                let adopted = snapshot::adopt(&root, &landed.tree.implied, &self.lowers).map_err(stacking);
                self.lowers.reverse();
                adopted?;
            }
            row = Some(SnapshotRecord {
                directory: number,
                diff_id: config.diff_ids[self.lowers.len()].clone(),
                bytes: landed.tree.bytes,
                inodes: landed.tree.inodes,
                opaque_root: landed.tree.opaque_root,
            });
            self.kept.push(landed);
        }
        self.lowers.push(root);
        Ok(row)
    }
}
