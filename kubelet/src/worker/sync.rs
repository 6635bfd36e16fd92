//! Keeping a pod as its spec wants it.

use super::host::Obstacle;
use super::pod::{Next, Worker};
use crate::admission;
use crate::api::events::Kind;
use crate::plan::{self, Action, Desired, End, Failed, Kill, Verdict};
use crate::pod::Role;
use crate::probes;
use crate::runtime::{self, Runtime, RuntimeError};
use crate::status::Termination;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

/// How often a plan may follow another before the worker looks for new orders.
const PLANS: usize = 8;
/// How soon it is looked again whether the network is there.
const NETWORK_RETRY: Duration = Duration::from_secs(5);

/// How soon a volume is tried again: twice as long each time, up to two minutes.
const MOUNT_RETRY: Duration = Duration::from_millis(500);
const LONGEST_MOUNT_RETRY: Duration = Duration::from_secs(122);

/// A step that failed, with its event told; when to try again.
pub(super) struct Stuck(pub(super) Instant);

impl Worker {
    /// Brings the pod closer to what is wanted, until nothing is to do, something fails, or it has to end.
    pub(super) async fn sync(&mut self) -> Next {
        let mut orders = self.orders.clone();
        // A pod that has to end is not waited for: whatever is under way is dropped, and what it made is seen later.
        tokio::select! {
            biased;
            next = self.bring_closer() => next,
            _ = orders.wait_for(|order| order.stop.is_some()) => Next::Now,
        }
    }

    async fn bring_closer(&mut self) -> Next {
        for _ in 0..PLANS {
            let plan = self.plan();
            self.notes.clone_from(&plan.notes);
            if let Some(end) = plan.end {
                self.ends(end);
                return Next::Now;
            }
            self.announce_back_offs();
            let stuck = match self.refresh_volumes(&plan.actions).await {
                Ok(()) if plan.actions.is_empty() => {
                    self.tell().await;
                    return self.until(plan.wake_at);
                }
                Ok(()) => {
                    self.tell().await;
                    self.act(&plan.actions).await.err()
                }
                Err(stuck) => Some(stuck),
            };
            if self.observe().await.is_err() {
                return Next::At(self.retry_at());
            }
            if let Some(Stuck(at)) = stuck {
                self.notes = self.plan().notes;
                self.tell().await;
                return Next::At(plan.wake_at.map_or(at, |earlier| earlier.min(at)));
            }
        }
        Next::Now
    }

    fn plan(&self) -> plan::Plan {
        let verdict = |id: &str| verdict(&self.context.probes.state(id));
        let desired = Desired {
            pod: &self.pod,
            hashes: &self.hashes,
            verdict: &verdict,
            start_time: self.status.start_time.as_ref().map(|time| time.0),
        };
        plan::plan(&desired, &self.observed, &self.memory, self.context.clock.now())
    }

    /// The pod is over.
    fn ends(&mut self, end: End) {
        let why = match end {
            End::Completed => Termination::Completed,
            End::DeadlineExceeded => {
                let message = "Pod was active on the node longer than the specified deadline";
                self.context.recorder.pod(&self.pod, Kind::Normal, "DeadlineExceeded", message);
                Termination::DeadlineExceeded
            }
        };
        self.lifecycle.terminate(why, plan::grace_period(&self.pod), Instant::now());
    }

    /// Waits for orders, until a timer of the plan, the next resync or the next update of the volumes.
    fn until(&self, wake_at: Option<Instant>) -> Next {
        let resync = Instant::now() + self.context.config.sync_frequency;
        Next::At(wake_at.map_or(resync, |at| at.min(resync)))
    }

    /// Brings volumes up to date that are there already; those of a pod that has no sandbox are mounted beside its
    /// creation.
    async fn refresh_volumes(&mut self, actions: &[Action]) -> Result<(), Stuck> {
        let creates = actions.iter().any(|action| matches!(action, Action::CreateSandbox { .. }));
        let fresh = self.mounted_at.is_some_and(|at| at.elapsed() < self.context.config.sync_frequency);
        if creates || fresh {
            return Ok(());
        }
        let mounted = self.context.host.mount(&self.pod).await;
        self.mounted(mounted)
    }

    fn mounted(&mut self, outcome: Result<(), Obstacle>) -> Result<(), Stuck> {
        match outcome {
            Ok(()) => {
                self.mounted_at = Some(Instant::now());
                self.mount_failures = 0;
                Ok(())
            }
            Err(obstacle) => {
                self.context.recorder.pod(&self.pod, Kind::Warning, obstacle.reason, obstacle.message);
                self.forget_fetched();
                let pause = MOUNT_RETRY * 2_u32.pow(self.mount_failures.min(8));
                self.mount_failures += 1;
                Err(Stuck(Instant::now() + pause.min(LONGEST_MOUNT_RETRY)))
            }
        }
    }

