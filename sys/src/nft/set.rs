//! Sets, maps and their elements.
//!
//! A key or value is the concatenation of fields, each padded to four bytes, as the registers of the virtual machine
//! hold them. What a field means is only for `nft` to print: the kernel compares bytes.

use std::net::Ipv4Addr;

use super::attribute;
use crate::netlink::{Attributes, Builder, text_of};

/// What a field of a key or value is; the numbers are those of `nft`'s datatypes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum KeyType {
    /// `ipv4_addr`.
    Ipv4 = 7,
    /// `inet_proto`.
    Protocol = 12,
    /// `inet_service`: a port in network byte order.
    Port = 13,
}

impl KeyType {
    /// The width of a concatenation, bytes.
    fn width(fields: &[KeyType]) -> u32 {
        match fields {
            // A lone field is not padded.
            [KeyType::Protocol] => 1,
            [KeyType::Port] => 2,
            _ => 4 * fields.len() as u32,
        }
    }

    /// `nft` packs the types of a concatenation into one number, six bits each.
    fn number(fields: &[KeyType]) -> u32 {
        fields.iter().fold(0, |number, field| number << 6 | *field as u32)
    }
}

/// The field of an address.
pub fn field_ipv4(address: Ipv4Addr) -> [u8; 4] {
    address.octets()
}

/// The field of a transport protocol's number.
pub fn field_protocol(protocol: u8) -> [u8; 4] {
    [protocol, 0, 0, 0]
}

/// The field of a port.
pub fn field_port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// What the elements of a new set map to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapsTo<'a> {
    /// Nothing: a set.
    Nothing,
    /// A verdict: a verdict map.
    Verdict,
    /// A value.
    Value(&'a [KeyType]),
}

/// A set or map to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewSet<'a> {
    /// Its name in its table.
    pub name: &'a str,
    /// The fields of its keys.
    pub key: &'a [KeyType],
    /// What they map to.
    pub maps_to: MapsTo<'a>,
    /// Whether its elements are intervals: each a start and, see [`Element::interval_end`], the first key beyond it.
    pub intervals: bool,
}

impl NewSet<'_> {
    pub(super) fn write(&self, table: &str, id: u32, body: &mut Builder) {
        const NFT_DATA_VERDICT: u32 = 0xffff_ff00;
        body.text(attribute::NFTA_SET_TABLE, table);
        body.text(attribute::NFTA_SET_NAME, self.name);
        body.be32(attribute::NFTA_SET_KEY_TYPE, KeyType::number(self.key));
        body.be32(attribute::NFTA_SET_KEY_LEN, KeyType::width(self.key));
        body.be32(attribute::NFTA_SET_ID, id);
        let (flags, data) = match self.maps_to {
            MapsTo::Nothing => (0, None),
            MapsTo::Verdict => (attribute::NFT_SET_MAP, Some((NFT_DATA_VERDICT, 16))),
            MapsTo::Value(fields) => (attribute::NFT_SET_MAP, Some((KeyType::number(fields), KeyType::width(fields)))),
        };
        let intervals = if self.intervals { attribute::NFT_SET_INTERVAL } else { 0 };
        body.be32(attribute::NFTA_SET_FLAGS, flags | intervals);
        if let Some((kind, width)) = data {
            body.be32(attribute::NFTA_SET_DATA_TYPE, kind);
            body.be32(attribute::NFTA_SET_DATA_LEN, width);
        }
    }
}

/// What a rule or a verdict map decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Let the packet pass this hook.
    Accept,
    /// Discard it.
    Drop,
    /// Go back to the chain that jumped here.
    Return,
    /// Run another chain, then come back.
    Jump(String),
    /// Run another chain instead of the rest of this one.
    Goto(String),
}

impl Verdict {
    pub(super) fn write(&self, data: &mut Builder) {
        let (code, chain) = match self {
            Verdict::Accept => (1, None),
            Verdict::Drop => (0, None),
            Verdict::Jump(chain) => (libc::NFT_JUMP, Some(chain)),
            Verdict::Goto(chain) => (libc::NFT_GOTO, Some(chain)),
            Verdict::Return => (libc::NFT_RETURN, None),
        };
        data.nest(attribute::NFTA_DATA_VERDICT, |verdict| {
            verdict.be32(attribute::NFTA_VERDICT_CODE, code as u32);
            if let Some(chain) = chain {
                verdict.text(attribute::NFTA_VERDICT_CHAIN, chain);
            }
        });
    }

    fn parse(verdict: &[u8]) -> Option<Verdict> {
        let find = |wanted: u16| {
            let mut attributes = Attributes::new(verdict);
            attributes.find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
        };
        let code = u32::from_be_bytes(find(attribute::NFTA_VERDICT_CODE)?.try_into().ok()?) as libc::c_int;
        let chain = || find(attribute::NFTA_VERDICT_CHAIN).and_then(text_of).map(str::to_owned);
        Some(match code {
            1 => Verdict::Accept,
            0 => Verdict::Drop,
            libc::NFT_RETURN => Verdict::Return,
            libc::NFT_JUMP => Verdict::Jump(chain()?),
            libc::NFT_GOTO => Verdict::Goto(chain()?),
            _ => return None,
        })
    }
}

