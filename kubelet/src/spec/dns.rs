//! The content of a pod's resolv.conf.

use super::SpecError;
use crate::config;
use crate::pod::Pod;

/// What a resolv.conf says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// The last `search` line.
    pub searches: Vec<String>,
    /// The last `options` line.
    pub options: Vec<String>,
}

/// A pod's DNS, and what had to be left out of it: messages of `DNSConfigForming` events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodDns {
    /// For the sandbox.
    pub config: proto::DnsConfig,
    /// Texts of Warning events with reason `DNSConfigForming`.
    pub warnings: Vec<Warning>,
}

/// A Warning event on the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// `DNSConfigForming` or `MissingClusterDNS`.
    pub reason: &'static str,
    /// Upstream's text.
    pub message: String,
}

/// DNS of a pod by its policy and `dnsConfig`. `host` is the host's resolv.conf as it is now.
pub fn pod_dns(dns: &config::Dns, pod: &Pod, host: &ResolvConf) -> Result<PodDns, SpecError> {
    let _ = (dns, pod, host);
    todo!()
}

/// Reads a resolv.conf.
pub fn parse(text: &str) -> Result<ResolvConf, SpecError> {
    let _ = text;
    todo!()
}

/// Reads the file; `None` (an empty `resolvConf`) is an empty one.
pub fn read(path: Option<&std::path::Path>) -> Result<ResolvConf, SpecError> {
    let _ = path;
    todo!()
}
