//! The one nf_tables table that our plugins share, `ip orlop_cni`.
//!
//! ```text
//! chain prerouting-guard   { filter, prerouting, raw: drop 127.0.0.0/8 that comes from outside }
//! chain prerouting, output { nat, dstnat + 1: to a local address → jump hostports }
//! chain hostports          { dnat to ip daddr . protocol . port map @hostip-ports
//!                            dnat to            protocol . port map @hostports }
//! chain postrouting        { nat, srcnat: connections that hostports rewrote → ip daddr vmap @hostport-pods
//!                            ip saddr vmap @masquerade-subnets }
//! chain hairpin-<subnet>    { from the pod's own subnet or this host's 127.0.0.0/8 → masquerade }
//! chain masquerade-<subnet> { out of the subnet and no multicast → masquerade }
//! ```
//!
//! A new connection costs the same few lookups with one pod or a thousand, and a rule is never rewritten under
//! traffic: what changes is elements of maps. Those of host ports belong to an attachment, which is their comment.
//! Masquerading belongs to a network: one element per subnet that stays as the bridge and its address do, since
//! deleting one per pod would make each DEL wait for RCU (the kernel finishes deletions before it closes a netlink
//! socket, 10 ms), and what comes out of the subnet is the network's alone.
//!
//! Adding is one batch of elements; only if the kernel does not know a chain or map, the batch is sent again with the
//! whole layout in front, which is idempotent.
//!
//! Removal looks for the owner, not for the address: the DEL of a pod may come after its address was given to
//! another, whose elements must stay. The look and the deletion are one step by the ruleset's generation.

use std::net::Ipv4Addr;

use sys::Errno;
use sys::nft::expr::{Comparison, Expression as E, ROUTE_LOCAL, Register, STATUS_DNAT};
use sys::nft::set::{COMMENT_MAX, KeyType, MapsTo, field_ipv4, field_port, field_protocol};
use sys::nft::{Base, Batch, ChainKind, Data, Element, Family, Hook, NewSet, NftSocket, Table, Verdict};

use super::skel::Invocation;
use crate::error::{PluginError, code};
use crate::result::Cidr;

const TABLE: Table = Table { family: Family::Ip, name: "orlop_cni" };

/// Address and port of the pod, by protocol and port of the host.
const HOSTPORTS: &str = "hostports";
/// The same for a port of one host address only.
const HOSTIP_PORTS: &str = "hostip-ports";
/// The chain that masquerades what must come back through the host, by the pod's address.
const HOSTPORT_PODS: &str = "hostport-pods";
/// The chain that masquerades what leaves the network, by the subnet it comes from.
const MASQUERADE: &str = "masquerade-subnets";

/// The chain that makes route_localnet harmless.
const GUARD: &str = "prerouting-guard";

/// How often a removal looks again because someone else changed the ruleset in between.
const ATTEMPTS: u32 = 100;

/// The owner of elements: container and interface, which no two attachments share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner(String);

impl Owner {
    /// The owner of an attachment's elements.
    pub(super) fn of(call: &Invocation) -> Result<Owner, PluginError> {
        let owner = format!("{}/{}", call.container_id, call.ifname);
        if owner.len() <= COMMENT_MAX {
            return Ok(Owner(owner));
        }
        // A cut comment could be another attachment's too.
        let message =
            format!("container ID has {} bytes, too long for a comment of nf_tables", call.container_id.len());
        Err(PluginError::new(code::INVALID_ENVIRONMENT, message))
    }
}

/// A pod's address and the subnet it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PodAddress {
    /// The address.
    pub(super) address: Ipv4Addr,
    /// The length of the subnet's prefix, bits.
    pub(super) prefix: u8,
}

impl PodAddress {
    fn subnet(self) -> Ipv4Addr {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        (self.address.to_bits() & mask).into()
    }

    fn as_subnet(self) -> PodAddress {
        PodAddress { address: self.subnet(), ..self }
    }

    fn overlaps(self, other: PodAddress) -> bool {
        let prefix = self.prefix.min(other.prefix);
        PodAddress { prefix, ..self }.subnet() == PodAddress { prefix, ..other }.subnet()
    }

