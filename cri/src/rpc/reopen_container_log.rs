//! ReopenContainerLog: a new file at the log's path; only a running container has a log to reopen.

use super::run_pod_sandbox::call;
use crate::container::Life;
use crate::failure::{Failure, Result};
use crate::pods::Pods;
use shim_protocol::{ContainerRef, Verb};
use std::sync::Arc;
use std::time::Duration;

const REOPEN: Duration = Duration::from_secs(30);

pub(crate) async fn reopen_container_log(pods: &Arc<Pods>, id: &str) -> Result<()> {
    let container = pods.containers.get(id)?;
    if !matches!(container.life(), Life::Running(_)) {
        return Err(Failure::state(format!("container {} is not running", container.id)));
    }
    let shim = super::shim_of(pods, &container)?;
    let verb = Verb::ReopenLog(ContainerRef { container: container.id.clone() });
    let reopened = shim.call(verb, Vec::new(), REOPEN).await;
    reopened.map(drop).map_err(|error| call(&format!("reopen the log of container {}", container.id), error))
}
