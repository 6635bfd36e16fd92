//! StartContainer: runs the program. One that can't be run leaves the container exited, code 128, reason `StartError`.

use super::run_pod_sandbox::call;
use crate::container::{Container, Ended, Life};
use crate::failure::{Failure, Result, chain};
use crate::host::now;
use crate::pods::Pods;
use crate::shim::CallError;
use shim_protocol::{ContainerRef, ErrorKind, Verb};
use std::sync::Arc;
use std::time::Duration;

/// How long a program may take to be executed: its file may lie on a slow volume.
const START: Duration = Duration::from_secs(110);

pub(crate) async fn start_container(pods: &Arc<Pods>, id: &str) -> Result<()> {
    let container = pods.containers.get(id)?;
    let pods = Arc::clone(pods);
    super::in_task("start a container", async move {
        let _gate = container.gate.lock().await;
        start(&pods, &container).await
    })
    .await
}

async fn start(pods: &Arc<Pods>, container: &Arc<Container>) -> Result<()> {
    match container.life() {
        Life::Created(_) => {}
        Life::Running(_) => return Err(Failure::state(format!("container {} is running", container.id))),
        Life::Exited(_) => return Err(Failure::state(format!("container {} has ended", container.id))),
    }
    let shim = super::shim_of(pods, container)?;
    let what = format!("start container {}", container.record().metadata().name);
    let verb = Verb::Start(ContainerRef { container: container.id.clone() });
    match shim.call(verb, Vec::new(), START).await {
        Ok(_) => {}
        // An earlier call started it, and its answer was lost.
        Err(CallError::Failed(failure)) if failure.kind == ErrorKind::Running => {}
        Err(CallError::Failed(failure)) if failure.kind == ErrorKind::Start => {
            let told = Failure::from_shim(&what, &failure);
            pods.end_container(container, Ended::start_error(failure.message.clone(), now())).await;
            container.explain(&failure.message);
            pods.keep_container(container).await?;
            return Err(told);
        }
        Err(error) => return Err(call(&what, error)),
    }
    pods.begin_container(container, now());
    // It runs, and so it is told; after a restart its shim says so again, whether or not it was written here.
    if let Err(failure) = pods.keep_container(container).await {
        tracing::error!(container = container.id, error = chain(&failure), "a start is not recorded");
    }
    Ok(())
}
