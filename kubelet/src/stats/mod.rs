//! What pods, containers and the node use: one pass over the runtime and the machine, shared by all who ask.
//!
//! `/stats/summary`, `/metrics/resource`, `/metrics/cadvisor` and `orlop ps` read the same [`Snapshot`]. A pass runs when
//! somebody asks and the last one is older than [`MAX_AGE`], in a task of its own: a runtime that hangs makes answers
//! old, never a request stuck. Nobody asking costs nothing.
//!
//! | module | answers |
//! |---|---|
//! | [`snapshot`] | what a pass found, as it was read |
//! | [`machine`] | the machine, from /proc |
//! | [`pass`] | runtime, cgroups and files → snapshot |
//! | [`disks`] | what volumes hold: trees are walked seldom, and never while somebody waits |
//! | [`summary`], [`build`] | the document of `/stats/summary`, and snapshot → document |
//! | [`resource`], [`cadvisor`] | snapshot → series |

mod build;
mod cadvisor;
mod disks;
pub mod machine;
mod pass;
mod resource;
pub mod snapshot;
pub mod summary;

use crate::cgroups::Cgroups;
use crate::clock::Clock;
use crate::metrics::text::Text;
use crate::pod::{PodUid, QosClass};
use crate::runtime::Runtime;
use crate::table::PodTable;
use crate::volumes::Volumes;
use disks::Disks;
pub use snapshot::Snapshot;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use summary::Summary;
use tokio::sync::watch;

/// How old an answer may be before a new pass begins.
pub const MAX_AGE: Duration = Duration::from_secs(10);
/// After the runtime gave no numbers it is asked again sooner.
const RETRY: Duration = Duration::from_secs(1);
/// How long somebody waits for a new pass where an older answer is at hand, and where there is none.
const PATIENCE: Duration = Duration::from_secs(2);
const LONGEST_PATIENCE: Duration = Duration::from_secs(10);

/// Where the numbers come from.
pub struct Inputs {
    /// Our node's name.
    pub node_name: String,
    /// `/var/lib/kubelet`: its file system is the node's.
    pub root: PathBuf,
    /// `/var/log/pods`.
    pub pod_logs: PathBuf,
    /// `cgroupRoot`, for the ids of pods in `/metrics/cadvisor`.
    pub cgroup_root: String,
    /// Containers, sandboxes, images.
    pub runtime: Arc<dyn Runtime>,
    /// Names, UIDs and phases of pods.
    pub table: PodTable,
    /// Volumes and the files of pods.
    pub volumes: Volumes,
    /// Pods' and the node's cgroups; `None` where they are not ours to read.
    pub cgroups: Option<Arc<Cgroups>>,
    /// The time.
    pub clock: Clock,
}

/// There are no numbers yet.
#[derive(Debug, Clone, thiserror::Error)]
#[error("failed to list pod stats: {0}")]
pub struct StatsError(String);

/// The numbers, and who may ask for them. Cheap to clone.
#[derive(Clone)]
pub struct Stats {
    inner: Arc<Inner>,
}

struct Inner {
    inputs: Inputs,
    latest: watch::Sender<Option<Arc<Snapshot>>>,
    passing: AtomicBool,
    rates: pass::Rates,
    disks: Disks,
}

impl Stats {
    /// Nothing is measured before somebody asks.
    pub fn new(inputs: Inputs) -> Stats {
        let disks = Disks::new(inputs.volumes.clone());
        let inner = Inner {
            inputs,
            latest: watch::Sender::new(None),
            passing: AtomicBool::new(false),
            rates: pass::Rates::default(),
            disks,
        };
        Stats { inner: Arc::new(inner) }
    }

    /// The latest look at everything, at most [`MAX_AGE`] old unless the runtime hangs.
    ///
    /// # Errors
    /// The runtime has not answered since we started.
    pub async fn snapshot(&self) -> Result<Arc<Snapshot>, StatsError> {
        let mut latest = self.inner.latest.subscribe();
        let held = latest.borrow_and_update().clone();
        let now = self.inner.inputs.clock.now().mono;
        if let Some(held) = &held
            && now.saturating_duration_since(held.mono) < if held.error.is_none() { MAX_AGE } else { RETRY }
        {
            return Ok(Arc::clone(held));
        }
        self.begin();
        let patience = if held.is_some() { PATIENCE } else { LONGEST_PATIENCE };
        let _ = tokio::time::timeout(patience, latest.changed()).await;
        let newest = latest.borrow().clone();
        newest.ok_or_else(|| StatsError("the runtime did not answer in time".to_owned()))
    }

    /// The document of `/stats/summary`.
    ///
    /// # Errors
    /// The runtime gave no numbers.
    pub async fn summary(&self, only_cpu_and_memory: bool) -> Result<Summary, StatsError> {
        let snapshot = self.snapshot().await?;
        if let Some(error) = &snapshot.error {
            return Err(StatsError(error.clone()));
        }
        let node = &self.inner.inputs.node_name;
        if only_cpu_and_memory {
            return Ok(build::brief(node, &snapshot));
        }
        let disks = self.inner.disks.of(snapshot.pods.iter().map(|pod| pod.uid.clone()).collect()).await;
        Ok(build::full(node, &snapshot, &disks))
    }

    /// Writes `/metrics/resource` of a snapshot, or that there is none.
    pub fn write_resource(&self, snapshot: Option<&Snapshot>, out: &mut Text) {
        let snapshot = snapshot.filter(|snapshot| snapshot.error.is_none());
        let summary = snapshot.map(|snapshot| build::brief(&self.inner.inputs.node_name, snapshot));
        resource::write(summary.as_ref(), summary.is_none(), out);
    }

    /// Writes `/metrics/cadvisor` of a snapshot.
    pub fn write_cadvisor(&self, snapshot: &Snapshot, out: &mut Text) {
        let class = |uid: &PodUid| self.inner.inputs.table.get(uid).map(|entry| entry.pod.qos());
        let root = self.inner.inputs.cgroup_root.trim_end_matches('/');
        cadvisor::write(snapshot, &|uid| cgroup_id(root, class(uid), uid), out);
    }

    /// Starts a pass if none is under way.
    fn begin(&self) {
        if self.inner.passing.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let snapshot = pass::run(&inner.inputs, &inner.rates).await;
            inner.latest.send_replace(Some(Arc::new(snapshot)));
            inner.passing.store(false, Ordering::Release);
        });
    }
}

/// Where the cgroup of a pod is, as cAdvisor names it.
fn cgroup_id(root: &str, class: Option<QosClass>, uid: &PodUid) -> String {
    match class.and_then(crate::config::Config::qos_cgroup) {
        Some(class) => format!("{root}/kubepods/{class}/pod{uid}"),
        None => format!("{root}/kubepods/pod{uid}"),
    }
}
