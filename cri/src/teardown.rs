//! Taking a sandbox apart: its processes, its network, its namespace. Idempotent; every part is tried, and all that
//! failed is told together.
//!
//! StopPodSandbox, the rollback of a failed creation and the recovery after a crash are this same thing.

use crate::failure::{Failure, Result, chain};
use crate::network;
use crate::pods::{Pods, blocking};
use crate::sandbox::{Sandbox, SandboxRecord};
use crate::shim::{CallError, Shim, dir_of};
use crate::supervise::{cgroup_of, kill_cgroup, kill_orphans, settle};
use cni::client::Namespace;
use proto::PodSandboxConfig;
use shim_protocol::Verb;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a pod's processes may take to die of SIGKILL.
const STOP: Duration = Duration::from_secs(60);

/// Ends all that runs in the sandbox and releases its network; afterwards its record is all that is left.
pub(crate) async fn sandbox(pods: &Arc<Pods>, sandbox: &Arc<Sandbox>) -> Result<()> {
    let record = sandbox.record();
    let (processes, network) = tokio::join!(end_processes(pods, sandbox), release_network(pods, &record));
    let namespace = match (&processes, &network, &record.netns) {
        (Ok(()), Ok(()), Some(netns)) => unpin(netns.clone()).await,
        _ => Ok(()),
    };
    let failures: Vec<Failure> = [processes, network, namespace].into_iter().filter_map(Result::err).collect();
    match failures.split_first() {
        None => Ok(()),
        Some((first, others)) => {
            let text = others.iter().fold(first.message.clone(), |text, other| format!("{text}; {other}"));
            Err(Failure::new(first.code, text))
        }
    }
}

async fn end_processes(pods: &Arc<Pods>, sandbox: &Arc<Sandbox>) -> Result<()> {
    match sandbox.shim() {
        // The shim removes the cgroups too, and has told all exits before it answers.
        Some(shim) => {
            let stopped = stop_shim(&shim).await;
            let stopped = stopped.map_err(|failure| failure.within(format!("stop sandbox {}", sandbox.id)))?;
            if stopped == Stopped::ShimDied {
                kill_orphans(pods, sandbox).await;
            }
        }
        None => kill_orphans(pods, sandbox).await,
    }
    settle(pods, sandbox).await;
    Ok(())
}

/// What became of a shim that was asked to stop its sandbox.
#[derive(Debug, PartialEq, Eq)]
enum Stopped {
    /// It killed what it ran.
    Done,
    /// It ended without an answer: what it ran may live.
    ShimDied,
}

async fn stop_shim(shim: &Shim) -> Result<Stopped> {
    match shim.call(Verb::StopSandbox, Vec::new(), STOP).await {
        Ok(_) => Ok(Stopped::Done),
        Err(CallError::Gone) => Ok(Stopped::ShimDied),
        Err(CallError::Failed(failure)) => Err(Failure::from_shim("the shim", &failure)),
        Err(error) => Err(Failure::internal("the shim", &error)),
    }
}

async fn release_network(pods: &Arc<Pods>, record: &SandboxRecord) -> Result<()> {
    let Some(netns) = record.netns.clone() else { return Ok(()) };
    let (pods, id, config) = (Arc::clone(pods), record.id.clone(), record.config.clone());
    blocking("release a pod's network", move || detach(&pods, &id, &netns, &config)).await
}

/// CNI DEL. Blocks.
fn detach(pods: &Pods, id: &str, netns: &Path, config: &PodSandboxConfig) -> Result<()> {
    let attachment = network::attachment(id, netns, config)?;
    pods.networks
        .del(&attachment, Namespace::Ends)
        .map_err(|error| Failure::internal(format!("release the network of sandbox {id}"), &error))
}

async fn unpin(netns: PathBuf) -> Result<()> {
    blocking("unpin a network namespace", move || {
        sys::namespace::unpin(&netns)
            .map_err(|error| Failure::internal(format!("unpin network namespace {}", netns.display()), &error))
    })
    .await
}

/// Forgets a torn-down sandbox: its files and its record.
pub(crate) async fn forget(pods: &Arc<Pods>, id: &str) -> Result<()> {
    let (pods, id) = (Arc::clone(pods), id.to_owned());
    blocking("forget a sandbox", move || {
        remove_dir_of_shim(&pods.config.state, &id)?;
        pods.sandbox_records.remove(&id).map_err(|error| Failure::internal(format!("forget sandbox {id}"), &error))
    })
    .await
}

/// Removes the directory of a sandbox's shim, if it is there.
pub(crate) async fn remove_shim_dir(state: &Path, id: &str) -> Result<()> {
    let (state, id) = (state.to_owned(), id.to_owned());
    blocking("remove a shim's directory", move || remove_dir_of_shim(&state, &id)).await
}

/// It may hold the mount point of a `/dev/shm`, which a shim that was killed has left mounted. Blocks.
fn remove_dir_of_shim(state: &Path, id: &str) -> Result<()> {
    let dir = dir_of(state, id);
    // Only kernels that can't share a detached mount leave one here.
    let _not_mounted = sys::mount::umount_detach(dir.join("shm"));
    crate::records::gone(std::fs::remove_dir_all(&dir))
        .map_err(|error| Failure::internal(format!("remove {}", dir.display()), &error))
}

/// Takes apart a sandbox of which only the id is known, because its record can't be read: from the shim's directory, the
/// CNI cache, the name of the pin and the cgroup that every sandbox of ours has.
pub(crate) async fn by_id(pods: &Arc<Pods>, id: &str) {
    let dir = dir_of(&pods.config.state, id);
    if let Ok(shim) = Shim::connect(&dir) {
        let shim = Arc::new(shim);
        let reader = Arc::clone(&shim);
        let read = tokio::spawn(async move { while reader.next_event().await.is_some() {} });
        if let Err(failure) = stop_shim(&shim).await {
            tracing::warn!(sandbox = id, error = chain(&failure), "stop a sandbox without a record");
        }
        read.abort();
    }
    let netns = netns_path(&pods.config.netns_dir, id);
    let (taker, id) = (Arc::clone(pods), id.to_owned());
    let taken = blocking("take apart a sandbox without a record", move || {
        detach(&taker, &id, &netns, &PodSandboxConfig::default())?;
        sys::namespace::unpin(&netns).map_err(|error| Failure::internal("unpin its network namespace", &error))?;
        kill_cgroup(&taker.layout, &cgroup_of(&taker.config.cgroup_parent, &id));
        remove_dir_of_shim(&taker.config.state, &id)
    });
    if let Err(failure) = taken.await {
        tracing::warn!(error = chain(&failure), "take apart a sandbox without a record");
    }
}

/// Where a sandbox's network namespace is pinned: `cni-<uuid>`, the name that other software looks for, with the id's
/// first digits as the UUID, so that it can be found without a record.
pub(crate) fn netns_path(dir: &Path, id: &str) -> PathBuf {
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).chain(std::iter::repeat('0')).take(32).collect();
    let part = |from: usize, to: usize| &digits[from..to];
    dir.join(format!("cni-{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_of_a_namespace_is_named_like_a_uuid_and_follows_from_the_id() {
        let path = netns_path(Path::new("/run/netns"), "0123456789abcdef0123456789abcdef99");
        assert_eq!(path, Path::new("/run/netns/cni-01234567-89ab-cdef-0123-456789abcdef"));
    }
}
