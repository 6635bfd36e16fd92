//! What pods, containers and the node use: one pass over the runtime and the machine, shared by all who ask.
//!
//! `/stats/summary`, `/metrics/resource`, `/metrics/cadvisor` and `orlop ps` read the same [`Snapshot`]. A pass runs when
//! somebody asks and the last one is older than [`MAX_AGE`], in a task of its own: a runtime that hangs makes answers
//! old, never a request stuck. Nobody asking costs nothing.

use crate::cgroups::Cgroups;
use crate::clock::Clock;
use crate::runtime::Runtime;
use crate::table::PodTable;
use crate::volumes::Volumes;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How old an answer may be before a new pass begins.
pub const MAX_AGE: Duration = Duration::from_secs(10);

/// Where the numbers come from.
pub struct Inputs {
    /// Our node's name.
    pub node_name: String,
    /// `/var/lib/kubelet`: its file system is the node's.
    pub root: PathBuf,
    /// `/var/log/pods`.
    pub pod_logs: PathBuf,
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

/// The numbers, and who may ask for them. Cheap to clone.
#[derive(Clone)]
pub struct Stats {
    #[expect(dead_code, reason = "filled in by the next commit")]
    inputs: Arc<Inputs>,
}

impl Stats {
    /// Nothing is measured before somebody asks.
    pub fn new(inputs: Inputs) -> Stats {
        Stats { inputs: Arc::new(inputs) }
    }
}
