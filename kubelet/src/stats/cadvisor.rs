//! `/metrics/cadvisor`: cAdvisor's names for what the runtime tells, so that dashboards work without cAdvisor.
//!
//! Rows are those that dashboards select: one per container (`container!=""`, `image!=""`), one per pod for its cgroup and
//! its network, and `id="/"` for the machine.

use super::build::number;
use super::snapshot::{PodReading, Snapshot};
use crate::metrics::text::{Kind, Text};
use crate::pod::PodUid;
use proto::{CpuUsage, MemoryUsage};

/// Where a pod's cgroup is, for the label `id`.
pub(super) type CgroupOf<'a> = &'a dyn Fn(&PodUid) -> String;

/// What a row is about.
struct Row<'a> {
    /// container, id, image, name, namespace, pod: in this order, as cAdvisor sorts them.
    labels: [(&'static str, String); 6],
    cpu: Option<&'a CpuUsage>,
    memory: Option<&'a MemoryUsage>,
    /// Bytes of swap.
    swap: Option<u64>,
    /// Bytes of the writable layer.
    layer: Option<u64>,
    processes: Option<u64>,
    io: Option<&'a proto::IoUsage>,
    network: Option<&'a proto::NetworkUsage>,
    started: Option<f64>,
    throttling: Option<cgroup::Throttling>,
}

fn labels(
    container: &str,
    id: String,
    image: &str,
    name: &str,
    pod: Option<&PodReading>,
) -> [(&'static str, String); 6] {
    let (namespace, pod) = pod.map_or((String::new(), String::new()), |pod| (pod.namespace.clone(), pod.name.clone()));
    [
        ("container", container.to_owned()),
        ("id", id),
        ("image", image.to_owned()),
        ("name", name.to_owned()),
        ("namespace", namespace),
        ("pod", pod),
    ]
}

fn rows<'a>(pod: &'a PodReading, cgroup: &str) -> Vec<Row<'a>> {
    let sandbox = pod.sandbox.as_ref();
    let whole = Row {
        labels: labels("", cgroup.to_owned(), "", "", Some(pod)),
        cpu: sandbox.and_then(|sandbox| sandbox.cpu.as_ref()),
        memory: sandbox.and_then(|sandbox| sandbox.memory.as_ref()),
        swap: None,
        layer: None,
        processes: sandbox.and_then(|sandbox| number(sandbox.process.as_ref()?.process_count)),
        io: sandbox.and_then(|sandbox| sandbox.io.as_ref()),
        network: sandbox.and_then(|sandbox| sandbox.network.as_ref()),
        started: Some(pod.started.as_nanosecond() as f64 / 1e9),
        throttling: None,
    };
    let containers = pod.containers.iter().map(|container| Row {
        labels: labels(
            &container.name,
            format!("{cgroup}/{}", container.id),
            &container.image,
            &container.id,
            Some(pod),
        ),
        cpu: container.stats.cpu.as_ref(),
        memory: container.stats.memory.as_ref(),
        swap: container.stats.swap.and_then(|swap| number(swap.swap_usage_bytes)),
        layer: container.stats.writable_layer.as_ref().and_then(|layer| number(layer.used_bytes)),
        processes: None,
        io: container.stats.io.as_ref(),
        network: None,
        started: Some(container.started.as_nanosecond() as f64 / 1e9),
        throttling: container.throttling,
    });
    std::iter::once(whole).chain(containers).collect()
}

