//! What is done now and then: garbage collection, the share of Burstable pods, the refresh of volumes whose objects changed.

use super::{Parts, Pods};
use crate::api::{Reference, references};
use crate::cgroups::Cgroups;
use crate::gc;
use crate::pod::Pod;
use crate::table::PodTable;
use crate::worker::Wake;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Pods that come and go together are looked at together.
const TOGETHER: Duration = Duration::from_secs(1);

/// Starts all of it.
pub(super) fn start(tasks: &mut JoinSet<()>, parts: &Parts, pods: &Pods, wake: &Wake) {
    tasks.spawn(share(pods.cgroups.clone(), parts.table.clone(), pods.changes.subscribe()));
    tasks.spawn(refresh(parts.api.changes(), parts.table.clone(), wake.clone()));
    tasks.spawn(gc::run(gc::Collector {
        config: parts.config.clone(),
        runtime: parts.runtime.clone(),
        table: parts.table.clone(),
        volumes: pods.volumes.clone(),
        cgroups: pods.cgroups.clone(),
        changes: pods.changes.subscribe(),
        clock: parts.clock.clone(),
    }));
}

/// Gives the class of Burstable pods the sum of what they ask for, whenever pods came or went.
async fn share(cgroups: Arc<Cgroups>, table: PodTable, mut changes: watch::Receiver<u64>) {
    while changes.changed().await.is_ok() {
        tokio::time::sleep_until(Instant::now() + TOGETHER).await;
        changes.borrow_and_update();
        let active: Vec<Pod> = table.list().into_iter().filter(|entry| entry.active).map(|entry| entry.pod).collect();
        let cgroups = cgroups.clone();
        match tokio::task::spawn_blocking(move || cgroups.update_burstable(&active)).await {
            Ok(Ok(())) => {}
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
