//! The tree of kubepods.

use crate::config::Config;
use crate::pod::{Pod, PodUid};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::{BTreeMap, BTreeSet};

/// Why the tree can't be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A driver or setting that is not built.
    #[error("{0}")]
    Unsupported(String),
    /// A cgroup that can't be made, limited, emptied or removed.
    #[error("{step} cgroup {path}")]
    Step {
        /// What was tried: `make`, `limit`, `empty`, `remove`.
        step: &'static str,
        /// The cgroup.
        path: String,
        /// Why.
        #[source]
        source: cgroup::Error,
    },
}

/// The result of a step.
pub type Result<T> = std::result::Result<T, CgroupError>;

/// What a cgroup uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time since it was made, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory in bytes, page cache included.
    pub memory: u64,
    /// Memory less what could be dropped at once.
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Those that needed I/O.
    pub major_page_faults: u64,
    /// Tasks.
    pub pids: u64,
    /// The memory limit, if there is one.
    pub memory_limit: Option<u64>,
}

/// The cgroups of kubepods. All calls block for a moment: they write to the kernel's files.
#[derive(Debug)]
pub struct Cgroups {}

impl Cgroups {
    /// Makes kubepods and the two classes below the configured root, with the node's limits.
    pub fn open(
        config: &Config,
        driver: proto::CgroupDriver,
        allocatable: &BTreeMap<String, Quantity>,
    ) -> Result<Cgroups> {
        let _ = (config, driver, allocatable);
        todo!()
    }

    /// Whether the host has cgroup v2 alone.
    pub fn is_v2(&self) -> bool {
        todo!()
    }

    /// Makes the pod's cgroup with its limits, if it is not there; the sandbox's `cgroup_parent`.
    pub fn ensure_pod(&self, pod: &Pod) -> Result<String> {
        let _ = pod;
        todo!()
    }

    /// Kills every process in the pod's cgroup, wherever in the tree it is.
    pub fn kill_pod(&self, uid: &PodUid) -> Result<()> {
        let _ = uid;
        todo!()
    }

    /// Kills what is left in the pod's cgroup and removes it. Nothing if it is gone.
    pub fn remove_pod(&self, uid: &PodUid) -> Result<()> {
        let _ = uid;
        todo!()
    }

    /// The pods that have a cgroup: orphans among them are the caller's to find.
    pub fn pods(&self) -> Result<BTreeSet<PodUid>> {
        todo!()
    }

    /// Gives burstable the sum of what its pods request. Call when a pod comes or goes.
    pub fn update_burstable(&self, pods: &[Pod]) -> Result<()> {
        let _ = pods;
        todo!()
    }

    /// What the pod uses; `None` if it has no cgroup.
    pub fn pod_usage(&self, uid: &PodUid) -> Option<Usage> {
        let _ = uid;
        todo!()
    }

    /// What all pods use together.
    pub fn pods_usage(&self) -> Option<Usage> {
        todo!()
    }

    /// What the whole machine uses, from the root cgroup.
    pub fn node_usage(&self) -> Option<Usage> {
        todo!()
    }
}
