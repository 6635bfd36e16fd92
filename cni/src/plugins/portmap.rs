//! `portmap`: ports of the host that lead to a pod, by nf_tables (the maps are explained in [`super::nat`]).
//!
//! The last writer wins: a mapping that leaked, or that a pod which is being replaced still holds, never keeps a new
//! pod from starting; whoever places pods decides who gets a port.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use serde::Deserialize;
use sys::netlink::route::RouteSocket;

use super::conf::{decode, refuse_not_built, refused};
use super::nat::{self, HostPort, Owner, PodAddress};
use super::skel::{Invocation, Plugin};
use super::sysctl;
use crate::error::{PluginError, code};
use crate::result::{CniResult, IpConfig};

pub(super) const PLUGIN: Plugin = Plugin { name: "portmap", add, del, check, status };

/// Keys of the reference that ask for something else than we do.
const NOT_BUILT: [&str; 5] = ["masqAll", "markMasqBit", "externalSetMarkChain", "conditionsV4", "conditionsV6"];

/// The configuration as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    backend: String,
    snat: Option<bool>,
    runtime_config: RuntimeConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RuntimeConfig {
    port_mappings: Vec<Mapping>,
}

/// An entry of `portMappings` (CONVENTIONS.md of CNI).
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Mapping {
    host_port: i64,
    container_port: i64,
    protocol: String,
    #[serde(rename = "hostIP")]
    host_ip: String,
}

/// A validated configuration.
#[derive(Debug)]
struct Plan {
    ports: Vec<HostPort>,
    snat: bool,
    previous: Option<CniResult>,
}

impl Plan {
    fn parse(call: &Invocation) -> Result<Plan, PluginError> {
        refuse_not_built(PLUGIN.name, &call.config, &NOT_BUILT)?;
        let config: Config = decode(call)?;
        if !matches!(config.backend.as_str(), "" | "nftables") {
            return Err(refused(PLUGIN.name, &format!("backend {:?}", config.backend)));
        }
        let ports = config.runtime_config.port_mappings.iter().map(Mapping::parse).collect::<Result<Vec<_>, _>>()?;
        let mut seen = HashSet::new();
        if let Some(twice) = ports.iter().find(|port| !seen.insert((port.host_address, port.protocol, port.host_port)))
        {
            let message = format!("portMappings has host port {} twice for one protocol and address", twice.host_port);
            return Err(PluginError::new(code::INVALID_CONFIG, message));
        }
        Ok(Plan { ports, snat: config.snat.unwrap_or(true), previous: call.previous_result()? })
    }

    /// The pod's first IPv4 address.
    fn pod(&self, ifname: &str) -> Result<PodAddress, PluginError> {
        let interfaces = self.previous.as_ref().map(|result| &result.interfaces[..]).unwrap_or_default();
        let is_pods = |ip: &&IpConfig| match ip.interface.and_then(|index| interfaces.get(index)) {
            Some(interface) => interface.name == ifname && !interface.sandbox.is_empty(),
            None => true,
        };
        let mut ips = self.previous.iter().flat_map(|result| &result.ips).filter(is_pods);
        let missing = || PluginError::new(code::INVALID_CONFIG, format!("prevResult has no IPv4 address of {ifname}"));
        ips.find_map(|ip| PodAddress::from_cidr(ip.address)).ok_or_else(missing)
    }
}

impl Mapping {
    fn parse(&self) -> Result<HostPort, PluginError> {
        let port = |what: &str, number: i64| match u16::try_from(number) {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(PluginError::new(code::INVALID_CONFIG, format!("Invalid {what} port number: {number}"))),
        };
        let protocol = match self.protocol.to_ascii_lowercase().as_str() {
            "tcp" | "" => ip_protocol::TCP,
            "udp" => ip_protocol::UDP,
            "sctp" => ip_protocol::SCTP,
            other => {
                let message = format!("host port {}: protocol {other:?} is none of tcp, udp, sctp", self.host_port);
                return Err(PluginError::new(code::INVALID_CONFIG, message));
            }
        };
        Ok(HostPort {
            host_address: self.host_address()?,
            protocol,
            host_port: port("host", self.host_port)?,
            pod_port: port("container", self.container_port)?,
        })
    }

