//! ListPodSandboxStats: of all pods that are ready.

use super::pod_sandbox_stats::live;
use crate::failure::Result;
use crate::pods::{Pods, blocking};
use crate::sandbox::Phase;
use crate::{filter, stats};
use proto::{ListPodSandboxStatsResponse, PodSandboxStatsFilter};
use std::sync::Arc;

pub(crate) async fn list_pod_sandbox_stats(
    pods: &Arc<Pods>,
    wanted: Option<PodSandboxStatsFilter>,
) -> Result<ListPodSandboxStatsResponse> {
    let reader = Arc::clone(pods);
    let stats = blocking("read pods' usage", move || {
        let records = reader.sandboxes.all().into_iter().map(|sandbox| sandbox.record());
        let ready =
            records.filter(|record| record.phase == Phase::Ready && filter::sandbox_stats(wanted.as_ref(), record));
        Ok(ready.map(|record| stats::sandbox(&reader, &record, &live(&reader, &record.id))).collect())
    });
    Ok(ListPodSandboxStatsResponse { stats: stats.await? })
}
