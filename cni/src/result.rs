//! The result of an ADD: what the plugins did to a pod's network, in the form of CNI 1.1.
//!
//! Older forms exist only on the wire; [`crate::convert`] reads and writes them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What a chain of plugins reports after ADD (SPEC §5 "Success").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CniResult {
    /// The protocol version that the JSON is written in.
    pub cni_version: String,
    /// Every interface that was made or used, in the order of the plugins; addresses refer to them by position.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// The pod's addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpConfig>,
    /// The pod's routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// What the network wants in the pod's resolv.conf.
    #[serde(skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
}

/// One interface of a result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Interface {
    /// Its name, inside the namespace that `sandbox` names.
    pub name: String,
    /// Its hardware address, empty if it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU in bytes, 0 if the plugin didn't say.
    #[serde(skip_serializing_if = "is_zero")]
    pub mtu: u32,
    /// The network namespace's path for an interface of the pod, empty for one of the host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// A vhost-user socket, for interfaces that are one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// The PCI address of a passed-through device.
    #[serde(rename = "pciID", skip_serializing_if = "String::is_empty")]
    pub pci_id: String,
}

/// One address of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// Position in [`CniResult::interfaces`] of the interface that has this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
    /// The address with its prefix length.
    pub address: Cidr,
    /// The default gateway of this address's subnet, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_none")]
    pub gateway: Option<IpAddr>,
}

/// One route of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The destination.
    pub dst: Cidr,
    /// The next hop; without one the plugin uses the gateway of the address of the same family.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_none")]
    pub gw: Option<IpAddr>,
    /// The MTU along the path, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The TCP maximal segment size to advertise, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// The metric; smaller wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The routing table, 254 (main) if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// The scope of rtnetlink(7), 0 (global) if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

/// DNS settings of a result or a network configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Name servers, in order of preference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Domains to search for short names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// An address with a prefix length, `10.88.0.5/16`. The host bits are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// The length of the network part in bits.
    pub prefix: u8,
}

impl CniResult {
    /// The addresses of the pod's interface `ifname`, in order; all of the result if the plugin didn't say which
    /// interface they are on.
    pub fn pod_addresses(&self, ifname: &str) -> Vec<IpAddr> {
        let on_pod_interface = |ip: &&IpConfig| match ip.interface.and_then(|index| self.interfaces.get(index)) {
            Some(interface) => interface.name == ifname && !interface.sandbox.is_empty(),
            None => true,
        };
        self.ips.iter().filter(on_pod_interface).map(|ip| ip.address.address).collect()
    }
}

impl Dns {
    /// Whether nothing is set, so that the key is left out.
    pub fn is_empty(&self) -> bool {
        *self == Dns::default()
    }
}

impl Cidr {
    /// The address with all host bits cleared.
    pub fn network(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => IpAddr::V4((address.to_bits() & mask(32, self.prefix) as u32).into()),
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() & mask(128, self.prefix)).into()),
        }
    }

    /// Whether `address` lies in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && Cidr { address, prefix: self.prefix }.network() == self.network()
    }
}

/// The network mask of a family with `width` bits.
fn mask(width: u8, prefix: u8) -> u128 {
    let ones = if width == 128 { u128::MAX } else { (1 << width) - 1 };
    ones & !(ones.checked_shr(prefix.into()).unwrap_or(0))
}

/// A text that is no address with a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {0}")]
pub struct CidrError(String);

impl std::str::FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let refused = || CidrError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(refused)?;
        let address: IpAddr = address.parse().map_err(|_| refused())?;
        let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = if digits { prefix.parse().map_err(|_| refused())? } else { return Err(refused()) };
        if prefix > if address.is_ipv4() { 32 } else { 128 } {
            return Err(refused());
        }
        Ok(Cidr { address, prefix })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.address, self.prefix)
    }
}

impl Serialize for Cidr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Cidr, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Go writes a missing `net.IP` as `""`.
fn empty_is_none<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => {
            text.parse().map(Some).map_err(|_| serde::de::Error::custom(format!("invalid IP address: {text}")))
        }
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}
