//! Mirror pods: what the API server shows of static pods.

use crate::api::{Api, ApiError};
use crate::pod::Pod;
use std::sync::Arc;

/// The mirrors of all static pods. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mirrors {}

impl Mirrors {
    /// None yet: they come with the pods of the API server.
    pub fn new(api: Arc<dyn Api>, node_name: &str) -> Mirrors {
        let _ = (api, node_name);
        todo!()
    }

    /// Makes the mirror of this static pod be there as it should: creates it, or deletes one that is out of date or
    /// being deleted (and creates it again when the watch says that it is gone). A node alone has nothing to do.
    pub async fn reconcile(&self, pod: &Pod) -> Result<(), ApiError> {
        let _ = pod;
        todo!()
    }

    /// Deletes the mirror of a static pod that is gone, if there is one.
    pub async fn remove(&self, namespace: &str, name: &str) -> Result<(), ApiError> {
        let _ = (namespace, name);
        todo!()
    }

    /// Names of mirrors that no static pod has: what was left by a kubelet that died.
    pub fn orphans(&self, static_pods: &[Pod]) -> Vec<(String, String)> {
        let _ = static_pods;
        todo!()
    }
}
