//! Tells the API server what [`super::generate`] found.
//!
//! One task owns what is to be told, newest version only. A write is a strategic merge patch from what the server has, as
//! far as we know, and holds for this UID only; it is tried again, with back-off, until it is done or the pod is gone.
//! A static pod is told of by its mirror.

use super::conditions::OWNED;
use super::patch;
use super::phase::is_final;
use crate::api::{Api, ApiError};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::pod::{Pod, PodUid};
use crate::sources::mirror::Mirrors;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Pod as PodObject, PodCondition, PodStatus};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

/// Everything is looked at again this often, for what nobody was told of: a mirror that came to be.
const FULL_SYNC: Duration = Duration::from_secs(10);
/// Writes under way at once; one per pod at most.
const AT_ONCE: usize = 16;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Writes statuses of pods. Cheap to clone, never blocks: one task does all writing.
#[derive(Debug, Clone)]
pub struct Writer {
    messages: mpsc::UnboundedSender<Message>,
}

#[derive(Debug)]
enum Message {
    Set(Pod, Box<PodStatus>),
    Finish(Pod),
    Forget(PodUid),
}

impl Writer {
    /// Starts the task. It ends when the last writer is dropped and nothing is under way.
    pub fn start(api: Arc<dyn Api>, mirrors: Mirrors, clock: Clock, metrics: Metrics) -> Writer {
        let (messages, receiver) = mpsc::unbounded_channel();
        tokio::spawn(Task { api, mirrors, clock, metrics, entries: BTreeMap::new() }.run(receiver));
        Writer { messages }
    }

    /// The status to show of this version of a pod. Nothing happens if the API server has it already.
    pub fn set(&self, pod: &Pod, status: PodStatus) {
        self.send(Message::Set(pod.clone(), Box::new(status)));
    }

    /// Nothing of this pod is left on the node: once its final status is written, and if it is being deleted, the object
    /// is deleted (grace 0, this UID only). To be said again when a finished pod is deleted later. The mirror of a static
    /// pod goes with [`Mirrors::remove`].
    pub fn finish(&self, pod: &Pod) {
        self.send(Message::Finish(pod.clone()));
    }

    /// Forgets a pod that is gone from its source.
    pub fn forget(&self, uid: &PodUid) {
        self.send(Message::Forget(uid.clone()));
    }

    fn send(&self, message: Message) {
        // The task ends only with the kubelet.
        let _ = self.messages.send(message);
    }
}

/// What is to be told of one pod.
struct Entry {
    pod: Pod,
    wanted: Option<PodStatus>,
    /// The newest object that we know the API server to have: the pod's, or its mirror's.
    known: Option<Arc<Known>>,
    /// Grows with everything that may make a difference between both.
    version: u64,
    /// The version that was written.
    told: u64,
    /// When the oldest change came that was not written yet.
    changed_at: Option<Instant>,
    /// Whether nothing of the pod is left.
    finished: bool,
    under_way: bool,
    failures: u32,
    not_before: Option<Instant>,
}

/// What matters of an object at the API server.
#[derive(Debug, Clone)]
struct Known {
    namespace: String,
    name: String,
    uid: String,
    /// Versions of one object grow, and compare as numbers.
    version: u64,
    deleted: bool,
    status: PodStatus,
}

impl Known {
    fn of(object: &PodObject) -> Known {
        let meta = &object.metadata;
        Known {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            version: meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default(),
            deleted: meta.deletion_timestamp.is_some(),
            status: object.status.clone().unwrap_or_default(),
        }
    }
}

/// What to do next for a pod.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    Patch(serde_json::Value),
    Delete,
}

/// What became of it.
enum Outcome {
    /// The object as it is now, and the version of the entry that made it so.
    Patched(Box<Known>, u64),
    /// The object is gone.
    Gone,
    Failed(ApiError),
}

struct Task {
    api: Arc<dyn Api>,
    mirrors: Mirrors,
    clock: Clock,
    metrics: Metrics,
    entries: BTreeMap<PodUid, Entry>,
}

type Writes = FuturesUnordered<BoxFuture<'static, (PodUid, Outcome)>>;

