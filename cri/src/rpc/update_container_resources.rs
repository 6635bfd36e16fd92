//! UpdateContainerResources: of a created or a running container; what is not said stays as it is.

use super::create_container::resources_memfd;
use super::run_pod_sandbox::call;
use crate::container::Life;
use crate::failure::{Failure, Result};
use crate::pods::Pods;
use crate::spec::resources::merge;
use proto::UpdateContainerResourcesRequest;
use shim_protocol::{ContainerRef, Verb};
use std::sync::Arc;
use std::time::Duration;

const UPDATE: Duration = Duration::from_secs(30);

pub(crate) async fn update_container_resources(
    pods: &Arc<Pods>,
    request: UpdateContainerResourcesRequest,
) -> Result<()> {
    let container = pods.containers.get(&request.container_id)?;
    let Some(update) = request.linux else { return Ok(()) };
    let pods = Arc::clone(pods);
    super::in_task("update a container", async move {
        let _gate = container.gate.lock().await;
        if matches!(container.life(), Life::Exited(_)) {
            return Err(Failure::state(format!("container {} has ended", container.id)));
        }
        let now = container.record().config.linux.clone().unwrap_or_default().resources.unwrap_or_default();
        let merged = merge(&now, &update);
        let memfd = resources_memfd(&merged)?;
        let shim = super::shim_of(&pods, &container)?;
        let verb = Verb::Update(ContainerRef { container: container.id.clone() });
        shim.call(verb, vec![memfd], UPDATE)
            .await
            .map_err(|error| call(&format!("update container {}", container.id), error))?;
        container.change(|record| {
            record.config.linux.get_or_insert_default().resources = Some(merged);
        });
        pods.keep_container(&container).await
    })
    .await
}
