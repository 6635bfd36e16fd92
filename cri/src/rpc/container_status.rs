//! ContainerStatus: from memory; verbose with the process id and the runtime's spec.

use crate::failure::Result;
use crate::pods::{Pods, blocking};
use crate::status;
use proto::ContainerStatusResponse;
use serde_json::json;
use std::sync::Arc;

pub(crate) async fn container_status(pods: &Arc<Pods>, id: &str, verbose: bool) -> Result<ContainerStatusResponse> {
    let container = pods.containers.get(id)?;
    let record = container.record();
    let status = status::container(&record, &container.life());
    let mut response = ContainerStatusResponse { status: Some(status), ..ContainerStatusResponse::default() };
    if verbose {
        let reader = Arc::clone(pods);
        let id = container.id.clone();
        let spec =
            blocking("read a container's spec", move || Ok(super::create_container::read_spec(&reader, &id))).await?;
        let info = json!({
            "sandboxID": record.sandbox,
            "pid": container.process().map_or(0, |process| process.pid),
            "cgroup": record.cgroup,
            "config": record.config,
            "runtimeSpec": spec.ok(),
        });
        response.info.insert("info".into(), info.to_string());
    }
    Ok(response)
}
