//! When the node's status is written: at once when it changes, and every few minutes when it does not.
//!
//! The status is made anew every ten seconds, when the runtime's health changes what Ready says, and when a pressure begins
//! or ends. The runtime is asked for its images with a short deadline: one that hangs must not silence the node.

use super::facts::Facts;
use super::pressure::Pressures;
use super::status::{Observed, Told, Unready, patch, resembles, status, unready};
use super::{Inputs, register};
use crate::api::events::Recorder;
use crate::api::{Api, ApiError};
use crate::clock::{Clock, Now};
use crate::config::Config;
use crate::random::random;
use crate::runtime::{Health, Runtime, RuntimeInfo};
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

/// How often a write is tried before the next period.
const TRIES: usize = 5;
/// How long the API server may take for an answer.
pub(super) const API_DEADLINE: Duration = Duration::from_secs(10);
/// How long the runtime may take to list its images.
const RUNTIME_DEADLINE: Duration = Duration::from_secs(2);

/// When a status that did not change is written again.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    frequency: Duration,
    /// When it is due; `None` before the first one.
    due: Option<Instant>,
}

impl Schedule {
    fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| now >= due)
    }

    /// A status was written at `now`. After a change the next one comes after 0.5 to 1.5 of the frequency, so that nodes
    /// which changed together don't report together ever after; `random` is in 0..1.
    fn written(&mut self, now: Instant, changed: bool, random: f64) {
        let factor = if changed || self.due.is_none() { 0.5 + random } else { 1.0 };
        self.due = Some(now + self.frequency.mul_f64(factor));
    }
}

/// Writes the status.
pub(super) struct Reporter {
    config: Arc<Config>,
    facts: Arc<Facts>,
    api: Arc<dyn Api>,
    runtime: Arc<dyn Runtime>,
    recorder: Recorder,
    clock: Clock,
    health: watch::Receiver<Health>,
    pressures: watch::Receiver<Pressures>,
    /// The node as the API server has it.
    node: watch::Receiver<Option<Arc<Node>>>,
    /// Where a node that stands alone is told of.
    alone: Option<watch::Sender<Option<Arc<Node>>>>,
    /// What the last write came to: newer than the watch for a moment.
    written: Option<Node>,
    schedule: Schedule,
    info: Option<RuntimeInfo>,
    images: Option<Vec<proto::Image>>,
    unschedulable: bool,
    /// What the runtime was told.
    pod_cidrs: String,
}

impl Reporter {
    /// With the channels that the other tasks write; `alone` where there is no API server.
    pub(super) fn new(
        inputs: &Inputs,
        pressures: watch::Receiver<Pressures>,
        node: watch::Receiver<Option<Arc<Node>>>,
        alone: Option<watch::Sender<Option<Arc<Node>>>>,
    ) -> Reporter {
        Reporter {
            config: Arc::clone(&inputs.config),
            facts: Arc::clone(&inputs.facts),
            api: Arc::clone(&inputs.api),
            runtime: Arc::clone(&inputs.runtime),
            recorder: inputs.recorder.clone(),
            clock: inputs.clock.clone(),
            health: inputs.health.clone(),
            pressures,
            node,
            alone,
            written: None,
            schedule: Schedule { frequency: inputs.config.heartbeat.status_report, due: None },
            info: None,
            images: None,
            unschedulable: false,
            pod_cidrs: String::new(),
        }
    }

    /// Registers the node, and reports until the task is aborted.
    pub(super) async fn run(mut self) {
        if self.alone.is_none() && self.config.register_node {
            self.register().await;
        }
        let period = self.config.heartbeat.status_update;
        let mut tick = interval_at(Instant::now() + period, period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let told = unready(&self.health.borrow_and_update(), self.clock.now().mono);
            self.pressures.borrow_and_update();
            self.report().await;
            self.follow().await;
            loop {
                tokio::select! {
                    _ = tick.tick() => break,
                    Ok(()) = other_health(&mut self.health, &self.clock, &told) => break,
                    Ok(()) = self.pressures.changed() => break,
                    // Mostly our own write, which needs no answer.
                    Ok(()) = self.node.changed() => self.follow().await,
                }
            }
        }
    }

    async fn register(&mut self) {
        let mut pause = None;
        loop {
            self.ask_runtime().await;
            let (status, told) = self.make(&NodeStatus::default(), self.clock.now());
            let node = register::initial(&self.config, &self.facts, status);
            match in_time(register::register(&*self.api, &node)).await {
                Ok(node) => {
                    tracing::info!(node = %self.config.node_name, "registered");
                    self.written = Some(node);
                    return self.tell(told);
                }
                Err(error) => tracing::warn!(node = %self.config.node_name, %error, "register the node; trying again"),
            }
            let next = register::next_pause(pause);
            pause = Some(next);
            sleep_until(Instant::now() + next).await;
        }
    }

