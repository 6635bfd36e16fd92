//! `/metrics/resource`: the stable series that metrics-server reads for `kubectl top` and for autoscalers.

use super::summary::{CpuStats, MemoryStats, Summary, SwapStats};
use crate::metrics::text::{Kind, Text};

const CONTAINER: [&str; 3] = ["container", "pod", "namespace"];
const POD: [&str; 2] = ["pod", "namespace"];

/// A sample: the values of its labels, its value, and when it was taken, in milliseconds since 1970 (none for a start).
type Sample<'a> = (Vec<&'a str>, f64, Option<i64>);

/// Writes all series; `failed` where the runtime did not give numbers.
pub(super) fn write(summary: Option<&Summary>, failed: bool, out: &mut Text) {
    if let Some(summary) = summary {
        containers(summary, out);
        node(summary, out);
        pods(summary, out);
    }
    let failed = f64::from(u8::from(failed));
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    family(out, "resource_scrape_error", help, Kind::Gauge, &[], [(vec![], failed, None)]);
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    family(out, "scrape_error", help, Kind::Gauge, &[], [(vec![], failed, None)]);
}

fn containers(summary: &Summary, out: &mut Text) {
    let each = || {
        summary.pods.iter().flat_map(|pod| {
            let labels = move |name| vec![name, pod.pod_ref.name.as_str(), pod.pod_ref.namespace.as_str()];
            pod.containers.iter().map(move |container| (labels(container.name.as_str()), container))
        })
    };
    let name = "container_cpu_usage_seconds_total";
    let help = "Cumulative cpu time consumed by the container in core-seconds";
    family(out, name, help, Kind::Counter, &CONTAINER, each().filter_map(|(l, c)| cpu(l, c.cpu.as_ref())));
    let name = "container_memory_working_set_bytes";
    let help = "Current working set of the container in bytes";
    family(out, name, help, Kind::Gauge, &CONTAINER, each().filter_map(|(l, c)| memory(l, c.memory.as_ref())));
    let name = "container_start_time_seconds";
    let help = "Start time of the container since unix epoch in seconds";
    let started = each().map(|(l, c)| (l, c.start_time.0.as_nanosecond() as f64 / 1e9, None));
    family(out, name, help, Kind::Gauge, &CONTAINER, started);
    let name = "container_swap_usage_bytes";
    let help = "Current amount of the container swap usage in bytes. Reported only on non-windows systems";
    family(out, name, help, Kind::Gauge, &CONTAINER, each().filter_map(|(l, c)| swap(l, c.swap.as_ref())));
}

fn node(summary: &Summary, out: &mut Text) {
    let node = &summary.node;
    let help = "Cumulative cpu time consumed by the node in core-seconds";
    family(out, "node_cpu_usage_seconds_total", help, Kind::Counter, &[], cpu(vec![], node.cpu.as_ref()));
    let help = "Current working set of the node in bytes";
    family(out, "node_memory_working_set_bytes", help, Kind::Gauge, &[], memory(vec![], node.memory.as_ref()));
    let help = "Current swap usage of the node in bytes. Reported only on non-windows systems";
    family(out, "node_swap_usage_bytes", help, Kind::Gauge, &[], swap(vec![], node.swap.as_ref()));
}

fn pods(summary: &Summary, out: &mut Text) {
    let each = || summary.pods.iter().map(|pod| (vec![pod.pod_ref.name.as_str(), pod.pod_ref.namespace.as_str()], pod));
    let help = "Cumulative cpu time consumed by the pod in core-seconds";
    let samples = each().filter_map(|(labels, pod)| cpu(labels, pod.cpu.as_ref()));
    family(out, "pod_cpu_usage_seconds_total", help, Kind::Counter, &POD, samples);
    let help = "Current working set of the pod in bytes";
    let samples = each().filter_map(|(labels, pod)| memory(labels, pod.memory.as_ref()));
    family(out, "pod_memory_working_set_bytes", help, Kind::Gauge, &POD, samples);
    let help = "Current amount of the pod swap usage in bytes. Reported only on non-windows systems";
    let samples = each().filter_map(|(labels, pod)| swap(labels, pod.swap.as_ref()));
    family(out, "pod_swap_usage_bytes", help, Kind::Gauge, &POD, samples);
}

fn cpu<'a>(labels: Vec<&'a str>, stats: Option<&CpuStats>) -> Option<Sample<'a>> {
    let stats = stats?;
    Some((labels, stats.usage_core_nano_seconds? as f64 / 1e9, Some(stats.time.0.as_millisecond())))
}

fn memory<'a>(labels: Vec<&'a str>, stats: Option<&MemoryStats>) -> Option<Sample<'a>> {
    let stats = stats?;
    Some((labels, stats.working_set_bytes? as f64, Some(stats.time.0.as_millisecond())))
}

fn swap<'a>(labels: Vec<&'a str>, stats: Option<&SwapStats>) -> Option<Sample<'a>> {
    let stats = stats?;
    Some((labels, stats.swap_usage_bytes? as f64, Some(stats.time.0.as_millisecond())))
}

/// A family, if it has a sample.
fn family<'a>(
    out: &mut Text,
    name: &str,
    help: &str,
    kind: Kind,
    keys: &[&str],
    samples: impl IntoIterator<Item = Sample<'a>>,
) {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return;
    }
    let stability = if name.contains("swap") || name == "scrape_error" { "ALPHA" } else { "STABLE" };
    out.family(name, &format!("[{stability}] {help}"), kind);
    for (values, value, at) in samples {
        let labels: Vec<(&str, &str)> = keys.iter().copied().zip(values).collect();
        match at {
            Some(at) => out.sample_at(name, &labels, value, at),
            None => out.sample(name, &labels, value),
        }
    }
}