impl Task {
    async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        let mut writes = Writes::new();
        let mut full = tokio::time::interval(FULL_SYNC);
        full.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ending = false;
        loop {
            self.begin(&mut writes);
            if ending && writes.is_empty() {
                return;
            }
            let retry = self.entries.values().filter_map(|entry| entry.not_before).min();
            tokio::select! {
                message = messages.recv(), if !ending => match message {
                    Some(message) => {
                        self.take(message);
                        // What waits already is one write.
                        while let Ok(message) = messages.try_recv() {
                            self.take(message);
                        }
                    }
                    None => ending = true,
                },
                Some((uid, outcome)) = writes.next() => self.done(&uid, outcome),
                () = until(retry), if !ending => self.wake(),
                _ = full.tick(), if !ending => self.look_again(),
            }
        }
    }

    fn take(&mut self, message: Message) {
        if !self.api.in_cluster() {
            return;
        }
        match message {
            Message::Set(pod, status) => {
                let now = self.clock.now().mono;
                self.entry(pod).want(*status, now);
            }
            Message::Finish(pod) => {
                let entry = self.entry(pod);
                entry.finished = true;
            }
            Message::Forget(uid) => drop(self.entries.remove(&uid)),
        }
    }

    fn entry(&mut self, pod: Pod) -> &mut Entry {
        let known = match pod.is_static() {
            true => self.mirrors.get(pod.namespace(), pod.name()).map(|mirror| Known::of(&mirror)),
            false => Some(Known::of(pod.object())),
        };
        let entry = self.entries.entry(pod.uid().clone()).or_insert_with(|| Entry::new(pod.clone()));
        entry.pod = pod;
        entry.learn(known);
        entry
    }

    /// Starts the writes that are due.
    fn begin(&mut self, writes: &mut Writes) {
        for (uid, entry) in &mut self.entries {
            if writes.len() >= AT_ONCE {
                return;
            }
            if entry.under_way || entry.not_before.is_some() {
                continue;
            }
            let (Some(known), step) = (entry.known.clone(), entry.next()) else { continue };
            if step != Step::Nothing {
                entry.under_way = true;
                writes.push(Box::pin(write(self.api.clone(), uid.clone(), known, step, entry.version)));
            }
        }
    }

    fn done(&mut self, uid: &PodUid, outcome: Outcome) {
        let now = self.clock.now().mono;
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.under_way = false;
        match outcome {
            Outcome::Patched(known, version) => {
                entry.failures = 0;
                // What a server drops of it is not sent again: only news make another version.
                entry.told = version;
                entry.see(*known);
                if entry.told == entry.version
                    && let Some(changed_at) = entry.changed_at.take()
                {
                    self.metrics.status_written(now - changed_at);
                }
            }
            Outcome::Gone => {
                // A mirror comes back; a pod of the API server doesn't.
                entry.known = None;
                if !entry.pod.is_static() {
                    self.entries.remove(uid);
                }
            }
            Outcome::Failed(error) => {
                entry.failures = entry.failures.saturating_add(1);
                entry.not_before = Some(now + pause(entry.failures));
                match entry.failures {
                    1 => warn!(pod = %entry.pod, %error, "the status is not written; it is tried again"),
                    failures => debug!(pod = %entry.pod, %error, failures, "the status is not written"),
                }
            }
        }
    }

    fn wake(&mut self) {
        let now = self.clock.now().mono;
        for entry in self.entries.values_mut().filter(|entry| entry.not_before.is_some_and(|at| at <= now)) {
            entry.not_before = None;
        }
    }

    /// Static pods may have a mirror by now, or another.
    fn look_again(&mut self) {
        for entry in self.entries.values_mut().filter(|entry| entry.pod.is_static() && !entry.under_way) {
            let mirror = self.mirrors.get(entry.pod.namespace(), entry.pod.name());
            entry.learn(mirror.map(|mirror| Known::of(&mirror)));
        }
    }
}

impl Entry {
    fn new(pod: Pod) -> Entry {
        Entry {
            pod,
            wanted: None,
            known: None,
            version: 0,
            told: 0,
            changed_at: None,
            finished: false,
            under_way: false,
            failures: 0,
            not_before: None,
        }
    }

    fn want(&mut self, status: PodStatus, now: Instant) {
        if self.wanted.as_ref() != Some(&status) {
            self.wanted = Some(status);
            self.version += 1;
            self.changed_at.get_or_insert(now);
        }
    }

