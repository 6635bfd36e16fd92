//! Mirror pods: what the API server shows of static pods.
//!
//! A mirror has another UID than its pod and carries the pod's in an annotation. It is made again when somebody deletes
//! it, replaced when its pod changes, and deleted without grace when its pod is gone.

use crate::api::{Api, ApiError};
use crate::pod::Pod;
use k8s_openapi::api::core::v1::{Node, Pod as PodObject, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;
use tracing::info;

/// Annotation of a mirror: the UID of its static pod.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotation of a static pod: the hash of its manifest, which is its UID.
pub(crate) const HASH: &str = "kubernetes.io/config.hash";

type Names = (String, String);

/// The mirrors of all static pods. Cheap to clone.
#[derive(Clone)]
pub struct Mirrors {
    api: Arc<dyn Api>,
    /// Whose controller reference they carry; the API server insists on it.
    node: watch::Receiver<Option<Arc<Node>>>,
    /// As the API server has them.
    mirrors: Arc<Mutex<BTreeMap<Names, Arc<PodObject>>>>,
}

impl std::fmt::Debug for Mirrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.mirrors().keys()).finish()
    }
}

impl Mirrors {
    /// None yet: they come with the pods of the API server.
    pub fn new(api: Arc<dyn Api>, node_name: &str) -> Mirrors {
        let node = api.watch_node(node_name);
        Mirrors { api, node, mirrors: Arc::default() }
    }

    /// Makes the mirror of this static pod be there as it should: creates it, or deletes one that is out of date or
    /// being deleted and creates the next. A node alone has nothing to do.
    ///
    /// # Errors
    /// What the API server says. The source says the pod again when the node or the mirror changes.
    pub async fn reconcile(&self, pod: &Pod) -> Result<(), ApiError> {
        if self.is_right(pod) {
            return Ok(());
        }
        if let Some(mirror) = self.get(pod.namespace(), pod.name()) {
            info!(pod = %pod, "delete a mirror pod that is out of date");
            self.delete(&mirror).await?;
        }
        self.create(pod).await
    }

    /// Deletes the mirror of this static pod, which is gone, if there is one. That of its successor, which has its name,
    /// stays.
    ///
    /// # Errors
    /// What the API server says. The mirror is an orphan then.
    pub async fn remove(&self, pod: &Pod) -> Result<(), ApiError> {
        match self.of(pod) {
            Some(mirror) => self.delete(&mirror).await,
            None => Ok(()),
        }
    }

    /// Mirrors whose static pods are none of these: they could not be removed, or a kubelet that died left them.
    pub fn orphans(&self, static_pods: &[Pod]) -> Vec<Arc<PodObject>> {
        let is_orphan = |(namespace, name): &Names| {
            !static_pods.iter().any(|pod| pod.namespace() == namespace && pod.name() == name)
        };
        self.mirrors().iter().filter(|(names, _)| is_orphan(names)).map(|(_, mirror)| mirror.clone()).collect()
    }

    /// Whether there is nothing to do for this pod, as far as we know.
    pub(crate) fn is_right(&self, pod: &Pod) -> bool {
        let kept = |mirror: Arc<PodObject>| mirror.metadata.deletion_timestamp.is_none();
        !self.api.in_cluster() || !pod.is_static() || self.of(pod).is_some_and(kept)
    }

    /// What the API server was told of this version of a static pod.
    pub(crate) fn status(&self, pod: &Pod) -> Option<PodStatus> {
        self.of(pod)?.status.clone()
    }

    /// The mirror of this version of a static pod.
    fn of(&self, pod: &Pod) -> Option<Arc<PodObject>> {
        self.get(pod.namespace(), pod.name()).filter(|mirror| is_of(mirror, pod))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.mirrors().len()
    }

    /// The mirror of this name, as the API server has it.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<PodObject>> {
        self.mirrors().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// A receiver of the node whose mirrors these are.
    pub(super) fn node(&self) -> watch::Receiver<Option<Arc<Node>>> {
        self.node.clone()
    }

    /// All mirrors are these.
    pub(crate) fn replace(&self, all: Vec<PodObject>) {
        *self.mirrors() = all.into_iter().map(|mirror| (names(&mirror.metadata), Arc::new(mirror))).collect();
    }

    /// This one is new or changed.
    pub(crate) fn put(&self, mirror: PodObject) {
        self.mirrors().insert(names(&mirror.metadata), Arc::new(mirror));
    }

    /// This one is gone, unless another has its name already.
    pub(super) fn forget(&self, mirror: &PodObject) {
        let names = names(&mirror.metadata);
        let mut mirrors = self.mirrors();
        if mirrors.get(&names).is_some_and(|kept| kept.metadata.uid == mirror.metadata.uid) {
            mirrors.remove(&names);
        }
    }

