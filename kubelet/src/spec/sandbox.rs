//! The sandbox: names, hostname, ports, sysctls.

use super::SpecError;
use crate::config::Config;
use crate::pod::Pod;
use std::path::PathBuf;

/// What a sandbox's config is made of.
#[derive(Debug)]
pub struct SandboxInputs<'a> {
    /// Settings.
    pub config: &'a Config,
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
pub fn sandbox_config(inputs: &SandboxInputs<'_>) -> Result<proto::PodSandboxConfig, SpecError> {
    let _ = inputs;
    todo!()
}

/// Hostname and domain of a pod, before any cut to what the kernel takes.
pub fn hostname_and_domain(pod: &Pod, cluster_domain: &str) -> Result<(String, String), SpecError> {
    let _ = (pod, cluster_domain);
    todo!()
}

/// `<pod_logs>/<namespace>_<name>_<uid>`.
pub fn log_directory(config: &Config, pod: &Pod) -> PathBuf {
    let _ = (config, pod);
    todo!()
}
