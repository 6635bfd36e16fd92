//! Volumes: what a pod's volumes hold, where they lie, and how they go away again.
//!
//! Upstream's layout below `<root>/pods/<uid>/`: `volumes/kubernetes.io~<kind>/<name>` and, for subPaths,
//! `volume-subpaths/<volume>/<container>/<index>`. It is given the pods and their objects; it never asks the CRI.

use crate::api::Api;
use crate::clock::Clock;
use crate::config::Config;
use crate::pod::{Pod, PodUid};
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A volume that could not be set up, mounted or taken down.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct VolumeError {
    /// The volume's name in the pod; empty where it is about none in particular.
    pub volume: String,
    /// `FailedMount`; from [`Volumes::container_mounts`] `CreateContainerConfigError`.
    pub reason: &'static str,
    /// The event's text, upstream's where upstream has one.
    pub message: String,
}

/// How full one volume is, and how full the pod's own files are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodUsage {
    /// Every volume that lies in the pod's folder, by name.
    pub volumes: Vec<VolumeUsage>,
    /// /etc/hosts and termination messages: files of the node's disk that containers can write (CVE-2020-8557).
    pub files: Used,
}

/// How full one volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUsage {
    /// The volume's name.
    pub name: String,
    /// What it holds.
    pub used: Used,
    /// The file system that it lies on.
    pub filesystem: sys::fs::Usage,
    /// Whether it takes from the node's disk, and so counts as the pod's ephemeral storage; tmpfs does not.
    pub on_disk: bool,
}

/// Space taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Bytes allocated.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
    /// False if there was more than we were willing to count: the numbers are a lower bound.
    pub complete: bool,
}

/// The volumes of all pods. Cheap to clone.
#[derive(Clone)]
pub struct Volumes {}

impl Volumes {
    /// Works below `config.root`.
    pub fn new(_config: &Config, _api: Arc<dyn Api>, _clock: Clock) -> Volumes {
        todo!()
    }

    /// Sets up every volume that a container of `pod` mounts, and brings the content of those that have some up to date.
    /// Call it at each sync: it does only what is missing. `allocatable` is the node's.
    pub async fn mount(&self, _pod: &Pod, _allocatable: &BTreeMap<String, Quantity>) -> Result<(), VolumeError> {
        todo!()
    }

    /// What the CRI shall mount into `container` for its `volumeMounts`, subPaths bound and ready. `environment` is the
    /// container's, for `subPathExpr`; `recursive_read_only` says whether the runtime handler can do that.
    pub async fn container_mounts(
        &self,
        _pod: &Pod,
        _container: &Container,
        _environment: &BTreeMap<String, String>,
        _recursive_read_only: bool,
    ) -> Result<Vec<proto::Mount>, VolumeError> {
        todo!()
    }

    /// Takes all volumes of a pod down: unmounts, deletes. From what is on disk alone: the object may be gone. Idempotent.
    pub async fn unmount(&self, _uid: &PodUid) -> Result<(), VolumeError> {
        todo!()
    }

    /// [`unmount`](Self::unmount), and then the rest of the pod's folder.
    pub async fn remove_folder(&self, _uid: &PodUid) -> Result<(), VolumeError> {
        todo!()
    }

    /// The pods that have a folder.
    pub async fn pods_on_disk(&self) -> Result<Vec<PodUid>, VolumeError> {
        todo!()
    }

    /// How full the pod's volumes and files are. Walks trees: ask for it from a background task, not for each request.
    pub async fn usage(&self, _uid: &PodUid) -> Result<PodUsage, VolumeError> {
        todo!()
    }
}

/// The first volume in `spec` of a kind that is not built yet, as the path of its field: `spec.volumes[2].nfs`.
pub fn unsupported(_spec: &k8s_openapi::api::core::v1::PodSpec) -> Option<String> {
    todo!()
}
