//! The verdicts by container, and the tasks that reach them.

use super::check::Check;
use super::machine::{Rules, Verdict};
use super::{Kind, State, Unhealthy, World, task};
use crate::pod::{Pod, PodUid, Role};
use crate::runtime::{Container, ContainerState, ObservedPod};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, Probe};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

/// All running containers that were seen, by id.
pub(super) struct Table {
    watched: Mutex<HashMap<String, Watched>>,
    seeds: Mutex<HashMap<String, Seed>>,
    wake: mpsc::UnboundedSender<PodUid>,
}

/// What the API server said of a container before we asked it anything.
#[derive(Debug, Clone, Copy, Default)]
struct Seed {
    started: bool,
    ready: bool,
}

/// A running container.
struct Watched {
    pod: Pod,
    role: Role,
    name: String,
    startup: Option<Verdict>,
    readiness: Option<Verdict>,
    unhealthy: Option<Unhealthy>,
    /// Whether it is started: the other probes wait for that.
    started: watch::Sender<bool>,
    tasks: Vec<(Kind, Task)>,
}

/// A task that ends with its handle.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A running container as the runtime shows it, with its spec.
struct Found<'a> {
    id: &'a str,
    role: Role,
    spec: &'a Spec,
    started_at: Timestamp,
    address: Option<IpAddr>,
}

impl Table {
    pub(super) fn new(wake: mpsc::UnboundedSender<PodUid>) -> Table {
        Table { watched: Mutex::default(), seeds: Mutex::default(), wake }
    }

    pub(super) fn sync(self: &Arc<Table>, world: &Arc<World>, pod: &Pod, observed: &ObservedPod, terminating: bool) {
        let running = running(pod, observed, world.host_ip);
        let mut watched = self.lock();
        watched.retain(|id, entry| entry.pod.uid() != pod.uid() || running.iter().any(|found| found.id == id));
        for found in &running {
            match watched.get_mut(found.id) {
                Some(entry) => entry.pod = pod.clone(),
                None => {
                    let seed = self.seeds().remove(found.id).unwrap_or_default();
                    watched.insert(found.id.to_owned(), Watched::new(pod, found, seed));
                }
            }
            let entry = watched.get_mut(found.id).expect("it is there or was just inserted");
            if terminating {
                entry.end_quietly();
            }
            entry.start_tasks(self, world, found, terminating);
        }
    }

    pub(super) fn seed(&self, container_id: &str, started: bool, ready: bool) {
        self.seeds().insert(container_id.to_owned(), Seed { started, ready });
    }

    pub(super) fn state(&self, container_id: &str) -> State {
        self.lock().get(container_id).map(Watched::state).unwrap_or_default()
    }

    pub(super) fn remove(&self, uid: &PodUid) {
        self.lock().retain(|_, entry| entry.pod.uid() != uid);
    }

    /// Takes a new verdict, and wakes the pod's worker if that changes the container's state.
    pub(super) fn decide(&self, container_id: &str, kind: Kind, verdict: Verdict, grace: Option<Duration>) {
        let mut watched = self.lock();
        let Some(entry) = watched.get_mut(container_id) else { return };
        let before = entry.state();
        entry.decide(kind, verdict, grace);
        if entry.state() != before {
            // Nobody listens only when the kubelet is ending.
            let _ = self.wake.send(entry.pod.uid().clone());
        }
    }

    /// Whom an event of this container's is about; `None` if it is watched no more.
    pub(super) fn subject(&self, container_id: &str) -> Option<(Pod, Role, String)> {
        self.lock().get(container_id).map(|entry| (entry.pod.clone(), entry.role, entry.name.clone()))
    }

