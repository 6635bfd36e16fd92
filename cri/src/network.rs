//! What CNI is told of a pod: its arguments and capabilities, from the sandbox's configuration.

use crate::failure::{Failure, Result};
use cni::client::Attachment;
use proto::{PodSandboxConfig, PortMapping, Protocol};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The pod's interface, as every kubelet expects it.
pub(crate) const INTERFACE: &str = "eth0";

/// Checks what a pod asks of its network, before anything is made.
pub(crate) fn check(config: &PodSandboxConfig) -> Result<()> {
    port_mappings(&config.port_mappings)?;
    bandwidth(config)?;
    Ok(())
}

/// The attachment of a sandbox.
pub(crate) fn attachment(id: &str, netns: &Path, config: &PodSandboxConfig) -> Result<Attachment> {
    let metadata = config.metadata.clone().unwrap_or_default();
    let args = [
        ("IgnoreUnknown", "1".to_owned()),
        ("K8S_POD_NAMESPACE", metadata.namespace),
        ("K8S_POD_NAME", metadata.name),
        ("K8S_POD_INFRA_CONTAINER_ID", id.to_owned()),
        ("K8S_POD_UID", metadata.uid),
    ];
    let mut capabilities = Map::new();
    let mappings = port_mappings(&config.port_mappings)?;
    if !mappings.is_empty() {
        capabilities.insert("portMappings".into(), mappings.into());
    }
    if let Some(dns) = &config.dns_config {
        let dns = json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options});
        capabilities.insert("dns".into(), dns);
    }
    if let Some(bandwidth) = bandwidth(config)? {
        capabilities.insert("bandwidth".into(), bandwidth);
    }
    capabilities.insert("io.kubernetes.cri.pod-annotations".into(), json!(config.annotations));
    Ok(Attachment {
        container_id: id.into(),
        netns: netns.into(),
        ifname: INTERFACE.into(),
        args: args.into_iter().map(|(key, value)| (key.into(), value)).collect(),
        capabilities,
    })
}

fn port_mappings(mappings: &[PortMapping]) -> Result<Vec<Value>> {
    let port = |number: i32| u16::try_from(number).ok();
    let mut values = Vec::new();
    for mapping in mappings {
        let refuse = |what: &str| Failure::invalid(format!("port_mappings: {what} in {mapping:?}"));
        let host = port(mapping.host_port).ok_or_else(|| refuse("host_port"))?;
        let container = port(mapping.container_port).ok_or_else(|| refuse("container_port"))?;
        let protocol = match Protocol::try_from(mapping.protocol).map_err(|_| refuse("protocol"))? {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        if !mapping.host_ip.is_empty() && mapping.host_ip.parse::<std::net::IpAddr>().is_err() {
            return Err(refuse("host_ip"));
        }
        if host != 0 {
            values.push(json!({
                "hostPort": host,
                "containerPort": container,
                "protocol": protocol,
                "hostIP": mapping.host_ip,
            }));
        }
    }
    Ok(values)
}

/// The bandwidth that a pod's annotations ask for, in bits per second; bursts are as good as unlimited, as everywhere.
fn bandwidth(config: &PodSandboxConfig) -> Result<Option<Value>> {
    let mut value = Map::new();
    for (annotation, rate, burst) in [
        ("kubernetes.io/ingress-bandwidth", "ingressRate", "ingressBurst"),
        ("kubernetes.io/egress-bandwidth", "egressRate", "egressBurst"),
    ] {
        let Some(text) = config.annotations.get(annotation) else { continue };
        let bits = quantity(text)
            .ok_or_else(|| Failure::invalid(format!("annotation {annotation}: {text:?} is no bandwidth")))?;
        value.insert(rate.into(), bits.into());
        value.insert(burst.into(), i32::MAX.into());
    }
    Ok(if value.is_empty() { None } else { Some(value.into()) })
}

/// A Kubernetes quantity of whole units: `10M`, `1Gi`, `500k`, `1000`.
fn quantity(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let factor: u64 = match suffix {
        "" => 1,
        "k" => 1000,
        "M" => 1000_u64.pow(2),
        "G" => 1000_u64.pow(3),
        "T" => 1000_u64.pow(4),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host_port: i32, container_port: i32, host_ip: &str) -> PortMapping {
        PortMapping { protocol: 1, container_port, host_port, host_ip: host_ip.into() }
    }

    #[test]
    fn a_host_port_of_zero_maps_nothing() {
        let mappings = port_mappings(&[mapping(0, 80, ""), mapping(8080, 80, "127.0.0.1")]).unwrap();
        let want = json!({"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "127.0.0.1"});
        assert_eq!(mappings, [want]);
    }

    #[test]
    fn ports_and_addresses_that_are_none_are_refused() {
        for mapping in [mapping(65536, 80, ""), mapping(-1, 80, ""), mapping(80, 70000, ""), mapping(80, 80, "x")] {
            assert!(port_mappings(&[mapping]).is_err());
        }
    }

    #[test]
    fn bandwidth_comes_from_the_annotations() {
        let with = |text: &str| PodSandboxConfig {
            annotations: [("kubernetes.io/egress-bandwidth".to_owned(), text.to_owned())].into(),
            ..PodSandboxConfig::default()
        };
        assert_eq!(bandwidth(&PodSandboxConfig::default()).unwrap(), None);
        let want = json!({"egressRate": 10_000_000, "egressBurst": i32::MAX});
        assert_eq!(bandwidth(&with("10M")).unwrap(), Some(want));
        for bad in ["fast", "10X", "", "99999999999999999999", "-1"] {
            assert!(bandwidth(&with(bad)).is_err(), "{bad:?}");
        }
    }
}
