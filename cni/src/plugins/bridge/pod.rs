//! The pod's side: addresses and routes of its interface, inside its namespace.

use std::net::IpAddr;

use sys::Errno;
use sys::netlink::route::{NewAddress, NewRoute, Request, RouteSocket};

use super::super::sysctl;
use super::failed;
use crate::error::PluginError;
use crate::result::{CniResult, IpConfig, Route};

const TABLE_MAIN: u32 = 254;
const SCOPE_GLOBAL: u8 = 0;
const SCOPE_LINK: u8 = 253;

/// Configures the interface and sets it up. Runs inside the pod's namespace.
pub(super) fn configure(ifname: &str, result: &CniResult) -> Result<(), PluginError> {
    let mut pod = RouteSocket::open()?;
    let link = pod.link(ifname)?.ok_or_else(|| failed(format!("failed to retrieve link {ifname}")))?.index;
    // Going up announces the addresses, so that neighbours forget who had them before.
    sysctl::set(&["ipv4", "conf", ifname, "arp_notify"], "1")?;
    let addresses = result
        .ips
        .iter()
        .map(|ip| Request::AddAddress(NewAddress { link, address: ip.address.address, prefix: ip.address.prefix }));
    let mut requests: Vec<_> = addresses.collect();
    requests.push(Request::SetUp { link, up: true });
    pod.run(&requests)?;
    for route in &result.routes {
        match pod.run(&[Request::AddRoute(new_route(link, route, &result.ips))]) {
            // Of two routes to one destination the first wins, as in the reference.
            Err(error) if !error.is(Errno::EEXIST) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// A route without a next hop goes to the gateway of its family's first address.
fn new_route(link: u32, route: &Route, ips: &[IpConfig]) -> NewRoute {
    let same_family = |gateway: &IpAddr| gateway.is_ipv4() == route.dst.address.is_ipv4();
    let gateway = route.gw.or_else(|| ips.iter().filter_map(|ip| ip.gateway).find(same_family));
    let default_scope = if gateway.is_some() { SCOPE_GLOBAL } else { SCOPE_LINK };
    NewRoute {
        destination: route.dst.network(),
        prefix: route.dst.prefix,
        gateway,
        link,
        table: route.table.unwrap_or(TABLE_MAIN),
        scope: route.scope.unwrap_or(default_scope),
        priority: route.priority.filter(|priority| *priority > 0),
        mtu: route.mtu.filter(|mtu| *mtu > 0),
        advmss: route.advmss.filter(|advmss| *advmss > 0),
    }
}

/// Takes all addresses from the interface, if it is there. Runs inside the pod's namespace.
pub(super) fn remove_addresses(ifname: &str) -> Result<(), PluginError> {
    let mut pod = RouteSocket::open()?;
    let Some(link) = pod.link(ifname)? else { return Ok(()) };
    let addresses = pod.addresses(link.index)?.into_iter().filter(|address| address.address.is_ipv4());
    let requests: Vec<_> = addresses
        .map(|address| {
            let (address, prefix) = (address.address, address.prefix);
            Request::DeleteAddress(NewAddress { link: link.index, address, prefix })
        })
        .collect();
    match pod.run(&requests) {
        Err(error) if !error.is(Errno::EADDRNOTAVAIL) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Deletes the interface, and with it its peer, if it is there. Runs inside the pod's namespace.
pub(super) fn delete_link(ifname: &str) -> Result<(), PluginError> {
    let mut pod = RouteSocket::open()?;
    let Some(link) = pod.link(ifname)? else { return Ok(()) };
    match pod.run(&[Request::DeleteLink { link: link.index }]) {
        Err(error) if !error.is(Errno::ENODEV) => Err(error.into()),
        _ => Ok(()),
    }
}
