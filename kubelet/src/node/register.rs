//! The Node object's creation, and what an existing one keeps.

use super::facts::Facts;
use super::status::ARCHITECTURE;
use crate::api::{Api, ApiError};
use crate::config::Config;
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Volumes are attached by the controller, never by the kubelet.
const ATTACHED_BY_CONTROLLER: (&str, &str) = ("volumes.kubernetes.io/controller-managed-attach-detach", "true");
/// Tells a cloud's controller which address the node was given.
const PROVIDED_IP: &str = "alpha.kubernetes.io/provided-node-ip";
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(7);
/// Labels that an existing node is given again; others belong to whoever set them.
const RESTORED: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// The object to register.
pub(super) fn initial(config: &Config, facts: &Facts, status: NodeStatus) -> Node {
    let mut taints = config.register_with_taints.clone();
    if config.external_cloud {
        taints.push(Taint {
            key: "node.cloudprovider.kubernetes.io/uninitialized".to_owned(),
            value: Some("true".to_owned()),
            effect: "NoSchedule".to_owned(),
            time_added: None,
        });
    }
    let metadata = ObjectMeta {
        name: Some(config.node_name.clone()),
        labels: Some(labels(config, facts)),
        annotations: Some(annotations(config)),
        ..ObjectMeta::default()
    };
    let spec = NodeSpec {
        provider_id: Some(config.provider_id.clone()).filter(|id| !id.is_empty()),
        taints: Some(taints).filter(|taints| !taints.is_empty()),
        ..NodeSpec::default()
    };
    Node { metadata, spec: Some(spec), status: Some(status) }
}

fn labels(config: &Config, facts: &Facts) -> BTreeMap<String, String> {
    let own = [
        ("kubernetes.io/hostname", facts.hostname.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", ARCHITECTURE),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", ARCHITECTURE),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    own.chain(config.node_labels.clone()).collect()
}

fn annotations(config: &Config) -> BTreeMap<String, String> {
    let (name, value) = ATTACHED_BY_CONTROLLER;
    let mut annotations = BTreeMap::from([(name.to_owned(), value.to_owned())]);
    if config.external_cloud && config.node_ips_given {
        let ips: Vec<String> = config.node_ips.iter().map(ToString::to_string).collect();
        annotations.insert(PROVIDED_IP.to_owned(), ips.join(","));
    }
    annotations
}

/// What an existing node has to be given so that it is this machine's; `None` if it is.
pub(super) fn reconcile(initial: &Node, existing: &Node) -> Option<Value> {
    let mut patch = Map::new();
    let mut metadata = Map::new();
    let labels = restored(initial.metadata.labels.as_ref(), existing.metadata.labels.as_ref(), &RESTORED);
    let annotations = initial.metadata.annotations.as_ref();
    let annotations = restored(annotations, existing.metadata.annotations.as_ref(), &[ATTACHED_BY_CONTROLLER.0]);
    for (field, changes) in [("labels", labels), ("annotations", annotations)] {
        if !changes.is_empty() {
            metadata.insert(field.to_owned(), Value::Object(changes));
        }
    }
    if !metadata.is_empty() {
        patch.insert("metadata".to_owned(), Value::Object(metadata));
    }
    if let Some(status) = resources(initial.status.as_ref(), existing.status.as_ref()) {
        patch.insert("status".to_owned(), status);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

type Texts = BTreeMap<String, String>;

fn restored(wanted: Option<&Texts>, found: Option<&Texts>, names: &[&str]) -> Map<String, Value> {
    let mut changes = Map::new();
    for name in names {
        let Some(value) = wanted.and_then(|map| map.get(*name)) else { continue };
        if found.and_then(|map| map.get(*name)) != Some(value) {
            // A label without value is upstream's way to have none.
            let value = if value.is_empty() { Value::Null } else { json!(value) };
            changes.insert((*name).to_owned(), value);
        }
    }
    changes
}

/// Extended resources count nothing until a device plugin says so again; huge pages are those that the kernel has.
fn resources(initial: Option<&NodeStatus>, existing: Option<&NodeStatus>) -> Option<Value> {
    let (initial, existing) = (initial?, existing?);
    let capacity = changed(initial.capacity.as_ref(), existing.capacity.as_ref());
    let allocatable = changed(initial.allocatable.as_ref(), existing.allocatable.as_ref());
    if capacity.is_empty() && allocatable.is_empty() {
        return None;
    }
    Some(json!({ "capacity": capacity, "allocatable": allocatable }))
}

type Resources = BTreeMap<String, Quantity>;

fn changed(initial: Option<&Resources>, existing: Option<&Resources>) -> Map<String, Value> {
    let mut changes = Map::new();
    let of = |map: Option<&Resources>, name: &str| map.and_then(|map| map.get(name)).cloned();
    for (name, quantity) in existing.into_iter().flatten() {
        if is_extended(name) && quantity.0 != "0" {
            changes.insert(name.clone(), json!("0"));
        }
        if name.starts_with("hugepages-") && of(initial, name).is_none() {
            changes.insert(name.clone(), Value::Null);
        }
    }
    for (name, quantity) in initial.into_iter().flatten().filter(|(name, _)| name.starts_with("hugepages-")) {
        if of(existing, name).as_ref() != Some(quantity) {
            changes.insert(name.clone(), json!(quantity));
        }
    }
    changes
}

/// A resource that Kubernetes itself does not know.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// Labels that the scheduler needs and that somebody took away: a patch that gives them back.
pub(super) fn required_labels(existing: &Node) -> Option<Value> {
    let wanted = [("kubernetes.io/os", "linux"), ("kubernetes.io/arch", ARCHITECTURE)];
    let wanted: Texts = wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let names = ["kubernetes.io/os", "kubernetes.io/arch"];
    let changes = restored(Some(&wanted), existing.metadata.labels.as_ref(), &names);
    (!changes.is_empty()).then(|| json!({ "metadata": { "labels": changes } }))
}

/// The pause after another failure.
pub(super) fn next_pause(pause: Option<Duration>) -> Duration {
    pause.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE))
}

/// Creates the node, or makes an existing one ours.
///
/// # Errors
/// What the API server says; worth another try after a while.
pub(super) async fn register(api: &dyn Api, node: &Node) -> Result<Node, ApiError> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    match api.create_node(node).await {
        Ok(created) => return Ok(created),
        // Who may not create nodes may still be the owner of one.
        Err(ApiError::AlreadyExists(_) | ApiError::Refused { status: 403, .. }) => {}
        Err(error) => return Err(error),
    }
    let existing = api.node(name).await?;
    match reconcile(node, &existing) {
        Some(patch) => api.patch_node_status(name, &patch).await,
        None => Ok(existing),
    }
}

#[cfg(test)]
mod tests;
