//! RemoveContainer: by force if it runs. Fine with an unknown id.

use super::run_pod_sandbox::call;
use crate::container::Container;
use crate::failure::{Failure, Result};
use crate::pods::{Pods, blocking};
use crate::shim::CallError;
use crate::supervise::kill_cgroup;
use proto::ContainerEventType;
use shim_protocol::{Delete, ErrorKind, Verb};
use std::sync::Arc;
use std::time::Duration;

/// How long its processes may take to die.
const DELETE: Duration = Duration::from_secs(60);

pub(crate) async fn remove_container(pods: &Arc<Pods>, id: &str) -> Result<()> {
    let Some(container) = pods.containers.find(id)? else { return Ok(()) };
    let pods = Arc::clone(pods);
    super::in_task("remove a container", async move { remove(&pods, &container).await }).await
}

/// Removes a container, once: who comes second finds it gone.
pub(super) async fn remove(pods: &Arc<Pods>, container: &Arc<Container>) -> Result<()> {
    let _gate = container.gate.lock().await;
    if pods.containers.find(&container.id)?.is_none() {
        return Ok(());
    }
    match super::shim_of(pods, container) {
        Ok(shim) => {
            let delete = Verb::Delete(Delete { container: container.id.clone(), force: true });
            match shim.call(delete, Vec::new(), DELETE).await {
                Ok(_) => {}
                // It died, and what it ran may live.
                Err(CallError::Gone) => end_cgroup(pods, container).await?,
                Err(CallError::Failed(failure)) if failure.kind == ErrorKind::NotFound => {}
                Err(error) => return Err(call(&format!("remove container {}", container.id), error)),
            }
        }
        Err(_no_shim) => end_cgroup(pods, container).await?,
    }
    let (remover, id) = (Arc::clone(pods), container.id.clone());
    blocking("remove a container's files", move || {
        remover
            .container_records
            .remove(&id)
            .map_err(|error| Failure::internal(format!("remove the files of container {id}"), &error))?;
        remover.images.release(&id);
        Ok(())
    })
    .await?;
    pods.containers.remove(&container.id);
    pods.usage.forget(&container.id);
    pods.cpu.forget(&container.id);
    pods.tell(&container.id, &container.sandbox, ContainerEventType::ContainerDeletedEvent);
    Ok(())
}

/// Kills what a container without a shim runs.
async fn end_cgroup(pods: &Arc<Pods>, container: &Container) -> Result<()> {
    let (killer, cgroup) = (Arc::clone(pods), container.record().cgroup.clone());
    blocking("remove a cgroup", move || {
        kill_cgroup(&killer.layout, &cgroup);
        Ok(())
    })
    .await
}
