//! StopPodSandbox: kills what runs, releases the network. Repeatable, and fine with an unknown id.

use crate::failure::{Result, chain};
use crate::pods::Pods;
use crate::sandbox::{Phase, Sandbox};
use crate::teardown;
use proto::ContainerEventType;
use std::sync::Arc;

pub(crate) async fn stop_pod_sandbox(pods: &Arc<Pods>, id: &str) -> Result<()> {
    let Some(sandbox) = pods.sandboxes.find(id)? else { return Ok(()) };
    let pods = Arc::clone(pods);
    // In a task of its own: half a stop would have to be repeated by somebody.
    super::in_task("stop a sandbox", async move {
        let _gate = sandbox.gate.lock().await;
        stop(&pods, &sandbox).await
    })
    .await
}

/// Stops a sandbox whose gate is held.
pub(super) async fn stop(pods: &Arc<Pods>, sandbox: &Arc<Sandbox>) -> Result<()> {
    let before = sandbox.record().phase;
    if before == Phase::Stopped {
        return Ok(());
    }
    // From here on the end of its shim is no news, and it takes no containers any more.
    sandbox.change(|record| record.phase = Phase::Stopped);
    if let Err(failure) = teardown::sandbox(pods, sandbox).await {
        sandbox.change(|record| record.phase = Phase::Dead);
        if before == Phase::Ready {
            if let Err(unkept) = pods.keep_sandbox(sandbox).await {
                tracing::error!(sandbox = sandbox.id, error = chain(&unkept), "a sandbox's end is not recorded");
            }
            pods.tell(&sandbox.id, &sandbox.id, ContainerEventType::ContainerStoppedEvent);
        }
        return Err(failure);
    }
    sandbox.drop_shim();
    teardown::remove_shim_dir(&pods.config.state, &sandbox.id).await?;
    pods.keep_sandbox(sandbox).await?;
    if before == Phase::Ready {
        pods.tell(&sandbox.id, &sandbox.id, ContainerEventType::ContainerStoppedEvent);
    }
    Ok(())
}
