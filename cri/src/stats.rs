//! Usage of containers and pods, from their cgroups, in the CRI's terms.

use crate::container::{Container, ContainerRecord};
use crate::pods::Pods;
use crate::sandbox::SandboxRecord;
use crate::supervise::cgroup_of;
use cgroup::{Cgroup, Pressure, PressureLine, Stats};
use proto::{
    ContainerAttributes, ContainerStats, CpuUsage, FilesystemIdentifier, FilesystemUsage, IoUsage,
    LinuxPodSandboxStats, MemoryUsage, PodSandboxAttributes, PodSandboxStats, ProcessUsage, PsiData, PsiStats,
    SwapUsage, UInt64Value,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Two readings closer together than this say little about a rate: the one before is kept, in nanoseconds.
const SHORTEST: i64 = 500_000_000;

/// The last reading of each cgroup's CPU time, to derive how many cores are in use.
#[derive(Debug, Default)]
pub(crate) struct CpuSamples(Mutex<HashMap<String, Sample>>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: i64,
    usage_ns: u64,
    nano_cores: Option<u64>,
}

impl CpuSamples {
    /// Billionths of a core in use between the last reading and this one; none at the first.
    fn nano_cores(&self, id: &str, at: i64, usage_ns: u64) -> Option<u64> {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = samples.get(id).copied();
        let sample = match before {
            Some(before) if at - before.at < SHORTEST => return before.nano_cores,
            Some(before) => {
                let spent = u128::from(usage_ns.saturating_sub(before.usage_ns));
                let elapsed = u128::from((at - before.at).unsigned_abs());
                let cores = u64::try_from(spent * 1_000_000_000 / elapsed).unwrap_or(u64::MAX);
                Sample { at, usage_ns, nano_cores: Some(cores) }
            }
            None => Sample { at, usage_ns, nano_cores: None },
        };
        samples.insert(id.to_owned(), sample);
        sample.nano_cores
    }

    pub(crate) fn forget(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// A container's usage. Reads cgroup files, which the kernel has in memory.
pub(crate) fn container(pods: &Pods, container: &Container) -> cgroup::Result<ContainerStats> {
    let record = container.record();
    let stats = Cgroup::open(&pods.layout, &record.cgroup)?.stats()?;
    let at = crate::host::now();
    Ok(ContainerStats {
        attributes: Some(attributes(&record)),
        cpu: Some(cpu(pods, &record.id, at, &stats)),
        memory: Some(memory(at, &stats)),
        writable_layer: Some(writable_layer(pods, &record)),
        swap: swap(at, &stats),
        io: stats.io_pressure.as_ref().map(|pressure| IoUsage { timestamp: at, psi: Some(psi(pressure)) }),
    })
}

/// A container that has no processes any more, or none yet.
pub(crate) fn idle_container(pods: &Pods, container: &Container) -> ContainerStats {
    let record = container.record();
    let at = crate::host::now();
    ContainerStats {
        attributes: Some(attributes(&record)),
        cpu: Some(cpu(pods, &record.id, at, &Stats::default())),
        memory: Some(memory(at, &Stats::default())),
        writable_layer: Some(writable_layer(pods, &record)),
        swap: None,
        io: None,
    }
}

/// A pod's usage: its cgroup's if it has one for itself, else the sum of its containers'; and theirs.
pub(crate) fn sandbox(pods: &Pods, record: &SandboxRecord, containers: &[Arc<Container>]) -> PodSandboxStats {
    let each: Vec<ContainerStats> =
        containers.iter().map(|one| container(pods, one).unwrap_or_else(|_| idle_container(pods, one))).collect();
    let at = crate::host::now();
    let own_parent = record.config.linux.as_ref().is_some_and(|linux| !linux.cgroup_parent.is_empty());
    let path = if own_parent { record.cgroup_parent.clone() } else { cgroup_of(&record.cgroup_parent, &record.id) };
    let stats = Cgroup::open(&pods.layout, &path).and_then(|cgroup| cgroup.stats()).unwrap_or_default();
    let (mut cpu, mut memory) = (cpu(pods, &record.id, at, &stats), memory(at, &stats));
    if !own_parent {
        for container in &each {
            add(&mut cpu.usage_core_nano_seconds, container.cpu.and_then(|cpu| cpu.usage_core_nano_seconds));
            add(&mut cpu.usage_nano_cores, container.cpu.and_then(|cpu| cpu.usage_nano_cores));
            add(&mut memory.working_set_bytes, container.memory.and_then(|memory| memory.working_set_bytes));
            add(&mut memory.usage_bytes, container.memory.and_then(|memory| memory.usage_bytes));
            add(&mut memory.rss_bytes, container.memory.and_then(|memory| memory.rss_bytes));
        }
    }
    PodSandboxStats {
        attributes: Some(PodSandboxAttributes {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        }),
        linux: Some(LinuxPodSandboxStats {
            cpu: Some(cpu),
            memory: Some(memory),
            network: crate::traffic::of(record, at),
            process: stats.pids.map(|pids| ProcessUsage { timestamp: at, process_count: value(pids.current) }),
            containers: each,
            io: stats.io_pressure.as_ref().map(|pressure| IoUsage { timestamp: at, psi: Some(psi(pressure)) }),
        }),
        windows: None,
    }
}

fn add(sum: &mut Option<UInt64Value>, part: Option<UInt64Value>) {
    if let Some(part) = part {
        *sum = value(sum.map_or(0, |sum| sum.value) + part.value);
    }
}

#[expect(clippy::unnecessary_wraps, reason = "every field of the CRI's that takes it is optional")]
fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn attributes(record: &ContainerRecord) -> ContainerAttributes {
    ContainerAttributes {
        id: record.id.clone(),
        metadata: Some(record.metadata()),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
    }
}

fn cpu(pods: &Pods, id: &str, at: i64, stats: &Stats) -> CpuUsage {
    let usage = stats.cpu.map(|cpu| cpu.usage_ns);
    CpuUsage {
        timestamp: at,
        usage_core_nano_seconds: value(usage.unwrap_or(0)),
        usage_nano_cores: usage.and_then(|usage| pods.cpu.nano_cores(id, at, usage)).and_then(value),
        psi: stats.cpu_pressure.as_ref().map(psi),
    }
}

fn memory(at: i64, stats: &Stats) -> MemoryUsage {
    let memory = stats.memory.unwrap_or_default();
    MemoryUsage {
        timestamp: at,
        working_set_bytes: value(memory.working_set()),
        available_bytes: memory.limit.and_then(|limit| value(limit.saturating_sub(memory.working_set()))),
        usage_bytes: value(memory.usage),
        rss_bytes: value(memory.rss),
        page_faults: value(memory.page_faults),
        major_page_faults: value(memory.major_page_faults),
        psi: stats.memory_pressure.as_ref().map(psi),
    }
}

fn swap(at: i64, stats: &Stats) -> Option<SwapUsage> {
    let memory = stats.memory?;
    let used = memory.swap?;
    let available = memory.swap_limit.zip(memory.limit).map(|(both, limit)| both.saturating_sub(limit + used));
    Some(SwapUsage { timestamp: at, swap_available_bytes: available.and_then(value), swap_usage_bytes: value(used) })
}

fn writable_layer(pods: &Pods, record: &ContainerRecord) -> FilesystemUsage {
    let taken = pods.usage.of(&record.id, record.created_at);
    FilesystemUsage {
        timestamp: taken.timestamp,
        fs_id: Some(FilesystemIdentifier { mountpoint: pods.images.usage().mountpoint.to_string_lossy().into_owned() }),
        used_bytes: value(taken.bytes),
        inodes_used: value(taken.inodes),
    }
}

fn psi(pressure: &Pressure) -> PsiStats {
    let line = |line: &PressureLine| PsiData {
        total: line.total_ns,
        avg10: line.avg10,
        avg60: line.avg60,
        avg300: line.avg300,
    };
    PsiStats { full: Some(line(&pressure.full)), some: Some(line(&pressure.some)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_in_use_come_from_two_readings_with_their_own_times() {
        let samples = CpuSamples::default();
        let second = 1_000_000_000;
        assert_eq!(samples.nano_cores("c", 10 * second, 5_000_000_000), None);
        assert_eq!(samples.nano_cores("c", 12 * second, 6_000_000_000), Some(500_000_000));
        // Too soon to tell anything new.
        assert_eq!(samples.nano_cores("c", 12 * second + 1000, 7_000_000_000), Some(500_000_000));
        samples.forget("c");
        assert_eq!(samples.nano_cores("c", 14 * second, 8_000_000_000), None);
    }
}