    /// How many probes a container is asked by.
    #[cfg(test)]
    pub(super) fn asked(&self, container_id: &str) -> usize {
        self.lock().get(container_id).map_or(0, |entry| entry.tasks.len())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seeds(&self) -> MutexGuard<'_, HashMap<String, Seed>> {
        self.seeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pod's containers that run: the newest of each name.
fn running<'a>(pod: &'a Pod, observed: &'a ObservedPod, host_ip: Option<IpAddr>) -> Vec<Found<'a>> {
    let mut names = HashSet::new();
    let newest = observed.containers.iter().filter(|container| names.insert(container.name.as_str()));
    newest
        .filter_map(|container| {
            let ContainerState::Running { started_at } = container.state else { return None };
            let (role, spec) = pod.container(&container.name)?;
            Some(Found { id: &container.id, role, spec, started_at, address: address(container, observed, host_ip) })
        })
        .collect()
}

/// The address at which a container is asked, where its probe does not name one.
fn address(container: &Container, observed: &ObservedPod, host_ip: Option<IpAddr>) -> Option<IpAddr> {
    let sandbox = observed.sandboxes.iter().find(|sandbox| sandbox.id == container.sandbox_id)?;
    if sandbox.host_network { host_ip } else { sandbox.ips.first().copied() }
}

/// The probes of a container that are asked at all: one that runs to its end before others start has none.
fn probes(role: Role, spec: &Spec) -> impl Iterator<Item = (Kind, &Probe)> {
    let all = [
        (Kind::Startup, &spec.startup_probe),
        (Kind::Liveness, &spec.liveness_probe),
        (Kind::Readiness, &spec.readiness_probe),
    ];
    let asked = role != Role::Init;
    all.into_iter().filter_map(move |(kind, probe)| Some((kind, probe.as_ref().filter(|_| asked)?)))
}

impl Watched {
    fn new(pod: &Pod, found: &Found<'_>, seed: Seed) -> Watched {
        let has = |wanted| probes(found.role, found.spec).any(|(kind, _)| kind == wanted);
        let startup = if seed.started { Verdict::Success } else { Verdict::Unknown };
        let startup = has(Kind::Startup).then_some(startup);
        // One that was ready stays so until the probe has failed as often as it may.
        let readiness = if seed.started && seed.ready { Verdict::Success } else { Verdict::Failure };
        Watched {
            pod: pod.clone(),
            role: found.role,
            name: found.spec.name.clone(),
            startup,
            readiness: has(Kind::Readiness).then_some(readiness),
            unhealthy: None,
            started: watch::Sender::new(startup.is_none_or(|verdict| verdict == Verdict::Success)),
            tasks: Vec::new(),
        }
    }

    /// Starts what is not running yet, and should be.
    fn start_tasks(&mut self, table: &Arc<Table>, world: &Arc<World>, found: &Found<'_>, terminating: bool) {
        for (kind, probe) in probes(found.role, found.spec) {
            let over = kind == Kind::Startup && self.startup == Some(Verdict::Success);
            let wanted = kind == Kind::Readiness || !(terminating || over);
            if !wanted || self.tasks.iter().any(|(running, _)| *running == kind) {
                continue;
            }
            let check = Check::of(probe, found.spec, found.address);
            // The runtime tells it a moment later, and the next sync asks there.
            if check.waits_for_address() {
                continue;
            }
            let initial = match kind {
                Kind::Startup => Verdict::Unknown,
                Kind::Liveness => Verdict::Success,
                Kind::Readiness => self.readiness.unwrap_or(Verdict::Failure),
            };
            let asked = task::Asked {
                container_id: found.id.to_owned(),
                rules: Rules::of(kind, probe),
                check,
                grace: probe
                    .termination_grace_period_seconds
                    .and_then(|seconds| u64::try_from(seconds).ok())
                    .map(Duration::from_secs),
                started_at: found.started_at,
                initial,
            };
            let started = self.started.subscribe();
            let task = tokio::spawn(task::run(Arc::clone(world), Arc::downgrade(table), asked, started));
            self.tasks.push((kind, Task(task.abort_handle())));
        }
    }

    /// The pod is ending: nothing restarts a container now, and readiness goes on without waiting for the startup.
    fn end_quietly(&mut self) {
        self.tasks.retain(|(kind, _)| *kind == Kind::Readiness);
        self.unhealthy = None;
        self.decide(Kind::Startup, Verdict::Success, None);
    }

    fn decide(&mut self, kind: Kind, verdict: Verdict, grace: Option<Duration>) {
        match kind {
            Kind::Startup => {
                if let Some(startup) = &mut self.startup {
                    *startup = verdict;
                    self.started.send_replace(verdict == Verdict::Success);
                }
            }
            Kind::Readiness => self.readiness = Some(verdict),
            Kind::Liveness => {}
        }
        if verdict == Verdict::Failure && kind != Kind::Readiness {
            let message = format!("Container {} failed {} probe", self.name, kind.name().to_lowercase());
            self.unhealthy = Some(Unhealthy { kind, message, grace });
        }
    }

    fn state(&self) -> State {
        let started = *self.started.borrow();
        let ready =
            started && self.role != Role::Init && self.readiness.is_none_or(|verdict| verdict == Verdict::Success);
        State { started, ready, unhealthy: self.unhealthy.clone() }
    }
}
