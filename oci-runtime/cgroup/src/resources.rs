//! What a container may use: the values of `linux.resources` that are built, in the kernel's units.
//!
//! Absent means "leave as it is". The conversion from the runtime-spec is the caller's; what this host can't keep is
//! refused in the name of the spec's field.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Limits of one cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// CPU time.
    pub cpu: Cpu,
    /// Which CPUs and memory nodes.
    pub cpuset: Cpuset,
    /// Memory and swap.
    pub memory: Memory,
    /// How many tasks; negative for no limit. 0 is a limit: nothing can be forked.
    pub pids: Option<i64>,
    /// Which devices, in order, starting from "none". Applied at creation only: the container's devices may have
    /// been changed since by somebody else (NVIDIA's toolkit does), so an update leaves them alone.
    pub devices: Vec<DeviceRule>,
    /// Huge pages, by page size.
    pub hugetlb: Vec<HugetlbLimit>,
    /// Block I/O.
    pub block_io: BlockIo,
    /// Marks on network packets; v1 only.
    pub network: Network,
    /// RDMA, by device.
    pub rdma: BTreeMap<String, Rdma>,
    /// Raw cgroup v2 files and values. Refused by name on v1 and hybrid, where they would mean nothing.
    pub unified: BTreeMap<String, String>,
}

/// CPU time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Cpu {
    /// Relative weight, 2 to 262144; 0 is taken as absent, as runc does.
    pub shares: Option<u64>,
    /// Microseconds per period; negative for no limit, 0 is taken as absent.
    pub quota: Option<i64>,
    /// Microseconds, 1000 to 1000000; 0 is taken as absent.
    pub period: Option<u64>,
    /// Microseconds that may be saved up for a burst above the quota.
    pub burst: Option<u64>,
    /// 1 for `SCHED_IDLE`.
    pub idle: Option<i64>,
    /// Microseconds per realtime period for `SCHED_FIFO` and `SCHED_RR`; v1 only. 0 is taken as absent.
    pub realtime_runtime: Option<i64>,
    /// Microseconds; v1 only. 0 is taken as absent.
    pub realtime_period: Option<u64>,
}

/// Which CPUs and memory nodes; lists as in `0-3,8`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Cpuset {
    /// CPUs.
    pub cpus: Option<String>,
    /// Memory nodes.
    pub mems: Option<String>,
}

/// Memory and swap, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Memory {
    /// Limit; -1 for none, 0 is taken as absent.
    pub limit: Option<i64>,
    /// Soft limit; -1 for none, 0 is taken as absent.
    pub reservation: Option<i64>,
    /// Memory and swap together; -1 for none, 0 is taken as absent.
    pub swap: Option<i64>,
    /// 0 to 100 (200 on newer kernels).
    pub swappiness: Option<u64>,
    /// Let processes wait for memory instead of being killed; v1 only.
    pub disable_oom_killer: Option<bool>,
    /// Limit of TCP's buffers; -1 for none, 0 is taken as absent; v1 only.
    pub kernel_tcp: Option<i64>,
    /// Refuse a limit that is below what is in use. v1's kernel does so unasked, v2's would kill.
    pub check_before_update: bool,
}

/// Block I/O. A weight of 0 is taken as absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct BlockIo {
    /// Share among siblings, 10 to 1000.
    pub weight: Option<u16>,
    /// Share of the cgroup's own tasks against those below it; CFQ on v1 only.
    pub leaf_weight: Option<u16>,
    /// The same for single devices.
    pub devices: Vec<DeviceWeight>,
    /// Limits for single devices.
    pub throttle: Vec<Throttle>,
}

/// The share of one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceWeight {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// As [`BlockIo::weight`].
    pub weight: Option<u16>,
    /// As [`BlockIo::leaf_weight`].
    pub leaf_weight: Option<u16>,
}

/// The limit of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Throttle {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Of what.
    pub of: Throttled,
    /// Per second; 0 for no limit.
    pub rate: u64,
}

/// What a [`Throttle`] limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Throttled {
    /// Bytes read.
    ReadBytes,
    /// Bytes written.
    WriteBytes,
    /// Reads.
    Reads,
    /// Writes.
    Writes,
}

/// Marks on network packets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// For tc(8) and iptables(8); 0 is taken as absent.
    pub class_id: Option<u32>,
    /// Priority by interface.
    pub priorities: BTreeMap<String, u32>,
}

/// What may be had of one RDMA device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Rdma {
    /// Handles.
    pub hca_handles: Option<u32>,
    /// Objects.
    pub hca_objects: Option<u32>,
}

/// One rule of the device controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// Which kind.
    pub kind: DeviceKind,
    /// Major number; `None` for all.
    pub major: Option<u32>,
    /// Minor number; `None` for all.
    pub minor: Option<u32>,
    /// What may be done.
    pub access: Access,
}

/// The kind of device that a [`DeviceRule`] speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Every device; the rule's numbers and access have to be "all" as well.
    #[serde(rename = "a")]
    All,
    /// Character devices.
    #[serde(rename = "c")]
    Char,
    /// Block devices.
    #[serde(rename = "b")]
    Block,
}

/// A subset of read, write, mknod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Access {
    /// Open for reading.
    pub read: bool,
    /// Open for writing.
    pub write: bool,
    /// Make a node.
    pub mknod: bool,
}

impl Access {
    /// All three.
    pub const ALL: Access = Access { read: true, write: true, mknod: true };
    /// mknod alone.
    pub const MKNOD: Access = Access { read: false, write: false, mknod: true };

    /// From letters out of `rwm`, in any order.
    pub fn parse(text: &str) -> Option<Access> {
        let mut access = Access::default();
        for letter in text.chars() {
            match letter {
                'r' => access.read = true,
                'w' => access.write = true,
                'm' => access.mknod = true,
                _ => return None,
            }
        }
        Some(access)
    }

    pub(crate) fn union(self, other: Access) -> Access {
        Access { read: self.read | other.read, write: self.write | other.write, mknod: self.mknod | other.mknod }
    }

    pub(crate) fn minus(self, other: Access) -> Access {
        Access { read: self.read & !other.read, write: self.write & !other.write, mknod: self.mknod & !other.mknod }
    }

    pub(crate) fn is_none(self) -> bool {
        self == Access::default()
    }
}

impl From<Access> for String {
    fn from(access: Access) -> String {
        [(access.read, 'r'), (access.write, 'w'), (access.mknod, 'm')]
            .into_iter()
            .filter_map(|(has, letter)| has.then_some(letter))
            .collect()
    }
}

impl TryFrom<String> for Access {
    type Error = String;

    fn try_from(text: String) -> Result<Access, String> {
        Access::parse(&text).ok_or_else(|| format!("{text:?} is not made of the letters r, w and m"))
    }
}

/// The limit for one huge page size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HugetlbLimit {
    /// As in the kernel's file names: `2MB`, `1GB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}
