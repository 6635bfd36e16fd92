//! Kernel parameters: those that concern nobody but the pod, and those that the node's owner allows.

use super::Rejection;
use crate::pod::Pod;

/// Namespaced and without influence on other pods, on every kernel that we run on.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Refuses a pod that sets what is not allowed, or what would be the host's.
pub(super) fn check(pod: &Pod, allowed: &[String]) -> Result<(), Rejection> {
    let own = pod.spec().security_context.as_ref().and_then(|security| security.sysctls.as_deref());
    for sysctl in own.unwrap_or_default() {
        let name = sysctl.name.replace('/', ".");
        if let Some(problem) = problem(pod, &name, allowed) {
            return Err(Rejection::new("SysctlForbidden", format!("forbidden sysctl: {name:?} {problem}")));
        }
    }
    Ok(())
}

fn problem(pod: &Pod, name: &str, allowed: &[String]) -> Option<String> {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(&prefix.replace('/', ".")),
        None => name == pattern.replace('/', "."),
    };
    if !SAFE.into_iter().chain(allowed.iter().map(String::as_str)).any(matches) {
        return Some("not allowlisted".to_owned());
    }
    let namespace = namespace(name)?;
    let of_host = match namespace {
        "IPC" => pod.spec().host_ipc.unwrap_or(false),
        _ => pod.host_network(),
    };
    of_host.then(|| format!("not allowed with host {namespace} enabled"))
}

/// The namespace that a parameter belongs to.
fn namespace(name: &str) -> Option<&'static str> {
    let ipc = ["kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue."];
    if ipc.iter().any(|prefix| name.starts_with(prefix)) {
        return Some("IPC");
    }
    name.starts_with("net.").then_some("Net")
}