/// Writes all series of a snapshot.
pub(super) fn write(snapshot: &Snapshot, cgroup_of: CgroupOf<'_>, out: &mut Text) {
    let machine = &snapshot.machine;
    let node_cpu = machine.cpu_ns.map(|ns| CpuUsage {
        timestamp: nanoseconds(snapshot),
        usage_core_nano_seconds: Some(proto::UInt64Value { value: ns }),
        ..CpuUsage::default()
    });
    let node_memory = machine.memory.map(|memory| MemoryUsage {
        timestamp: nanoseconds(snapshot),
        usage_bytes: Some(proto::UInt64Value { value: memory.usage }),
        working_set_bytes: Some(proto::UInt64Value { value: memory.working_set }),
        rss_bytes: Some(proto::UInt64Value { value: memory.rss }),
        ..MemoryUsage::default()
    });
    let node = Row {
        labels: labels("", "/".to_owned(), "", "", None),
        cpu: node_cpu.as_ref(),
        memory: node_memory.as_ref(),
        swap: machine.memory.map(|memory| memory.swap.0),
        layer: None,
        processes: None,
        io: None,
        network: None,
        started: Some(machine.booted as f64),
        throttling: None,
    };
    let rows: Vec<Row<'_>> =
        std::iter::once(node).chain(snapshot.pods.iter().flat_map(|pod| rows(pod, &cgroup_of(&pod.uid)))).collect();
    usage(&rows, out);
    throttling(&rows, out);
    network(&rows, out);
    pressure(&rows, out);
    out.family("machine_cpu_cores", "Number of logical CPU cores.", Kind::Gauge);
    out.sample("machine_cpu_cores", &[], machine.cpus as f64);
    if let Some(memory) = machine.memory {
        out.family("machine_memory_bytes", "Amount of memory installed on the machine.", Kind::Gauge);
        out.sample("machine_memory_bytes", &[], memory.total as f64);
    }
}

fn nanoseconds(snapshot: &Snapshot) -> i64 {
    i64::try_from(snapshot.at.as_nanosecond()).unwrap_or_default()
}

fn usage(rows: &[Row<'_>], out: &mut Text) {
    let cpu_seconds =
        |row: &Row<'_>| Some((number(row.cpu?.usage_core_nano_seconds)? as f64 / 1e9, row.cpu?.timestamp));
    let name = "container_cpu_usage_seconds_total";
    // cAdvisor's label `cpu` has this one value since per-CPU usage went.
    family(
        out,
        name,
        "Cumulative cpu time consumed in seconds.",
        Kind::Counter,
        rows,
        &[("cpu", "total")],
        cpu_seconds,
    );
    type Field = fn(&MemoryUsage) -> Option<proto::UInt64Value>;
    let fields: [(&str, &str, Kind, Field); 3] = [
        (
            "container_memory_usage_bytes",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            Kind::Gauge,
            |memory| memory.usage_bytes,
        ),
        ("container_memory_working_set_bytes", "Current working set in bytes.", Kind::Gauge, |memory| {
            memory.working_set_bytes
        }),
        ("container_memory_rss", "Size of RSS in bytes.", Kind::Gauge, |memory| memory.rss_bytes),
    ];
    for (name, help, kind, field) in fields {
        let value = |row: &Row<'_>| Some((number(field(row.memory?))? as f64, row.memory?.timestamp));
        family(out, name, help, kind, rows, &[], value);
    }
    let cache = |row: &Row<'_>| {
        let memory = row.memory?;
        let cache = number(memory.usage_bytes)?.saturating_sub(number(memory.rss_bytes)?);
        Some((cache as f64, memory.timestamp))
    };
    family(out, "container_memory_cache", "Number of bytes of page cache memory.", Kind::Gauge, rows, &[], cache);
    let at = |row: &Row<'_>| row.memory.map_or(0, |memory| memory.timestamp);
    let swap = |row: &Row<'_>| Some((row.swap? as f64, at(row)));
    family(out, "container_memory_swap", "Container swap usage in bytes.", Kind::Gauge, rows, &[], swap);
    let help = "Number of bytes that are consumed by the container on this filesystem.";
    let layer = |row: &Row<'_>| Some((row.layer? as f64, at(row)));
    family(out, "container_fs_usage_bytes", help, Kind::Gauge, rows, &[("device", "")], layer);
    let help = "Number of processes running inside the container.";
    let processes = |row: &Row<'_>| Some((row.processes? as f64, at(row)));
    family(out, "container_processes", help, Kind::Gauge, rows, &[], processes);
    let help = "Start time of the container since unix epoch in seconds.";
    let started = |row: &Row<'_>| Some((row.started?, at(row)));
    family(out, "container_start_time_seconds", help, Kind::Gauge, rows, &[], started);
    let help = "Last time a container was seen by the exporter";
    let seen = |row: &Row<'_>| Some((row.cpu?.timestamp as f64 / 1e9, row.cpu?.timestamp));
    family(out, "container_last_seen", help, Kind::Gauge, rows, &[], seen);
}

