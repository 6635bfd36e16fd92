//! PodSandboxStats: a pod's usage and that of its containers.

use crate::container::{Container, Life};
use crate::failure::Result;
use crate::pods::{Pods, blocking};
use crate::stats;
use proto::PodSandboxStatsResponse;
use std::sync::Arc;

pub(crate) async fn pod_sandbox_stats(pods: &Arc<Pods>, id: &str) -> Result<PodSandboxStatsResponse> {
    let sandbox = pods.sandboxes.get(id)?;
    let reader = Arc::clone(pods);
    let stats = blocking("read a pod's usage", move || {
        Ok(stats::sandbox(&reader, &sandbox.record(), &live(&reader, &sandbox.id)))
    });
    Ok(PodSandboxStatsResponse { stats: Some(stats.await?) })
}

/// The containers of a sandbox that have not ended.
pub(super) fn live(pods: &Pods, sandbox: &str) -> Vec<Arc<Container>> {
    let mut containers = pods.containers_of(sandbox);
    containers.retain(|container| !matches!(container.life(), Life::Exited(_)));
    containers
}
