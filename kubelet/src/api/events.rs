//! Events: what `kubectl describe` shows of a pod's or the node's life.

use super::Api;
use crate::clock::Clock;
use crate::pod::{Pod, Role};
use std::sync::Arc;

/// How an event is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Information.
    Normal,
    /// Trouble.
    Warning,
}

/// Writes events. Cheap to clone, never blocks: a queue stands between.
#[derive(Debug, Clone)]
pub struct Recorder {}

impl Recorder {
    /// Starts the task that writes to `api` in the name of this node's kubelet. It ends when the last recorder is dropped.
    pub fn start(api: Arc<dyn Api>, clock: Clock, node_name: &str) -> Recorder {
        let _ = (api, clock, node_name);
        todo!()
    }

    /// An event of a pod.
    pub fn pod(&self, pod: &Pod, kind: Kind, reason: &str, message: impl Into<String>) {
        let _ = (pod, kind, reason, message.into());
        todo!()
    }

    /// An event of one of its containers.
    pub fn container(&self, pod: &Pod, role: Role, name: &str, kind: Kind, reason: &str, message: impl Into<String>) {
        let _ = (pod, role, name, kind, reason, message.into());
        todo!()
    }

    /// An event of our node.
    pub fn node(&self, kind: Kind, reason: &str, message: impl Into<String>) {
        let _ = (kind, reason, message.into());
        todo!()
    }
}
