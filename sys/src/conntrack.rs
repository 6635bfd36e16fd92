//! Connection tracking: forgetting flows (`linux/netfilter/nfnetlink_conntrack.h`).
//!
//! A UDP "connection" has no end. While its entry lives, every packet of it goes where the first one went, and rules
//! that were changed since are not asked.

use std::net::Ipv4Addr;

use nix::errno::Errno;

use crate::Result;
use crate::netlink::{Answer, Attributes, Builder, Protocol, Socket, refused};

/// `NFNL_SUBSYS_CTNETLINK`, the upper byte of a message's type.
const SUBSYSTEM: u16 = 1;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_ID: u16 = 12;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
/// The bits of `CTA_FILTER_ORIG_FLAGS` for protocol and destination port.
const FILTER_PROTOCOL_AND_PORT: u32 = 1 << 3 | 1 << 5;

/// `struct nfgenmsg` for IPv4.
const IPV4: [u8; 4] = [libc::AF_INET as u8, 0, 0, 0];

/// An entry that is to be forgotten: its attributes that name it.
struct Flow {
    tuple: Vec<u8>,
    id: Vec<u8>,
}

/// Forgets the UDP flows that were sent to `port` of one of `addresses` of the calling thread's namespace, wherever
/// they are rewritten to. Returns how many there were.
pub fn forget_udp_to(port: u16, addresses: &[Ipv4Addr]) -> Result<usize> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let flows = udp_flows_to(&mut socket, port, addresses)?;
    for flow in &flows {
        let sequence = socket.next_sequence();
        let mut builder = Builder::default();
        builder.message(DELETE, (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16, sequence);
        builder.raw(&IPV4);
        builder.nest(CTA_TUPLE_ORIG, |tuple| tuple.raw(&flow.tuple));
        // Without the id, a new flow of the same client could be hit.
        builder.attribute(CTA_ID, &flow.id);
        socket.send(&builder.finish())?;
        match acknowledgement(&mut socket, sequence)? {
            None | Some(Errno::ENOENT) => {}
            Some(errno) => return Err(refused(format_args!("conntrack, forget a flow to UDP port {port}"), errno, "")),
        }
    }
    Ok(flows.len())
}

fn udp_flows_to(socket: &mut Socket, port: u16, addresses: &[Ipv4Addr]) -> Result<Vec<Flow>> {
    let sequence = socket.next_sequence();
    let mut builder = Builder::default();
    builder.message(GET, (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16, sequence);
    builder.raw(&IPV4);
    // The kernel sends only what matches (5.8); an older one sends all, and the look at each flow decides.
    builder.nest(CTA_TUPLE_ORIG, |tuple| {
        tuple.nest(CTA_TUPLE_PROTO, |protocol| {
            protocol.attribute(CTA_PROTO_NUM, &[libc::IPPROTO_UDP as u8]);
            protocol.attribute(CTA_PROTO_DST_PORT, &port.to_be_bytes());
        });
    });
    builder.nest(CTA_FILTER, |filter| {
        filter.attribute(CTA_FILTER_ORIG_FLAGS, &FILTER_PROTOCOL_AND_PORT.to_ne_bytes());
    });
    socket.send(&builder.finish())?;
    let mut found = Vec::new();
    loop {
        for answer in socket.receive()?.filter(|answer| answer.sequence() == sequence) {
            let errno = match answer {
                Answer::Message { payload, .. } => {
                    found.extend(payload.get(IPV4.len()..).and_then(|entry| matching(entry, port, addresses)));
                    continue;
                }
                Answer::Acknowledged { errno, .. } | Answer::Done { errno, .. } => errno,
            };
            return match errno {
                None => Ok(found),
                Some(errno) => Err(refused(format_args!("conntrack, list flows to UDP port {port}"), errno, "")),
            };
        }
    }
}

/// The entry, if it is a UDP flow to the port of one of the addresses.
fn matching(entry: &[u8], port: u16, addresses: &[Ipv4Addr]) -> Option<Flow> {
    let tuple = find(entry, CTA_TUPLE_ORIG)?;
    let protocol = find(tuple, CTA_TUPLE_PROTO)?;
    let destination: [u8; 4] = find(find(tuple, CTA_TUPLE_IP)?, CTA_IP_V4_DST)?.try_into().ok()?;
    let is_udp = find(protocol, CTA_PROTO_NUM)? == [libc::IPPROTO_UDP as u8];
    let to_port = find(protocol, CTA_PROTO_DST_PORT)? == port.to_be_bytes();
    let to_address = addresses.contains(&Ipv4Addr::from(destination));
    (is_udp && to_port && to_address)
        .then(|| Flow { tuple: tuple.to_vec(), id: find(entry, CTA_ID).unwrap_or_default().to_vec() })
}

fn find(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    Attributes::new(attributes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn acknowledgement(socket: &mut Socket, sequence: u32) -> Result<Option<Errno>> {
    loop {
        for answer in socket.receive()?.filter(|answer| answer.sequence() == sequence) {
            if let Answer::Acknowledged { errno, .. } = answer {
                return Ok(errno);
            }
        }
    }
}
