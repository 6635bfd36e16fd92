//! All pods as they are now, for whoever asks: the server, stats, garbage collection, the node's admission.
//!
//! The dispatcher and the workers of [`crate::worker`] write it; everyone else reads.

use crate::pod::{Pod, PodUid};
use crate::runtime::ObservedPod;
use k8s_openapi::api::core::v1::PodStatus;
use std::collections::{BTreeMap, BTreeSet};
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
    pods: Arc<RwLock<Pods>>,
}

#[derive(Debug, Default)]
struct Pods {
    entries: BTreeMap<PodUid, Entry>,
    /// Those that their source has no more: they are ending.
    gone: BTreeSet<PodUid>,
}

impl PodTable {
    /// A copy of every entry.
    pub fn list(&self) -> Vec<Entry> {
        self.read().entries.values().cloned().collect()
    }

    /// The entry of a UID.
    pub fn get(&self, uid: &PodUid) -> Option<Entry> {
        self.read().entries.get(uid).cloned()
    }

    /// The entry of a name. A pod that is gone from its source runs on until its containers have ended, while its successor
    /// has its name already: the successor is meant.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Entry> {
        let pods = self.read();
        let of_name = |entry: &&Entry| entry.pod.namespace() == namespace && entry.pod.name() == name;
        let newest = |entry: &&Entry| {
            let created = entry.pod.object().metadata.creation_timestamp.as_ref().map(|time| time.0);
            (!pods.gone.contains(entry.pod.uid()), created)
        };
        pods.entries.values().filter(of_name).max_by_key(newest).cloned()
    }

    /// Adds or replaces an entry.
    pub fn set(&self, entry: Entry) {
        let mut pods = self.write();
        pods.gone.remove(entry.pod.uid());
        pods.entries.insert(entry.pod.uid().clone(), entry);
    }

    /// Changes an entry that is there.
    pub fn update(&self, uid: &PodUid, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.write().entries.get_mut(uid) {
            change(entry);
        }
    }

    /// A pod's source has it no more; it is ending.
    pub fn leave(&self, uid: &PodUid) {
        let mut pods = self.write();
        if pods.entries.contains_key(uid) {
            pods.gone.insert(uid.clone());
        }
    }

    /// Forgets a pod.
    pub fn remove(&self, uid: &PodUid) {
        let mut pods = self.write();
        pods.entries.remove(uid);
        pods.gone.remove(uid);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Pods> {
        self.pods.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Pods> {
        self.pods.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Source;
    use serde_json::json;

    /// Which of these `web`s is found, each a UID and when it was created; `gone` left its source.
    fn check(webs: [(&str, Option<&str>); 2], gone: Option<&str>, found: &str) {
        let table = PodTable::default();
        for (uid, created) in webs {
            let object = json!({
                "metadata": {"name": "web", "namespace": "default", "uid": uid, "creationTimestamp": created},
                "spec": {"containers": []},
            });
            let pod = Pod::new(Arc::new(serde_json::from_value(object).unwrap()), Source::Api).unwrap();
            table.set(Entry { pod, observed: Arc::default(), status: Arc::default(), active: true });
        }
        gone.inspect(|gone| table.leave(&PodUid::parse(gone).unwrap()));
        let entry = table.find("default", "web").expect("one of them");
        assert_eq!(entry.pod.uid().as_str(), found, "{webs:?}, gone: {gone:?}");
    }

    #[test]
    fn of_two_pods_of_one_name_the_one_that_is_still_wanted_is_found() {
        let (early, late) = (Some("2026-01-01T00:00:00Z"), Some("2026-01-01T00:00:01Z"));
        check([("a", early), ("b", late)], Some("a"), "b");
        check([("a", late), ("b", early)], Some("b"), "a");
        check([("a", None), ("b", None)], Some("a"), "b");
        check([("a", None), ("b", None)], Some("b"), "a");
        check([("a", early), ("b", late)], None, "b");
        check([("a", late), ("b", early)], None, "a");
    }
}
