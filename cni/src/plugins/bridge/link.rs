//! The links that `bridge` makes: the bridge itself and a veth pair per pod.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use sys::Errno;
use sys::netlink::route::{Link, Mac, NewAddress, NewVeth, Peer, Request, RouteSocket};

use super::super::netns::Namespace;
use super::super::sysctl;
use super::config::Config;
use super::failed;
use crate::error::PluginError;
use crate::result::Cidr;

/// The carrier of a new pair is reported by a work queue, which a busy machine keeps waiting; this long means that
/// something is wrong.
const CARRIER_LIMIT: Duration = Duration::from_secs(20);

/// The bridge, made if it isn't there, up.
pub(super) fn ensure_bridge(host: &mut RouteSocket, config: &Config) -> Result<Link, PluginError> {
    let name = &config.bridge;
    let doing = |error: PluginError| error.during(format_args!("failed to create bridge {name:?}"));
    let link = match host.link(name)? {
        Some(link) => link,
        None => {
            match host.run(&[Request::AddBridge { name, mac: random_mac()?, mtu: config.mtu }]) {
                // Another ADD of this network was faster.
                Err(error) if !error.is(Errno::EEXIST) => return Err(doing(error.into())),
                _ => {}
            }
            host.link(name)?.ok_or_else(|| failed(format!("could not lookup {name:?}: it was deleted just now")))?
        }
    };
    if link.kind != "bridge" {
        return Err(doing(failed(format!("{name:?} already exists but is not a bridge"))));
    }
    // A pod could advertise itself as the host's router (CVE-2020-10749, CVE-2020-13401).
    sysctl::set_if_present(&["ipv6", "conf", name, "accept_ra"], "0")?;
    if !link.up {
        host.run(&[Request::SetUp { link: link.index, up: true }])?;
    }
    Ok(link)
}

/// Gives the bridge the gateway's address and lets the host forward.
pub(super) fn ensure_gateway(
    host: &mut RouteSocket,
    bridge: &Link,
    gateway: Cidr,
    config: &Config,
) -> Result<(), PluginError> {
    let address = |cidr: Cidr| NewAddress { link: bridge.index, address: cidr.address, prefix: cidr.prefix };
    let present = host.addresses(bridge.index)?.into_iter().filter(|present| present.address.is_ipv4());
    let present: Vec<_> = present.map(|present| Cidr { address: present.address, prefix: present.prefix }).collect();
    if !present.contains(&gateway) {
        if let (Some(other), false) = (present.first(), config.force_address) {
            return Err(address_conflict(&bridge.name, *other, gateway));
        }
        for other in present {
            match host.run(&[Request::DeleteAddress(address(other))]) {
                Err(error) if !error.is(Errno::EADDRNOTAVAIL) => return Err(error.into()),
                _ => {}
            }
        }
        match host.run(&[Request::AddAddress(address(gateway))]) {
            Err(error) if !error.is(Errno::EEXIST) => return Err(error.into()),
            _ => {}
        }
    }
    sysctl::set(&["ipv4", "ip_forward"], "1").map_err(|error| error.during("failed to enable forwarding"))
}

/// Two networks on one bridge, or a network whose subnet was changed.
fn address_conflict(bridge: &str, have: Cidr, want: Cidr) -> PluginError {
    failed(format!("{bridge:?} already has an IP address different from {want}")).with_details(format!(
        "it has {have}: give this network another bridge, set forceAddress, or run `ip address del {have} dev {bridge}` \
         if no pod uses it"
    ))
}

/// A pod's pair.
#[derive(Debug)]
pub(super) struct Pair {
    /// The end on the bridge.
    pub(super) host: Link,
    /// The hardware address of the pod's end.
    pub(super) pod_mac: Mac,
}

/// Makes the pair: this end up and on the bridge, the pod's end in its namespace, still down.
pub(super) fn add_pair(
    host: &mut RouteSocket,
    bridge: &Link,
    namespace: &Namespace,
    ifname: &str,
    config: &Config,
) -> Result<Pair, PluginError> {
    let pod_mac = config.mac.map_or_else(random_mac, Ok)?;
    loop {
        let name = format!("veth{:08x}", u32::from_ne_bytes(random()?));
        let (mac, master) = (random_mac()?, Some(bridge.index));
        let peer = Peer { name: ifname, mac: pod_mac, namespace: namespace.as_fd() };
        let made = host.run(&[Request::AddVeth(NewVeth { name: &name, mac, master, mtu: config.mtu, peer })]);
        match made {
            // Which of the two names is taken decides whether another try makes sense.
            Err(error) if error.is(Errno::EEXIST) => {
                if host.link(&name)?.is_none() {
                    return Err(failed(format!("container veth name provided ({ifname}) already exists")));
                }
            }
            Err(error) => return Err(error.into()),
            Ok(()) => {
                let lost = || failed(format!("could not lookup {name:?}: it was deleted just now"));
                return Ok(Pair { host: host.link(&name)?.ok_or_else(lost)?, pod_mac });
            }
        }
    }
}

/// Port settings, and the wait until the port carries packets.
pub(super) fn finish_port(host: &mut RouteSocket, port: &Link, config: &Config) -> Result<(), PluginError> {
    sysctl::set_if_present(&["ipv6", "conf", &port.name, "accept_ra"], "0")?;
    if config.hairpin {
        host.run(&[Request::SetHairpin { link: port.index, on: true }])?;
    }
    if host.wait_until_up(port.index, Instant::now() + CARRIER_LIMIT)? {
        return Ok(());
    }
    Err(failed(format!("bridge port in error state: {} is not up after {} s", port.name, CARRIER_LIMIT.as_secs())))
}

/// The first address of a subnet.
pub(super) fn first_address(subnet: Cidr) -> Option<Ipv4Addr> {
    match subnet.network() {
        IpAddr::V4(network) => Some((network.to_bits() + 1).into()),
        IpAddr::V6(_) => None,
    }
}

/// A unicast address of the locally administered kind. The kernel would choose one too, but a bridge without one of
/// its own takes over its ports', and an address that is set is left alone by udev.
fn random_mac() -> Result<Mac, PluginError> {
    let mut mac: [u8; 6] = random()?;
    mac[0] = mac[0] & !1 | 2;
    Ok(Mac(mac))
}

fn random<const N: usize>() -> Result<[u8; N], PluginError> {
    let mut bytes = [0; N];
    let read = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    read.map(|()| bytes).map_err(|error| failed(format!("read /dev/urandom: {error}")))
}
