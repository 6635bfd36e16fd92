//! Pods at work: one dispatcher owns all workers; each worker is a task that brings one pod from what it is to what it
//! should be, and at last to its end.

use crate::pod::PodUid;
use tokio::sync::mpsc;

/// Wakes a pod's worker: something it depends on has changed. Cheap to clone; wakes that come while it works are one.
#[derive(Debug, Clone)]
pub struct Wake {
    pods: mpsc::UnboundedSender<PodUid>,
}

impl Wake {
    /// A handle, and what it writes to.
    pub fn new() -> (Wake, mpsc::UnboundedReceiver<PodUid>) {
        let (pods, receiver) = mpsc::unbounded_channel();
        (Wake { pods }, receiver)
    }

    /// Wakes the worker of this pod, if there is one.
    pub fn wake(&self, uid: &PodUid) {
        // Nobody listens only when the kubelet is ending.
        let _ = self.pods.send(uid.clone());
    }

    /// The channel itself, for those who only send.
    pub fn sender(&self) -> mpsc::UnboundedSender<PodUid> {
        self.pods.clone()
    }
}
