//! RemovePodSandbox: stops a sandbox if need be, removes its containers and then itself. Fine with an unknown id.

use super::{remove_container, stop_pod_sandbox};
use crate::failure::Result;
use crate::pods::Pods;
use crate::teardown;
use proto::ContainerEventType;
use std::sync::Arc;

pub(crate) async fn remove_pod_sandbox(pods: &Arc<Pods>, id: &str) -> Result<()> {
    let Some(sandbox) = pods.sandboxes.find(id)? else { return Ok(()) };
    let pods = Arc::clone(pods);
    super::in_task("remove a sandbox", async move {
        let _gate = sandbox.gate.lock().await;
        if pods.sandboxes.find(&sandbox.id)?.is_none() {
            return Ok(());
        }
        stop_pod_sandbox::stop(&pods, &sandbox).await?;
        for container in pods.containers_of(&sandbox.id) {
            remove_container::remove(&pods, &container).await?;
        }
        teardown::forget(&pods, &sandbox.id).await?;
        pods.tell(&sandbox.id, &sandbox.id, ContainerEventType::ContainerDeletedEvent);
        pods.sandboxes.remove(&sandbox.id);
        pods.cpu.forget(&sandbox.id);
        Ok(())
    })
    .await
}
