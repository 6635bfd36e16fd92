//! `Node.status`, as a pure function of what is known of the machine, the runtime and the node that the API server has.
//!
//! The order is upstream's: addresses, machine, versions, endpoints, images, handlers, and the conditions with Ready last.
//! What others put there (extended resources, conditions of other controllers, volumes) stays.

mod conditions;
mod patch;

pub(super) use conditions::{Unready, unready};
pub(super) use patch::{patch, resembles};

use super::facts::Facts;
use super::pressure::Pressures;
use crate::api::events::Kind;
use crate::clock::Now;
use crate::runtime::{Health, RuntimeInfo, RuntimeStatus};
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// How many names of an image are told.
const MAX_NAMES: usize = 5;

/// What is known when a status is made.
#[derive(Debug, Clone)]
pub(super) struct Observed<'a> {
    pub(super) facts: &'a Facts,
    pub(super) kubelet_version: &'a str,
    /// The port of the kubelet's server.
    pub(super) port: u16,
    /// How many images are told; `None` for all.
    pub(super) max_images: Option<usize>,
    /// Whether a cloud's controller sets the addresses.
    pub(super) external_cloud: bool,
    /// Name and version of the runtime, once known.
    pub(super) runtime: Option<&'a RuntimeInfo>,
    pub(super) health: &'a Health,
    /// `None` if they could not be listed.
    pub(super) images: Option<&'a [proto::Image]>,
    pub(super) pressures: Pressures,
}

/// An event that follows from a new status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) kind: Kind,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// The status that a node should have which has `old` now, and the events that tell of the difference.
pub(super) fn status(old: &api::NodeStatus, observed: &Observed<'_>, now: Now) -> (api::NodeStatus, Vec<Told>) {
    let mut told = Vec::new();
    let mut status = old.clone();
    addresses(&mut status, observed);
    resources(&mut status, observed.facts);
    told.extend(rebooted(old, observed.facts));
    status.node_info = Some(node_info(observed));
    let port = api::DaemonEndpoint { port: i32::from(observed.port) };
    status.daemon_endpoints = Some(api::NodeDaemonEndpoints { kubelet_endpoint: Some(port) });
    status.images = Some(images(observed));
    if let Some(runtime) = &observed.health.status {
        status.runtime_handlers = Some(handlers(runtime));
        let policy = Some(runtime.supplemental_groups_policy);
        status.features = Some(api::NodeFeatures { supplemental_groups_policy: policy });
    }
    let (list, events) = conditions::conditions(&status, observed, now);
    status.conditions = Some(list);
    told.extend(events.into_iter().map(|reason| Told::new_state(&observed.facts.name, reason)));
    (status, told)
}

impl Told {
    /// `Node n status is now: NodeReady`.
    pub(super) fn new_state(node: &str, reason: &'static str) -> Told {
        Told { kind: Kind::Normal, reason, message: format!("Node {node} status is now: {reason}") }
    }
}

fn addresses(status: &mut api::NodeStatus, observed: &Observed<'_>) {
    let set_by_cloud = status.addresses.as_ref().is_some_and(|addresses| !addresses.is_empty());
    if observed.external_cloud && set_by_cloud {
        return;
    }
    let address = |kind: &str, address: String| api::NodeAddress { type_: kind.to_owned(), address };
    let internal = observed.facts.host_ips.iter().map(|ip| address("InternalIP", ip.to_string()));
    let hostname = address("Hostname", observed.facts.hostname.clone());
    status.addresses = Some(internal.chain([hostname]).collect());
}

/// Ours as they are; those that others added as they were, as far as there still is a capacity of them.
fn resources(status: &mut api::NodeStatus, facts: &Facts) {
    let capacity = status.capacity.get_or_insert_default();
    // A page size that the kernel has no more.
    capacity.retain(|name, _| !name.starts_with("hugepages-") || facts.capacity.contains_key(name));
    merge(capacity, &facts.capacity);
    let allocatable = status.allocatable.get_or_insert_default();
    allocatable.retain(|name, _| capacity.contains_key(name));
    for (name, quantity) in capacity.iter() {
        allocatable.insert(name.clone(), facts.allocatable.get(name).unwrap_or(quantity).clone());
    }
}

fn merge(into: &mut BTreeMap<String, Quantity>, from: &BTreeMap<String, Quantity>) {
    into.extend(from.iter().map(|(name, quantity)| (name.clone(), quantity.clone())));
}

fn rebooted(old: &api::NodeStatus, facts: &Facts) -> Option<Told> {
    let before = &old.node_info.as_ref()?.boot_id;
    if before.is_empty() || *before == facts.boot_id {
        return None;
    }
    let message = format!("Node {} has been rebooted, boot id: {}", facts.name, facts.boot_id);
    Some(Told { kind: Kind::Warning, reason: "Rebooted", message })
}

fn node_info(observed: &Observed<'_>) -> api::NodeSystemInfo {
    let facts = observed.facts;
    let (name, version) = observed.runtime.map_or(("", "Unknown"), |info| (info.name.as_str(), info.version.as_str()));
    let swap = i64::try_from(facts.swap_bytes).ok().filter(|bytes| *bytes > 0);
    api::NodeSystemInfo {
        machine_id: facts.machine_id.clone(),
        system_uuid: facts.system_uuid.clone(),
        boot_id: facts.boot_id.clone(),
        kernel_version: facts.kernel_version.clone(),
        os_image: facts.os_image.clone(),
        container_runtime_version: format!("{name}://{version}"),
        kubelet_version: observed.kubelet_version.to_owned(),
        // Deprecated: there need not be a kube-proxy.
        kube_proxy_version: String::new(),
        operating_system: "linux".to_owned(),
        architecture: ARCHITECTURE.to_owned(),
        swap: swap.map(|bytes| api::NodeSwapStatus { capacity: Some(bytes) }),
    }
}

/// In Go's words.
pub(super) const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// The largest first.
fn images(observed: &Observed<'_>) -> Vec<api::ContainerImage> {
    let mut images: Vec<&proto::Image> = observed.images.unwrap_or_default().iter().collect();
    images.sort_by(|one, other| other.size.cmp(&one.size).then_with(|| one.id.cmp(&other.id)));
    images.truncate(observed.max_images.unwrap_or(usize::MAX));
    let tell = |image: &proto::Image| {
        let names = image.repo_digests.iter().chain(&image.repo_tags).take(MAX_NAMES).cloned();
        api::ContainerImage { names: Some(names.collect()), size_bytes: i64::try_from(image.size).ok() }
    };
    images.into_iter().map(tell).collect()
}

/// By name, so that the runtime's order does not make a difference.
fn handlers(runtime: &RuntimeStatus) -> Vec<api::NodeRuntimeHandler> {
    let mut handlers: Vec<&proto::RuntimeHandler> = runtime.handlers.iter().collect();
    handlers.sort_by(|one, other| one.name.cmp(&other.name));
    let tell = |handler: &proto::RuntimeHandler| {
        let can = handler.features.unwrap_or_default();
        let features = api::NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(can.recursive_read_only_mounts),
            user_namespaces: Some(can.user_namespaces),
        };
        api::NodeRuntimeHandler { name: Some(handler.name.clone()), features: Some(features) }
    };
    handlers.into_iter().map(tell).collect()
}

#[cfg(test)]
pub(super) mod tests;
