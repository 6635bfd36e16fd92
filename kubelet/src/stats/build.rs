//! [`Snapshot`] → [`Summary`]: pure.

use super::snapshot::{ContainerReading, FsReading, PodReading, Snapshot};
use super::summary::{
    ContainerStats, CpuStats, FsStats, InterfaceStats, IoStats, MemoryStats, NetworkStats, NodeStats, PodReference,
    PodStats, ProcessStats, PsiData, PsiStats, RlimitStats, RuntimeStats, Summary, SwapStats, Time, VolumeStats,
};
use crate::pod::PodUid;
use crate::volumes::PodUsage;
use jiff::Timestamp;
use proto::UInt64Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the volumes of pods hold, as it was last counted.
pub(super) type Disks = BTreeMap<PodUid, Arc<PodUsage>>;

/// The whole document.
pub(super) fn full(node: &str, snapshot: &Snapshot, disks: &Disks) -> Summary {
    let time = Time(snapshot.at);
    let machine = &snapshot.machine;
    let mut summary = brief(node, snapshot);
    summary.node.io = machine.io_psi.clone().map(|psi| IoStats { time, psi: Some(psi) });
    summary.node.network = machine.interfaces.first().map(|default| NetworkStats {
        time,
        default: default.clone(),
        interfaces: machine.interfaces.clone(),
    });
    // What root keeps for itself is not used, as cAdvisor and df count.
    let used = snapshot.node_fs.map(|fs| fs.bytes.saturating_sub(fs.bytes_free));
    let inodes = snapshot.node_fs.map(|fs| fs.inodes.saturating_sub(fs.inodes_free));
    summary.node.fs = snapshot.node_fs.map(|fs| FsStats::new(time, Some(fs), used, inodes));
    summary.node.runtime = Some(RuntimeStats {
        image_fs: snapshot.images.map(|reading| filesystem(time, reading)),
        container_fs: snapshot.containers.or(snapshot.images).map(|reading| filesystem(time, reading)),
    });
    summary.node.rlimit = Some(RlimitStats { time, max_pid: machine.max_pid, running: machine.tasks });
    for (stats, pod) in summary.pods.iter_mut().zip(&snapshot.pods) {
        add_rest(stats, pod, snapshot, disks.get(&pod.uid).map(Arc::as_ref));
    }
    summary
}

/// The document with `?only_cpu_and_memory=true`.
pub(super) fn brief(node: &str, snapshot: &Snapshot) -> Summary {
    let time = Time(snapshot.at);
    let machine = &snapshot.machine;
    let booted = Time(Timestamp::from_second(machine.booted).unwrap_or_default());
    let memory = machine.memory.map(|memory| MemoryStats {
        time,
        available_bytes: Some(memory.total.saturating_sub(memory.working_set)),
        usage_bytes: Some(memory.usage),
        working_set_bytes: Some(memory.working_set),
        rss_bytes: Some(memory.rss),
        page_faults: machine.page_faults.map(|faults| faults.0),
        major_page_faults: machine.page_faults.map(|faults| faults.1),
        psi: machine.memory_psi.clone(),
    });
    let node = NodeStats {
        node_name: node.to_owned(),
        start_time: booted,
        cpu: machine.cpu_ns.map(|total| CpuStats {
            time,
            usage_nano_cores: snapshot.nano_cores,
            usage_core_nano_seconds: Some(total),
            psi: machine.cpu_psi.clone(),
        }),
        memory,
        swap: machine.memory.map(|memory| SwapStats {
            time,
            swap_available_bytes: Some(memory.swap.1.saturating_sub(memory.swap.0)),
            swap_usage_bytes: Some(memory.swap.0),
        }),
        system_containers: snapshot.all_pods.iter().map(|usage| all_pods(usage, booted, time)).collect(),
        ..NodeStats::default()
    };
    Summary { node, pods: snapshot.pods.iter().map(|pod| pod_stats(pod, time)).collect() }
}

/// The cgroup of all pods, under the name by which upstream's readers know it.
fn all_pods(usage: &crate::cgroups::Usage, start_time: Time, time: Time) -> ContainerStats {
    let (cpu, memory) = (Some(cgroup_cpu(usage, time)), Some(cgroup_memory(usage, time)));
    ContainerStats { name: "pods".to_owned(), start_time, cpu, memory, ..ContainerStats::default() }
}

