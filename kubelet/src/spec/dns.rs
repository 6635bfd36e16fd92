//! The content of a pod's resolv.conf: its policy, its `dnsConfig`, and what resolvers can take.

use super::SpecError;
use crate::config;
use crate::pod::Pod;
use k8s_openapi::api::core::v1::PodDNSConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// glibc reads three servers (resolv.conf(5)).
const MAX_SERVERS: usize = 3;
/// What the API server lets a pod have.
const MAX_SEARCHES: usize = 32;
/// Of the search list as one line.
const MAX_SEARCH_CHARS: usize = 2048;
/// A longer domain makes some resolvers abort.
const MAX_DOMAIN: usize = 253;
/// A resolv.conf beyond this is not one.
const MAX_FILE: u64 = 10 << 20;

/// What a resolv.conf says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// The last `search` line, without trailing dots.
    pub searches: Vec<String>,
    /// All `options`, the last of each name.
    pub options: Vec<String>,
}

/// A pod's DNS, and what had to be left out of it or done otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodDns {
    /// For the sandbox.
    pub config: proto::DnsConfig,
    /// To be told as events on the pod.
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
pub fn pod_dns(dns: &config::Dns, pod: &Pod, host: &ResolvConf) -> PodDns {
    let mut warnings = Vec::new();
    let mut config = match policy(pod) {
        Policy::None => proto::DnsConfig::default(),
        Policy::Cluster if !dns.servers.is_empty() => of_cluster(dns, pod, host),
        Policy::Cluster => {
            warnings.push(no_cluster_dns(pod));
            of_host(dns, host)
        }
        Policy::Host => of_host(dns, host),
    };
    if let Some(own) = &pod.spec().dns_config {
        merge(&mut config, own);
    }
    warnings.extend(limit_servers(&mut config.servers));
    warnings.extend(limit_searches(&mut config.searches));
    PodDns { config, warnings }
}

enum Policy {
    None,
    Cluster,
    Host,
}

fn policy(pod: &Pod) -> Policy {
    match pod.spec().dns_policy.as_deref() {
        Some("None") => Policy::None,
        Some("Default") => Policy::Host,
        Some("ClusterFirst") | None if pod.host_network() => Policy::Host,
        _ => Policy::Cluster,
    }
}

fn of_cluster(dns: &config::Dns, pod: &Pod, host: &ResolvConf) -> proto::DnsConfig {
    let (namespace, domain) = (pod.namespace(), &dns.domain);
    let mut searches = match domain.as_str() {
        "" => Vec::new(),
        domain => vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()],
    };
    searches.extend(host.searches.iter().cloned());
    if !domain.is_empty() {
        without_repeats(&mut searches);
    }
    proto::DnsConfig {
        servers: dns.servers.iter().map(ToString::to_string).collect(),
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

/// The host's settings. Without a resolv.conf the pod is told to ask itself: an empty list would make the runtime take
/// the host's file after all.
fn of_host(dns: &config::Dns, host: &ResolvConf) -> proto::DnsConfig {
    if dns.resolv_conf.is_none() {
        return proto::DnsConfig {
            servers: vec!["127.0.0.1".to_owned()],
            searches: vec![".".to_owned()],
            options: Vec::new(),
        };
    }
    let ResolvConf { servers, searches, options } = host.clone();
    proto::DnsConfig { servers, searches, options }
}

fn no_cluster_dns(pod: &Pod) -> Warning {
    let name = format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid());
    let message = format!(
        "pod: {name:?}. kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" \
         policy. Falling back to \"Default\" policy."
    );
    Warning { reason: "MissingClusterDNS", message }
}

fn merge(config: &mut proto::DnsConfig, own: &PodDNSConfig) {
    config.servers.extend(own.nameservers.iter().flatten().cloned());
    without_repeats(&mut config.servers);
    config.searches.extend(own.searches.iter().flatten().cloned());
    without_repeats(&mut config.searches);
    let mut options: BTreeMap<String, String> = config
        .options
        .iter()
        .map(|option| option.split_once(':').unwrap_or((option, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for option in own.options.iter().flatten() {
        options.insert(option.name.clone().unwrap_or_default(), option.value.clone().unwrap_or_default());
    }
    config.options = options
        .into_iter()
        .map(|(name, value)| if value.is_empty() { name } else { format!("{name}:{value}") })
        .collect();
}

fn without_repeats(list: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    list.retain(|entry| seen.insert(entry.clone()));
}

fn limit_servers(servers: &mut Vec<String>) -> Option<Warning> {
    if servers.len() <= MAX_SERVERS {
        return None;
    }
    servers.truncate(MAX_SERVERS);
    let message = format!(
        "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
        servers.join(" ")
    );
    Some(Warning { reason: "DNSConfigForming", message })
}

fn limit_searches(searches: &mut Vec<String>) -> Option<Warning> {
    let before = searches.len();
    searches.truncate(MAX_SEARCHES);
    searches.retain(|search| search.len() <= MAX_DOMAIN);
    while searches.join(" ").len() > MAX_SEARCH_CHARS {
        searches.pop();
    }
    if searches.len() == before {
        return None;
    }
    let message = format!(
        "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
        searches.join(" ")
    );
    Some(Warning { reason: "DNSConfigForming", message })
}

/// Reads a resolv.conf.
///
/// # Errors
/// A `nameserver` line that names none.
pub fn parse(text: &str) -> Result<ResolvConf, SpecError> {
    let mut conf = ResolvConf::default();
    let mut options: BTreeMap<&str, &str> = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                let wrong = "Encountered error while parsing resolv conf file. Error: nameserver list is empty ";
                conf.servers.push(words.next().ok_or_else(|| SpecError::sandbox(wrong))?.to_owned());
            }
            // `a.` and `a` are the same domain, and shall count once.
            Some("search") => {
                let domains = words.filter(|word| *word != ".");
                conf.searches = domains.map(|word| word.strip_suffix('.').unwrap_or(word).to_owned()).collect();
            }
            Some("options") => {
                options.extend(words.map(|word| (word.split(':').next().unwrap_or_default(), word)));
            }
            _ => {}
        }
    }
    conf.options = options.into_values().map(str::to_owned).collect();
    Ok(conf)
}

/// Reads the file; `None` (an empty `resolvConf`) is an empty one. Blocking.
///
/// # Errors
/// A file that can't be read, or is no resolv.conf.
pub fn read(path: Option<&Path>) -> Result<ResolvConf, SpecError> {
    let Some(path) = path else { return Ok(ResolvConf::default()) };
    let bytes = sys::fs::read_bounded(path, MAX_FILE)
        .map_err(|error| SpecError::sandbox(format!("read the host's resolv.conf: {error}")))?;
    parse(&String::from_utf8_lossy(&bytes))
}

#[cfg(test)]
mod tests;
