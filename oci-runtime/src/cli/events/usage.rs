//! What a container uses, in the form that runc's `events` has and containerd and Docker read.

use std::collections::BTreeMap;

use oci_runtime::cgroup::{
    CpusetDetails, Details, HugetlbStats, IoDetails, IoEntry, MemoryUse, Pressure, PressureLine, Throttling,
};
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

/// Nanoseconds.
#[derive(Debug, Default, Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_user: Vec<u64>,
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
struct Cpuset {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpus: Vec<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mems: Vec<u16>,
    cpu_exclusive: i64,
    mem_hardwall: i64,
    mem_exclusive: i64,
    memory_migrate: i64,
    memory_spread_page: i64,
    memory_spread_slab: i64,
    memory_pressure: i64,
    sched_load_balance: i64,
    sched_relax_domain_level: i64,
}

#[derive(Debug, Default, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    cache: u64,
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
#[serde(rename_all = "camelCase")]
struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_queue_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_wait_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_merged_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sectors_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Default, Serialize)]
struct BlkioEntry {
    #[serde(skip_serializing_if = "is_zero")]
    major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    op: String,
    #[serde(skip_serializing_if = "is_zero")]
    value: u64,
}

#[derive(Debug, Default, Serialize)]
struct Hugetlb {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

/// Totals in microseconds, as the kernel's files have them.
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

/// No limit of memory: on v1 what the kernel prints there with pages of 4 KiB, on v2 all bits.
const NO_LIMIT_V1: u64 = 9_223_372_036_854_771_712;
const NO_LIMIT_V2: u64 = u64::MAX;

impl From<Details> for Usage {
    fn from(mut details: Details) -> Usage {
        // v1's memory.stat has totals besides, v2's has nothing else.
        let is_v1 = details.memory.as_ref().is_none_or(|memory| memory.stat.contains_key("total_rss"));
        let pids = details.stats.pids.unwrap_or_default();
        Usage {
            memory: memory(&mut details, if is_v1 { NO_LIMIT_V1 } else { NO_LIMIT_V2 }),
            hugetlb: std::mem::take(&mut details.stats.hugetlb).into_iter().map(hugetlb).collect(),
            cpuset: details.cpuset.take().map(cpuset).unwrap_or_default(),
            blkio: blkio(std::mem::take(&mut details.io), details.stats.io_pressure),
            cpu: cpu(details),
            pids: Pids { current: pids.current, limit: pids.limit.unwrap_or(0) },
            ..Usage::default()
        }
    }
}

fn cpu(details: Details) -> Cpu {
    let total = details.stats.cpu.unwrap_or_default();
    let Throttling { periods, throttled, throttled_ns } = total.throttling.unwrap_or_default();
    Cpu {
        usage: CpuUsage {
            total: total.usage_ns,
            percpu: details.cpu.per_cpu_ns,
            percpu_kernel: details.cpu.per_cpu_kernel_ns,
            percpu_user: details.cpu.per_cpu_user_ns,
            kernel: details.cpu.kernel_ns,
            user: details.cpu.user_ns,
        },
        throttling: Periods { periods, throttled_periods: throttled, throttled_time: throttled_ns },
        psi: details.stats.cpu_pressure.map(Psi::from),
    }
}

fn cpuset(cpuset: CpusetDetails) -> Cpuset {
    let flag = |name: &str| cpuset.flags.get(name).copied().unwrap_or(0);
    Cpuset {
        cpu_exclusive: flag("cpu_exclusive"),
        mem_hardwall: flag("mem_hardwall"),
        mem_exclusive: flag("mem_exclusive"),
        memory_migrate: flag("memory_migrate"),
        memory_spread_page: flag("memory_spread_page"),
        memory_spread_slab: flag("memory_spread_slab"),
        memory_pressure: flag("memory_pressure"),
        sched_load_balance: flag("sched_load_balance"),
        sched_relax_domain_level: flag("sched_relax_domain_level"),
        cpus: cpuset.cpus,
        mems: cpuset.mems,
    }
}

fn memory(details: &mut Details, no_limit: u64) -> Memory {
    let Some(memory) = details.memory.take() else { return Memory::default() };
    let entry = |MemoryUse { usage, peak, limit, failcnt }| MemoryEntry {
        limit: limit.unwrap_or(no_limit),
        usage,
        max: peak,
        failcnt,
    };
    let cache = ["total_cache", "file"].into_iter().find_map(|key| memory.stat.get(key)).copied();
    Memory {
        cache: cache.unwrap_or(0),
        usage: entry(memory.usage),
        swap: memory.swap.map(entry).unwrap_or_default(),
        kernel: memory.kernel.map(entry).unwrap_or_default(),
        kernel_tcp: memory.kernel_tcp.map(entry).unwrap_or_default(),
        raw: memory.stat,
        psi: details.stats.memory_pressure.map(Psi::from),
    }
}

fn blkio(io: IoDetails, pressure: Option<Pressure>) -> Blkio {
    let entries = |list: Vec<IoEntry>| {
        let entry = |IoEntry { major, minor, operation, value }| BlkioEntry { major, minor, op: operation, value };
        list.into_iter().map(entry).collect()
    };
    Blkio {
        io_service_bytes_recursive: entries(io.service_bytes),
        io_serviced_recursive: entries(io.serviced),
        io_queue_recursive: entries(io.queued),
        io_service_time_recursive: entries(io.service_time),
        io_wait_time_recursive: entries(io.wait_time),
        io_merged_recursive: entries(io.merged),
        io_time_recursive: entries(io.time),
        sectors_recursive: entries(io.sectors),
        psi: pressure.map(Psi::from),
    }
}

fn hugetlb(size: HugetlbStats) -> (String, Hugetlb) {
    (size.page_size, Hugetlb { usage: size.usage, max: size.peak, failcnt: size.failcnt })
}
