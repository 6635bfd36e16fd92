//! A pod's kernel parameters: only those of a namespace that the pod has for itself.

use crate::failure::{Failure, Result};
use proto::{NamespaceMode, PodSandboxConfig};
use std::collections::BTreeMap;

/// The System V IPC parameters that `ipc_namespaces(7)` lists.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Whether a pod shares a namespace of the host's.
fn host(config: &PodSandboxConfig) -> (bool, bool) {
    let options = super::namespaces::options(config);
    (options.network() == NamespaceMode::Node, options.ipc() == NamespaceMode::Node)
}

/// The checked parameters, dotted, and those that every pod gets: ports below 1024 are open to all users inside, as with
/// containerd.
///
/// # Errors
/// A name that would reach the host (GHSA-w2j5-3rcx-vx7x), or a value that is more than a value (CVE-2022-0811).
pub(crate) fn build(config: &PodSandboxConfig) -> Result<BTreeMap<String, String>> {
    let asked = config.linux.as_ref().map(|linux| linux.sysctls.clone()).unwrap_or_default();
    let (host_network, host_ipc) = host(config);
    let mut sysctls = BTreeMap::new();
    if !host_network {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
    }
    for (name, value) in asked {
        let refuse = |reason: &str| Err(Failure::invalid(format!("sysctl {name:?}: {reason}")));
        let dotted = dotted(&name);
        if !is_name(&dotted) {
            return refuse("not the name of a kernel parameter");
        }
        if value.is_empty() || !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
            return refuse("the value is empty or holds more than printable characters");
        }
        if dotted.starts_with("net.") {
            if host_network {
                return refuse("the pod is on the host's network");
            }
        } else if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            if host_ipc {
                return refuse("the pod shares the host's IPC namespace");
            }
        } else {
            return refuse("does not belong to a namespace: it would change the host");
        }
        sysctls.insert(dotted, value);
    }
    Ok(sysctls)
}

/// The dotted form. As in sysctl(8) the first separator decides: after a slash, dots belong to names and become slashes.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name[first..].starts_with('/') => name
            .chars()
            .map(|letter| match letter {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

fn is_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/');
    let part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(letter)
            && !part.starts_with('/')
            && !part.ends_with('/')
            && !part.contains("//")
    };
    name.contains('.') && name.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption};

    fn config(name: &str, value: &str, network: NamespaceMode, ipc: NamespaceMode) -> PodSandboxConfig {
        let options = NamespaceOption { network: network.into(), ipc: ipc.into(), ..NamespaceOption::default() };
        let security =
            LinuxSandboxSecurityContext { namespace_options: Some(options), ..LinuxSandboxSecurityContext::default() };
        PodSandboxConfig {
            linux: Some(LinuxPodSandboxConfig {
                security_context: Some(security),
                sysctls: [(name.to_owned(), value.to_owned())].into(),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        }
    }

    #[test]
    fn only_parameters_of_the_pod_s_own_namespaces_pass() {
        use NamespaceMode::{Node, Pod};
        for (name, value, network, ipc, ok) in [
            ("kernel.shm_rmid_forced", "1", Pod, Pod, true),
            ("fs.mqueue.msg_max", "100", Pod, Pod, true),
            ("net.ipv4.ip_local_port_range", "1024 65535", Pod, Pod, true),
            ("net.ipv4.conf.eth0/1.forwarding", "1", Pod, Pod, true),
            ("net/core/somaxconn", "100", Pod, Pod, true),
            ("kernel.shm_rmid_forced", "1", Pod, Node, false),
            ("net.core.somaxconn", "100", Node, Pod, false),
            ("kernel.core_pattern", "|/bin/sh", Pod, Pod, false),
            ("vm.overcommit_memory", "1", Pod, Pod, false),
            ("kernel.hostname", "x", Pod, Pod, false),
            ("kernel.shm_rmid_forced", "1\nkernel.core_pattern=x", Pod, Pod, false),
            ("kernel.shm_rmid_forced", "", Pod, Pod, false),
            ("kernel.shm_rmid_forced", "1\0", Pod, Pod, false),
            ("net..core", "1", Pod, Pod, false),
            ("net.../../kernel/core_pattern", "1", Pod, Pod, false),
            ("net/../../kernel/core_pattern", "1", Pod, Pod, false),
            ("net/./core", "1", Pod, Pod, false),
            ("net", "1", Pod, Pod, false),
            ("", "1", Pod, Pod, false),
        ] {
            assert_eq!(build(&config(name, value, network, ipc)).is_ok(), ok, "{name}={value:?}");
        }
    }

    #[test]
    fn low_ports_are_open_inside_unless_the_pod_says_otherwise_or_has_no_network_of_its_own() {
        const NAME: &str = "net.ipv4.ip_unprivileged_port_start";
        let pod = config(NAME, "80", NamespaceMode::Pod, NamespaceMode::Pod);
        assert_eq!(build(&pod).unwrap()[NAME], "80");
        assert_eq!(build(&PodSandboxConfig::default()).unwrap()[NAME], "0");
        let host = config("kernel.sem", "1", NamespaceMode::Node, NamespaceMode::Pod);
        assert!(!build(&host).unwrap().contains_key(NAME));
    }
}
