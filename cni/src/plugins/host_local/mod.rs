//! `host-local`: addresses out of the configured ranges, remembered as one file per address.
//!
//! [`config`] validates what is asked, [`range`] walks the ranges, [`store`] is the directory that this plugin
//! shares, byte for byte, with the reference's: either can give back what the other took.

mod config;
mod range;
mod store;

use std::net::Ipv4Addr;

use super::skel::{Invocation, Plugin};
use crate::error::{PluginError, code};
use crate::result::{Cidr, CniResult, IpConfig};
use config::Allocation;
use range::{Range, RangeSet};
use store::{Locked, Store};

pub(super) const PLUGIN: Plugin = Plugin { name: "host-local", add, del, check, status };

fn failed(message: impl Into<String>) -> PluginError {
    PluginError::new(code::INTERNAL, message)
}

fn add(call: &Invocation) -> Result<CniResult, PluginError> {
    let wanted = Allocation::parse(call)?;
    let dns = wanted.resolv_conf.as_deref().map(config::read_resolv_conf).transpose()?.unwrap_or_default();
    let store = Store::open(&wanted.directory)?.lock()?;
    let mut taken = Vec::new();
    if let Err(error) = take_one_of_each(&store, &wanted, call, &mut taken) {
        taken.iter().try_for_each(|taken| store.give_back(taken.0))?;
        return Err(error);
    }
    let ips = taken.into_iter().map(|(address, range)| ip_config(address, range)).collect();
    Ok(CniResult { ips, routes: wanted.routes, dns, ..CniResult::default() })
}

/// One address of every range set.
fn take_one_of_each<'a>(
    store: &Locked,
    wanted: &'a Allocation,
    call: &Invocation,
    taken: &mut Vec<(Ipv4Addr, &'a Range)>,
) -> Result<(), PluginError> {
    let held = store.held_by(&call.container_id, &call.ifname)?;
    let mut requested = wanted.requested.clone();
    for (index, set) in wanted.ranges.iter().enumerate() {
        let position = requested.iter().position(|address| set.range_of(*address).is_some());
        let address = match position.map(|position| requested.remove(position)) {
            Some(address) => take_requested(store, set, index, address, call),
            None => {
                if let Some(address) = held.iter().find(|address| set.range_of(**address).is_some()) {
                    let id = &call.container_id;
                    let message = format!("{address} has been allocated to {id}, duplicate allocation is not allowed");
                    return Err(failed(message).during(range_words(index)));
                }
                take_next(store, set, index, call)
            }
        };
        let address = address.map_err(|error| error.during(range_words(index)))?;
        taken.extend(set.range_of(address).map(|range| (address, range)));
    }
    if requested.is_empty() {
        return Ok(());
    }
    let left: Vec<_> = requested.iter().map(Ipv4Addr::to_string).collect();
    Err(failed(format!("failed to allocate all requested IPs: {}", left.join(" "))))
}

fn range_words(index: usize) -> String {
    format!("failed to allocate for range {index}")
}

fn take_requested(
    store: &Locked,
    set: &RangeSet,
    index: usize,
    address: Ipv4Addr,
    call: &Invocation,
) -> Result<Ipv4Addr, PluginError> {
    if set.range_of(address).is_some_and(|range| range.gateway == address) {
        return Err(failed(format!("requested ip {address} is subnet's gateway")));
    }
    if store.reserve(address, index, &call.container_id, &call.ifname)? {
        return Ok(address);
    }
    Err(failed(format!("requested IP address {address} is not available in range set {set}")))
}

fn take_next(store: &Locked, set: &RangeSet, index: usize, call: &Invocation) -> Result<Ipv4Addr, PluginError> {
    for address in set.round_robin(store.last_reserved(index)) {
        if store.reserve(address, index, &call.container_id, &call.ifname)? {
            return Ok(address);
        }
    }
    let usage = store.usage(&call.network)?;
    Err(failed(format!("no IP addresses available in range set: {set}: {usage}")))
}

fn ip_config(address: Ipv4Addr, range: &Range) -> IpConfig {
    IpConfig {
        interface: None,
        address: Cidr { address: address.into(), prefix: range.subnet_prefix },
        gateway: Some(range.gateway.into()),
    }
}

fn del(call: &Invocation) -> Result<(), PluginError> {
    // A DEL must succeed for whatever an ADD may have left, so only the directory is read from the configuration.
    let directory = config::directory(call)?;
    match Store::open_existing(&directory)? {
        None => Ok(()),
        Some(store) => store.lock()?.release(&call.container_id, &call.ifname),
    }
}

fn check(call: &Invocation) -> Result<(), PluginError> {
    let missing = || failed(format!("host-local: Failed to find address added by container {}", call.container_id));
    let store = Store::open_existing(&config::directory(call)?)?.ok_or_else(missing)?.lock()?;
    if store.held_by(&call.container_id, &call.ifname)?.is_empty() { Err(missing()) } else { Ok(()) }
}

fn status(call: &Invocation) -> Result<(), PluginError> {
    let wanted = Allocation::parse(call)?;
    let Some(store) = Store::open_existing(&wanted.directory)? else { return Ok(()) };
    let store = store.lock()?;
    for (index, set) in wanted.ranges.iter().enumerate() {
        if !set.round_robin(store.last_reserved(index)).any(|address| store.is_free(address)) {
            let message = format!("no IP addresses available in range set: {set}: {}", store.usage(&call.network)?);
            return Err(PluginError::new(code::NOT_AVAILABLE, message));
        }
    }
    Ok(())
}
