//! What has to happen to a pod now: `(desired, observed, memory, now) → actions`. No I/O, no clock, no task.
//!
//! [`plan`] is asked again after its actions were done and the pod observed anew, until it has none; it then says in
//! [`Plan::wake_at`] when time alone will change its mind. What it needs to remember between two questions is [`Memory`]:
//! back-offs and failures. How a pod ends is [`terminate`]; where it stands on its way is a [`Lifecycle`]. All rules are
//! upstream's (`computePodActions`, `doBackOff`, `killContainersWithSyncResult`), each with its case in the tests.

mod backoff;
mod containers;
mod init;
mod lifecycle;
mod sandbox;
mod terminate;
#[cfg(test)]
mod tests;

pub use backoff::{Failure, Memory};
pub use lifecycle::Lifecycle;
pub use terminate::{grace_period, terminate};

use crate::clock::Now;
use crate::pod::{Pod, Role};
use crate::runtime::{Container, ContainerState, ObservedPod};
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
    /// When the pod was first seen on this node: `status.startTime`, from which `activeDeadlineSeconds` count.
    pub start_time: Option<jiff::Timestamp>,
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

impl Action {
    /// Whether this does again what that did, whatever time it has for it.
    pub fn repeats(&self, other: &Action) -> bool {
        match (self, other) {
            (Action::Kill(these), Action::Kill(those)) => {
                these.iter().map(|kill| &kill.id).eq(those.iter().map(|kill| &kill.id))
            }
            (this, that) => this == that,
        }
    }
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
    /// When the one before it ended, if one did: its back-off counts from there.
    pub after: Option<jiff::Timestamp>,
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
    /// Whether the pod is over; there are no actions then.
    pub end: Option<End>,
}

/// Says what has to happen now.
pub fn plan(desired: &Desired<'_>, observed: &ObservedPod, memory: &Memory, now: Now) -> Plan {
    let mut plan = Plan::default();
    if let Some(deadline) = deadline(desired) {
        if deadline <= now.wall {
            return Plan { end: Some(End::DeadlineExceeded), ..plan };
        }
        plan.wake_by(now, deadline);
    }
    let Some(ready) = sandbox::usable(desired.pod, observed) else {
        sandbox::plan(desired, observed, memory, now, &mut plan);
        return plan;
    };
    let pass = Pass { desired, observed, memory, now, sandbox: ready };
    pass.run(&mut plan);
    plan
}

/// When `activeDeadlineSeconds` are over.
fn deadline(desired: &Desired<'_>) -> Option<jiff::Timestamp> {
    let seconds = desired.pod.spec().active_deadline_seconds?;
    desired.start_time?.checked_add(jiff::SignedDuration::from_secs(seconds)).ok()
}

/// Planning of a pod that has a sandbox.
struct Pass<'a> {
    desired: &'a Desired<'a>,
    observed: &'a ObservedPod,
    memory: &'a Memory,
    now: Now,
    /// The sandbox that is ready.
    sandbox: &'a str,
}

impl Pass<'_> {
    fn run(&self, plan: &mut Plan) {
        // Before anything else: a sidecar that ended last is not started again for a pod that is over.
        if self.all_ended() {
            plan.end = Some(End::Completed);
            return;
        }
        let mut wanted = containers::Wanted::default();
        match self.init(&mut wanted) {
            init::Progress::Failed => {
                plan.end = Some(End::Completed);
                return;
            }
            init::Progress::Underway => {}
            init::Progress::Done => self.regular(&mut wanted),
        }
        if !wanted.kill.is_empty() {
            plan.actions.push(Action::Kill(wanted.kill));
        }
        for (role, name) in wanted.start {
            self.start(role, name, plan);
        }
    }

    /// Starts a container, or says why it has to wait.
    fn start(&self, role: Role, name: &str, plan: &mut Plan) {
        let hash = self.hash(name);
        let exited = self.observed.containers.iter().find_map(|container| match &container.state {
            ContainerState::Exited(exit) if container.name == name => Some(exit.finished_at),
            _ => None,
        });
        if let Some((until, delay)) = exited.and_then(|exited| self.memory.back_off(name, hash, exited, self.now.wall))
        {
            let message = format!(
                "back-off {} restarting failed container={name} pod={}",
                backoff::go_duration(delay),
                backoff::pod_name(self.desired.pod)
            );
            plan.notes.insert(name.to_owned(), Waiting { reason: "CrashLoopBackOff", message });
            plan.wake_by(self.now, until);
            return;
        }
        if let Some(failure) = self.memory.failure(name) {
            plan.notes.insert(name.to_owned(), failure.waiting.clone());
            if failure.retry_at > self.now.mono {
                plan.wake_at_the_latest(failure.retry_at);
                return;
            }
        }
        plan.actions.push(Action::Start(Start {
            name: name.to_owned(),
            role,
            sandbox: self.sandbox.to_owned(),
            restart_count: self.newest(name).map(|newest| newest.restart_count + 1),
            after: exited,
        }));
    }

    /// The newest container of this name.
    fn newest(&self, name: &str) -> Option<&Container> {
        self.observed.containers.iter().find(|container| container.name == name)
    }

    fn hash(&self, name: &str) -> &str {
        self.desired.hashes.get(name).map(String::as_str).unwrap_or_default()
    }

    /// Whether the container runs with another spec than the one that is wanted.
    fn changed(&self, container: &Container) -> bool {
        container.hash != self.hash(&container.name)
    }

    /// An order to stop a container; `grace` overrides the pod's.
    fn kill(&self, container: &Container, message: String, grace: Option<Duration>) -> Kill {
        let grace = grace.unwrap_or_else(|| grace_period(self.desired.pod));
        Kill {
            id: container.id.clone(),
            name: container.name.clone(),
            message,
            until: self.now.mono + grace.clamp(terminate::MINIMUM_GRACE, terminate::LONGEST_GRACE),
        }
    }
}

impl Plan {
    /// Asks again at `wall`, or before.
    fn wake_by(&mut self, now: Now, wall: jiff::Timestamp) {
        let left = Duration::try_from(wall.duration_since(now.wall)).unwrap_or_default();
        self.wake_at_the_latest(now.mono + left);
    }

    fn wake_at_the_latest(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Whether containers of this pod are started again after they failed.
fn restarts_on_failure(pod: &Pod) -> bool {
    pod.spec().restart_policy.as_deref() != Some("Never")
}