    fn host_address(&self) -> Result<Option<Ipv4Addr>, PluginError> {
        if self.host_ip.is_empty() {
            return Ok(None);
        }
        match self.host_ip.parse() {
            Ok(IpAddr::V4(address)) => Ok(Some(address).filter(|address| !address.is_unspecified())),
            Ok(IpAddr::V6(_)) => Err(refused(PLUGIN.name, &format!("the IPv6 hostIP {}", self.host_ip))),
            Err(_) => {
                let message = format!("host port {}: hostIP {:?} is no address", self.host_port, self.host_ip);
                Err(PluginError::new(code::INVALID_CONFIG, message))
            }
        }
    }
}

/// IP protocol numbers.
mod ip_protocol {
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const SCTP: u8 = 132;
}

fn add(call: &Invocation) -> Result<CniResult, PluginError> {
    let plan = Plan::parse(call)?;
    let Some(previous) = &plan.previous else {
        return Err(PluginError::new(code::INVALID_CONFIG, "must be called as chained plugin"));
    };
    if plan.ports.is_empty() {
        return Ok(previous.clone());
    }
    let pod = plan.pod(&call.ifname)?;
    nat::add_host_ports(&Owner::of(call)?, pod, &plan.ports, plan.snat)?;
    forget_udp_flows(&plan.ports)?;
    if plan.snat {
        // Never without the guard that makes it harmless.
        nat::ensure_guard(pod)?;
        route_loopback_to(pod.address)?;
    }
    Ok(previous.clone())
}

/// Clients that keep sending UDP from one port are still led to the pod that had the mapping before, or to nobody.
fn forget_udp_flows(ports: &[HostPort]) -> Result<(), PluginError> {
    let udp: Vec<_> = ports.iter().filter(|port| port.protocol == ip_protocol::UDP).collect();
    if udp.is_empty() {
        return Ok(());
    }
    let local: Vec<_> =
        RouteSocket::open()?.all_addresses()?.into_iter().filter_map(|found| as_ipv4(found.address)).collect();
    for port in udp {
        let addresses = port.host_address.map_or(local.clone(), |address| vec![address]);
        sys::conntrack::forget_udp_to(port.host_port, &addresses)?;
    }
    Ok(())
}

fn as_ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// Lets packets from 127.0.0.1 leave through the interface behind which the pod is.
fn route_loopback_to(pod: Ipv4Addr) -> Result<(), PluginError> {
    let mut route = RouteSocket::open()?;
    let through = route.route_to(pod)?.and_then(|route| route.link);
    let Some(link) = through.map(|link| route.link_by_index(link)).transpose()?.flatten() else { return Ok(()) };
    sysctl::set(&["ipv4", "conf", &link.name, "route_localnet"], "1")
}

fn del(call: &Invocation) -> Result<(), PluginError> {
    // By owner, whatever the configuration says: a runtime may send no port mappings with a DEL.
    match Owner::of(call) {
        Ok(owner) => nat::remove_host_ports(&owner),
        // Of such an id no ADD ever made anything.
        Err(_) => Ok(()),
    }
}

fn check(call: &Invocation) -> Result<(), PluginError> {
    let plan = Plan::parse(call)?;
    if plan.previous.is_none() {
        return Err(PluginError::new(code::INVALID_CONFIG, "Required prevResult missing"));
    }
    if plan.ports.is_empty() {
        return Ok(());
    }
    nat::check_host_ports(&Owner::of(call)?, plan.pod(&call.ifname)?, &plan.ports)
}

fn status(_: &Invocation) -> Result<(), PluginError> {
    nat::check_available()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host_port: i64, protocol: &str, host_ip: &str) -> Mapping {
        Mapping { host_port, container_port: 80, protocol: protocol.into(), host_ip: host_ip.into() }
    }

    #[test]
    fn mappings_are_read_as_runtimes_send_them() {
        let port = mapping(8080, "TCP", "").parse().unwrap();
        assert_eq!((port.protocol, port.host_port, port.pod_port, port.host_address), (6, 8080, 80, None));
        assert_eq!(mapping(1, "sctp", "0.0.0.0").parse().unwrap().host_address, None);
        assert_eq!(mapping(1, "udp", "127.0.0.1").parse().unwrap().host_address, Some(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn impossible_mappings_are_refused() {
        for bad in [mapping(0, "tcp", ""), mapping(65536, "tcp", ""), mapping(-1, "tcp", "")] {
            assert!(bad.parse().unwrap_err().msg.starts_with("Invalid host port number"));
        }
        assert!(mapping(1, "icmp", "").parse().is_err());
        assert!(mapping(1, "tcp", "localhost").parse().is_err());
        assert_eq!(mapping(1, "tcp", "::1").parse().unwrap_err().code, code::UNSUPPORTED_FIELD);
    }
}
