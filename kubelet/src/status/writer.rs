//! Tells the API server what [`super::generate`] found.

use crate::api::Api;
use crate::clock::Clock;
use crate::pod::{Pod, PodUid};
use crate::sources::mirror::Mirrors;
use k8s_openapi::api::core::v1::PodStatus;
use std::sync::Arc;

/// Writes statuses of pods. Cheap to clone, never blocks: one task does all writing, newest version only.
#[derive(Debug, Clone)]
pub struct Writer {}

impl Writer {
    /// Starts the task. It ends when the last writer is dropped.
    pub fn start(api: Arc<dyn Api>, mirrors: Mirrors, clock: Clock) -> Writer {
        let _ = (api, mirrors, clock);
        todo!()
    }

    /// The status to show of this version of a pod. Nothing happens if the API server has it already.
    pub fn set(&self, pod: &Pod, status: PodStatus) {
        let _ = (pod, status);
        todo!()
    }

    /// Nothing of this pod is left on the node: once its status is written and final, and it is being deleted, the
    /// object is deleted (grace 0, this UID only). Its mirror, if it is static, goes with [`Mirrors::remove`].
    pub fn finish(&self, pod: &Pod) {
        let _ = pod;
        todo!()
    }

    /// Forgets a pod that is gone from the API server.
    pub fn forget(&self, uid: &PodUid) {
        let _ = uid;
        todo!()
    }
}
