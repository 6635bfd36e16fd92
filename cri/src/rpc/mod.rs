//! One file per RPC: what it checks, in which order it acts, what it answers.
//!
//! `service.rs` connects them to gRPC; here nothing knows of it but the codes in a [`Failure`](crate::failure::Failure).

pub(crate) mod container_stats;
pub(crate) mod container_status;
pub(crate) mod create_container;
pub(crate) mod exec_sync;
pub(crate) mod get_container_events;
pub(crate) mod image_fs_info;
pub(crate) mod image_status;
pub(crate) mod list_container_stats;
pub(crate) mod list_containers;
pub(crate) mod list_images;
pub(crate) mod list_pod_sandbox;
pub(crate) mod list_pod_sandbox_stats;
pub(crate) mod pod_sandbox_stats;
pub(crate) mod pod_sandbox_status;
pub(crate) mod pull_image;
pub(crate) mod remove_container;
pub(crate) mod remove_image;
pub(crate) mod remove_pod_sandbox;
pub(crate) mod reopen_container_log;
pub(crate) mod run_pod_sandbox;
pub(crate) mod runtime_config;
pub(crate) mod start_container;
pub(crate) mod status;
pub(crate) mod stop_container;
pub(crate) mod stop_pod_sandbox;
pub(crate) mod update_container_resources;
pub(crate) mod update_runtime_config;
pub(crate) mod version;

use crate::container::Container;
use crate::failure::{Failure, Result};
use crate::pods::Pods;
use crate::shim::Shim;
use std::future::Future;
use std::sync::Arc;

/// What a longer timeout comes to, ten years: a clock has an end, and adding to it must not reach that.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(315_360_000);

/// Runs work that is not to stop halfway when its client goes away.
pub(crate) async fn in_task<T: Send + 'static>(
    what: &'static str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(crate::stages::carried(work)).await {
        Ok(result) => result,
        Err(error) => Err(Failure::internal(what, &error)),
    }
}

/// The shim of a container's pod.
fn shim_of(pods: &Pods, container: &Container) -> Result<Arc<Shim>> {
    let shim = pods.sandboxes.get(&container.sandbox)?.shim();
    shim.ok_or_else(|| Failure::state(format!("the sandbox of container {} is not ready", container.id)))
}