    async fn create(&self, pod: &Pod) -> Result<(), ApiError> {
        let node = self.node.borrow().clone();
        let uid = node.as_ref().and_then(|node| Some((node.metadata.name.clone()?, node.metadata.uid.clone()?)));
        let Some((node, uid)) = uid else {
            return Err(ApiError::Unavailable(format!("make the mirror of {pod}: our node is not registered yet")));
        };
        match self.api.create_pod(&mirror_of(pod, node, uid)).await {
            Ok(mirror) => self.put(mirror),
            // The watch has not told of it yet; it will, and then it is looked at.
            Err(ApiError::AlreadyExists(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Deletes a mirror, without grace.
    ///
    /// # Errors
    /// What the API server says, unless it has the mirror no more.
    pub async fn delete(&self, mirror: &PodObject) -> Result<(), ApiError> {
        let (namespace, name) = names(&mirror.metadata);
        let uid = mirror.metadata.uid.as_deref().unwrap_or_default();
        match self.api.delete_pod(&namespace, &name, uid, 0).await {
            // Gone, or another one by now.
            Ok(()) | Err(ApiError::NotFound(_) | ApiError::Conflict(_)) => {
                self.forget(mirror);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn mirrors(&self) -> MutexGuard<'_, BTreeMap<Names, Arc<PodObject>>> {
        self.mirrors.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Whether this object is a mirror of some static pod.
pub(super) fn is_mirror(object: &PodObject) -> bool {
    object.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR))
}

/// Whether it is the mirror of this version of the pod.
fn is_of(mirror: &PodObject, pod: &Pod) -> bool {
    let hash = mirror.metadata.annotations.as_ref().and_then(|annotations| annotations.get(MIRROR));
    hash.is_some() && hash.map(String::as_str) == pod.annotation(HASH)
}

fn names(meta: &ObjectMeta) -> Names {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn mirror_of(pod: &Pod, node: String, node_uid: String) -> PodObject {
    let mut mirror = pod.object().clone();
    mirror.status = None;
    mirror.metadata.uid = None;
    mirror.metadata.resource_version = None;
    let hash = pod.annotation(HASH).unwrap_or_default().to_owned();
    mirror.metadata.annotations.get_or_insert_default().insert(MIRROR.to_owned(), hash);
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node,
        uid: node_uid,
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    mirror
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::api::FakeApi;
    use crate::pod::Source;
    use serde_json::json;

    fn static_pod(hash: &str) -> Pod {
        let object = serde_json::from_value(json!({
            "metadata": {"name": "etcd-n1", "namespace": "kube-system", "uid": hash, "annotations": {HASH: hash}},
            "spec": {"containers": [{"name": "etcd"}]},
        }))
        .unwrap();
        Pod::new(Arc::new(object), Source::File).unwrap()
    }

    fn cluster() -> (FakeApi, Mirrors) {
        let fake = FakeApi::new();
        fake.put_node(serde_json::from_value(json!({"metadata": {"name": "n1", "uid": "node-uid"}})).unwrap());
        let mirrors = Mirrors::new(fake.api(), "n1");
        (fake, mirrors)
    }

    fn mirror(fake: &FakeApi) -> PodObject {
        fake.state().pods[&("kube-system".to_owned(), "etcd-n1".to_owned())].clone()
    }

    #[tokio::test]
    async fn a_mirror_carries_the_hash_and_belongs_to_the_node() {
        let (fake, mirrors) = cluster();
        mirrors.reconcile(&static_pod("h1")).await.unwrap();
        let mirror = mirror(&fake);
        assert_eq!(mirror.metadata.annotations.unwrap()[MIRROR], "h1");
        let owner = &mirror.metadata.owner_references.unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str(), owner.controller), ("Node", "node-uid", Some(true)));
        assert_ne!(mirror.metadata.uid.as_deref(), Some("h1"));
    }

    #[tokio::test]
    async fn a_mirror_that_is_right_is_left_alone() {
        let (fake, mirrors) = cluster();
        for _ in 0..3 {
            mirrors.reconcile(&static_pod("h1")).await.unwrap();
        }
        assert_eq!(fake.state().calls, ["create_pod kube-system/etcd-n1"]);
    }

    #[tokio::test]
    async fn a_mirror_of_an_older_manifest_is_replaced() {
        let (fake, mirrors) = cluster();
        mirrors.reconcile(&static_pod("h1")).await.unwrap();
        let old = mirror(&fake).metadata.uid;
        mirrors.reconcile(&static_pod("h2")).await.unwrap();
        assert_eq!(mirror(&fake).metadata.annotations.unwrap()[MIRROR], "h2");
        assert_ne!(mirror(&fake).metadata.uid, old);
    }

    #[tokio::test]
    async fn a_mirror_whose_pod_is_gone_is_deleted() {
        let (fake, mirrors) = cluster();
        mirrors.reconcile(&static_pod("h1")).await.unwrap();
        assert_eq!(mirrors.orphans(&[]), [Arc::new(mirror(&fake))]);
        assert!(mirrors.orphans(&[static_pod("h1")]).is_empty());
        mirrors.remove(&static_pod("h1")).await.unwrap();
        assert!(fake.state().pods.is_empty());
        mirrors.remove(&static_pod("h1")).await.unwrap();
    }

    #[tokio::test]
    async fn a_pod_that_goes_leaves_the_mirror_of_its_successor() {
        let (fake, mirrors) = cluster();
        mirrors.reconcile(&static_pod("h2")).await.unwrap();
        mirrors.remove(&static_pod("h1")).await.unwrap();
        assert_eq!(mirror(&fake).metadata.annotations.unwrap()[MIRROR], "h2");
    }

    #[tokio::test]
    async fn without_a_node_there_is_no_mirror_yet() {
        let fake = FakeApi::new();
        let mirrors = Mirrors::new(fake.api(), "n1");
        assert!(matches!(mirrors.reconcile(&static_pod("h1")).await, Err(ApiError::Unavailable(_))));
        assert!(fake.state().calls.is_empty());
    }
}
