//! What can be asked of rtnetlink: changes ([`Request`]) and questions, in words for errors and on the wire.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};

use super::super::Builder;

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// A change of the network namespace.
#[derive(Debug, Clone)]
pub enum Request<'a> {
    /// Make a bridge and set it up; EEXIST if the name is taken.
    AddBridge {
        /// The bridge's name.
        name: &'a str,
        /// Its own hardware address: without one it takes the lowest of its ports', which changes as they come and go.
        mac: Mac,
        /// Its MTU, bytes; `None` leaves the kernel's choice.
        mtu: Option<u32>,
    },
    /// Make a veth pair, one end here, one in another namespace; EEXIST if a name is taken.
    AddVeth(NewVeth<'a>),
    /// Set a link up or down.
    SetUp {
        /// The link.
        link: u32,
        /// Up, else down.
        up: bool,
    },
    /// Move a link into another namespace, where it is down and has no address; EEXIST if the name is taken there.
    MoveLink {
        /// The link.
        link: u32,
        /// The network namespace.
        namespace: BorrowedFd<'a>,
        /// Its name there.
        name: &'a str,
    },
    /// Let a bridge send packets back out of the port that they came in through.
    SetHairpin {
        /// The port.
        link: u32,
        /// On, else off.
        on: bool,
    },
    /// Delete a link; of a veth pair both ends go.
    DeleteLink {
        /// The link.
        link: u32,
    },
    /// Give a link an address; EEXIST if it has it.
    AddAddress(NewAddress),
    /// Take an address from a link; EADDRNOTAVAIL if it does not have it.
    DeleteAddress(NewAddress),
    /// Add a route; EEXIST if the same is there.
    AddRoute(NewRoute),
}

/// A veth pair to make.
#[derive(Debug, Clone)]
pub struct NewVeth<'a> {
    /// The name of this end.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Mac,
    /// The bridge that it becomes a port of.
    pub master: Option<u32>,
    /// The MTU of both ends, bytes; `None` leaves the kernel's choice.
    pub mtu: Option<u32>,
    /// The other end.
    pub peer: Peer<'a>,
}

/// The far end of a veth pair. It is made down: its owner gives it addresses first, so that going up announces them.
#[derive(Debug, Clone)]
pub struct Peer<'a> {
    /// Its name in its namespace.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Mac,
    /// Its network namespace.
    pub namespace: BorrowedFd<'a>,
}

/// An address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewAddress {
    /// The link's index.
    pub link: u32,
    /// The address.
    pub address: IpAddr,
    /// The length of its network part, bits.
    pub prefix: u8,
}

/// A route to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewRoute {
    /// The destination; 0.0.0.0/0 is the default route.
    pub destination: IpAddr,
    /// The length of its network part, bits.
    pub prefix: u8,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The link that it leaves through.
    pub link: u32,
    /// The table; 254 is main.
    pub table: u32,
    /// The scope of rtnetlink(7); 0 is global, 253 is link.
    pub scope: u8,
    /// The metric; smaller wins.
    pub priority: Option<u32>,
    /// The MTU along the path, bytes.
    pub mtu: Option<u32>,
    /// The TCP maximal segment size to advertise, bytes.
    pub advmss: Option<u32>,
}

/// A question.
#[derive(Debug)]
pub(super) enum Question<'a> {
    LinkByName(&'a str),
    LinkByIndex(u32),
    Links,
    Addresses(u32),
    Routes,
    RouteTo(IpAddr),
}

