//! ContainerStats: one container's usage; an unknown id is an error.

use crate::container::Life;
use crate::failure::Result;
use crate::pods::{Pods, blocking};
use crate::stats;
use proto::ContainerStatsResponse;
use std::sync::Arc;

pub(crate) async fn container_stats(pods: &Arc<Pods>, id: &str) -> Result<ContainerStatsResponse> {
    let container = pods.containers.get(id)?;
    let reader = Arc::clone(pods);
    let stats = blocking("read a container's usage", move || {
        Ok(match container.life() {
            // A cgroup may vanish with its container between the look at its life and the reading.
            Life::Created(_) | Life::Running(_) => stats::container(&reader, &container)
                .unwrap_or_else(|_vanished| stats::idle_container(&reader, &container)),
            Life::Exited(_) => stats::idle_container(&reader, &container),
        })
    });
    Ok(ContainerStatsResponse { stats: Some(stats.await?) })
}
