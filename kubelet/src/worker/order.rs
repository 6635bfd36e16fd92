//! What a worker is told. Only the newest order counts: however much happens while a worker works, it sees the sum once.

use crate::pod::Pod;
use std::time::Duration;

/// What the dispatcher last told a worker.
#[derive(Debug, Clone)]
pub(super) struct Order {
    /// The newest version of the pod.
    pub(super) pod: Pod,
    /// The pod has to end, and how long its containers may take.
    pub(super) stop: Option<Duration>,
    /// Nobody knows the pod any more: when nothing is left of it, its worker leaves.
    pub(super) gone: bool,
    /// Counts what the pod depends on and what changed: probes, volumes, objects, the runtime's health.
    pub(super) wakes: u64,
    /// Counts what the runtime said of it.
    pub(super) seen: u64,
}

impl Order {
    pub(super) fn new(pod: Pod) -> Order {
        let stop = deletion(&pod);
        Order { pod, stop, gone: false, wakes: 0, seen: 0 }
    }

    /// A newer version of the pod.
    pub(super) fn update(&mut self, pod: Pod) {
        self.stop = deletion(&pod).or(self.stop);
        self.pod = pod;
    }

    /// The pod is gone from its source.
    pub(super) fn remove(&mut self) {
        self.gone = true;
        self.stop = self.stop.or_else(|| Some(crate::plan::grace_period(&self.pod)));
    }
}

/// The grace period of a pod that is being deleted.
fn deletion(pod: &Pod) -> Option<Duration> {
    pod.object().metadata.deletion_timestamp.as_ref().map(|_| crate::plan::grace_period(pod))
}