impl Request<'_> {
    /// Adds the request to a batch.
    pub(super) fn write(&self, builder: &mut Builder, sequence: u32) {
        let ((kind, body), flags) = match self {
            Request::AddBridge { name, mac, mtu } => {
                ((libc::RTM_NEWLINK, body(&bridge(name, *mac, *mtu))), NLM_F_CREATE | NLM_F_EXCL)
            }
            Request::AddVeth(veth) => ((libc::RTM_NEWLINK, body(&veth.message())), NLM_F_CREATE | NLM_F_EXCL),
            Request::SetUp { link, up } => ((libc::RTM_SETLINK, body(&set_up(*link, *up))), 0),
            Request::MoveLink { link, namespace, name } => {
                ((libc::RTM_SETLINK, body(&move_link(*link, *namespace, name))), 0)
            }
            Request::SetHairpin { link, on } => ((libc::RTM_NEWLINK, body(&set_hairpin(*link, *on))), 0),
            Request::DeleteLink { link } => ((libc::RTM_DELLINK, body(&link_message(*link))), 0),
            Request::AddAddress(address) => ((libc::RTM_NEWADDR, body(&address.message())), NLM_F_CREATE | NLM_F_EXCL),
            Request::DeleteAddress(address) => ((libc::RTM_DELADDR, body(&address.message())), 0),
            Request::AddRoute(route) => ((libc::RTM_NEWROUTE, body(&route.message())), NLM_F_CREATE | NLM_F_EXCL),
        };
        builder.message(kind, NLM_F_REQUEST | NLM_F_ACK | flags, sequence);
        builder.raw(&body);
    }
}

impl Question<'_> {
    pub(super) fn is_dump(&self) -> bool {
        matches!(self, Question::Links | Question::Addresses(_) | Question::Routes)
    }

    pub(super) fn write(&self, builder: &mut Builder, sequence: u32) {
        let (kind, body) = match self {
            Question::LinkByName(name) => {
                let mut message = link_message(0);
                message.attributes.push(LinkAttribute::IfName((*name).to_owned()));
                message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
                (libc::RTM_GETLINK, body(&message))
            }
            Question::LinkByIndex(link) => {
                let mut message = link_message(*link);
                message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
                (libc::RTM_GETLINK, body(&message))
            }
            Question::Links => (libc::RTM_GETLINK, body(&link_message(0))),
            Question::Addresses(link) => {
                let mut message = AddressMessage::default();
                message.header.index = *link;
                (libc::RTM_GETADDR, body(&message))
            }
            Question::Routes => {
                let mut message = RouteMessage::default();
                message.header.address_family = AddressFamily::Inet;
                (libc::RTM_GETROUTE, body(&message))
            }
            Question::RouteTo(destination) => {
                let mut message = RouteMessage::default();
                (message.header.address_family, message.header.destination_prefix_length) = family(destination);
                message.attributes.push(RouteAttribute::Destination(RouteAddress::from(*destination)));
                (libc::RTM_GETROUTE, body(&message))
            }
        };
        let flags = if self.is_dump() { NLM_F_DUMP } else { 0 };
        builder.message(kind, NLM_F_REQUEST | flags, sequence);
        builder.raw(&body);
    }
}

/// A message's bytes. The crate's enum of all rtnetlink messages is not used: with it comes the code of them all.
fn body(message: &impl Emitable) -> Vec<u8> {
    let mut body = vec![0; message.buffer_len()];
    message.emit(&mut body);
    body
}

fn link_message(link: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = link;
    message
}

fn set_up(link: u32, up: bool) -> LinkMessage {
    let mut message = link_message(link);
    message.header.change_mask = LinkFlags::Up;
    message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    message
}

fn move_link(link: u32, namespace: BorrowedFd<'_>, name: &str) -> LinkMessage {
    let mut message = link_message(link);
    message.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn bridge(name: &str, mac: Mac, mtu: Option<u32>) -> LinkMessage {
    let mut message = set_up(0, true);
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    message
}

fn port_data(hairpin: bool) -> [LinkInfo; 2] {
    [
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(hairpin)])),
    ]
}

fn set_hairpin(link: u32, on: bool) -> LinkMessage {
    let mut message = link_message(link);
    message.attributes.push(LinkAttribute::LinkInfo(port_data(on).to_vec()));
    message
}

