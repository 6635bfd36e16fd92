//! PodSandboxStatus: a sandbox and its containers, from memory.

use crate::failure::Result;
use crate::pods::Pods;
use crate::spec::namespace_of;
use crate::{host, status};
use oci_spec::runtime::LinuxNamespaceType;
use proto::PodSandboxStatusResponse;
use serde_json::json;
use std::sync::Arc;

pub(crate) fn pod_sandbox_status(pods: &Arc<Pods>, id: &str, verbose: bool) -> Result<PodSandboxStatusResponse> {
    let sandbox = pods.sandboxes.get(id)?;
    let record = sandbox.record();
    let containers = pods.containers_of(&sandbox.id);
    let mut response = PodSandboxStatusResponse {
        status: Some(status::sandbox(&record)),
        containers_statuses: containers
            .iter()
            .map(|container| status::container(&container.record(), &container.life()))
            .collect(),
        timestamp: host::now(),
        ..PodSandboxStatusResponse::default()
    };
    if verbose {
        // Debuggers and network tools read `pid` and the network namespace of `runtimeSpec`.
        let pid = record.processes.as_ref().map_or(0, |processes| processes.shim.pid);
        let of = |kind| namespace_of(pid, kind);
        let network = record.netns.clone().unwrap_or_else(|| of(LinuxNamespaceType::Network));
        let namespaces = json!([
            {"type": "network", "path": network},
            {"type": "ipc", "path": of(LinuxNamespaceType::Ipc)},
            {"type": "uts", "path": of(LinuxNamespaceType::Uts)},
        ]);
        let info = json!({
            "pid": pid,
            "reaperPid": record.processes.as_ref().and_then(|processes| processes.reaper).map(|reaper| reaper.pid),
            "phase": record.phase,
            "cgroupParent": record.cgroup_parent,
            "runtimeHandler": record.runtime_handler,
            "cniResult": record.network.as_ref().map(|network| &network.result),
            "config": record.config,
            "runtimeSpec": {"hostname": record.hostname, "linux": {"namespaces": namespaces}},
        });
        response.info.insert("info".into(), info.to_string());
    }
    Ok(response)
}