    /// Does what was planned, in order; the first failure ends it. A container that can't be started does not hold up
    /// those after it, but for an init container.
    async fn act(&mut self, actions: &[Action]) -> Result<(), Stuck> {
        let mut stuck: Option<Stuck> = None;
        for action in actions {
            let done = match action {
                Action::Kill(_) | Action::StopSandbox { .. } | Action::RemoveContainer { .. } => {
                    if let Action::Kill(kills) = action {
                        self.announce(kills);
                    }
                    let outcomes = stop(self.context.runtime.clone(), action.clone()).await;
                    outcomes.into_iter().try_for_each(|outcome| self.done("stop", outcome))
                }
                Action::CreateSandbox { attempt, replaces } => self.create_sandbox(*attempt, *replaces).await,
                Action::Start(start) => {
                    // One that fails leaves the others their turn.
                    let started = self.start_container(start).await;
                    stuck = started.err().map_or(stuck.take(), |Stuck(at)| {
                        Some(Stuck(stuck.map_or(at, |Stuck(earlier)| earlier.min(at))))
                    });
                    Ok(())
                }
            };
            done?;
        }
        stuck.map_or(Ok(()), Err)
    }

    /// Makes the sandbox; beside it the volumes are mounted and the first images pulled.
    async fn create_sandbox(&mut self, attempt: u32, replaces: bool) -> Result<(), Stuck> {
        // What ran when the kubelet came was left alone; anew it is not made without what it asks for.
        if let Some(refused) = admission::unsupported(&self.pod) {
            return Err(self.sandbox_failed("FailedCreatePodSandBox", &refused.message));
        }
        self.network_is_ready()?;
        if replaces {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.context.recorder.pod(&self.pod, Kind::Normal, "SandboxChanged", message);
        }
        let config = match self.sandbox_config(attempt).await {
            Ok(config) => config,
            Err(obstacle) => return Err(self.sandbox_failed(obstacle.reason, &obstacle.message)),
        };
        let began = Instant::now();
        let context = self.context.clone();
        let pod = self.pod.clone();
        self.fetch_images(&config);
        // In a task of its own: should the pod have to end meanwhile, the sandbox is waited for.
        let runtime = context.runtime.clone();
        let creation = async move { runtime.run_sandbox(&config, "").await };
        let creation = AbortOnDropHandle::new(tokio::spawn(creation.in_current_span()));
        let slot = &mut self.creation;
        let made = async move {
            let created = slot.insert(creation).await;
            // Here and not after the mount, during which this future may be dropped: a task has one result to give.
            *slot = None;
            created
        };
        let (created, mounted) = tokio::join!(made, context.host.mount(&pod));
        let created = created.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
        context.metrics.sandbox_started("", began.elapsed(), created.is_ok());
        if let Err(error) = created {
            return Err(self.sandbox_failed("FailedCreatePodSandBox", &error.message));
        }
        // Should it turn out to be of no use, the next one is not made at once.
        self.memory.sandbox_retry_at = Some(self.retry_at());
        self.mounted(mounted)
    }

    /// Begins to fetch the images of the containers that start first in a new sandbox.
    fn fetch_images(&mut self, sandbox: &proto::PodSandboxConfig) {
        let all: Vec<_> = self.pod.containers().map(|(role, container)| (role, container.clone())).collect();
        let alone = all.first().is_some_and(|(role, _)| *role != Role::Regular);
        let first = if alone { 1 } else { all.len() };
        for (role, container) in all.into_iter().take(first) {
            if self.images.contains_key(&container.name) {
                continue;
            }
            let (host, pod, sandbox) = (self.context.host.clone(), self.pod.clone(), sandbox.clone());
            let name = container.name.clone();
            let fetch = async move { host.image(&pod, role, &container, &sandbox).await };
            let fetch = AbortOnDropHandle::new(tokio::spawn(fetch.in_current_span()));
            self.images.insert(name, fetch);
        }
    }

    /// What came of an image that was fetched is true now, and may not be at the next try; one that is still fetched goes
    /// on.
    fn forget_fetched(&mut self) {
        self.images.retain(|_, fetch| !fetch.is_finished());
    }

    /// The config of the present sandbox, made once.
    pub(super) async fn sandbox_config(&mut self, attempt: u32) -> Result<proto::PodSandboxConfig, Obstacle> {
        if let Some((of, config)) = &self.sandbox_config
            && *of == attempt
        {
            return Ok(config.clone());
        }
        let config = self.context.host.sandbox_config(&self.pod, attempt).await?;
        self.sandbox_config = Some((attempt, config.clone()));
        Ok(config)
    }

