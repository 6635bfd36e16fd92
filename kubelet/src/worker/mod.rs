//! Pods at work: one dispatcher owns all workers; each worker is a task that brings one pod from what it is to what it
//! should be, and at last to its end.
//!
//! ```text
//!   sources ──▶ dispatcher ──Order (newest only)──▶ worker of a pod ──▶ runtime, host, status, events
//!   relist, events of the runtime ──▶  ▲
//!   probes, volumes, objects ── Wake ──┘
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`dispatcher`] | which pods have a worker: admission, orphans, one static pod per name |
//! | [`order`] | what a worker is told |
//! | [`pod`] | the worker: observe, plan, act, tell, wait |
//! | [`sync`], [`start`] | keeping a pod as it should be; one container's start |
//! | [`end`] | ending a pod, to the end |
//! | [`tell`] | its status |
//! | [`host`] | what a pod needs of the machine beside the runtime |
//! | [`this_host`] | this machine |
//! | [`orphan`] | pods of the runtime that nobody wants |

mod dispatcher;
mod end;
pub(crate) mod host;
mod order;
mod orphan;
mod pod;
mod start;
mod sync;
mod tell;
#[cfg(test)]
mod tests;
mod this_host;

pub(crate) use dispatcher::{Dispatcher, Gate, Inputs as DispatcherInputs};
pub(crate) use this_host::ThisHost;

use crate::api::Api;
use crate::api::events::Recorder;
use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::node::Facts;
use crate::pod::PodUid;
use crate::probes::Probes;
use crate::runtime::{Health, Runtime};
use crate::sources::mirror::Mirrors;
use crate::status::writer::Writer;
use crate::table::PodTable;
use host::Host;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// What all workers work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) facts: Arc<Facts>,
    pub(crate) runtime: Arc<dyn Runtime>,
    /// The scheme of container ids.
    pub(crate) runtime_name: Arc<str>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) api: Arc<dyn Api>,
    pub(crate) recorder: Recorder,
    pub(crate) writer: Writer,
    pub(crate) mirrors: Mirrors,
    pub(crate) probes: Probes,
    pub(crate) table: PodTable,
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
}

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
