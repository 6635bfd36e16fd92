//! What rtnetlink tells: links, addresses, routes, with the few attributes that Orlop looks at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::Attributes;
use super::super::message::text_of;
use super::request::Mac;

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index in this namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The driver's kind, `bridge` or `veth`; empty for hardware and for lo.
    pub kind: String,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether its operational state (RFC 2863) is up: it can carry packets.
    pub operational: bool,
    /// The bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// For a veth, the index of its peer, which may live in another namespace.
    pub peer: Option<u32>,
    /// How many users asked for promiscuous mode.
    pub promiscuity: u32,
}

/// An address of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The link's index.
    pub link: u32,
    /// The address itself.
    pub address: IpAddr,
    /// The length of its network part, bits.
    pub prefix: u8,
    /// Whether it is of global scope and was set by somebody, not made by the kernel or leased for a time.
    pub is_static: bool,
}

/// A route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// The destination; `None` is the default route.
    pub destination: Option<IpAddr>,
    /// The length of the destination's network part, bits.
    pub prefix: u8,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The index of the link that it leaves through.
    pub link: Option<u32>,
    /// The routing table.
    pub table: u32,
}

impl Link {
    /// Reads `struct ifinfomsg` and the attributes after it.
    pub(super) fn parse(payload: &[u8]) -> Option<Link> {
        const HEADER: usize = 16;
        const IF_OPER_UP: u8 = 6;
        const INFO_KIND: u16 = 1;
        let mut link = Link { index: u32_of(payload.get(4..8)?)?, ..Link::default() };
        link.up = u32_of(payload.get(8..12)?)? & libc::IFF_UP as u32 != 0;
        for (kind, value) in Attributes::new(payload.get(HEADER..)?) {
            match kind {
                libc::IFLA_IFNAME => link.name = text_of(value)?.to_owned(),
                libc::IFLA_ADDRESS => link.mac = value.try_into().ok().map(Mac),
                libc::IFLA_MTU => link.mtu = u32_of(value)?,
                libc::IFLA_MASTER => link.master = u32_of(value),
                libc::IFLA_LINK => link.peer = u32_of(value),
                libc::IFLA_PROMISCUITY => link.promiscuity = u32_of(value)?,
                libc::IFLA_OPERSTATE => link.operational = value == [IF_OPER_UP],
                libc::IFLA_LINKINFO => {
                    let driver = Attributes::new(value).find(|(kind, _)| *kind == INFO_KIND);
                    link.kind = driver.and_then(|(_, name)| text_of(name)).unwrap_or_default().to_owned();
                }
                _ => {}
            }
        }
        Some(link)
    }
}

impl Address {
    /// Reads `struct ifaddrmsg` and the attributes after it.
    pub(super) fn parse(payload: &[u8]) -> Option<Address> {
        const HEADER: usize = 8;
        let (prefix, flags, scope) = (*payload.get(1)?, *payload.get(2)?, *payload.get(3)?);
        let is_static = scope == libc::RT_SCOPE_UNIVERSE && u32::from(flags) & libc::IFA_F_PERMANENT != 0;
        let link = u32_of(payload.get(4..8)?)?;
        let find = |wanted: u16| {
            let mut attributes = Attributes::new(payload.get(HEADER..)?);
            attributes.find(|(kind, _)| *kind == wanted).and_then(|(_, value)| ip_of(value))
        };
        // IFA_ADDRESS is the far end on a point-to-point link; IFA_LOCAL, where present, is always this one.
        let address = find(libc::IFA_LOCAL).or_else(|| find(libc::IFA_ADDRESS))?;
        Some(Address { link, address, prefix, is_static })
    }
}

impl Route {
    /// Reads `struct rtmsg` and the attributes after it.
    pub(super) fn parse(payload: &[u8]) -> Option<Route> {
        const HEADER: usize = 12;
        let mut route = Route { prefix: *payload.get(1)?, table: u32::from(*payload.get(4)?), ..Route::default() };
        for (kind, value) in Attributes::new(payload.get(HEADER..)?) {
            match kind {
                libc::RTA_DST => route.destination = ip_of(value),
                libc::RTA_GATEWAY => route.gateway = ip_of(value),
                libc::RTA_OIF => route.link = u32_of(value),
                libc::RTA_TABLE => route.table = u32_of(value)?,
                _ => {}
            }
        }
        Some(route)
    }
}

fn u32_of(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

fn ip_of(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?))),
        16 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?))),
        _ => None,
    }
}
