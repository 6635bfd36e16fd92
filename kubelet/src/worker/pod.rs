//! The worker of one pod: observe, plan, act, tell, wait; until nothing is left of it and nobody knows it any more.

use super::order::Order;
use super::{Context, host, orphan};
use crate::plan::{Action, Lifecycle, Memory, Waiting};
use crate::pod::{Pod, PodUid};
use crate::runtime::ObservedPod;
use crate::spec;
use crate::status::Termination;
use k8s_openapi::api::core::v1::PodStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

/// How soon a worker tries again what failed, where nothing else is known. Upstream's `backOffPeriod`.
pub(super) const RETRY: Duration = Duration::from_secs(10);
/// How soon the runtime is asked again that did not answer; its recovery wakes the worker before.
const RUNTIME_RETRY: Duration = Duration::from_secs(5);

/// How soon the mirror of a static pod is tried again, at first and at last.
const MIRROR_RETRY: Duration = Duration::from_secs(1);
const LONGEST_MIRROR_RETRY: Duration = Duration::from_secs(30);

/// The worker of a pod: all that is known of it and survives from one round to the next.
pub(super) struct Worker {
    pub(super) context: Context,
    pub(super) orders: watch::Receiver<Order>,
    pub(super) pod: Pod,
    pub(super) lifecycle: Lifecycle,
    pub(super) memory: Memory,
    /// The hash of each container's spec.
    pub(super) hashes: BTreeMap<String, String>,
    pub(super) observed: Arc<ObservedPod>,
    /// The status that was told last.
    pub(super) status: PodStatus,
    /// Whether anybody is there to be told: of an orphan nobody knows.
    pub(super) told: bool,
    pub(super) notes: BTreeMap<String, Waiting>,
    /// The last words of ended containers, by id.
    pub(super) last_words: BTreeMap<String, String>,
    /// The config of the present sandbox, and its attempt.
    pub(super) sandbox_config: Option<(u32, proto::PodSandboxConfig)>,
    /// Images that are fetched while the sandbox is made, by the container's name.
    pub(super) images: BTreeMap<String, AbortOnDropHandle<host::Result<proto::Image>>>,
    /// The sandbox that is being made.
    pub(super) creation: Option<AbortOnDropHandle<crate::runtime::Result<String>>>,
    /// What was done last to end something.
    pub(super) acted: Vec<Action>,
    /// When its volumes were last brought up to date.
    pub(super) mounted_at: Option<Instant>,
    /// What makes its mirror be as it should.
    mirroring: Option<AbortOnDropHandle<()>>,
    /// How often they could not be, one after the other.
    pub(super) mount_failures: u32,
    /// The wakes that were heeded.
    wakes: u64,
    /// Containers whose `Killing` or `BackOff` was told: a worker that comes back to them does not repeat it.
    pub(super) announced: BTreeSet<(&'static str, String)>,
    pub(super) first_seen: Instant,
    /// How long images were waited for since.
    pub(super) pulling: Duration,
    /// Whether an order was taken.
    started: bool,
}

/// When a worker goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// At once: something was done.
    Now,
    /// When something happens, or at this moment.
    At(Instant),
    /// Never: nothing is left, and nobody knows the pod.
    Leave,
}

/// Who has a worker made, and what is known of the pod already.
pub(super) struct Beginning {
    pub(super) lifecycle: Lifecycle,
    pub(super) observed: ObservedPod,
    /// False for an orphan.
    pub(super) told: bool,
}

impl Worker {
    pub(super) fn new(context: Context, orders: watch::Receiver<Order>, beginning: Beginning) -> Worker {
        let pod = orders.borrow().pod.clone();
        let hashes = hashes(&pod);
        let mut memory = Memory::new(context.config.max_container_restart_period);
        memory.recall(&pod, &hashes);
        let status = pod.object().status.clone().unwrap_or_default();
        Worker {
            orders,
            lifecycle: beginning.lifecycle,
            memory,
            hashes,
            observed: Arc::new(beginning.observed),
            status,
            told: beginning.told,
            notes: BTreeMap::new(),
            last_words: BTreeMap::new(),
            sandbox_config: None,
            images: BTreeMap::new(),
            creation: None,
            acted: Vec::new(),
            mounted_at: None,
            mirroring: None,
            mount_failures: 0,
            wakes: 0,
            announced: BTreeSet::new(),
            first_seen: Instant::now(),
            pulling: Duration::ZERO,
            started: false,
            context,
            pod,
        }
    }

    /// Works until nothing is left to do for good.
    pub(super) async fn run(mut self) -> PodUid {
        let span = tracing::info_span!("pod", pod = %self.pod);
        async {
            self.recall();
            self.context.metrics.pod_worker_started(self.first_seen.elapsed());
            loop {
                self.obey();
                match self.round().await {
                    Next::Now => {}
                    Next::Leave => break,
                    Next::At(at) => {
                        tokio::select! {
                            changed = self.orders.changed() => if changed.is_err() { break },
                            () = tokio::time::sleep_until(at) => {}
                        }
                    }
                }
            }
        }
        .instrument(span)
        .await;
        self.pod.uid().clone()
    }

