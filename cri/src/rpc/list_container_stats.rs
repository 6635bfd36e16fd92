//! ListContainerStats: of all containers that have not ended.

use crate::container::Life;
use crate::failure::Result;
use crate::pods::{Pods, blocking};
use crate::{filter, stats};
use proto::{ContainerStatsFilter, ListContainerStatsResponse};
use std::sync::Arc;

pub(crate) async fn list_container_stats(
    pods: &Arc<Pods>,
    wanted: Option<ContainerStatsFilter>,
) -> Result<ListContainerStatsResponse> {
    let reader = Arc::clone(pods);
    let stats = blocking("read containers' usage", move || {
        let live = reader.containers.all().into_iter().filter(|container| {
            !matches!(container.life(), Life::Exited(_))
                && filter::container_stats(wanted.as_ref(), &container.record())
        });
        // One that ends meanwhile is left out.
        Ok(live.filter_map(|container| stats::container(&reader, &container).ok()).collect())
    });
    Ok(ListContainerStatsResponse { stats: stats.await? })
}
