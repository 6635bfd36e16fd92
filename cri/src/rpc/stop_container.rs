//! StopContainer: the stop signal, `timeout` seconds of grace, SIGKILL. Fine with an unknown id, and repeatable: a second
//! call neither sends the signal again nor restarts the clock; one with a shorter timeout shortens the grace.

use super::run_pod_sandbox::call;
use crate::container::{Container, Life};
use crate::failure::{Failure, Result};
use crate::pods::Pods;
use crate::shim::CallError;
use shim_protocol::{ErrorKind, Kill, Verb};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a process may take to die of SIGKILL: one that hangs in the kernel is told as such.
const DIE: Duration = Duration::from_secs(30);

/// How long the shim may take to send a signal.
const SEND: Duration = Duration::from_secs(10);

pub(crate) async fn stop_container(pods: &Arc<Pods>, id: &str, timeout: i64) -> Result<()> {
    let Some(container) = pods.containers.find(id)? else { return Ok(()) };
    let pods = Arc::clone(pods);
    super::in_task("stop a container", async move { stop(&pods, &container, timeout).await }).await
}

async fn stop(pods: &Arc<Pods>, container: &Arc<Container>, timeout: i64) -> Result<()> {
    if matches!(container.life(), Life::Created(_)) {
        // A start that is under way comes to its end first.
        drop(container.gate.lock().await);
    }
    // What was never started has nothing to stop; it stays as it is.
    let Life::Running(_) = container.life() else { return Ok(()) };
    let grace = Duration::from_secs(u64::try_from(timeout).unwrap_or(0)).min(super::LONGEST);
    if !grace.is_zero() {
        let (ends, first) = container.begin_grace(Instant::now() + grace);
        if first && let Err(failure) = signal(pods, container, container.record().stop_signal, false).await {
            container.forget_grace();
            return Err(failure);
        }
        if tokio::time::timeout_at(ends, container.ended()).await.is_ok() {
            return Ok(());
        }
    }
    signal(pods, container, nix::libc::SIGKILL, true).await?;
    match tokio::time::timeout(DIE, container.ended()).await {
        Ok(_) => Ok(()),
        Err(_elapsed) => Err(Failure::new(
            tonic::Code::DeadlineExceeded,
            format!("container {}: still not dead {} s after SIGKILL", container.id, DIE.as_secs()),
        )),
    }
}

async fn signal(pods: &Arc<Pods>, container: &Container, signal: i32, all: bool) -> Result<()> {
    let Ok(shim) = super::shim_of(pods, container) else { return Ok(()) };
    let kill = Verb::Kill(Kill { container: container.id.clone(), signal, all });
    match shim.call(kill, Vec::new(), SEND).await {
        // It ended by itself, or with its pod: that is told on the way that all exits take.
        Ok(_) | Err(CallError::Gone) => Ok(()),
        Err(CallError::Failed(failure)) if failure.kind == ErrorKind::NotRunning => Ok(()),
        Err(error) => Err(call(&format!("send signal {signal} to container {}", container.id), error)),
    }
}
