//! The instructions of the nf_tables virtual machine that Orlop's rules use.
//!
//! An instruction reads and writes registers. There are sixteen of four bytes, and a longer value fills consecutive
//! ones, so that the key of a concatenated set is written field by field into neighbours.

use std::net::Ipv4Addr;

use crate::netlink::Builder;

use super::{Verdict, attribute};

/// A register of four bytes, 0 to 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(pub u8);

/// What the fields of a packet are counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The IP header.
    Network = 1,
    /// The TCP, UDP or SCTP header.
    Transport = 2,
}

/// How a comparison must turn out for the rule to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Equal = 0,
    /// Not equal.
    NotEqual = 1,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Load bytes of the packet.
    Payload {
        /// From which header.
        header: Header,
        /// Offset in it, bytes.
        offset: u32,
        /// How many bytes.
        length: u32,
        /// Into this register.
        into: Register,
    },
    /// Load the transport protocol's number (`meta l4proto`).
    Protocol {
        /// Into this register.
        into: Register,
    },
    /// Load the name of the interface that the packet came in through, 16 bytes (`meta iifname`).
    InputInterface {
        /// Into this and the next three registers.
        into: Register,
    },
    /// Load the type of the route to the packet's destination address (`fib daddr type`): 2 is local.
    DestinationType {
        /// Into this register.
        into: Register,
    },
    /// Load the state bits of the connection (`ct status`).
    ConnectionStatus {
        /// Into this register.
        into: Register,
    },
    /// Clear all bits outside a mask of four bytes.
    Mask {
        /// In this register.
        register: Register,
        /// The mask, in the order of the packet's bytes.
        mask: [u8; 4],
    },
    /// End the rule unless a register compares like this.
    Compare {
        /// The register.
        register: Register,
        /// The comparison.
        with: Comparison,
        /// The value.
        value: Vec<u8>,
    },
    /// End the rule unless a map has the key; else load what it maps to, or take its verdict.
    Lookup {
        /// The set or map.
        set: &'static str,
        /// The key's first register.
        key: Register,
        /// Where the value goes; `None` takes the verdict of a verdict map.
        into: Option<Register>,
    },
    /// Rewrite destination address and port from registers.
    DestinationNat {
        /// The register of the address.
        address: Register,
        /// The register of the port.
        port: Register,
    },
    /// Rewrite the source address to that of the interface the packet leaves through.
    Masquerade,
    /// Decide.
    Verdict(Verdict),
}

/// The address type of a route to this host itself (`RTN_LOCAL`), in the host's byte order.
pub const ROUTE_LOCAL: [u8; 4] = (libc::RTN_LOCAL as u32).to_ne_bytes();

/// `IPS_DST_NAT` of `ct status`, in the host's byte order: the connection's destination was rewritten.
pub const STATUS_DNAT: [u8; 4] = (1u32 << 5).to_ne_bytes();

impl Expression {
    /// `ip saddr` or `ip daddr` into a register.
    pub fn source_address(into: Register) -> Expression {
        Expression::Payload { header: Header::Network, offset: 12, length: 4, into }
    }

    /// `ip daddr` into a register.
    pub fn destination_address(into: Register) -> Expression {
        Expression::Payload { header: Header::Network, offset: 16, length: 4, into }
    }

    /// The destination port of TCP, UDP and SCTP alike into a register.
    pub fn destination_port(into: Register) -> Expression {
        Expression::Payload { header: Header::Transport, offset: 2, length: 2, into }
    }

    /// Goes on only if the address in `register` is, or is not, in `network`.
    pub fn in_network(register: Register, with: Comparison, network: Ipv4Addr, prefix: u8) -> [Expression; 2] {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        [
            Expression::Mask { register, mask: mask.to_be_bytes() },
            Expression::Compare { register, with, value: (network.to_bits() & mask).to_be_bytes().to_vec() },
        ]
    }

    /// Writes `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
    pub(super) fn write(&self, element: &mut Builder) {
        element.text(attribute::NFTA_EXPR_NAME, self.name());
        element.nest(attribute::NFTA_EXPR_DATA, |data| self.write_data(data));
    }

