//! Probes: are the containers started, alive, ready?
//!
//! Each probe of a running container is a task (`task.rs`) that asks (`check/`: exec, HTTP, TCP, gRPC) and a pure state
//! machine that judges the answers (`machine.rs`). [`Probes`] starts and ends the tasks as the pod's worker says what runs,
//! keeps the verdicts by container id (`table.rs`), and wakes the worker when one changes. It never restarts anything: the
//! plan does.

mod check;
mod machine;
mod table;
mod task;

use crate::api::events::Recorder;
use crate::clock::{Clock, Now};
use crate::metrics::Metrics;
use crate::pod::{Pod, PodUid};
use crate::runtime::{ObservedPod, Runtime};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use table::Table;
use tokio::sync::mpsc;

/// A kind of probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `startupProbe`: until it succeeds the others wait; its failure restarts the container.
    Startup,
    /// `livenessProbe`: its failure restarts the container.
    Liveness,
    /// `readinessProbe`: says whether the container gets traffic.
    Readiness,
}

/// What the probes say of one container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// `containerStatuses[].started`: it runs, and its startup probe, if any, succeeded.
    pub started: bool,
    /// `containerStatuses[].ready`: it is started, and its readiness probe, if any, succeeds.
    pub ready: bool,
    /// Why it has to be restarted, if it has to be.
    pub unhealthy: Option<Unhealthy>,
}

/// A probe whose failure ends its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unhealthy {
    /// Liveness or startup.
    pub kind: Kind,
    /// `Container x failed liveness probe`: how the text of the `Killing` event begins.
    pub message: String,
    /// The probe's own grace period, which overrides the pod's.
    pub grace: Option<Duration>,
}

/// All probes of this node. Cheap to clone; the tasks end with the last clone.
#[derive(Clone)]
pub struct Probes {
    world: Arc<World>,
    table: Arc<Table>,
}

/// What the tasks ask with, and whom they tell.
struct World {
    runtime: Arc<dyn Runtime>,
    recorder: Recorder,
    clock: Clock,
    metrics: Metrics,
    host_ip: Option<IpAddr>,
    /// When this kubelet began: what ran before was known to the one before.
    began: Now,
    tls: check::Tls,
}

impl Probes {
    /// No probes yet. `host_ip` stands in for the address of a pod in the host's network; `wake` is told of each pod
    /// with a new verdict.
    pub fn new(
        runtime: Arc<dyn Runtime>,
        recorder: Recorder,
        clock: Clock,
        metrics: Metrics,
        host_ip: Option<IpAddr>,
        wake: mpsc::UnboundedSender<PodUid>,
    ) -> Probes {
        let began = clock.now();
        let world = World { runtime, recorder, clock, metrics, host_ip, began, tls: check::Tls::default() };
        Probes { world: Arc::new(world), table: Arc::new(Table::new(wake)) }
    }

    /// Makes the tasks fit what runs: new containers are probed, gone ones no more. While the pod is `terminating` only
    /// readiness is asked for. Idempotent and cheap: called at each sync of the pod.
    pub fn sync(&self, pod: &Pod, observed: &ObservedPod, terminating: bool) {
        self.table.sync(&self.world, pod, observed, terminating);
    }

    /// What the API server says of a container that ran before this kubelet did: it counts until the first verdict of a
    /// probe disagrees. To be called before the pod's first [`Probes::sync`].
    pub fn seed(&self, container_id: &str, started: bool, ready: bool) {
        self.table.seed(container_id, started, ready);
    }

    /// The verdict on a running container. One that [`Probes::sync`] saw running and that has no probes is started and
    /// ready; an unknown one is neither.
    pub fn state(&self, container_id: &str) -> State {
        self.table.state(container_id)
    }

    /// Ends all probes of a pod and forgets its verdicts.
    pub fn remove(&self, uid: &PodUid) {
        self.table.remove(uid);
        self.world.metrics.probes_forgotten(uid);
    }
}

impl Kind {
    /// As events and metrics spell it.
    fn name(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }
}

#[cfg(test)]
mod tests;
