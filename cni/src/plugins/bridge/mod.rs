//! `bridge`: a veth pair per pod with one end on a Linux bridge, and with IPAM's addresses on the other.
//!
//! ADD asks IPAM first, since that may fail for lack of addresses, and then makes: bridge, gateway, pair, the pod's
//! side, masquerading, port. What was made is undone if a later step fails.
//!
//! DEL gives back addresses only after the pod's interface can't use them any more. Deleting a veth by netlink waits
//! 17–25 ms for RCU; where our own client says that the namespace ends right after ([`Invocation::netns_ends`]), the
//! interface loses its addresses, which takes no time, and the kernel removes the pair together with the namespace.

mod check;
mod config;
mod link;
mod pod;

use std::net::{IpAddr, Ipv4Addr};

use sys::netlink::route::{Request, RouteSocket};

use super::ipam::Ipam;
use super::nat::{self, PodAddress};
use super::netns::Namespace;
use super::skel::{Invocation, Plugin};
use crate::error::{PluginError, code};
use crate::result::{Cidr, CniResult, Interface, Route};
use config::Config;

pub(super) const PLUGIN: Plugin = Plugin { name: "bridge", add, del, check: check::check, status };

/// The position of the pod's interface in the result, after the bridge and the host's end of the pair.
const POD_INTERFACE: usize = 2;

fn failed(message: impl Into<String>) -> PluginError {
    PluginError::new(code::INTERNAL, message)
}

fn add(call: &Invocation) -> Result<CniResult, PluginError> {
    let config = Config::parse(call)?;
    let namespace = Namespace::require(call.netns.as_ref())?;
    let ipam = config.ipam.as_deref().map(|kind| Ipam::new(kind, call)).transpose()?;
    let addresses = ipam.as_ref().map(Ipam::add).transpose()?;
    let made = addresses.map_or_else(|| Ok(CniResult::default()), |result| with_gateway(result, &config));
    let made = made.and_then(|result| attach(call, &config, &namespace, result));
    if made.is_err()
        && let Some(ipam) = ipam
    {
        // The failure that is told is the first one.
        let _ = ipam.del();
    }
    made
}

/// What IPAM gave, with the gateway and default route that the configuration adds.
fn with_gateway(mut result: CniResult, config: &Config) -> Result<CniResult, PluginError> {
    if result.ips.is_empty() {
        return Err(failed("IPAM plugin returned missing IP config"));
    }
    for ip in &mut result.ips {
        if ip.address.address.is_ipv6() {
            let what = format!("the IPv6 address {} from IPAM", ip.address);
            return Err(super::conf::refused(PLUGIN.name, &what));
        }
        ip.interface = Some(POD_INTERFACE);
        if config.is_gateway && ip.gateway.is_none() {
            ip.gateway = link::first_address(ip.address).map(IpAddr::V4);
        }
    }
    let default = Cidr { address: Ipv4Addr::UNSPECIFIED.into(), prefix: 0 };
    let has_default = result.routes.iter().any(|route| route.dst == default && route.gw.is_some());
    if config.is_default_gateway && !has_default {
        let gw = result.ips.first().and_then(|ip| ip.gateway);
        result.routes.push(Route {
            dst: default,
            gw,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        });
    }
    Ok(result)
}

/// Makes all links and rules; on failure the pair is deleted again.
fn attach(
    call: &Invocation,
    config: &Config,
    namespace: &Namespace,
    mut result: CniResult,
) -> Result<CniResult, PluginError> {
    let mut host = RouteSocket::open()?;
    let bridge = link::ensure_bridge(&mut host, config)?;
    if config.is_gateway {
        for ip in &result.ips {
            let Some(gateway) = ip.gateway else { continue };
            let gateway = Cidr { address: gateway, prefix: ip.address.prefix };
            link::ensure_gateway(&mut host, &bridge, gateway, config)
                .map_err(|error| error.during("failed to set bridge addr"))?;
        }
    }
    let pair = link::add_pair(&mut host, &bridge, namespace, &call.ifname, config)?;
    let connected = connect(call, config, namespace, &mut host, &pair, &result);
    if let Err(error) = connected {
        let _ = host.run(&[Request::DeleteLink { link: pair.host.index }]);
        return Err(error);
    }
    let on_host = |name: &str, mac| Interface { name: name.into(), mac, ..Interface::default() };
    let mac = |link: &sys::netlink::route::Link| link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    let in_pod = on_host(&call.ifname, pair.pod_mac.to_string());
    result.interfaces = vec![
        on_host(&bridge.name, mac(&bridge)),
        on_host(&pair.host.name, mac(&pair.host)),
        Interface { sandbox: call.netns.clone(), ..in_pod },
    ];
    if !config.dns.is_empty() {
        result.dns = config.dns.clone();
    }
    Ok(result)
}

/// The pod's side, the rules, the port.
fn connect(
    call: &Invocation,
    config: &Config,
    namespace: &Namespace,
    host: &mut RouteSocket,
    pair: &link::Pair,
    result: &CniResult,
) -> Result<(), PluginError> {
    namespace.enter(|| pod::configure(&call.ifname, result))?;
    for pod in result.ips.iter().filter_map(|ip| PodAddress::from_cidr(ip.address)) {
        match config.masquerade {
            true => nat::add_masquerade(pod)?,
            // It may have been on when the network was first used.
            false => nat::remove_masquerade(pod)?,
        }
    }
    link::finish_port(host, &pair.host, config)
}

fn del(call: &Invocation) -> Result<(), PluginError> {
    let namespace = if call.netns.is_empty() { None } else { Namespace::open(call.netns.as_ref())? };
    if let Some(namespace) = namespace {
        namespace.enter(|| match call.netns_ends {
            true => pod::remove_addresses(&call.ifname),
            false => pod::delete_link(&call.ifname),
        })?;
    }
    config::ipam_of_del(call).map_or(Ok(()), |kind| Ipam::new(kind, call)?.del())
}

fn status(call: &Invocation) -> Result<(), PluginError> {
    let config = Config::parse(call)?;
    let not_available = |error: PluginError| PluginError { code: code::NOT_AVAILABLE, ..error };
    let link = RouteSocket::open().and_then(|mut host| host.link(&config.bridge)).map_err(PluginError::from);
    if let Some(link) = link.map_err(not_available)?.filter(|link| link.kind != "bridge") {
        return Err(not_available(failed(format!("{:?} already exists but is not a bridge", link.name))));
    }
    if config.masquerade {
        nat::check_available()?;
    }
    config.ipam.map_or(Ok(()), |kind| Ipam::new(&kind, call)?.status())
}