    async fn report(&mut self) {
        self.ask_runtime().await;
        if self.alone.is_some() {
            return self.report_alone();
        }
        let mut failure = None;
        for attempt in 0..TRIES {
            match self.try_report(attempt > 0).await {
                Ok(()) => return,
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure {
            tracing::warn!(node = %self.config.node_name, %error, "write the node's status; trying again later");
        }
    }

    /// One try; all but the first ask the API server what it has.
    async fn try_report(&mut self, fresh: bool) -> Result<(), ApiError> {
        let name = &self.config.node_name;
        let existing = match self.known() {
            Some(node) if !fresh => node,
            _ => in_time(self.api.node(name)).await?,
        };
        let now = self.clock.now();
        let old = existing.status.clone().unwrap_or_default();
        let (new, told) = self.make(&old, now);
        let labels = register::required_labels(&existing);
        let changed = labels.is_some() || !resembles(&old, &new);
        if !changed && !self.schedule.is_due(now.mono) {
            return Ok(());
        }
        let mut change = patch(&old, &new);
        if let (Value::Object(change), Some(Value::Object(labels))) = (&mut change, labels) {
            change.extend(labels);
        }
        self.written = Some(in_time(self.api.patch_node_status(name, &change)).await?);
        self.schedule.written(self.clock.now().mono, changed, random());
        self.tell(told);
        Ok(())
    }

    fn report_alone(&mut self) {
        let now = self.clock.now();
        let before = self.written.take();
        let old = before.as_ref().and_then(|node| node.status.clone()).unwrap_or_default();
        let (new, told) = self.make(&old, now);
        let node = register::initial(&self.config, &self.facts, new);
        if let Some(alone) = &self.alone {
            alone.send_if_modified(|shown| {
                let changed = before.as_ref().is_none_or(|_| !told.is_empty());
                *shown = Some(Arc::new(node.clone()));
                changed
            });
        }
        self.written = Some(node);
        self.tell(told);
    }

    /// The newest node that we know of: the watch's, unless our last write is newer.
    fn known(&self) -> Option<Node> {
        let watched = self.node.borrow().as_deref().cloned();
        let version = |node: &Node| node.metadata.resource_version.as_deref().and_then(|text| text.parse::<u64>().ok());
        match (watched, &self.written) {
            (Some(watched), Some(written)) if version(written) > version(&watched) => Some(written.clone()),
            (Some(watched), _) => Some(watched),
            (None, written) => written.clone(),
        }
    }

    fn make(&self, old: &NodeStatus, now: Now) -> (NodeStatus, Vec<Told>) {
        let health = self.health.borrow();
        let observed = Observed {
            facts: &self.facts,
            kubelet_version: &self.config.kubelet_version,
            port: self.config.listen.port(),
            max_images: self.config.heartbeat.max_images,
            external_cloud: self.config.external_cloud,
            runtime: self.info.as_ref(),
            health: &health,
            images: self.images.as_deref(),
            pressures: *self.pressures.borrow(),
        };
        status(old, &observed, now)
    }

    /// Asks for version and images; a runtime that does not answer leaves what was known.
    async fn ask_runtime(&mut self) {
        let (info, images) = tokio::join!(
            timeout(RUNTIME_DEADLINE, self.runtime.version()),
            timeout(RUNTIME_DEADLINE, self.runtime.list_images())
        );
        if let Ok(Ok(info)) = info {
            self.info = Some(info);
        }
        if let Ok(Ok(images)) = images {
            self.images = Some(images);
        }
    }

    /// Follows what others want of the node: tells when somebody has cordoned or uncordoned it, and gives the runtime the
    /// addresses that a controller has set aside for its pods.
    async fn follow(&mut self) {
        let Some(spec) = self.node.borrow_and_update().as_deref().and_then(|node| node.spec.clone()) else { return };
        let unschedulable = spec.unschedulable.unwrap_or(false);
        if unschedulable != self.unschedulable {
            self.unschedulable = unschedulable;
            let reason = if unschedulable { "NodeNotSchedulable" } else { "NodeSchedulable" };
            self.tell(vec![Told::new_state(&self.config.node_name, reason)]);
        }
        let cidrs = spec.pod_cidrs.unwrap_or_default().join(",");
        if cidrs.is_empty() || cidrs == self.pod_cidrs {
            return;
        }
        match timeout(RUNTIME_DEADLINE, self.runtime.set_pod_cidr(&cidrs)).await {
            Ok(Ok(())) => self.pod_cidrs = cidrs,
            Ok(Err(error)) => tracing::warn!(%cidrs, %error, "give the runtime the pods' addresses; trying again"),
            Err(_) => tracing::warn!(%cidrs, "the runtime did not take the pods' addresses in time; trying again"),
        }
    }

    fn tell(&self, told: Vec<Told>) {
        for told in told {
            self.recorder.node(told.kind, told.reason, told.message);
        }
    }
}

/// Returns when the runtime's health means something else than what was `told`.
async fn other_health(
    health: &mut watch::Receiver<Health>,
    clock: &Clock,
    told: &[Unready],
) -> Result<(), watch::error::RecvError> {
    health.wait_for(|health| unready(health, clock.now().mono) != told).await.map(drop)
}

/// The answer, if it comes in time.
pub(super) async fn in_time<T>(call: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    let late = || ApiError::Unavailable(format!("no answer within {API_DEADLINE:?}"));
    timeout(API_DEADLINE, call).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests;
