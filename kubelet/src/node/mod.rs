//! Our node in the cluster: it registers, says what it is and how it is, and renews its lease.
//!
//! | module | answers |
//! |---|---|
//! | [`facts`] | what this machine is: capacity, allocatable, addresses, ids; read once |
//! | [`pressure`] | which of memory, disk and process ids run short |
//! | [`status`] | facts, health, pressures, images → `Node.status`; pure |
//! | [`register`] | the Node object's creation, and what an existing one keeps |
//! | [`heartbeat`] | when the status is written |
//! | [`lease`] | the heartbeat that the control plane counts |
//! | [`tuning`] | the kernel settings that a node needs |

mod amount;
pub mod facts;
mod heartbeat;
mod lease;
pub mod pressure;
mod register;
mod status;
mod tuning;

pub use facts::{Facts, FactsError, facts};
pub use pressure::Pressures;

use crate::api::Api;
use crate::api::events::{Kind, Recorder};
use crate::cgroups::Cgroups;
use crate::clock::Clock;
use crate::config::Config;
use crate::runtime::{Health, Runtime};
use heartbeat::Reporter;
use k8s_openapi::api::core::v1::Node;
use lease::Keeper;
use pressure::{ImageStore, Judge, MachineSampler, Sampler, Signal};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

/// How often the limits of all pods together are tried again where the kernel refuses them.
const ENFORCE_AGAIN: Duration = Duration::from_secs(60);
const CGROUP_V1: &str = "cgroup v1 detected. cgroup v1 support is deprecated and will be removed in a future release. \
                         Please migrate to cgroup v2. More information at \
                         https://git.k8s.io/enhancements/keps/sig-node/5573-remove-cgroup-v1";

/// What the node's tasks work with.
pub struct Inputs {
    /// Settings.
    pub config: Arc<Config>,
    /// The machine.
    pub facts: Arc<Facts>,
    /// Where the node is registered. A node that stands alone writes nothing, and watches its pressures all the same.
    pub api: Arc<dyn Api>,
    /// Version and images.
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
    /// What runs short, renewed every 10 s once [`Running::supervise`] was called.
    pub pressures: watch::Receiver<Pressures>,
    pressed: watch::Sender<Pressures>,
    inputs: Inputs,
    tasks: JoinSet<()>,
}

/// Starts registration, status and lease: they don't wait for the runtime. To be called in a tokio runtime.
pub fn start(inputs: Inputs) -> Running {
    let mut tasks = JoinSet::new();
    inputs.recorder.node(Kind::Normal, "Starting", "Starting kubelet.");
    let (pressed, pressures) = watch::channel(Pressures::default());
    let name = &inputs.config.node_name;
    let (alone, node) = if inputs.api.in_cluster() {
        let keeper =
            Keeper::new(Arc::clone(&inputs.api), inputs.clock.clone(), name, inputs.config.heartbeat.lease_duration);
        tasks.spawn(keeper.run());
        (None, inputs.api.watch_node(name))
    } else {
        let (sender, receiver) = watch::channel(None);
        (Some(sender), receiver)
    };
    tasks.spawn(Reporter::new(&inputs, pressures.clone(), node.clone(), alone).run());
    Running { node, pressures, pressed, inputs, tasks }
}

impl Running {
    /// Starts what needs the cgroups of pods: the enforcement of their limits, and a look at what runs short.
    pub fn supervise(&mut self, cgroups: Arc<Cgroups>) {
        let inputs = &self.inputs;
        let sampler = MachineSampler {
            root: inputs.config.root.clone(),
            images: ImageStore::new(Arc::clone(&inputs.runtime)),
            cgroups: Arc::clone(&cgroups),
            memory_bytes: inputs.facts.memory_bytes,
        };
        let enforce = inputs.config.limits.enforce_allocatable;
        self.tasks.spawn(prepare(cgroups, enforce, inputs.recorder.clone()));
        // A machine that belongs to no cluster is somebody's: `orlop up` leaves it as it found it.
        if inputs.api.in_cluster() {
            self.tasks.spawn(tune());
        }
        self.sample(Arc::new(sampler));
    }

    fn sample(&mut self, sampler: Arc<dyn Sampler>) {
        let (clock, recorder) = (self.inputs.clock.clone(), self.inputs.recorder.clone());
        let judge = Judge::new(&self.inputs.config.limits);
        self.tasks.spawn(watch_pressures(sampler, judge, clock, recorder, self.pressed.clone()));
    }

    /// Ends the tasks and waits until they did. The lease and the Node object stay: pods run on.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Samples what is left, and says what runs short when that changes.
async fn watch_pressures(
    sampler: Arc<dyn Sampler>,
    mut judge: Judge,
    clock: Clock,
    recorder: Recorder,
    pressed: watch::Sender<Pressures>,
) {
    let mut tick = interval(pressure::PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut images_were_there = true;
    loop {
        tick.tick().await;
        let sample = sampler.sample().await;
        let images_are_there = sample.get(&Signal::ImageStorage).is_none_or(|reading| reading.capacity > 0);
        if images_were_there && !images_are_there {
            recorder.node(Kind::Warning, "InvalidDiskCapacity", "invalid capacity 0 on image filesystem");
        }
        images_were_there = images_are_there;
        let pressures = judge.judge(&sample, clock.now().mono);
        pressed.send_if_modified(|told| {
            let changed = *told != pressures;
            *told = pressures;
            changed
        });
    }
}

/// Gives the machine the kernel settings of a node.
async fn tune() {
    // A panic in there was reported where it happened; the node works with the settings that it has.
    for error in spawn_blocking(|| tuning::apply(Path::new("/proc/sys"))).await.unwrap_or_default() {
        tracing::warn!(%error, "a kernel setting stays as it is");
    }
}

/// Makes the machine fit for pods: the limit of all of them together, until the kernel takes it.
async fn prepare(cgroups: Arc<Cgroups>, enforce: bool, recorder: Recorder) {
    if !cgroups.is_v2() {
        recorder.node(Kind::Warning, "CgroupV1", CGROUP_V1);
    }
    if !enforce {
        return;
    }
    let kubepods = cgroups.kubepods().to_owned();
    let mut tick = interval(ENFORCE_AGAIN);
    loop {
        tick.tick().await;
        let cgroups = Arc::clone(&cgroups);
        match spawn_blocking(move || cgroups.enforce()).await {
            Ok(Ok(())) => {
                let message = "Updated Node Allocatable limit across pods";
                return recorder.node(Kind::Normal, "NodeAllocatableEnforced", message);
            }
            Ok(Err(error)) => {
                let message = format!("Failed to update Node Allocatable Limits {kubepods:?}: {error}");
                recorder.node(Kind::Warning, "FailedNodeAllocatableEnforcement", message);
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests;