    /// Takes what the API server is seen to have, unless something newer is known. A change that others made is compared
    /// with what is wanted.
    fn learn(&mut self, object: Option<Known>) {
        let Some(object) = object else { return };
        let newer = match self.known.as_deref() {
            Some(known) if known.uid == object.uid => object.version > known.version,
            _ => true,
        };
        if newer {
            self.known = Some(Arc::new(object));
            self.version += 1;
        }
    }

    /// Takes the answer to a write, unless more was learnt while it was under way: a deletion, another mirror.
    fn see(&mut self, answer: Known) {
        let past = |known: &Known| known.uid != answer.uid || known.version > answer.version;
        if !self.known.as_deref().is_some_and(past) {
            self.known = Some(Arc::new(answer));
        }
    }

    /// What has to be done so that the API server knows what we do.
    fn next(&mut self) -> Step {
        let Some(known) = self.known.as_deref() else { return Step::Nothing };
        if let Some(wanted) = self.wanted.as_ref().filter(|_| self.told != self.version) {
            if let Some(patch) = patch::diff(&known.uid, &known.status, &merge(&known.status, wanted)) {
                return Step::Patch(patch);
            }
            self.told = self.version;
            self.changed_at = None;
        }
        let deletable = self.finished && !self.pod.is_static() && known.deleted && is_final(&known.status);
        if deletable { Step::Delete } else { Step::Nothing }
    }
}

/// What we want of a status, and what others wrote into it. A final phase stays whatever we want.
fn merge(theirs: &PodStatus, wanted: &PodStatus) -> PodStatus {
    let mut merged = wanted.clone();
    if is_final(theirs) && merged.phase != theirs.phase {
        merged.phase.clone_from(&theirs.phase);
        merged.reason.clone_from(&theirs.reason);
        merged.message.clone_from(&theirs.message);
    }
    merged.start_time = theirs.start_time.clone().or(merged.start_time);
    merged.observed_generation = merged.observed_generation.max(theirs.observed_generation);
    merged.nominated_node_name.clone_from(&theirs.nominated_node_name);
    merged.resource_claim_statuses.clone_from(&theirs.resource_claim_statuses);
    merged.extended_resource_claim_status.clone_from(&theirs.extended_resource_claim_status);
    merged.node_allocatable_resource_claim_statuses.clone_from(&theirs.node_allocatable_resource_claim_statuses);
    // Others say too that a pod is disrupted; what they say stays unless we do.
    let disrupts = |condition: &&PodCondition| condition.reason.as_deref() == Some("TerminationByKubelet");
    let disruption = wanted.conditions.iter().flatten().find(disrupts).cloned();
    let own = |condition: &PodCondition| OWNED.contains(&condition.type_.as_str());
    let replaced = |condition: &PodCondition| disruption.as_ref().is_some_and(|ours| ours.type_ == condition.type_);
    let others = theirs.conditions.iter().flatten().filter(|theirs| !own(theirs) && !replaced(theirs)).cloned();
    let ours = wanted.conditions.iter().flatten().filter(|ours| own(ours)).cloned();
    let ours = ours.map(|ours| since_when(theirs, ours));
    merged.conditions = super::none_if_empty(others.chain(disruption.clone()).chain(ours).collect());
    merged
}

/// A condition with the time at which it became what it is: who told it first knows that best, a kubelet before us perhaps.
fn since_when(theirs: &PodStatus, ours: PodCondition) -> PodCondition {
    let told = theirs.conditions.iter().flatten().find(|told| told.type_ == ours.type_ && told.status == ours.status);
    match told.and_then(|told| told.last_transition_time.clone()) {
        Some(since) => PodCondition { last_transition_time: Some(since), ..ours },
        None => ours,
    }
}

async fn write(api: Arc<dyn Api>, uid: PodUid, known: Arc<Known>, step: Step, version: u64) -> (PodUid, Outcome) {
    let result = match &step {
        Step::Nothing => Ok(None),
        Step::Patch(patch) => api.patch_pod_status(&known.namespace, &known.name, patch).await.map(Some),
        Step::Delete => api.delete_pod(&known.namespace, &known.name, &known.uid, 0).await.map(|()| None),
    };
    let outcome = match result {
        Ok(Some(object)) => Outcome::Patched(Box::new(Known::of(&object)), version),
        Ok(None) | Err(ApiError::NotFound(_)) => Outcome::Gone,
        // A conflict may be with a write of somebody else; a pod whose name another one has is forgotten by its source.
        Err(error) => Outcome::Failed(error),
    };
    (uid, outcome)
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
