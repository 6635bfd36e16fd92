//! Removing images, holding them, and collecting what nobody holds.

use std::collections::HashMap;
use std::fs;
use std::sync::PoisonError;

use super::records::Change;
use super::state::State;
use super::{ImageId, Inner, Lease, Store, StoreError, blobs};

impl Store {
    /// Removes the image that `name` means, with all its names. `false`: there was none. Layers that are still in use
    /// stay until they are not. Blocks for a synced transaction.
    pub fn remove(&self, name: &str) -> Result<bool, StoreError> {
        self.inner.change(|state| state.find(name).map(|image| state.removal(&image.id)))
    }

    /// Holds `image` for `container`, even if it is removed meanwhile. In memory: taken again after a restart, before
    /// [`Store::start_gc`].
    pub fn lease(&self, container: &str, image: &ImageId) -> Result<Lease, StoreError> {
        let held = self.inner.state().lease(container, image);
        held.map(|image| Lease { image }).ok_or_else(|| StoreError::NotFound(image.to_string()))
    }

    /// Gives a lease back. Unknown names are fine. Blocks for a synced transaction if it was the last hold on a removed
    /// image.
    pub fn release(&self, container: &str) {
        self.inner.state().release(container);
        self.collect();
    }

    /// Allows removed images to be collected. To be called once all leases from before a restart are taken again:
    /// until then nothing that any container may use is deleted.
    pub fn start_gc(&self) {
        self.inner.state().start_gc();
        self.collect();
    }

    fn collect(&self) {
        if let Err(error) = self.inner.collect() {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "removed images keep their space for now");
        }
    }
}

impl Inner {
    /// Drops what nobody can reach any more.
    pub(super) fn collect(&self) -> Result<(), StoreError> {
        if self.state().garbage().is_empty() {
            return Ok(());
        }
        self.change(|state| Some(state.garbage())).map(drop)
    }

    /// Decides, makes durable, takes over, and only then deletes files. `false`: there was nothing to change.
    fn change(&self, decide: impl Fn(&State) -> Option<Change>) -> Result<bool, StoreError> {
        let _committing = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(change) = self.decide(decide) else { return Ok(false) };
        if !change.is_empty() {
            self.carry_out(&change)?;
        }
        Ok(true)
    }

    /// Decides under the lock of the state, and from then on nobody new can hold what is to go: no lease is given and
    /// no pull counts on it while the transaction is being written.
    pub(super) fn decide(&self, decide: impl Fn(&State) -> Option<Change>) -> Option<Change> {
        let mut state = self.state();
        let change = decide(&state)?;
        state.doom(&change);
        Some(change)
    }

    /// The second half of a removal; what was doomed is spared if the database refuses.
    pub(super) fn carry_out(&self, change: &Change) -> Result<(), StoreError> {
        self.write(change).inspect_err(|_| self.state().spare())?;
        self.take_over(change, &HashMap::new());
        Ok(())
    }

    /// Memory follows the database, and files follow memory.
    pub(super) fn take_over(
        &self,
        change: &Change,
        configs: &HashMap<ImageId, std::sync::Arc<crate::config::ImageConfig>>,
    ) {
        let mut state = self.state();
        let directories: Vec<u64> =
            change.delete_snapshots.iter().filter_map(|chain| state.snapshot(chain)).map(|row| row.directory).collect();
        let blobs: Vec<_> = change
            .delete_images
            .iter()
            .filter_map(|id| state.record(id))
            .flat_map(|record| record.blobs.iter().cloned())
            .collect();
        state.apply(change, configs);
        let still_wanted = state.blobs();
        let unwanted: Vec<_> = blobs.iter().filter(|blob| !still_wanted.contains(blob)).cloned().collect();
        drop(still_wanted);
        drop(state);
        for directory in directories {
            self.trash.take(&self.snapshot_path(directory));
        }
        for blob in unwanted {
            // One that stays is removed at the next start.
            let _ = fs::remove_file(blobs::path(&self.root, &blob));
        }
    }
}