fn cgroup_cpu(usage: &crate::cgroups::Usage, time: Time) -> CpuStats {
    CpuStats { time, usage_core_nano_seconds: Some(usage.cpu_ns), ..CpuStats::default() }
}

fn cgroup_memory(usage: &crate::cgroups::Usage, time: Time) -> MemoryStats {
    MemoryStats {
        time,
        available_bytes: usage.memory_limit.map(|limit| limit.saturating_sub(usage.working_set)),
        usage_bytes: Some(usage.memory),
        working_set_bytes: Some(usage.working_set),
        rss_bytes: Some(usage.rss),
        page_faults: Some(usage.page_faults),
        major_page_faults: Some(usage.major_page_faults),
        psi: None,
    }
}

fn filesystem(time: Time, reading: FsReading) -> FsStats {
    FsStats::new(time, reading.whole, reading.used_bytes, reading.inodes_used)
}

fn pod_stats(pod: &PodReading, time: Time) -> PodStats {
    let sandbox = pod.sandbox.as_ref();
    let cgroup = pod.cgroup.as_ref();
    PodStats {
        pod_ref: PodReference { name: pod.name.clone(), namespace: pod.namespace.clone(), uid: pod.uid.to_string() },
        start_time: Time(pod.started),
        containers: pod.containers.iter().map(|container| container_stats(container, time)).collect(),
        cpu: sandbox
            .and_then(|sandbox| sandbox.cpu.as_ref())
            .map(cpu)
            .or_else(|| cgroup.map(|usage| cgroup_cpu(usage, time))),
        memory: sandbox
            .and_then(|sandbox| sandbox.memory.as_ref())
            .map(memory)
            .or_else(|| cgroup.map(|usage| cgroup_memory(usage, time))),
        swap: pod_swap(pod, time),
        ..PodStats::default()
    }
}

/// The sum of its containers': the CRI has none for a pod.
fn pod_swap(pod: &PodReading, time: Time) -> Option<SwapStats> {
    let used = pod.containers.iter().filter_map(|container| number(container.stats.swap?.swap_usage_bytes));
    used.reduce(|sum, one| sum + one).map(|sum| SwapStats {
        time,
        swap_available_bytes: None,
        swap_usage_bytes: Some(sum),
    })
}

fn container_stats(container: &ContainerReading, time: Time) -> ContainerStats {
    let nothing = CpuStats { time, usage_nano_cores: Some(0), usage_core_nano_seconds: Some(0), psi: None };
    ContainerStats {
        name: container.name.clone(),
        start_time: Time(container.created),
        cpu: Some(container.stats.cpu.as_ref().map_or(nothing, cpu)),
        memory: Some(container.stats.memory.as_ref().map_or(MemoryStats { time, ..MemoryStats::default() }, memory)),
        swap: container.stats.swap.map(|swap| SwapStats {
            time: nanoseconds(swap.timestamp),
            swap_available_bytes: number(swap.swap_available_bytes),
            swap_usage_bytes: number(swap.swap_usage_bytes),
        }),
        ..ContainerStats::default()
    }
}

/// What the brief document leaves out.
fn add_rest(stats: &mut PodStats, pod: &PodReading, snapshot: &Snapshot, disk: Option<&PodUsage>) {
    let time = Time(snapshot.at);
    let layers = snapshot.containers.or(snapshot.images).and_then(|reading| reading.whole);
    for (stats, container) in stats.containers.iter_mut().zip(&pod.containers) {
        let layer = container.stats.writable_layer.as_ref();
        stats.io = container.stats.io.as_ref().map(io);
        stats.rootfs = layer.map(|layer| {
            FsStats::new(nanoseconds(layer.timestamp), layers, number(layer.used_bytes), number(layer.inodes_used))
        });
        stats.logs =
            container.logs.map(|logs| FsStats::new(time, snapshot.node_fs, Some(logs.bytes), Some(logs.inodes)));
    }
    if let Some(sandbox) = &pod.sandbox {
        stats.io = sandbox.io.as_ref().map(io);
        stats.network = sandbox.network.as_ref().map(network);
        let processes = sandbox.process.as_ref().map(|process| number(process.process_count));
        stats.process_stats = processes.map(|process_count| ProcessStats { process_count });
    }
    stats.volumes = disk.map(|disk| volumes(disk, time)).unwrap_or_default();
    stats.ephemeral_storage = Some(ephemeral(stats, disk, snapshot, time));
}

