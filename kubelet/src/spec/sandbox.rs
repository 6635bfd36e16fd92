//! The sandbox: names, hostname, ports, sysctls.

use super::{Machine, SpecError, resources, security};
use crate::config::Config;
use crate::pod::Pod;
use crate::runtime::keys;
use k8s_openapi::api::core::v1::{Container, ContainerPort};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::path::PathBuf;

/// The longest hostname (a DNS label).
const MAX_HOSTNAME: usize = 63;
/// What `sethostname(2)` takes.
const MAX_NODENAME: usize = 64;

/// What a sandbox's config is made of.
#[derive(Debug)]
pub struct SandboxInputs<'a> {
    /// Settings.
    pub config: &'a Config,
    /// The machine.
    pub machine: &'a Machine,
    /// The pod.
    pub pod: &'a Pod,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
    /// From [`crate::cgroups::Cgroups::ensure_pod`].
    pub cgroup_parent: &'a str,
    /// From [`super::dns::pod_dns`].
    pub dns: &'a proto::DnsConfig,
}

/// The config of a pod's sandbox.
///
/// # Errors
/// A hostname that can't be one; a field that is not built.
pub fn sandbox_config(inputs: &SandboxInputs<'_>) -> Result<proto::PodSandboxConfig, SpecError> {
    let SandboxInputs { config, machine, pod, attempt, cgroup_parent, dns } = *inputs;
    one_component(pod.name()).and_then(|()| one_component(pod.namespace()))?;
    let (resources, overhead) = resources::sandbox(pod, &config.limits, machine);
    Ok(proto::PodSandboxConfig {
        metadata: Some(proto::PodSandboxMetadata {
            name: pod.name().to_owned(),
            uid: pod.uid().to_string(),
            namespace: pod.namespace().to_owned(),
            attempt,
        }),
        // A pod in the host's network has the host's name.
        hostname: if pod.host_network() { String::new() } else { nodename(pod, &config.dns.domain)? },
        log_directory: log_directory(config, pod).to_string_lossy().into_owned(),
        dns_config: Some(dns.clone()),
        port_mappings: pod.spec().containers.iter().flat_map(port_mappings).collect(),
        labels: labels(pod),
        annotations: pod.object().metadata.annotations.clone().unwrap_or_default(),
        linux: Some(proto::LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent.to_owned(),
            security_context: Some(security::sandbox(pod)?),
            sysctls: sysctls(pod),
            overhead: Some(overhead),
            resources: Some(resources),
        }),
        windows: None,
    })
}

/// The pod's labels, and the three by which it is known again; those can't be forged.
pub(super) fn labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut labels = pod.object().metadata.labels.clone().unwrap_or_default();
    labels.insert(keys::POD_NAME.to_owned(), pod.name().to_owned());
    labels.insert(keys::POD_NAMESPACE.to_owned(), pod.namespace().to_owned());
    labels.insert(keys::POD_UID.to_owned(), pod.uid().to_string());
    labels
}

fn sysctls(pod: &Pod) -> BTreeMap<String, String> {
    let wanted = pod.spec().security_context.iter().flat_map(|security| security.sysctls.iter().flatten());
    wanted.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect()
}

/// A container's ports, each name once: ports that two of them would take are told apart by address family.
fn port_mappings(container: &Container) -> Vec<proto::PortMapping> {
    let mut seen = BTreeSet::new();
    let mut ports: Vec<&ContainerPort> = container.ports.iter().flatten().collect();
    ports.retain(|port| seen.insert(port_name(port)));
    ports.into_iter().map(port_mapping).collect()
}

fn port_name(port: &ContainerPort) -> String {
    let ip = port.host_ip.as_deref().unwrap_or_default();
    let family = match ip {
        "" => "any",
        ip if ip.parse::<Ipv6Addr>().is_ok() => "v6",
        _ => "v4",
    };
    match port.name.as_deref() {
        None | Some("") => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            format!("{family}-{protocol}-{ip}:{}:{}", port.container_port, port.host_port.unwrap_or(0))
        }
        Some(name) => name.to_owned(),
    }
}

fn port_mapping(port: &ContainerPort) -> proto::PortMapping {
    let protocol = match port.protocol.as_deref() {
        Some("UDP") => proto::Protocol::Udp,
        Some("SCTP") => proto::Protocol::Sctp,
        _ => proto::Protocol::Tcp,
    };
    proto::PortMapping {
        protocol: protocol.into(),
        container_port: port.container_port,
        host_port: port.host_port.unwrap_or(0),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    }
}

/// Hostname and domain of a pod, as /etc/hosts has them; the domain may be empty.
///
/// # Errors
/// A name that no host can have.
pub fn hostname_and_domain(pod: &Pod, cluster_domain: &str) -> Result<(String, String), SpecError> {
    let spec = pod.spec();
    if let Some(hostname) = &spec.hostname_override {
        if !is_subdomain(hostname) {
            let message = format!("pod HostnameOverride {hostname:?} is not a valid DNS subdomain");
            return Err(SpecError::sandbox(message));
        }
        return Ok((truncated(hostname).to_owned(), String::new()));
    }
    let hostname = match spec.hostname.as_deref() {
        None | Some("") => pod.name(),
        Some(hostname) if is_label(hostname) => hostname,
        Some(hostname) => {
            return Err(SpecError::sandbox(format!("pod Hostname {hostname:?} is not a valid DNS label")));
        }
    };
    let domain = match spec.subdomain.as_deref() {
        None | Some("") => String::new(),
        Some(subdomain) if is_label(subdomain) => format!("{subdomain}.{}.svc.{cluster_domain}", pod.namespace()),
        Some(subdomain) => {
            return Err(SpecError::sandbox(format!("pod Subdomain {subdomain:?} is not a valid DNS label")));
        }
    };
    Ok((truncated(hostname).to_owned(), domain))
}

/// What `uname -n` says in the pod.
fn nodename(pod: &Pod, cluster_domain: &str) -> Result<String, SpecError> {
    let (hostname, domain) = hostname_and_domain(pod, cluster_domain)?;
    if domain.is_empty() || !pod.spec().set_hostname_as_fqdn.unwrap_or(false) {
        return Ok(hostname);
    }
    let name = format!("{hostname}.{domain}");
    if name.len() > MAX_NODENAME {
        return Err(SpecError::sandbox(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long ({MAX_NODENAME} \
             characters is the max, {} characters requested)",
            name.len()
        )));
    }
    Ok(name)
}

/// Names of pods are longer than names of hosts may be; none ends with `-` or `.`.
fn truncated(hostname: &str) -> &str {
    match hostname.get(..MAX_HOSTNAME) {
        Some(cut) if hostname.len() > MAX_HOSTNAME => cut.trim_end_matches(['-', '.']),
        _ => hostname,
    }
}

fn is_label(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty()
        && name.len() <= MAX_HOSTNAME
        && name.bytes().all(plain)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Names become parts of paths; the API server has seen to it, for a static pod nobody may have.
pub(super) fn one_component(name: &str) -> Result<(), SpecError> {
    match name {
        "" | "." | ".." => Err(SpecError::sandbox(format!("{name:?} is not a name"))),
        name if name.contains(['/', '\0']) => Err(SpecError::sandbox(format!("{name:?} is not a name"))),
        _ => Ok(()),
    }
}

/// `<pod_logs>/<namespace>_<name>_<uid>`.
pub fn log_directory(config: &Config, pod: &Pod) -> PathBuf {
    config.pod_logs.join(format!("{}_{}_{}", pod.namespace(), pod.name(), pod.uid()))
}

#[cfg(test)]
mod tests;
