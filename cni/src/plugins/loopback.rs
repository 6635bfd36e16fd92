//! `loopback`: sets lo up and reports its addresses.

use std::net::IpAddr;

use sys::netlink::route::{Request, RouteSocket};

use super::netns::Namespace;
use super::skel::{Invocation, Plugin};
use crate::error::{PluginError, code};
use crate::result::{Cidr, CniResult, Interface, IpConfig};

pub(super) const PLUGIN: Plugin = Plugin { name: "loopback", add, del, check, status: |_| Ok(()) };

/// The interface, whatever `CNI_IFNAME` says.
const LO: &str = "lo";

fn add(call: &Invocation) -> Result<CniResult, PluginError> {
    let previous = call.previous_result()?;
    let addresses = Namespace::require(call.netns.as_ref())?.enter(|| {
        let mut route = RouteSocket::open()?;
        let link = lo(&mut route)?;
        route.run(&[Request::SetUp { link, up: true }])?;
        Ok(route.addresses(link)?)
    })?;
    if let Some(foreign) = addresses.iter().find(|address| !address.address.is_loopback()) {
        let message = format!("loopback interface found with non-loopback address {:?}", foreign.address);
        return Err(PluginError::new(code::INTERNAL, message));
    }
    // In a chain, what came before is passed on unchanged.
    if let Some(previous) = previous {
        return Ok(previous);
    }
    let of_family = |v4: bool| {
        let found = addresses.iter().find(move |address| address.address.is_ipv4() == v4);
        found.map(|found| Cidr { address: found.address, prefix: found.prefix })
    };
    let ips = [of_family(true), of_family(false)].into_iter().flatten();
    let mac = "00:00:00:00:00:00".to_owned();
    let interface = Interface { name: LO.to_owned(), mac, sandbox: call.netns.clone(), ..Interface::default() };
    Ok(CniResult {
        interfaces: vec![interface],
        ips: ips.map(|address| IpConfig { interface: Some(0), address, gateway: None::<IpAddr> }).collect(),
        ..CniResult::default()
    })
}

fn del(call: &Invocation) -> Result<(), PluginError> {
    // lo ends with its namespace; setting it down in one that goes away is work for nothing.
    if call.netns.is_empty() || call.netns_ends {
        return Ok(());
    }
    let Some(namespace) = Namespace::open(call.netns.as_ref())? else { return Ok(()) };
    namespace.enter(|| {
        let mut route = RouteSocket::open()?;
        let link = lo(&mut route)?;
        Ok(route.run(&[Request::SetUp { link, up: false }])?)
    })
}

fn check(call: &Invocation) -> Result<(), PluginError> {
    let link = Namespace::require(call.netns.as_ref())?.enter(|| Ok(RouteSocket::open()?.link(LO)?))?;
    match link {
        Some(link) if link.up => Ok(()),
        _ => Err(PluginError::new(code::INTERNAL, "loopback interface is down")),
    }
}

fn lo(route: &mut RouteSocket) -> Result<u32, PluginError> {
    let missing = || PluginError::new(code::INTERNAL, "the network namespace has no lo");
    Ok(route.link(LO)?.ok_or_else(missing)?.index)
}