    /// Takes the newest order.
    pub(super) fn obey(&mut self) {
        let order = self.orders.borrow_and_update().clone();
        let same = self.pod.wants_the_same(&order.pod) && self.started;
        self.pod = order.pod.clone();
        self.context.table.update(self.pod.uid(), |entry| entry.pod = order.pod.clone());
        if !same {
            self.started = true;
            self.hashes = hashes(&self.pod);
            // They may be of another spec.
            self.images.clear();
            if self.told && matches!(self.lifecycle, Lifecycle::Syncing) {
                self.context.api.register(&self.pod);
            }
        }
        if !same || order.wakes != self.wakes {
            self.wakes = order.wakes;
            // Another image, a Secret that came: what failed may go now.
            self.memory.retry_now(Instant::now());
            self.mounted_at = None;
            // Also said of a static pod whose mirror changed: whoever waits to try again need not.
            self.mirroring = None;
        }
        self.mirror();
        if let Some(grace) = order.stop {
            self.lifecycle.terminate(Termination::Deleted, grace, Instant::now());
        }
    }

    /// One round: what is, what should be, what to do about it.
    async fn round(&mut self) -> Next {
        if !matches!(self.lifecycle, Lifecycle::Syncing) {
            self.settle().await;
        }
        let leaves = matches!(self.lifecycle, Lifecycle::Finished { .. }) && self.orders.borrow().gone;
        if !leaves && let Err(error) = self.observe().await {
            tracing::debug!(%error, "the pod can't be observed");
            return self.after(RUNTIME_RETRY);
        }

        self.lifecycle.reopen(orphan::is_alive(&self.observed) && !leaves, Instant::now());
        let started = Instant::now();
        let ran = !self.observed.sandboxes.is_empty();
        let (next, operation) = match self.lifecycle.clone() {
            Lifecycle::Syncing => (self.sync().await, if ran { "sync" } else { "create" }),
            Lifecycle::Terminating { since, grace, .. } => (self.terminate(since, grace).await, "kill"),
            Lifecycle::Terminated { why } => (self.release(why).await, "kill"),
            Lifecycle::Finished { .. } => return self.finished(),
        };
        self.context.metrics.pod_worker(operation, started.elapsed());
        next
    }

    /// Asks the runtime what there is of the pod.
    pub(super) async fn observe(&mut self) -> crate::runtime::Result<()> {
        let started = Instant::now();
        let observed = self.context.runtime.observe(self.pod.uid()).await?;
        self.context.metrics.pod_relist(started.elapsed());
        self.saw(observed).await;
        Ok(())
    }

    async fn saw(&mut self, observed: ObservedPod) {
        self.observed = Arc::new(observed);
        self.read_last_words().await;
        let ending = !matches!(self.lifecycle, Lifecycle::Syncing);
        if self.told {
            self.context.probes.sync(&self.pod, &self.observed, ending);
        }
        let observed = self.observed.clone();
        self.context.table.update(self.pod.uid(), |entry| entry.observed = observed);
    }

    /// Has the mirror of a static pod be as it should, beside everything else: the API server may be away.
    fn mirror(&mut self) {
        if !self.told || !matches!(self.lifecycle, Lifecycle::Syncing) {
            self.mirroring = None;
            return;
        }
        let under_way = self.mirroring.as_ref().is_some_and(|task| !task.is_finished());
        if under_way || self.context.mirrors.is_right(&self.pod) {
            return;
        }
        let (mirrors, pod) = (self.context.mirrors.clone(), self.pod.clone());
        let reconcile = async move {
            let mut pause = MIRROR_RETRY;
            while let Err(error) = mirrors.reconcile(&pod).await {
                if pause == MIRROR_RETRY {
                    tracing::warn!(%pod, %error, "the mirror pod is not as it should be; it is tried again");
                }
                tokio::time::sleep_until(Instant::now() + pause).await;
                pause = (pause * 2).min(LONGEST_MIRROR_RETRY);
            }
        };
        self.mirroring = Some(AbortOnDropHandle::new(tokio::spawn(reconcile.in_current_span())));
    }

    /// What a kubelet before us said of containers that still run holds until a probe disagrees; what it told of those
    /// that crashed is not told again.
    fn recall(&mut self) {
        let id = |text: Option<&str>| text.and_then(|text| text.split_once("://")).map(|(_, id)| id.to_owned());
        let statuses = self.status.container_statuses.iter().chain(&self.status.init_container_statuses).flatten();
        for status in statuses {
            let state = status.state.clone().unwrap_or_default();
            if state.running.is_some() {
                if let Some(id) = id(status.container_id.as_deref()) {
                    self.context.probes.seed(&id, status.started.unwrap_or(false), status.ready);
                }
            } else if state.waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff")) {
                let ended =
                    status.last_state.as_ref().and_then(|last| last.terminated.as_ref()?.container_id.as_deref());
                self.announced.extend(id(ended).map(|id| ("BackOff", id)));
            }
        }
    }

    /// Goes on after a pause.
    pub(super) fn after(&self, pause: Duration) -> Next {
        Next::At(Instant::now() + pause)
    }

    /// A pause of 10 to 15 s, another one for each pod, so that pods that failed together don't try again together.
    pub(super) fn retry_at(&self) -> Instant {
        let spread = self.pod.uid().as_str().bytes().fold(0_u64, |sum, byte| sum * 31 % 5000 + u64::from(byte));
        Instant::now() + RETRY + Duration::from_millis(spread % 5000)
    }
}

/// The hash of each container's spec.
fn hashes(pod: &Pod) -> BTreeMap<String, String> {
    pod.containers().map(|(_, container)| (container.name.clone(), spec::container_hash(container))).collect()
}
