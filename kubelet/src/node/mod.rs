//! Our node in the cluster: it registers, says what it is and how it is, and renews its lease.
//!
//! | module | answers |
//! |---|---|
//! | [`facts`] | what this machine is: capacity, allocatable, addresses, ids; read once |
//! | [`health`] | is the runtime well enough for pods to be sent here |
//! | [`pressure`] | which of memory, disk and process ids run short |
//! | [`status`] | facts, health, pressures, images → `Node.status`; pure |
//! | [`register`] | the Node object's creation, and what an existing one keeps |
//! | [`heartbeat`] | when the status is written |
//! | [`lease`] | the heartbeat that the control plane counts |
//! | [`tuning`] | the kernel settings that a node needs |

pub mod facts;
pub mod pressure;

pub use facts::{Facts, FactsError, facts};
pub use pressure::Pressures;

use crate::api::Api;
use crate::api::events::Recorder;
use crate::clock::Clock;
use crate::config::Config;
use crate::runtime::{Health, Runtime};
use k8s_openapi::api::core::v1::Node;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the node's tasks work with.
pub struct Inputs {
    /// Settings.
    pub config: Arc<Config>,
    /// The machine.
    pub facts: Arc<Facts>,
    /// Where the node is registered. A node that stands alone writes nothing, and watches its pressures all the same.
    pub api: Arc<dyn Api>,
    /// Images and the image file system.
    pub runtime: Arc<dyn Runtime>,
    /// Node events.
    pub recorder: Recorder,
    /// The time.
    pub clock: Clock,
    /// How the runtime is.
    pub health: watch::Receiver<Health>,
}

/// The node's tasks; they end when this is dropped.
pub struct Running {
    /// Our Node object: labels, taints, `spec.unschedulable`. `None` until it was read; a node that stands alone has
    /// the object that it would register.
    pub node: watch::Receiver<Option<Arc<Node>>>,
    /// What runs short, renewed every 10 s.
    pub pressures: watch::Receiver<Pressures>,
    tasks: JoinSet<()>,
}

/// Starts registration, status, lease and pressure sampling.
pub fn start(inputs: Inputs) -> Running {
    let _ = inputs;
    todo!()
}

impl Running {
    /// Ends the tasks and waits until they did. The lease and the Node object stay: pods run on.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}
