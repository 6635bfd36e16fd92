//! CHECK: everything that ADD reported is still so.

use sys::netlink::route::{Address, Link, Route, RouteSocket};

use super::super::ipam::Ipam;
use super::super::netns::Namespace;
use super::super::skel::Invocation;
use super::config::Config;
use super::failed;
use crate::error::PluginError;
use crate::result::{CniResult, Interface};

/// What CHECK sees in the pod's namespace.
struct Seen {
    link: Link,
    addresses: Vec<Address>,
    routes: Vec<Route>,
}

pub(super) fn check(call: &Invocation) -> Result<(), PluginError> {
    let config = Config::parse(call)?;
    let namespace = Namespace::require(call.netns.as_ref())?;
    if let Some(kind) = &config.ipam {
        Ipam::new(kind, call)?.check()?;
    }
    let result = call.previous_result()?.ok_or_else(|| failed("Required prevResult missing"))?;
    let mut host = RouteSocket::open()?;
    let bridge = check_bridge(&mut host, &config, &result)?;
    let in_pod = result.interfaces.iter().find(|link| link.name == call.ifname && link.sandbox == call.netns);
    let in_pod =
        in_pod.ok_or_else(|| failed(format!("prevResult has no interface {} in {}", call.ifname, call.netns)))?;
    let seen = namespace.enter(|| look(&call.ifname))?;
    check_mac(in_pod, &seen.link)?;
    check_port(&mut host, &bridge, &seen.link, &result)?;
    check_addresses(&result, &seen)?;
    check_routes(&result, &seen)
}

fn check_bridge(host: &mut RouteSocket, config: &Config, result: &CniResult) -> Result<Link, PluginError> {
    let name = &config.bridge;
    let link = host.link(name)?.ok_or_else(|| failed(format!("Interface name {name} not found")))?;
    if link.kind != "bridge" {
        return Err(failed(format!("Interface {name} does not have link type of bridge")));
    }
    match result.interfaces.iter().find(|known| known.name == *name && known.sandbox.is_empty()) {
        Some(known) => check_mac(known, &link)?,
        None => return Err(failed(format!("prevResult has no bridge {name}"))),
    }
    Ok(link)
}

fn check_mac(expected: &Interface, found: &Link) -> Result<(), PluginError> {
    let mac = found.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if expected.mac.is_empty() || expected.mac.eq_ignore_ascii_case(&mac) {
        return Ok(());
    }
    Err(failed(format!("Interface {} Mac {mac} doesn't match {} of prevResult", found.name, expected.mac)))
}

/// The peer of the pod's interface is one of prevResult's and a port of the bridge.
fn check_port(host: &mut RouteSocket, bridge: &Link, in_pod: &Link, result: &CniResult) -> Result<(), PluginError> {
    let missing = || failed(format!("CNI veth created for bridge {} was not found", bridge.name));
    let port = in_pod.peer.map(|peer| host.link_by_index(peer)).transpose()?.flatten().ok_or_else(missing)?;
    let known = result.interfaces.iter().any(|known| known.name == port.name && known.sandbox.is_empty());
    let connected = port.peer == Some(in_pod.index) && port.master == Some(bridge.index);
    if known && connected { Ok(()) } else { Err(missing()) }
}

fn look(ifname: &str) -> Result<Seen, PluginError> {
    let mut pod = RouteSocket::open()?;
    let link = pod.link(ifname)?.ok_or_else(|| failed(format!("Interface name {ifname} not found")))?;
    if link.kind != "veth" {
        return Err(failed(format!("Error: Container interface {ifname} not of type veth")));
    }
    let (addresses, routes) = (pod.addresses(link.index)?, pod.routes()?);
    Ok(Seen { link, addresses, routes })
}

fn check_addresses(result: &CniResult, seen: &Seen) -> Result<(), PluginError> {
    let present = |wanted: &crate::result::Cidr| {
        seen.addresses.iter().any(|found| found.address == wanted.address && found.prefix == wanted.prefix)
    };
    match result.ips.iter().find(|ip| !present(&ip.address)) {
        None => Ok(()),
        Some(ip) => Err(failed(format!("Failed to match addr {} on interface {}", ip.address, seen.link.name))),
    }
}

fn check_routes(result: &CniResult, seen: &Seen) -> Result<(), PluginError> {
    let present = |wanted: &crate::result::Route| {
        // The kernel leaves the destination of a default route out.
        let destination = (wanted.dst.prefix > 0).then(|| wanted.dst.network());
        seen.routes.iter().any(|found| {
            let same = found.destination == destination && found.prefix == wanted.dst.prefix;
            same && (wanted.gw.is_none() || found.gateway == wanted.gw)
        })
    };
    // Routes of other tables are not looked at.
    match result
        .routes
        .iter()
        .filter(|route| route.table.is_none_or(|table| table == 254))
        .find(|route| !present(route))
    {
        None => Ok(()),
        Some(route) => Err(failed(format!("Expected Route {} not found in routing table", route.dst))),
    }
}
