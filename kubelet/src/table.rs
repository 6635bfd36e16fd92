//! All pods as they are now, for whoever asks: the server, stats, garbage collection, the node's admission.
//!
//! The dispatcher of [`crate::worker`] writes it; everyone else reads.

use crate::pod::{Pod, PodUid};
use crate::runtime::ObservedPod;
use k8s_openapi::api::core::v1::PodStatus;
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

/// One pod: what is wanted, what is, and what was last told about it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The newest desired state.
    pub pod: Pod,
    /// What the runtime has of it.
    pub observed: Arc<ObservedPod>,
    /// The newest status, whether or not the API server has it already.
    pub status: Arc<PodStatus>,
    /// Whether it was admitted, and so uses the node's resources; a rejected or finished pod does not.
    pub active: bool,
}

/// All pods by UID. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PodTable {
    entries: Arc<RwLock<BTreeMap<PodUid, Entry>>>,
}

impl PodTable {
    /// A copy of every entry.
    pub fn list(&self) -> Vec<Entry> {
        self.read().values().cloned().collect()
    }

    /// The entry of a UID.
    pub fn get(&self, uid: &PodUid) -> Option<Entry> {
        self.read().get(uid).cloned()
    }

    /// The entry of a name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Entry> {
        self.read().values().find(|entry| entry.pod.namespace() == namespace && entry.pod.name() == name).cloned()
    }

    /// Adds or replaces an entry.
    pub fn set(&self, entry: Entry) {
        self.write().insert(entry.pod.uid().clone(), entry);
    }

    /// Changes an entry that is there.
    pub fn update(&self, uid: &PodUid, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.write().get_mut(uid) {
            change(entry);
        }
    }

    /// Forgets a pod.
    pub fn remove(&self, uid: &PodUid) {
        self.write().remove(uid);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<PodUid, Entry>> {
        self.entries.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<PodUid, Entry>> {
        self.entries.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
