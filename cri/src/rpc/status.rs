//! Status: whether the runtime and its network are ready, and what they can do.

use crate::failure::Result;
use crate::pods::{Pods, blocking};
use proto::{RuntimeCondition, RuntimeFeatures, RuntimeHandler, RuntimeHandlerFeatures, RuntimeStatus, StatusResponse};
use serde_json::json;
use std::sync::Arc;

pub(crate) async fn status(pods: &Arc<Pods>, verbose: bool) -> Result<StatusResponse> {
    let asked = Arc::clone(pods);
    // A plugin's STATUS may be asked, which is a process.
    let network = blocking("ask for the network's status", move || Ok(asked.networks.status())).await?;
    let condition = |kind: &str, reason: Option<String>| RuntimeCondition {
        r#type: kind.into(),
        status: reason.is_none(),
        reason: if reason.is_some() { "NetworkPluginNotReady".into() } else { String::new() },
        message: reason.unwrap_or_default(),
    };
    let why = network.as_ref().err().map(|not_ready| not_ready.reason.clone());
    let conditions = vec![condition("RuntimeReady", None), condition("NetworkReady", why)];
    let features = RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false };
    // The default handler is listed under the empty name too: that is where clients look.
    let names = std::iter::once(String::new()).chain(pods.config.handlers.iter().cloned());
    let mut response = StatusResponse {
        status: Some(RuntimeStatus { conditions }),
        runtime_handlers: names.map(|name| RuntimeHandler { name, features: Some(features) }).collect(),
        features: Some(RuntimeFeatures { supplemental_groups_policy: true, user_namespaces_host_network: false }),
        ..StatusResponse::default()
    };
    if verbose {
        response.info = info(pods, network.err().map(|not_ready| not_ready.reason));
    }
    Ok(response)
}

/// `sandboxImage` is what kubeadm compares with its own; we use none, and name the one that it expects.
fn info(pods: &Pods, network_error: Option<String>) -> std::collections::BTreeMap<String, String> {
    let config = &pods.config;
    let shown = json!({
        "rootDir": config.root,
        "stateDir": config.state,
        "sandboxImage": "registry.k8s.io/pause:3.10.1",
        "cgroupParent": config.cgroup_parent,
        "netnsDir": config.netns_dir,
        "handlers": config.handlers,
        "cni": {"confDir": config.cni.conf_dir, "binDirs": config.cni.bin_dirs, "cacheDir": config.cni.cache_dir},
        "registryHostsDirs": config.registry_hosts_dirs,
    });
    let network = match pods.networks.current() {
        Ok(list) => json!({"name": list.name, "file": list.file}),
        Err(not_ready) => json!({"error": not_ready.reason}),
    };
    [
        ("config", shown.to_string()),
        ("cniconfig", network.to_string()),
        ("lastCNILoadStatus", network_error.unwrap_or_else(|| "OK".into())),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}