    /// A pod that needs a network of its own waits for the runtime's.
    fn network_is_ready(&self) -> Result<(), Stuck> {
        let health = self.context.health.borrow();
        if self.pod.host_network() || health.network_ready() {
            return Ok(());
        }
        let why = health.condition("NetworkReady").map_or_else(
            || "network state unknown".to_owned(),
            |condition| {
                format!(
                    "container runtime network not ready: NetworkReady={} reason:{} message:{}",
                    condition.status, condition.reason, condition.message
                )
            },
        );
        let message = format!("network is not ready: {why}");
        self.context.recorder.pod(&self.pod, Kind::Warning, "NetworkNotReady", message);
        Err(Stuck(Instant::now() + NETWORK_RETRY))
    }

    fn sandbox_failed(&mut self, reason: &'static str, why: &str) -> Stuck {
        tracing::warn!(reason, error = why, "the sandbox can't be made");
        let (reason, message) = match reason {
            "FailedToCreatePodContainer" => (reason, why.to_owned()),
            _ => ("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {why}")),
        };
        self.context.recorder.pod(&self.pod, Kind::Warning, reason, message);
        self.sandbox_config = None;
        self.forget_fetched();
        let at = self.retry_at();
        self.memory.sandbox_retry_at = Some(at);
        Stuck(at)
    }

    /// Whether these were the last actions too; remembers them.
    pub(super) fn did_before(&mut self, actions: &[Action]) -> bool {
        let same =
            self.acted.len() == actions.len() && self.acted.iter().zip(actions).all(|(old, new)| new.repeats(old));
        self.acted = actions.to_vec();
        same
    }

    /// Tells of containers that are stopped, once of each.
    pub(super) fn announce(&mut self, kills: &[Kill]) {
        for kill in kills {
            if self.announced.insert(("Killing", kill.id.clone()))
                && let Some((role, _)) = self.pod.container(&kill.name)
            {
                let recorder = &self.context.recorder;
                recorder.container(&self.pod, role, &kill.name, Kind::Normal, "Killing", kill.message.clone());
            }
        }
    }

    /// What is gone already needs nothing more.
    pub(super) fn done(&self, verb: &str, outcome: crate::runtime::Result<()>) -> Result<(), Stuck> {
        match outcome {
            Ok(()) => Ok(()),
            Err(RuntimeError { code: tonic::Code::NotFound, .. }) => Ok(()),
            Err(error) => {
                tracing::warn!(verb, call = error.call, %error, "the runtime did not do it");
                let message = format!("error killing pod: {error}");
                self.context.recorder.pod(&self.pod, Kind::Warning, "FailedKillPod", message);
                Err(Stuck(self.retry_at()))
            }
        }
    }

    /// Tells of each container that waits after a crash, once for each crash.
    fn announce_back_offs(&mut self) {
        let crashed: Vec<String> = self
            .notes
            .iter()
            .filter(|(_, note)| note.reason == "CrashLoopBackOff")
            .map(|(name, _)| name.clone())
            .collect();
        for name in crashed {
            let Some(newest) = self.observed.containers.iter().find(|container| container.name == name) else {
                continue;
            };
            let known_before = !self.announced.insert(("BackOff", newest.id.clone()));
            let Some((role, _)) = self.pod.container(&name).filter(|_| !known_before) else { continue };
            let message = format!(
                "Back-off restarting failed container {name} in pod {}_{}({})",
                self.pod.name(),
                self.pod.namespace(),
                self.pod.uid()
            );
            self.context.recorder.container(&self.pod, role, &name, Kind::Warning, "BackOff", message);
        }
    }
}

/// Does what ends something, and needs nothing of the worker for it: what came of each. Containers are stopped at the same
/// time, each with the time that is left to it.
pub(super) async fn stop(runtime: Arc<dyn Runtime>, action: Action) -> Vec<runtime::Result<()>> {
    match action {
        Action::Kill(kills) => {
            let stops = kills.iter().map(|kill| {
                // Nobody gets less than two seconds, and the CRI counts whole ones.
                let left = kill.until.saturating_duration_since(Instant::now()).max(Duration::from_secs(2));
                let whole = Duration::from_secs(left.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX));
                runtime.stop_container(&kill.id, whole)
            });
            join_all(stops).await
        }
        Action::StopSandbox { id } => vec![runtime.stop_sandbox(&id).await],
        Action::RemoveContainer { id } => vec![runtime.remove_container(&id).await],
        // They end nothing.
        Action::CreateSandbox { .. } | Action::Start(_) => Vec::new(),
    }
}

/// What the plan needs to know of a container's probes.
fn verdict(state: &probes::State) -> Verdict {
    let failed = state.unhealthy.as_ref().map(|unhealthy| {
        let probe = if unhealthy.kind == probes::Kind::Startup { Failed::Startup } else { Failed::Liveness };
        (probe, unhealthy.grace)
    });
    Verdict { started: state.started, failed }
}
