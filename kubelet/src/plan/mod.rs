//! What has to happen to a pod now: `(desired, observed, memory, now) → actions`. No I/O, no clock, no task.
//!
//! [`plan`] is asked again after its actions were done and the pod observed anew, until it has none; it then says in
//! [`Plan::wake_at`] when time alone will change its mind. What it needs to remember between two questions is [`Memory`]:
//! the back-offs. All rules are upstream's (`computePodActions`, `doBackOff`), written as one table of cases in the tests.

use crate::pod::{Pod, Role};
use crate::runtime::ObservedPod;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// What is wanted of a pod, and what its probes say.
pub struct Desired<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The hash of each container's spec, by name: a running container with another one is replaced.
    pub hashes: &'a BTreeMap<String, String>,
    /// What the probes say of a running container, by the runtime's id.
    pub verdict: &'a dyn Fn(&str) -> Verdict,
}

/// What the probes say of a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether its startup probe passed, or it has none.
    pub started: bool,
    /// The probe that gave up on it, and the grace period that this probe asks for.
    pub failed: Option<(Failed, Option<Duration>)>,
}

/// A probe that gave up on a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// The liveness probe.
    Liveness,
    /// The startup probe.
    Startup,
}

/// What planning remembers of one pod.
#[derive(Debug, Default)]
pub struct Memory {}

/// Something to do. A plan's actions are done in their order; the first that fails ends the round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Stops these containers, all at the same time.
    Kill(Vec<Kill>),
    /// Stops a sandbox.
    StopSandbox {
        /// The sandbox.
        id: String,
    },
    /// Removes a dead container, so that nobody takes it for done.
    RemoveContainer {
        /// The container.
        id: String,
    },
    /// Makes a sandbox.
    CreateSandbox {
        /// How many the pod had before.
        attempt: u32,
        /// Whether it replaces one that is broken: upstream's event `SandboxChanged`.
        replaces: bool,
    },
    /// Makes and starts a container in the sandbox that is ready.
    Start(Start),
}

/// A container to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// The container.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The text of the event `Killing`.
    pub message: String,
    /// When its grace is over; it is never less than two seconds.
    pub until: Instant,
}

/// A container to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Its name.
    pub name: String,
    /// What it is to the pod.
    pub role: Role,
    /// The sandbox it goes into.
    pub sandbox: String,
    /// Which start this is, from 0; `None` if the runtime has no trace of an earlier one and the logs on disk decide.
    pub restart_count: Option<u32>,
}

/// Why a container waits: `state.waiting` of its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// `CrashLoopBackOff` and the like.
    pub reason: &'static str,
    /// The sentence beside it.
    pub message: String,
}

/// Why a pod's containers are ended for good although nobody asked for its deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All that was to run has run, or an init container failed for good.
    Completed,
    /// `activeDeadlineSeconds` are over.
    DeadlineExceeded,
}

/// The answer.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// What to do now.
    pub actions: Vec<Action>,
    /// Why containers wait, by name.
    pub notes: BTreeMap<String, Waiting>,
    /// When to ask again although nothing has happened.
    pub wake_at: Option<Instant>,
    /// Whether the pod is over.
    pub end: Option<End>,
}

/// Says what has to happen now.
pub fn plan(_desired: &Desired<'_>, _observed: &ObservedPod, _memory: &Memory, _now: crate::clock::Now) -> Plan {
    todo!()
}