    fn name(&self) -> &'static str {
        match self {
            Expression::Payload { .. } => "payload",
            Expression::Protocol { .. } | Expression::InputInterface { .. } => "meta",
            Expression::DestinationType { .. } => "fib",
            Expression::ConnectionStatus { .. } => "ct",
            Expression::Mask { .. } => "bitwise",
            Expression::Compare { .. } => "cmp",
            Expression::Lookup { .. } => "lookup",
            Expression::DestinationNat { .. } => "nat",
            Expression::Masquerade => "masq",
            Expression::Verdict(_) => "immediate",
        }
    }

    fn write_data(&self, data: &mut Builder) {
        const FIB_RESULT_ADDRESS_TYPE: u32 = 3;
        const NAT_DESTINATION: u32 = 1;
        match self {
            Expression::Payload { header, offset, length, into } => {
                data.be32(attribute::NFTA_PAYLOAD_DREG, into.number());
                data.be32(attribute::NFTA_PAYLOAD_BASE, *header as u32);
                data.be32(attribute::NFTA_PAYLOAD_OFFSET, *offset);
                data.be32(attribute::NFTA_PAYLOAD_LEN, *length);
            }
            Expression::Protocol { into } => meta(data, libc::NFT_META_L4PROTO, *into),
            Expression::InputInterface { into } => meta(data, libc::NFT_META_IIFNAME, *into),
            Expression::DestinationType { into } => {
                data.be32(attribute::NFTA_FIB_DREG, into.number());
                data.be32(attribute::NFTA_FIB_RESULT, FIB_RESULT_ADDRESS_TYPE);
                data.be32(attribute::NFTA_FIB_FLAGS, attribute::NFTA_FIB_F_DADDR);
            }
            Expression::ConnectionStatus { into } => {
                data.be32(attribute::NFTA_CT_DREG, into.number());
                data.be32(attribute::NFTA_CT_KEY, libc::NFT_CT_STATUS as u32);
            }
            Expression::Mask { register, mask } => {
                data.be32(attribute::NFTA_BITWISE_SREG, register.number());
                data.be32(attribute::NFTA_BITWISE_DREG, register.number());
                data.be32(attribute::NFTA_BITWISE_LEN, 4);
                value(data, attribute::NFTA_BITWISE_MASK, mask);
                value(data, attribute::NFTA_BITWISE_XOR, &[0; 4]);
            }
            Expression::Compare { register, with, value: bytes } => {
                data.be32(attribute::NFTA_CMP_SREG, register.number());
                data.be32(attribute::NFTA_CMP_OP, *with as u32);
                value(data, attribute::NFTA_CMP_DATA, bytes);
            }
            Expression::Lookup { set, key, into } => {
                data.text(attribute::NFTA_LOOKUP_SET, set);
                data.be32(attribute::NFTA_LOOKUP_SREG, key.number());
                // Register 0 is the verdict.
                data.be32(attribute::NFTA_LOOKUP_DREG, into.map_or(0, Register::number));
            }
            Expression::DestinationNat { address, port } => {
                data.be32(attribute::NFTA_NAT_TYPE, NAT_DESTINATION);
                data.be32(attribute::NFTA_NAT_FAMILY, libc::NFPROTO_IPV4 as u32);
                data.be32(attribute::NFTA_NAT_REG_ADDR_MIN, address.number());
                data.be32(attribute::NFTA_NAT_REG_PROTO_MIN, port.number());
            }
            Expression::Masquerade => {}
            Expression::Verdict(verdict) => {
                data.be32(attribute::NFTA_IMMEDIATE_DREG, 0);
                data.nest(attribute::NFTA_IMMEDIATE_DATA, |nested| verdict.write(nested));
            }
        }
    }
}

impl Register {
    /// `NFT_REG32_00` and on.
    fn number(self) -> u32 {
        libc::NFT_REG32_00 as u32 + u32::from(self.0)
    }
}

fn meta(data: &mut Builder, key: libc::c_int, into: Register) {
    data.be32(attribute::NFTA_META_KEY, key as u32);
    data.be32(attribute::NFTA_META_DREG, into.number());
}

fn value(data: &mut Builder, kind: u16, bytes: &[u8]) {
    data.nest(kind, |nested| nested.attribute(attribute::NFTA_DATA_VALUE, bytes));
}
