//! Gauges that are read off the pods as they are when somebody scrapes.

use super::text::{Kind, Text};
use crate::runtime::ContainerState;
use crate::table::Entry;
use std::collections::BTreeMap;

/// Writes running, desired, active and mirror pods, containers by state, and mounted volumes by plugin.
pub fn write(entries: &[Entry], out: &mut Text) {
    running(entries, out);
    containers(entries, out);
    by_source(
        "kubelet_desired_pods",
        "The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.",
        entries.iter(),
        out,
    );
    by_source(
        "kubelet_active_pods",
        "The number of pods the kubelet considers active and which are being considered when admitting new pods. static is true if the pod is not from the apiserver.",
        entries.iter().filter(|entry| entry.active),
        out,
    );
    let mirrors = entries.iter().filter(|entry| entry.active && entry.pod.is_static()).count();
    out.family(
        "kubelet_mirror_pods",
        "The number of mirror pods the kubelet will try to create (one per admitted static pod)",
        Kind::Gauge,
    );
    out.sample("kubelet_mirror_pods", &[], mirrors as f64);
    volumes(entries, out);
}

fn running(entries: &[Entry], out: &mut Text) {
    let ready = |entry: &&Entry| entry.observed.sandboxes.iter().any(|sandbox| sandbox.ready);
    out.family("kubelet_running_pods", "Number of pods that have a running pod sandbox", Kind::Gauge);
    out.sample("kubelet_running_pods", &[], entries.iter().filter(ready).count() as f64);
}

fn containers(entries: &[Entry], out: &mut Text) {
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for container in entries.iter().flat_map(|entry| &entry.observed.containers) {
        let state = match container.state {
            ContainerState::Created => "created",
            ContainerState::Running { .. } => "running",
            ContainerState::Exited(_) => "exited",
            ContainerState::Unknown => "unknown",
        };
        *states.entry(state).or_default() += 1;
    }
    out.family("kubelet_running_containers", "Number of containers currently running", Kind::Gauge);
    for (state, count) in states {
        out.sample("kubelet_running_containers", &[("container_state", state)], count as f64);
    }
}

fn by_source<'a>(name: &str, help: &str, entries: impl Iterator<Item = &'a Entry>, out: &mut Text) {
    let (from_files, from_api): (Vec<_>, Vec<_>) = entries.partition(|entry| entry.pod.is_static());
    out.family(name, help, Kind::Gauge);
    out.sample(name, &[("static", "")], from_api.len() as f64);
    out.sample(name, &[("static", "true")], from_files.len() as f64);
}

fn volumes(entries: &[Entry], out: &mut Text) {
    let mut plugins: BTreeMap<&'static str, u64> = BTreeMap::new();
    let of_active = entries.iter().filter(|entry| entry.active);
    for volume in of_active.flat_map(|entry| entry.pod.spec().volumes.iter().flatten()) {
        *plugins.entry(plugin(volume)).or_default() += 1;
    }
    out.family("volume_manager_total_volumes", "Number of volumes in Volume Manager", Kind::Gauge);
    for state in ["actual_state_of_world", "desired_state_of_world"] {
        for (plugin, count) in &plugins {
            out.sample("volume_manager_total_volumes", &[("plugin_name", plugin), ("state", state)], *count as f64);
        }
    }
}

/// The name of the plugin that makes a volume, as upstream's metrics call it.
pub fn plugin(volume: &k8s_openapi::api::core::v1::Volume) -> &'static str {
    if volume.config_map.is_some() {
        "kubernetes.io/configmap"
    } else if volume.secret.is_some() {
        "kubernetes.io/secret"
    } else if volume.projected.is_some() {
        "kubernetes.io/projected"
    } else if volume.downward_api.is_some() {
        "kubernetes.io/downward-api"
    } else if volume.empty_dir.is_some() {
        "kubernetes.io/empty-dir"
    } else if volume.host_path.is_some() {
        "kubernetes.io/host-path"
    } else {
        "N/A"
    }
}
