//! All that the kernel tells of a cgroup's use, as `runc events` prints it: many files, for those who ask for one container.
//!
//! [`Stats`](crate::Stats) has what is asked for every container every ten seconds.

use std::collections::BTreeMap;

use crate::{Cgroup, Result, Stats, v1, v2};

/// One reading of a cgroup and all below it. What the host does not count is empty or `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Details {
    /// The short reading: totals, tasks, huge pages, pressure.
    pub stats: Stats,
    /// CPU time by mode and by CPU.
    pub cpu: CpuDetails,
    /// Which CPUs and memory nodes; v1 only, where an empty one has none.
    pub cpuset: Option<CpusetDetails>,
    /// Memory by kind.
    pub memory: Option<MemoryDetails>,
    /// Block I/O by device.
    pub io: IoDetails,
}

/// CPU time since creation, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuDetails {
    /// In user mode.
    pub user_ns: u64,
    /// In the kernel.
    pub kernel_ns: u64,
    /// Both, on each CPU; v1 only.
    pub per_cpu_ns: Vec<u64>,
    /// In user mode on each CPU; v1 only.
    pub per_cpu_user_ns: Vec<u64>,
    /// In the kernel on each CPU; v1 only.
    pub per_cpu_kernel_ns: Vec<u64>,
    /// Periods in which saved quota was used (`nr_bursts`).
    pub bursts: u64,
    /// How much of it, in nanoseconds.
    pub burst_ns: u64,
}

/// The files of a v1 cpuset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpusetDetails {
    /// CPUs, in ascending order.
    pub cpus: Vec<u16>,
    /// Memory nodes, in ascending order.
    pub mems: Vec<u16>,
    /// The other files by the part of their name behind `cpuset.`: `cpu_exclusive`, `memory_migrate`, ….
    pub flags: BTreeMap<String, i64>,
}

/// Memory by kind, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryDetails {
    /// `memory.stat` as it is; its keys differ between v1 and v2.
    pub stat: BTreeMap<String, u64>,
    /// All that is charged.
    pub usage: MemoryUse,
    /// Memory and swap together, on v2 as well.
    pub swap: Option<MemoryUse>,
    /// The kernel's part of it.
    pub kernel: Option<MemoryUse>,
    /// The part of TCP's buffers; v1 only.
    pub kernel_tcp: Option<MemoryUse>,
}

/// One kind of memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Now.
    pub usage: u64,
    /// At most so far; 0 where the kernel does not record it.
    pub peak: u64,
    /// At most; `None` for no limit.
    pub limit: Option<u64>,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Block I/O by device and operation, since creation. v2 has bytes and operations only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IoDetails {
    /// Bytes.
    pub service_bytes: Vec<IoEntry>,
    /// Operations.
    pub serviced: Vec<IoEntry>,
    /// Requests waiting.
    pub queued: Vec<IoEntry>,
    /// Nanoseconds between dispatch and completion.
    pub service_time: Vec<IoEntry>,
    /// Nanoseconds in queues.
    pub wait_time: Vec<IoEntry>,
    /// Requests merged.
    pub merged: Vec<IoEntry>,
    /// Milliseconds of the disk's time.
    pub time: Vec<IoEntry>,
    /// Sectors of 512 bytes.
    pub sectors: Vec<IoEntry>,
}

/// One figure of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IoEntry {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, …; empty where the kernel does not tell them apart.
    pub operation: String,
    /// The figure.
    pub value: u64,
}

impl Cgroup {
    /// Reads everything.
    pub fn details(&self) -> Result<Details> {
        let mut details = Details { stats: self.stats()?, ..Details::default() };
        for member in self.v1() {
            v1::read_details(&member.hierarchy.kind, &member.dir, &mut details)?;
        }
        if let Some(dir) = self.only_v2() {
            v2::read_details(dir, &mut details)?;
        }
        Ok(details)
    }
}

/// `key number` lines; others are left out.
pub(crate) fn pairs(text: &str) -> BTreeMap<String, u64> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.filter_map(|(key, value)| Some((key.to_owned(), value.parse().ok()?))).collect()
}

/// `8:16`
pub(crate) fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The numbers of a list such as `0-3,8`.
pub(crate) fn list(text: &str) -> Option<Vec<u16>> {
    let mut numbers = Vec::new();
    for range in text.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        numbers.extend(first.parse::<u16>().ok()?..=last.parse().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_spelled_out() {
        assert_eq!(list("0-2,7\n"), Some(vec![0, 1, 2, 7]));
        assert_eq!(list("\n"), Some(Vec::new()));
        assert_eq!(list("x"), None);
    }
}