/// What an element's key maps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A value, as its fields.
    Value(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

/// An element of a set or map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// The fields of the key.
    pub key: Vec<u8>,
    /// What it maps to, in a map.
    pub data: Option<Data>,
    /// A text for people, at most [`COMMENT_MAX`] bytes.
    pub comment: Option<String>,
    /// Set for the key at which, in a set of intervals, the interval that began before has ended.
    pub interval_end: bool,
}

/// `nft` prints no longer comment.
pub const COMMENT_MAX: usize = 127;

impl Element {
    /// Writes elements as one list.
    pub(super) fn write_list(elements: &[Element], table: &str, set: &str, body: &mut Builder) {
        body.text(attribute::NFTA_SET_ELEM_LIST_TABLE, table);
        body.text(attribute::NFTA_SET_ELEM_LIST_SET, set);
        body.nest(attribute::NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
            for element in elements {
                list.nest(attribute::NFTA_LIST_ELEM, |nested| element.write(nested));
            }
        });
    }

    fn write(&self, element: &mut Builder) {
        element.nest(attribute::NFTA_SET_ELEM_KEY, |key| key.attribute(attribute::NFTA_DATA_VALUE, &self.key));
        if self.interval_end {
            element.be32(attribute::NFTA_SET_ELEM_FLAGS, attribute::NFT_SET_ELEM_INTERVAL_END);
        }
        match &self.data {
            None => {}
            Some(Data::Value(value)) => element.nest(attribute::NFTA_SET_ELEM_DATA, |data| {
                data.attribute(attribute::NFTA_DATA_VALUE, value);
            }),
            Some(Data::Verdict(verdict)) => {
                element.nest(attribute::NFTA_SET_ELEM_DATA, |data| verdict.write(data));
            }
        }
        if let Some(comment) = &self.comment {
            element.attribute(attribute::NFTA_SET_ELEM_USERDATA, &comment_userdata(comment));
        }
    }

    /// The elements of one message of a dump; what has no key is passed over.
    pub(super) fn parse_list(attributes: &[u8]) -> Vec<Element> {
        let list = Attributes::new(attributes).filter(|(kind, _)| *kind == attribute::NFTA_SET_ELEM_LIST_ELEMENTS);
        list.flat_map(|(_, elements)| Attributes::new(elements))
            .filter_map(|(_, element)| Element::parse(element))
            .collect()
    }

    fn parse(element: &[u8]) -> Option<Element> {
        let mut parsed = Element::default();
        for (kind, value) in Attributes::new(element) {
            match kind {
                attribute::NFTA_SET_ELEM_KEY => parsed.key = parse_data(value).and_then(Data::into_value)?,
                attribute::NFTA_SET_ELEM_DATA => parsed.data = parse_data(value),
                attribute::NFTA_SET_ELEM_FLAGS => {
                    let flags = u32::from_be_bytes(value.try_into().ok()?);
                    parsed.interval_end = flags & attribute::NFT_SET_ELEM_INTERVAL_END != 0;
                }
                attribute::NFTA_SET_ELEM_USERDATA => parsed.comment = parse_comment(value),
                _ => {}
            }
        }
        (!parsed.key.is_empty()).then_some(parsed)
    }
}

impl Data {
    fn into_value(self) -> Option<Vec<u8>> {
        match self {
            Data::Value(value) => Some(value),
            Data::Verdict(_) => None,
        }
    }
}

fn parse_data(data: &[u8]) -> Option<Data> {
    let (kind, value) = Attributes::new(data).next()?;
    if kind == attribute::NFTA_DATA_VERDICT {
        Verdict::parse(value).map(Data::Verdict)
    } else {
        Some(Data::Value(value.to_vec()))
    }
}

/// The form in which `nft` stores a comment, of a rule as of an element: a list of type, length, bytes with a final
/// zero; a comment's type is 0 in both.
pub(super) fn comment_userdata(comment: &str) -> Vec<u8> {
    let end = comment.floor_char_boundary(COMMENT_MAX);
    let mut userdata = vec![0, end as u8 + 1];
    userdata.extend_from_slice(&comment.as_bytes()[..end]);
    userdata.push(0);
    userdata
}

fn parse_comment(userdata: &[u8]) -> Option<String> {
    let mut rest = userdata;
    while let [kind, length, tail @ ..] = rest {
        let value = tail.get(..usize::from(*length))?;
        if *kind == 0 {
            return text_of(value).map(str::to_owned);
        }
        rest = &tail[usize::from(*length)..];
    }
    None
}