    /// A chain per subnet: its rules depend on nothing else.
    fn chain(self, purpose: &str) -> String {
        format!("{purpose}-{}/{}", self.subnet(), self.prefix)
    }

    /// The IPv4 form of a result's address.
    pub(super) fn from_cidr(cidr: Cidr) -> Option<PodAddress> {
        match cidr.address {
            std::net::IpAddr::V4(address) => Some(PodAddress { address, prefix: cidr.prefix }),
            std::net::IpAddr::V6(_) => None,
        }
    }
}

/// A port of the host that leads to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HostPort {
    /// The host's address; `None` is all of them.
    pub(super) host_address: Option<Ipv4Addr>,
    /// The IP protocol's number.
    pub(super) protocol: u8,
    /// The port of the host.
    pub(super) host_port: u16,
    /// The port of the pod.
    pub(super) pod_port: u16,
}

/// An element and the map it belongs to.
type Placed = (&'static str, Element);

/// Makes what pods send out of their subnet come from the host's address. Looks first: a batch that the kernel refuses
/// waits for RCU, and for all pods but a network's first there is nothing to do.
pub(super) fn add_masquerade(pod: PodAddress) -> Result<(), PluginError> {
    let mut socket = NftSocket::open()?;
    for _ in 0..ATTEMPTS {
        let generation = socket.generation()?;
        let present = masqueraded_subnets(&mut socket)?;
        if present.contains(&pod.as_subnet()) {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.at_generation(generation);
        // Intervals can't overlap. One that does is this network's from before its subnet was changed.
        for other in present.into_iter().filter(|other| other.overlaps(pod)) {
            batch.delete_elements(TABLE, MASQUERADE, &subnet_interval(other));
        }
        add_layout(&mut batch, pod);
        batch.add_elements(TABLE, MASQUERADE, &subnet_interval(pod));
        match socket.commit(&batch) {
            Err(error) if is_stale(&error) => {}
            other => return Ok(other?),
        }
    }
    Err(too_busy())
}

/// Ends that, for a network whose configuration has changed.
pub(super) fn remove_masquerade(pod: PodAddress) -> Result<(), PluginError> {
    let mut socket = NftSocket::open()?;
    if !masqueraded_subnets(&mut socket)?.contains(&pod.as_subnet()) {
        return Ok(());
    }
    let mut batch = Batch::default();
    batch.delete_elements(TABLE, MASQUERADE, &subnet_interval(pod));
    match socket.commit(&batch) {
        // Another ADD was faster.
        Err(error) if !error.is(Errno::ENOENT) => Err(error.into()),
        _ => Ok(()),
    }
}

/// The subnets that are masqueraded, read from the names of the chains that their intervals lead to.
fn masqueraded_subnets(socket: &mut NftSocket) -> sys::Result<Vec<PodAddress>> {
    let subnet = |element: Element| match element.data {
        Some(Data::Verdict(Verdict::Goto(chain))) => {
            chain.strip_prefix("masquerade-")?.parse::<Cidr>().ok().and_then(PodAddress::from_cidr)
        }
        _ => None,
    };
    Ok(socket.elements(TABLE, MASQUERADE)?.into_iter().filter_map(subnet).collect())
}

/// A subnet as its first address and the first one beyond, if there is one.
fn subnet_interval(pod: PodAddress) -> Vec<Element> {
    let key = |address: Ipv4Addr| field_ipv4(address).to_vec();
    let goto = Data::Verdict(Verdict::Goto(pod.chain("masquerade")));
    let mut interval = vec![Element { key: key(pod.subnet()), data: Some(goto), ..Element::default() }];
    let size = 1_u32.checked_shl(32 - u32::from(pod.prefix)).unwrap_or(0);
    if let Some(beyond) = pod.subnet().to_bits().checked_add(size).filter(|beyond| *beyond > 0 && size > 0) {
        interval.push(Element { key: key(beyond.into()), interval_end: true, ..Element::default() });
    }
    interval
}

/// Makes ports of the host lead to a pod. With `snat`, also from the host's own 127.0.0.1 and from the pod's subnet.
pub(super) fn add_host_ports(
    owner: &Owner,
    pod: PodAddress,
    ports: &[HostPort],
    snat: bool,
) -> Result<(), PluginError> {
    let mut elements: Vec<Placed> = ports.iter().map(|port| port.element(owner, pod)).collect();
    if snat {
        elements.push((HOSTPORT_PODS, hairpin_element(owner, pod)));
    }
    add(pod, elements)
}

/// Removes everything of `owner` from the maps of host ports.
pub(super) fn remove_host_ports(owner: &Owner) -> Result<(), PluginError> {
    remove(owner)
}

/// Makes sure that the guard is there. That elements could be added says only that the maps are: someone may have
/// emptied the chains.
pub(super) fn ensure_guard(pod: PodAddress) -> Result<(), PluginError> {
    let mut socket = NftSocket::open()?;
    if socket.rule_count(TABLE, GUARD)? == guard_rules().len() {
        return Ok(());
    }
    let mut batch = Batch::default();
    add_layout(&mut batch, pod);
    Ok(socket.commit(&batch)?)
}

/// Fails unless every host port leads to the pod.
pub(super) fn check_host_ports(owner: &Owner, pod: PodAddress, ports: &[HostPort]) -> Result<(), PluginError> {
    let mut socket = NftSocket::open()?;
    let mut present = Vec::new();
    for map in [HOSTPORTS, HOSTIP_PORTS] {
        present.extend(socket.elements(TABLE, map)?.into_iter().map(|element| (map, element)));
    }
    match ports.iter().find(|port| !present.contains(&port.element(owner, pod))) {
        None => Ok(()),
        Some(port) => {
            let message = format!("host port {} does not lead to {}:{}", port.host_port, pod.address, port.pod_port);
            Err(PluginError::new(code::INTERNAL, message))
        }
    }
}

/// Fails unless the ruleset can be read.
pub(super) fn check_available() -> Result<(), PluginError> {
    let generation = NftSocket::open().and_then(|mut socket| socket.generation());
    generation.map(drop).map_err(|error| PluginError::new(code::NOT_AVAILABLE, format!("nf_tables: {error}")))
}

impl HostPort {
    fn element(&self, owner: &Owner, pod: PodAddress) -> Placed {
        let port = [field_protocol(self.protocol), field_port(self.host_port)].concat();
        let (map, key) = match self.host_address {
            None => (HOSTPORTS, port),
            Some(address) => (HOSTIP_PORTS, [&field_ipv4(address), &port[..]].concat()),
        };
        let target = [field_ipv4(pod.address), field_port(self.pod_port)].concat();
        let comment = Some(owner.0.clone());
        (map, Element { key, data: Some(Data::Value(target)), comment, ..Element::default() })
    }
}

fn hairpin_element(owner: &Owner, pod: PodAddress) -> Element {
    let goto = Data::Verdict(Verdict::Goto(pod.chain("hairpin")));
    let (key, comment) = (field_ipv4(pod.address).to_vec(), Some(owner.0.clone()));
    Element { key, data: Some(goto), comment, ..Element::default() }
}

/// Adds elements, over those of an earlier owner: a mapping that leaked must not block the pod that now has the port
/// or address.
fn add(pod: PodAddress, elements: Vec<Placed>) -> Result<(), PluginError> {
    let mut socket = NftSocket::open()?;
    let mut with_layout = false;
    for _ in 0..ATTEMPTS {
        let mut batch = Batch::default();
        if with_layout {
            add_layout(&mut batch, pod);
        }
        for (map, element) in &elements {
            batch.add_elements(TABLE, map, std::slice::from_ref(element));
        }
        match socket.commit(&batch) {
            Err(error) if error.is(Errno::ENOENT) && !with_layout => {
                with_layout = true;
                continue;
            }
            Err(error) if is_taken(&error) => {}
            other => return Ok(other?),
        }
        match replace(&mut socket, &elements) {
            Err(error) if is_stale(&error) => {}
            other => return Ok(other?),
        }
    }
    Err(too_busy())
}

/// The key has an element: EEXIST with the same data or in a set, EBUSY with other data in older kernels.
fn is_taken(error: &sys::Error) -> bool {
    error.is(Errno::EEXIST) || error.is(Errno::EBUSY)
}

/// Puts elements in the place of those that have their keys.
fn replace(socket: &mut NftSocket, elements: &[Placed]) -> sys::Result<()> {
    let mut batch = Batch::default();
    batch.at_generation(socket.generation()?);
    for (map, element) in elements {
        if socket.elements(TABLE, map)?.iter().any(|present| present.key == element.key) {
            batch.delete_elements(TABLE, map, std::slice::from_ref(element));
        }
        batch.add_elements(TABLE, map, std::slice::from_ref(element));
    }
    socket.commit(&batch)
}

/// The generation is no longer the one that was read, or an element went in between.
fn is_stale(error: &sys::Error) -> bool {
    error.is(Errno::ERESTART) || error.is(Errno::ENOENT)
}

/// Removes the elements of `owner`.
fn remove(owner: &Owner) -> Result<(), PluginError> {
    let mut socket = NftSocket::open()?;
    for _ in 0..ATTEMPTS {
        let mut batch = Batch::default();
        batch.at_generation(socket.generation()?);
        for map in [HOSTPORTS, HOSTIP_PORTS, HOSTPORT_PODS] {
            for element in socket.elements(TABLE, map)? {
                if element.comment.as_deref() == Some(&owner.0) {
                    batch.delete_elements(TABLE, map, &[element]);
                }
            }
        }
        match socket.commit(&batch) {
            Err(error) if is_stale(&error) => {}
            other => return Ok(other?),
        }
    }
    Err(too_busy())
}

fn too_busy() -> PluginError {
    let message = format!("the nf_tables ruleset changed during each of {ATTEMPTS} attempts to change it");
    PluginError::new(code::TRY_AGAIN, message)
}

/// The whole layout; what exists stays, rules are written anew.
fn add_layout(batch: &mut Batch, pod: PodAddress) {
    use KeyType::{Ipv4, Port, Protocol};
    /// `raw`: before connection tracking.
    const RAW: i32 = -300;
    /// One after `dstnat`, so that rules of Services see a connection first (CVE-2019-9946).
    const AFTER_DSTNAT: i32 = -99;
    const SRCNAT: i32 = 100;
    let target = MapsTo::Value(&[Ipv4, Port]);
    batch.add_table(TABLE);
    let mut map = |name, key, maps_to, intervals| {
        batch.add_set(TABLE, &NewSet { name, key, maps_to, intervals });
    };
    map(HOSTPORTS, &[Protocol, Port], target, false);
    map(HOSTIP_PORTS, &[Ipv4, Protocol, Port], target, false);
    map(HOSTPORT_PODS, &[Ipv4], MapsTo::Verdict, false);
    map(MASQUERADE, &[Ipv4], MapsTo::Verdict, true);
    for (purpose, rules) in [("hairpin", hairpin_rules(pod)), ("masquerade", masquerade_rules(pod))] {
        write_chain(batch, &pod.chain(purpose), None, &rules);
    }
    write_chain(batch, "hostports", None, &hostport_rules());
    let nat = |hook, priority| Some(Base { kind: ChainKind::Nat, hook, priority });
    let guard = Base { kind: ChainKind::Filter, hook: Hook::Prerouting, priority: RAW };
    write_chain(batch, GUARD, Some(guard), &guard_rules());
    write_chain(batch, "prerouting", nat(Hook::Prerouting, AFTER_DSTNAT), &[to_hostports()]);
    write_chain(batch, "output", nat(Hook::Output, AFTER_DSTNAT), &[to_hostports()]);
    write_chain(batch, "postrouting", nat(Hook::Postrouting, SRCNAT), &postrouting_rules());
}

fn write_chain(batch: &mut Batch, name: &str, base: Option<Base>, rules: &[Vec<E>]) {
    batch.add_chain(TABLE, name, base);
    batch.flush_chain(TABLE, name);
    for rule in rules {
        batch.add_rule(TABLE, name, rule, None);
    }
}

const R0: Register = Register(0);
const R1: Register = Register(1);
const R2: Register = Register(2);
const LOOPBACK: (Ipv4Addr, u8) = (Ipv4Addr::new(127, 0, 0, 0), 8);
const MULTICAST: (Ipv4Addr, u8) = (Ipv4Addr::new(224, 0, 0, 0), 4);

/// route_localnet, which host ports at 127.0.0.1 need, makes the kernel accept 127.0.0.0/8 from the pods' side. Before
/// any address is rewritten nothing from outside may have such an address: as destination it would reach services
/// that listen on loopback only (CVE-2020-8558), as source it would pass for a local client.
fn guard_rules() -> [Vec<E>; 2] {
    let mut lo = [0; 16];
    lo[..2].copy_from_slice(b"lo");
    let drop = |address: E| {
        let from_outside = E::Compare { register: Register(4), with: Comparison::NotEqual, value: lo.to_vec() };
        let mut rule = vec![E::InputInterface { into: Register(4) }, from_outside, address];
        rule.extend(E::in_network(R0, Comparison::Equal, LOOPBACK.0, LOOPBACK.1));
        rule.push(E::Verdict(Verdict::Drop));
        rule
    };
    [drop(E::destination_address(R0)), drop(E::source_address(R0))]
}

/// Only connections to an address of this host are host ports: traffic that passes through is somebody else's
/// (CVE-2019-9946, CVE-2025-67499).
fn to_hostports() -> Vec<E> {
    vec![
        E::DestinationType { into: R0 },
        E::Compare { register: R0, with: Comparison::Equal, value: ROUTE_LOCAL.to_vec() },
        E::Verdict(Verdict::Jump("hostports".into())),
    ]
}

/// A lookup that finds nothing ends its rule, and the next one is tried.
fn hostport_rules() -> [Vec<E>; 2] {
    let dnat = E::DestinationNat { address: R0, port: R1 };
    [
        vec![
            E::destination_address(R0),
            E::Protocol { into: R1 },
            E::destination_port(R2),
            E::Lookup { set: HOSTIP_PORTS, key: R0, into: Some(R0) },
            dnat.clone(),
        ],
        vec![
            E::Protocol { into: R0 },
            E::destination_port(R1),
            E::Lookup { set: HOSTPORTS, key: R0, into: Some(R0) },
            dnat,
        ],
    ]
}

fn postrouting_rules() -> [Vec<E>; 2] {
    [
        vec![
            E::ConnectionStatus { into: R0 },
            E::Mask { register: R0, mask: STATUS_DNAT },
            E::Compare { register: R0, with: Comparison::NotEqual, value: vec![0; 4] },
            E::destination_address(R0),
            E::Lookup { set: HOSTPORT_PODS, key: R0, into: None },
        ],
        vec![E::source_address(R0), E::Lookup { set: MASQUERADE, key: R0, into: None }],
    ]
}

/// Without a masquerade, the answer to a client in the pod's own subnet (the pod itself included) would go there
/// straight, from an address that the client never called; one to 127.0.0.1 would never leave the pod.
fn hairpin_rules(pod: PodAddress) -> Vec<Vec<E>> {
    let from = |network: Ipv4Addr, prefix: u8| {
        let mut rule = vec![E::source_address(R0)];
        rule.extend(E::in_network(R0, Comparison::Equal, network, prefix));
        rule.push(E::Masquerade);
        rule
    };
    vec![from(pod.subnet(), pod.prefix), from(LOOPBACK.0, LOOPBACK.1)]
}

fn masquerade_rules(pod: PodAddress) -> Vec<Vec<E>> {
    let mut rule = vec![E::destination_address(R0)];
    rule.extend(E::in_network(R0, Comparison::NotEqual, pod.subnet(), pod.prefix));
    rule.push(E::destination_address(R0));
    rule.extend(E::in_network(R0, Comparison::NotEqual, MULTICAST.0, MULTICAST.1));
    rule.push(E::Masquerade);
    vec![rule]
}