impl NewVeth<'_> {
    /// One message makes the pair, moves the far end, enslaves and sets up the near one. Port attributes are not
    /// taken at creation: hairpin is a request of its own.
    fn message(&self) -> LinkMessage {
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(self.peer.name.to_owned()));
        peer.attributes.push(LinkAttribute::Address(self.peer.mac.0.to_vec()));
        peer.attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        peer.attributes.push(LinkAttribute::NetNsFd(self.peer.namespace.as_raw_fd()));
        let mut message = set_up(0, true);
        message.attributes.push(LinkAttribute::IfName(self.name.to_owned()));
        message.attributes.push(LinkAttribute::Address(self.mac.0.to_vec()));
        message.attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        message.attributes.extend(self.master.map(LinkAttribute::Controller));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        message
    }
}

fn family(address: &IpAddr) -> (AddressFamily, u8) {
    match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    }
}

impl NewAddress {
    fn message(&self) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = family(&self.address).0;
        message.header.prefix_len = self.prefix;
        message.header.scope = AddressScope::Universe;
        message.header.index = self.link;
        message.attributes.push(AddressAttribute::Address(self.address));
        message.attributes.push(AddressAttribute::Local(self.address));
        if let IpAddr::V4(address) = self.address
            && self.prefix < 31
        {
            let host_bits = u32::MAX >> self.prefix;
            message.attributes.push(AddressAttribute::Broadcast((address.to_bits() | host_bits).into()));
        }
        message
    }
}

impl NewRoute {
    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family(&self.destination).0;
        message.header.destination_prefix_length = self.prefix;
        message.header.table = u8::try_from(self.table).unwrap_or(0);
        message.header.protocol = RouteProtocol::Boot;
        message.header.scope = RouteScope::from(self.scope);
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Table(self.table));
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(self.destination)));
        message.attributes.extend(self.gateway.map(|hop| RouteAttribute::Gateway(RouteAddress::from(hop))));
        message.attributes.push(RouteAttribute::Oif(self.link));
        message.attributes.extend(self.priority.map(RouteAttribute::Priority));
        let metrics: Vec<_> =
            self.mtu.map(RouteMetric::Mtu).into_iter().chain(self.advmss.map(RouteMetric::Advmss)).collect();
        if !metrics.is_empty() {
            message.attributes.push(RouteAttribute::Metrics(metrics));
        }
        message
    }
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::AddBridge { name, .. } => write!(out, "add bridge {name}"),
            Request::AddVeth(NewVeth { name, peer, .. }) => {
                write!(out, "add veth {name} with peer {} in the pod's namespace", peer.name)
            }
            Request::SetUp { link, up } => write!(out, "set link {link} {}", if *up { "up" } else { "down" }),
            Request::MoveLink { link, name, .. } => write!(out, "move link {link} to another namespace as {name}"),
            Request::SetHairpin { link, on } => {
                write!(out, "set hairpin of port {link} {}", if *on { "on" } else { "off" })
            }
            Request::DeleteLink { link } => write!(out, "delete link {link}"),
            Request::AddAddress(NewAddress { link, address, prefix }) => {
                write!(out, "add address {address}/{prefix} to link {link}")
            }
            Request::DeleteAddress(NewAddress { link, address, prefix }) => {
                write!(out, "delete address {address}/{prefix} from link {link}")
            }
            Request::AddRoute(NewRoute { destination, prefix, gateway, link, .. }) => {
                write!(out, "add route {destination}/{prefix}")?;
                if let Some(gateway) = gateway {
                    write!(out, " via {gateway}")?;
                }
                write!(out, " through link {link}")
            }
        }
    }
}

impl fmt::Display for Question<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Question::LinkByName(name) => write!(out, "look up link {name}"),
            Question::LinkByIndex(link) => write!(out, "look up link {link}"),
            Question::Links => write!(out, "list links"),
            Question::Addresses(link) => write!(out, "list addresses of link {link}"),
            Question::Routes => write!(out, "list routes"),
            Question::RouteTo(destination) => write!(out, "look up the route to {destination}"),
        }
    }
}
