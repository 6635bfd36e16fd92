//! One look at everything, as it was read: what all documents are made of.

use super::machine::Machine;
use jiff::Timestamp;
use tokio::time::Instant;

/// What one pass found.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When.
    pub at: Timestamp,
    /// The same moment on the clock that does not jump.
    pub(super) mono: Instant,
    /// The machine.
    pub machine: Machine,
    /// Billionths of a core that the machine used since the pass before.
    pub nano_cores: Option<u64>,
    /// The node's file system, `<root>`'s.
    pub node_fs: Option<sys::fs::Usage>,
    /// Where images lie.
    pub images: Option<FsReading>,
    /// Where containers write.
    pub containers: Option<FsReading>,
    /// What all pods use together.
    pub all_pods: Option<crate::cgroups::Usage>,
    /// Pods with a running container or a ready sandbox.
    pub pods: Vec<PodReading>,
    /// The runtime's answer, if it was not numbers: the pods are those of nobody.
    pub error: Option<String>,
}

/// A file system and what the runtime says that it uses of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct FsReading {
    /// How full it is.
    pub whole: Option<sys::fs::Usage>,
    /// Bytes used by the runtime.
    pub used_bytes: Option<u64>,
    /// Inodes used by the runtime.
    pub inodes_used: Option<u64>,
}

/// A pod.
#[derive(Debug, Clone)]
pub struct PodReading {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: crate::pod::PodUid,
    /// When its sandbox was made.
    pub started: Timestamp,
    /// What the runtime says.
    pub sandbox: Option<proto::LinuxPodSandboxStats>,
    /// What its cgroup says, where the runtime says nothing.
    pub cgroup: Option<crate::cgroups::Usage>,
    /// Containers that run.
    pub containers: Vec<ContainerReading>,
}

/// A container.
#[derive(Debug, Clone)]
pub struct ContainerReading {
    /// Its name in the pod.
    pub name: String,
    /// The runtime's id.
    pub id: String,
    /// The image as it was asked for.
    pub image: String,
    /// When it was created.
    pub created: Timestamp,
    /// When it was started.
    pub started: Timestamp,
    /// What the runtime says.
    pub stats: proto::ContainerStats,
    /// What its logs take.
    pub logs: Option<sys::usage::Usage>,
    /// What its CPU quota did, if it has one.
    pub throttling: Option<cgroup::Throttling>,
}
