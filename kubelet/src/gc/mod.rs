//! What is removed because nothing needs it any more: dead containers, sandboxes, folders, cgroups, links and logs. Images
//! are another issue's.
//!
//! Nothing goes before every source was heard, and what a pod left on disk goes only if there is no such pod at that very
//! moment: taking one pod down may take minutes, in which others come, also under the UID of one that went.
//!
//! [`plan`] is pure: what the runtime has and which pods there are → what goes. A pass is made when pods came or went, and
//! once a minute.

pub(crate) mod logs;
mod orphans;
mod plan;
mod rotate;
#[cfg(test)]
mod tests;

use crate::cgroups::Cgroups;
use crate::clock::Clock;
use crate::config::Config;
use crate::pod::PodUid;
use crate::runtime::{Runtime, RuntimePod};
use crate::table::PodTable;
use crate::volumes::Volumes;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How often a pass is made though nothing changed.
const PERIOD: Duration = Duration::from_secs(60);
/// How long pods that go together are waited for.
const TOGETHER: Duration = Duration::from_secs(1);
/// How often the sizes of logs are looked at.
const ROTATION: Duration = Duration::from_secs(10);

/// What garbage collection works with.
pub(crate) struct Collector {
    pub(crate) config: Arc<Config>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) table: PodTable,
    pub(crate) volumes: Volumes,
    pub(crate) cgroups: Arc<Cgroups>,
    /// Whether every source has said all the pods it has: before, pods that are not known may well be wanted.
    pub(crate) heard: watch::Receiver<bool>,
    /// Counts pods that came and went.
    pub(crate) changes: watch::Receiver<u64>,
    pub(crate) clock: Clock,
}

/// Collects until the kubelet ends.
pub(crate) async fn run(mut collector: Collector) {
    let mut next = Instant::now() + PERIOD;
    let mut rotation = Instant::now() + ROTATION;
    loop {
        tokio::select! {
            changed = collector.changes.changed() => {
                if changed.is_err() {
                    return;
                }
                next = next.min(Instant::now() + TOGETHER);
            }
            () = tokio::time::sleep_until(next) => {
                collector.changes.borrow_and_update();
                collector.pass().await;
                next = Instant::now() + PERIOD;
            }
            () = tokio::time::sleep_until(rotation) => {
                collector.rotate().await;
                rotation = Instant::now() + ROTATION;
            }
        }
    }
}

impl Collector {
    async fn pass(&self) {
        if !*self.heard.borrow() {
            return;
        }
        let Some((pods, known)) = self.look().await else { return };
        let garbage = plan::garbage(&pods, |uid| known.contains(uid));
        self.remove(&garbage).await;
        // Folders and logs of a pod go when the runtime has nothing of it any more.
        let Some((pods, _)) = self.look().await else { return };
        self.collect_orphans(&pods).await;
    }

    /// What the runtime has, and which pods there are.
    async fn look(&self) -> Option<(Vec<RuntimePod>, BTreeSet<PodUid>)> {
        let pods = self.runtime.list_pods().await;
        let pods = pods.inspect_err(|error| tracing::debug!(%error, "nothing is collected of what can't be listed"));
        // After the list: a pod that came meanwhile is known.
        let known = self.table.list().into_iter().map(|entry| entry.pod.uid().clone()).collect();
        Some((pods.ok()?, known))
    }

    async fn remove(&self, garbage: &plan::Garbage) {
        for id in &garbage.containers {
            if let Err(error) = self.runtime.remove_container(id).await {
                tracing::debug!(container = id, %error, "a dead container is not removed yet");
            }
        }
        for id in &garbage.sandboxes {
            let stopped = self.runtime.stop_sandbox(id).await;
            let removed = match stopped {
                Ok(()) => self.runtime.remove_sandbox(id).await,
                failed => failed,
            };
            if let Err(error) = removed {
                tracing::debug!(sandbox = id, %error, "a dead sandbox is not removed yet");
            }
        }
    }
}
