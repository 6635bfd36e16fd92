//! What a container uses, in the form that runc's `events` has and containerd and Docker read.

use std::collections::BTreeMap;

use oci_runtime::cgroup::{Pressure, PressureLine, Stats, Throttling};
use serde::Serialize;

/// `data` of an event of type `stats`.
#[derive(Debug, Default, Serialize)]
pub(super) struct Usage {
    cpu: Cpu,
    cpuset: Cpuset,
    memory: Memory,
    pids: Pids,
    blkio: Blkio,
    hugetlb: BTreeMap<String, Hugetlb>,
    intel_rdt: BTreeMap<String, String>,
    /// runc's own networks only; a config.json has none.
    network_interfaces: Option<Vec<String>>,
}

/// Zero is left out where runc does so.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Debug, Default, Serialize)]
struct Cpu {
    usage: CpuUsage,
    throttling: Periods,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Default, Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Periods {
    #[serde(skip_serializing_if = "is_zero")]
    periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_time: u64,
}

#[derive(Debug, Default, Serialize)]
struct Cpuset {}

#[derive(Debug, Default, Serialize)]
struct Memory {
    usage: MemoryEntry,
    swap: MemoryEntry,
    kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: MemoryEntry,
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Default, Serialize)]
struct MemoryEntry {
    limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Default, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

#[derive(Debug, Default, Serialize)]
struct Blkio {
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Default, Serialize)]
struct Hugetlb {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

/// Microseconds, as the kernel's files have them.
#[derive(Debug, Default, Serialize)]
struct Psi {
    some: PsiLine,
    full: PsiLine,
}

#[derive(Debug, Default, Serialize)]
struct PsiLine {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}

impl From<Pressure> for Psi {
    fn from(pressure: Pressure) -> Psi {
        Psi { some: pressure.some.into(), full: pressure.full.into() }
    }
}

impl From<PressureLine> for PsiLine {
    fn from(line: PressureLine) -> PsiLine {
        let PressureLine { avg10, avg60, avg300, total_ns } = line;
        PsiLine { avg10, avg60, avg300, total: total_ns / 1000 }
    }
}

/// No limit, as the kernel's v1 files print it on a machine with pages of 4 KiB.
const NO_MEMORY_LIMIT: u64 = 9_223_372_036_854_771_712;

impl From<&Stats> for Usage {
    fn from(stats: &Stats) -> Usage {
        let hugetlb = stats.hugetlb.iter().map(|size| {
            let figures = Hugetlb { usage: size.usage, ..Hugetlb::default() };
            (size.page_size.clone(), figures)
        });
        Usage {
            cpu: cpu(stats),
            memory: memory(stats),
            pids: stats
                .pids
                .map_or_else(Pids::default, |pids| Pids { current: pids.current, limit: pids.limit.unwrap_or(0) }),
            blkio: Blkio { psi: stats.io_pressure.map(Psi::from) },
            hugetlb: hugetlb.collect(),
            ..Usage::default()
        }
    }
}

fn cpu(stats: &Stats) -> Cpu {
    let cpu = stats.cpu.unwrap_or_default();
    let Throttling { periods, throttled, throttled_ns } = cpu.throttling.unwrap_or_default();
    Cpu {
        usage: CpuUsage { total: cpu.usage_ns, ..CpuUsage::default() },
        throttling: Periods { periods, throttled_periods: throttled, throttled_time: throttled_ns },
        psi: stats.cpu_pressure.map(Psi::from),
    }
}

fn memory(stats: &Stats) -> Memory {
    let Some(memory) = stats.memory else { return Memory::default() };
    let limit = |limit: Option<u64>| limit.unwrap_or(NO_MEMORY_LIMIT);
    let swap = memory.swap.map_or_else(MemoryEntry::default, |swap| MemoryEntry {
        limit: limit(memory.swap_limit),
        usage: memory.usage + swap,
        ..MemoryEntry::default()
    });
    let raw = [
        ("hierarchical_memory_limit", limit(memory.limit)),
        ("total_inactive_file", memory.inactive_file),
        ("total_pgfault", memory.page_faults),
        ("total_pgmajfault", memory.major_page_faults),
        ("total_rss", memory.rss),
    ];
    Memory {
        usage: MemoryEntry { limit: limit(memory.limit), usage: memory.usage, failcnt: memory.failcnt, max: 0 },
        swap,
        raw: raw.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        psi: stats.memory_pressure.map(Psi::from),
        ..Memory::default()
    }
}
