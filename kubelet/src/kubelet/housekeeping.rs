//! What is done now and then: garbage collection, the share of Burstable pods, the refresh of volumes whose objects changed.

use super::{Parts, Pods};
use crate::api::{Reference, references};
use crate::cgroups::Cgroups;
use crate::gc;
use crate::metrics::Metrics;
use crate::pod::Pod;
use crate::table::PodTable;
use crate::worker::Wake;
use k8s_openapi::api::core::v1::Node;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Pods that come and go together are looked at together.
const TOGETHER: Duration = Duration::from_secs(1);

/// Starts all of it.
pub(super) fn start(tasks: &mut JoinSet<()>, parts: &Parts, pods: &Pods, wake: &Wake) {
    tasks.spawn(share(pods.cgroups.clone(), parts.table.clone(), pods.changes.subscribe(), parts.metrics.clone()));
    tasks.spawn(refresh(parts.api.changes(), parts.table.clone(), wake.clone()));
    tasks.spawn(gc::run(gc::Collector {
        config: parts.config.clone(),
        runtime: parts.runtime.clone(),
        table: parts.table.clone(),
        volumes: pods.volumes.clone(),
        cgroups: pods.cgroups.clone(),
        heard: pods.heard.subscribe(),
        changes: pods.changes.subscribe(),
        clock: parts.clock.clone(),
    }));
}

/// Measures how long the start takes that began then: until registration, until the node is known to the API server, and
/// until it is Ready.
pub(super) async fn measure_start(metrics: Metrics, mut node: watch::Receiver<Option<Arc<Node>>>, began: Instant) {
    let before = began.elapsed();
    // The node's tasks end with the kubelet; then there is nothing to measure.
    let Ok(()) = node.wait_for(Option::is_some).await.map(drop) else { return };
    let registered = began.elapsed() - before;
    let ready = |node: &Option<Arc<Node>>| {
        let status = node.as_ref().and_then(|node| node.status.as_ref());
        let mut conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    if node.wait_for(ready).await.map(drop).is_ok() {
        metrics.node_started(before, registered, began.elapsed());
    }
}

/// Gives the class of Burstable pods the sum of what they ask for, whenever pods came or went.
async fn share(cgroups: Arc<Cgroups>, table: PodTable, mut changes: watch::Receiver<u64>, metrics: Metrics) {
    while changes.changed().await.is_ok() {
        tokio::time::sleep_until(Instant::now() + TOGETHER).await;
        changes.borrow_and_update();
        let active: Vec<Pod> = table.list().into_iter().filter(|entry| entry.active).map(|entry| entry.pod).collect();
        let cgroups = cgroups.clone();
        let started = Instant::now();
        match tokio::task::spawn_blocking(move || cgroups.update_burstable(&active)).await {
            Ok(Ok(())) => metrics.cgroup("update", started.elapsed()),
            Ok(Err(error)) => tracing::warn!(%error, "the share of Burstable pods is not up to date"),
            Err(error) => tracing::error!(%error, "the share of Burstable pods"),
        }
    }
}

/// Wakes the pods that refer to an object that changed.
async fn refresh(mut changes: broadcast::Receiver<Reference>, table: PodTable, wake: Wake) {
    loop {
        let changed = match changes.recv().await {
            Ok(reference) => Some(reference),
            // What was missed may have been anything.
            Err(broadcast::error::RecvError::Lagged(_)) => None,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        for entry in table.list() {
            let refers = changed.as_ref().is_none_or(|changed| references::of(&entry.pod).contains(changed));
            if entry.active && refers {
                wake.wake(entry.pod.uid());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::text::Text;
    use serde_json::json;

    #[tokio::test(start_paused = true)]
    async fn the_start_is_measured_until_the_node_is_ready() {
        let metrics = Metrics::new("n");
        let (node, receiver) = watch::channel(None);
        let began = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let measuring = tokio::spawn(measure_start(metrics.clone(), receiver, began));
        tokio::task::yield_now().await;
        for (after, ready) in [(2, "False"), (4, "True")] {
            tokio::time::advance(Duration::from_secs(after)).await;
            let object = json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
            node.send_replace(Some(Arc::new(serde_json::from_value(object).unwrap())));
            tokio::task::yield_now().await;
        }
        measuring.await.unwrap();
        let mut text = Text::new();
        metrics.write(&mut text);
        let text = text.finish();
        for (phase, seconds) in [("pre_registration_", 1), ("registration_", 2), ("", 7)] {
            let sample = format!("\nkubelet_node_startup_{phase}duration_seconds {seconds}");
            assert!(text.contains(&sample), "{sample}\n{text}");
        }
    }
}
