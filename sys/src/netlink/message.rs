//! The wire form of netlink messages and attributes: building requests, walking answers.
//!
//! `struct nlmsghdr` and `struct nlattr` of `linux/netlink.h`: everything is in host byte order and padded to four
//! bytes; a nest is an attribute whose value is a list of attributes.

use nix::errno::Errno;

/// `struct nlmsghdr`: length, type, flags, sequence, port.
const HEADER: usize = 16;
/// `struct nlattr`: length, type.
const ATTRIBUTE_HEADER: usize = 4;
/// The bits of an attribute's type that are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const TYPE_MASK: u16 = 0x3fff;

/// Messages being written, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    bytes: Vec<u8>,
    message: usize,
}

impl Builder {
    /// Begins a message; what is written before the next one, or [`Builder::finish`], belongs to it.
    pub(crate) fn message(&mut self, kind: u16, flags: u16, sequence: u32) {
        self.close();
        self.message = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
    }

    /// Adds bytes as they are: a protocol's own header.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// Adds one attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).expect("attributes are built from bounded values");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.raw(value);
    }

    /// Adds a text with the final zero that the kernel wants.
    pub(crate) fn text(&mut self, kind: u16, text: &str) {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.attribute(kind, &value);
    }

    /// Adds a number in network byte order, the order of everything in nf_tables.
    pub(crate) fn be32(&mut self, kind: u16, number: u32) {
        self.attribute(kind, &number.to_be_bytes());
    }

    /// Adds an attribute that holds the attributes that `fill` adds.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Builder)) {
        let start = self.bytes.len();
        self.attribute(kind | libc::NLA_F_NESTED as u16, &[]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).expect("nests are built from bounded values");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// The attributes, where no message was begun.
    pub(crate) fn into_attributes(self) -> Vec<u8> {
        self.bytes
    }

    /// All messages.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.close();
        self.bytes
    }

    fn close(&mut self) {
        if self.bytes.len() > self.message {
            let length = (self.bytes.len() - self.message) as u32;
            self.bytes[self.message..self.message + 4].copy_from_slice(&length.to_ne_bytes());
        }
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One message of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer<'a> {
    /// A request's acknowledgement: success, or why not.
    Acknowledged { sequence: u32, errno: Option<Errno>, explanation: &'a str },
    /// The end of a dump.
    Done { sequence: u32, errno: Option<Errno> },
    /// A message of the protocol: what follows its header.
    Message { sequence: u32, payload: &'a [u8] },
}

impl Answer<'_> {
    /// The request that this answers, 0 for a multicast.
    pub(crate) fn sequence(&self) -> u32 {
        match self {
            Answer::Acknowledged { sequence, .. }
            | Answer::Done { sequence, .. }
            | Answer::Message { sequence, .. } => *sequence,
        }
    }
}

/// The messages of one datagram.
#[derive(Debug)]
pub(crate) struct Answers<'a> {
    rest: &'a [u8],
}

impl<'a> Answers<'a> {
    pub(crate) fn new(datagram: &'a [u8]) -> Answers<'a> {
        Answers { rest: datagram }
    }
}

impl<'a> Iterator for Answers<'a> {
    type Item = Answer<'a>;

    fn next(&mut self) -> Option<Answer<'a>> {
        let length = u32_at(self.rest, 0)? as usize;
        let whole = self.rest.get(..length).filter(|whole| whole.len() >= HEADER)?;
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        let (kind, flags) = (u16_at(whole, 4)?, u16_at(whole, 6)?);
        let (sequence, payload) = (u32_at(whole, 8)?, &whole[HEADER..]);
        Some(match libc::c_int::from(kind) {
            libc::NLMSG_ERROR => {
                let explanation = explanation(flags, payload).unwrap_or_default();
                Answer::Acknowledged { sequence, errno: error_code(payload), explanation }
            }
            libc::NLMSG_DONE => Answer::Done { sequence, errno: error_code(payload) },
            _ => Answer::Message { sequence, payload },
        })
    }
}

/// The negative errno at the head of an acknowledgement or of the end of a dump; 0 is success.
fn error_code(payload: &[u8]) -> Option<Errno> {
    match u32_at(payload, 0).map_or(0, |code| code as i32) {
        0 => None,
        code => Some(Errno::from_raw(code.wrapping_neg())),
    }
}

/// `NLMSGERR_ATTR_MSG` of an extended acknowledgement; the request's header, capped, stands before the attributes.
fn explanation(flags: u16, payload: &[u8]) -> Option<&str> {
    const NLM_F_ACK_TLVS: u16 = 0x200;
    const NLMSGERR_ATTR_MSG: u16 = 1;
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let (_, text) = Attributes::new(payload.get(4 + HEADER..)?).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?;
    text_of(text)
}

/// A list of attributes: type without its flags, and value.
#[derive(Debug)]
pub(crate) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Attributes<'a> {
        Attributes { rest: bytes }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16_at(self.rest, 0)?);
        let kind = u16_at(self.rest, 2)? & TYPE_MASK;
        let value = self.rest.get(ATTRIBUTE_HEADER..length)?;
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A text without its final zero.
pub(crate) fn text_of(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nests_and_padding_read_back_as_written() {
        let mut builder = Builder::default();
        builder.message(16, 5, 7);
        builder.text(3, "cni0");
        builder.nest(18, |inner| inner.attribute(1, b"abc"));
        let bytes = builder.finish();
        assert_eq!(bytes.len() % 4, 0);
        let answers: Vec<_> = Answers::new(&bytes).collect();
        let [Answer::Message { sequence: 7, payload }] = answers[..] else { panic!("{answers:?}") };
        let attributes: Vec<_> = Attributes::new(payload).collect();
        assert_eq!(attributes[0], (3, &b"cni0\0"[..]));
        assert_eq!(attributes[1].0, 18, "the nested flag is not part of the type");
        assert_eq!(Attributes::new(attributes[1].1).next(), Some((1, &b"abc"[..])));
    }

    #[test]
    fn lengths_that_lie_end_the_walk_without_a_panic() {
        for length in [0u32, 1, 15, 17, 4096, u32::MAX] {
            let mut bytes = vec![0; 20];
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(Answers::new(&bytes).count() <= 1);
            let mut attribute = vec![0; 6];
            attribute[..2].copy_from_slice(&(length as u16).to_ne_bytes());
            assert!(Attributes::new(&attribute).count() <= 1);
        }
    }
}