fn throttling(rows: &[Row<'_>], out: &mut Text) {
    type Field = fn(cgroup::Throttling) -> f64;
    let fields: [(&str, &str, Field); 3] = [
        ("container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.", |one| {
            one.periods as f64
        }),
        ("container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.", |one| {
            one.throttled as f64
        }),
        ("container_cpu_cfs_throttled_seconds_total", "Total time duration the container has been throttled.", |one| {
            one.throttled_ns as f64 / 1e9
        }),
    ];
    for (name, help, field) in fields {
        let value = |row: &Row<'_>| Some((field(row.throttling?), row.cpu?.timestamp));
        family(out, name, help, Kind::Counter, rows, &[], value);
    }
}

fn network(rows: &[Row<'_>], out: &mut Text) {
    type Field = fn(&proto::NetworkInterfaceUsage) -> Option<proto::UInt64Value>;
    let fields: [(&str, &str, Field); 4] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |one| one.rx_bytes),
        ("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", |one| {
            one.rx_errors
        }),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |one| one.tx_bytes),
        (
            "container_network_transmit_errors_total",
            "Cumulative count of errors encountered while transmitting",
            |one| one.tx_errors,
        ),
    ];
    for (name, help, field) in fields {
        let mut begun = false;
        for (row, usage) in rows.iter().filter_map(|row| Some((row, row.network?))) {
            let listed = usage.interfaces.iter();
            let all: Vec<_> =
                if usage.interfaces.is_empty() { usage.default_interface.iter().collect() } else { listed.collect() };
            for (one, value) in all.into_iter().filter_map(|one| Some((one, number(field(one))?))) {
                if !std::mem::replace(&mut begun, true) {
                    out.family(name, help, Kind::Counter);
                }
                sample(out, name, row, &[("interface", &one.name)], value as f64, usage.timestamp);
            }
        }
    }
}

fn pressure(rows: &[Row<'_>], out: &mut Text) {
    type Psi = fn(&Row<'_>) -> Option<(proto::PsiStats, i64)>;
    let resources: [(&str, Psi); 3] = [
        ("cpu", |row| Some((row.cpu?.psi?, row.cpu?.timestamp))),
        ("memory", |row| Some((row.memory?.psi?, row.memory?.timestamp))),
        ("io", |row| Some((row.io?.psi?, row.io?.timestamp))),
    ];
    for (resource, psi) in resources {
        for (word, full) in [("waiting", false), ("stalled", true)] {
            let name = format!("container_pressure_{resource}_{word}_seconds_total");
            let help = format!("Total time duration tasks in the container have {word} on {resource}.");
            let value = move |row: &Row<'_>| {
                let (stats, at) = psi(row)?;
                let data = if full { stats.full } else { stats.some };
                Some((data?.total as f64 / 1e9, at))
            };
            family(out, &name, &help, Kind::Counter, rows, &[], value);
        }
    }
}

fn family(
    out: &mut Text,
    name: &str,
    help: &str,
    kind: Kind,
    rows: &[Row<'_>],
    more: &[(&str, &str)],
    value: impl Fn(&Row<'_>) -> Option<(f64, i64)>,
) {
    let mut begun = false;
    for (row, (value, at)) in rows.iter().filter_map(|row| Some((row, value(row)?))) {
        if !std::mem::replace(&mut begun, true) {
            out.family(name, help, kind);
        }
        sample(out, name, row, more, value, at);
    }
}

/// One sample; a timestamp of 0 is none.
fn sample(out: &mut Text, name: &str, row: &Row<'_>, more: &[(&str, &str)], value: f64, nanosecond: i64) {
    let labels = row.labels.iter().map(|(key, value)| (*key, value.as_str()));
    let all: Vec<(&str, &str)> = labels.chain(more.iter().copied()).collect();
    if nanosecond == 0 {
        out.sample(name, &all, value);
    } else {
        out.sample_at(name, &all, value, nanosecond / 1_000_000);
    }
}