fn volumes(disk: &PodUsage, time: Time) -> Vec<VolumeStats> {
    let each = disk.volumes.iter().map(|volume| VolumeStats {
        name: volume.name.clone(),
        fs: FsStats::new(time, Some(volume.filesystem), Some(volume.used.bytes), Some(volume.used.inodes)),
    });
    each.collect()
}

/// All of the node's disk that a pod can fill: writable layers, logs, volumes that are no tmpfs, and the files that the
/// kubelet makes for it and that it can write, such as /etc/hosts (CVE-2020-8557).
fn ephemeral(stats: &PodStats, disk: Option<&PodUsage>, snapshot: &Snapshot, time: Time) -> FsStats {
    let of_containers = stats.containers.iter().flat_map(|container| [&container.rootfs, &container.logs]).flatten();
    let mut bytes: u64 = of_containers.clone().filter_map(|fs| fs.used_bytes).sum();
    let mut inodes: u64 = of_containers.filter_map(|fs| fs.inodes_used).sum();
    if let Some(disk) = disk {
        let on_disk = disk.volumes.iter().filter(|volume| volume.on_disk).map(|volume| volume.used);
        for used in on_disk.chain([disk.files]) {
            bytes += used.bytes;
            inodes += used.inodes;
        }
    }
    FsStats::new(time, snapshot.node_fs, Some(bytes), Some(inodes))
}

fn cpu(usage: &proto::CpuUsage) -> CpuStats {
    CpuStats {
        time: nanoseconds(usage.timestamp),
        usage_nano_cores: number(usage.usage_nano_cores),
        usage_core_nano_seconds: number(usage.usage_core_nano_seconds),
        psi: usage.psi.as_ref().map(psi),
    }
}

fn memory(usage: &proto::MemoryUsage) -> MemoryStats {
    MemoryStats {
        time: nanoseconds(usage.timestamp),
        available_bytes: number(usage.available_bytes),
        usage_bytes: number(usage.usage_bytes),
        working_set_bytes: number(usage.working_set_bytes),
        rss_bytes: number(usage.rss_bytes),
        page_faults: number(usage.page_faults),
        major_page_faults: number(usage.major_page_faults),
        psi: usage.psi.as_ref().map(psi),
    }
}

fn io(usage: &proto::IoUsage) -> IoStats {
    IoStats { time: nanoseconds(usage.timestamp), psi: usage.psi.as_ref().map(psi) }
}

fn psi(stats: &proto::PsiStats) -> PsiStats {
    let data = |data: Option<&proto::PsiData>| {
        data.map_or(PsiData::default(), |data| PsiData {
            total: data.total,
            avg10: data.avg10,
            avg60: data.avg60,
            avg300: data.avg300,
        })
    };
    PsiStats { full: data(stats.full.as_ref()), some: data(stats.some.as_ref()) }
}

fn network(usage: &proto::NetworkUsage) -> NetworkStats {
    let interface = |one: &proto::NetworkInterfaceUsage| InterfaceStats {
        name: one.name.clone(),
        rx_bytes: number(one.rx_bytes),
        rx_errors: number(one.rx_errors),
        tx_bytes: number(one.tx_bytes),
        tx_errors: number(one.tx_errors),
    };
    let default = usage.default_interface.as_ref().map(interface).unwrap_or_default();
    let mut interfaces: Vec<InterfaceStats> = usage.interfaces.iter().map(interface).collect();
    if interfaces.is_empty() && !default.name.is_empty() {
        interfaces.push(default.clone());
    }
    NetworkStats { time: nanoseconds(usage.timestamp), default, interfaces }
}

fn nanoseconds(since_1970: i64) -> Time {
    Time(Timestamp::from_nanosecond(i128::from(since_1970)).unwrap_or_default())
}

pub(super) fn number(value: Option<UInt64Value>) -> Option<u64> {
    value.map(|value| value.value)
}
