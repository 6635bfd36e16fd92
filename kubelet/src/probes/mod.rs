//! Probes: are the containers started, alive, ready?
//!
//! Each probe of a running container is a task that asks ([`check`]: exec, HTTP, TCP, gRPC) and a pure state machine that
//! judges the answers ([`machine`]). [`Probes`] starts and ends the tasks as the pod's worker says what runs, keeps the
//! verdicts by container id, and wakes the worker when one changes. It never restarts anything: the plan does.

use crate::api::events::Recorder;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::pod::{Pod, PodUid};
use crate::runtime::{ObservedPod, Runtime};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
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
    /// `Container x failed liveness probe, will be restarted`: the text of the `Killing` event.
    pub message: String,
    /// The probe's own grace period, which overrides the pod's.
    pub grace: Option<Duration>,
}

/// All probes of this node. Cheap to clone.
#[derive(Clone)]
pub struct Probes {}

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
        let _ = (runtime, recorder, clock, metrics, host_ip, wake);
        todo!()
    }

    /// Makes the tasks fit what runs: new containers are probed, gone ones no more. While the pod is `terminating` only
    /// readiness is asked for. Idempotent and cheap: called at each sync of the pod.
    pub fn sync(&self, pod: &Pod, observed: &ObservedPod, terminating: bool) {
        let _ = (pod, observed, terminating);
        todo!()
    }

    /// What the API server says of a container that ran before this kubelet did: it counts until the first answer of a
    /// probe disagrees. To be called before the pod's first [`Probes::sync`].
    pub fn seed(&self, container_id: &str, started: bool, ready: bool) {
        let _ = (container_id, started, ready);
        todo!()
    }

    /// The verdict on a running container. One that [`Probes::sync`] saw running and that has no probes is started and
    /// ready; an unknown one is neither.
    pub fn state(&self, container_id: &str) -> State {
        let _ = container_id;
        todo!()
    }

    /// Ends all probes of a pod and forgets its verdicts.
    pub fn remove(&self, uid: &PodUid) {
        let _ = uid;
        todo!()
    }
}
