//! The few forms of protobuf's encoding that criu's messages have: numbers, texts, and messages in messages.

/// A message that is written field by field.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Message(Vec<u8>);

const VARINT: u64 = 0;
const LENGTH: u64 = 2;

impl Message {
    /// A number; a negative int32 as its unsigned counterpart.
    pub(crate) fn number(&mut self, field: u64, value: u64) -> &mut Message {
        self.varint(field << 3 | VARINT);
        self.varint(value);
        self
    }

    /// A switch; off is left out, as it is the default of all of criu's.
    pub(crate) fn switch(&mut self, field: u64, on: bool) -> &mut Message {
        if on {
            self.number(field, 1);
        }
        self
    }

    /// A text; an empty one is left out.
    pub(crate) fn text(&mut self, field: u64, text: &str) -> &mut Message {
        if !text.is_empty() {
            self.bytes_of(field, text.as_bytes());
        }
        self
    }

    /// A message, even an empty one.
    pub(crate) fn message(&mut self, field: u64, message: &Message) -> &mut Message {
        self.bytes_of(field, &message.0);
        self
    }

    /// As it is sent.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes_of(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | LENGTH);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// What a message holds; of a field that comes twice the last one counts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fields<'a>(Vec<(u64, Value<'a>)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Takes a message apart; `None` if it is none.
pub(crate) fn fields(mut bytes: &[u8]) -> Option<Fields<'_>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        let value = match key & 7 {
            VARINT => Value::Number(take_varint(&mut bytes)?),
            LENGTH => {
                let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Value::Bytes(value)
            }
            _ => return None,
        };
        fields.push((key >> 3, value));
    }
    Some(Fields(fields))
}

impl<'a> Fields<'a> {
    pub(crate) fn number(&self, field: u64) -> Option<u64> {
        match self.value(field)? {
            Value::Number(number) => Some(number),
            Value::Bytes(_) => None,
        }
    }

    pub(crate) fn text(&self, field: u64) -> Option<&'a str> {
        self.message(field).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    pub(crate) fn message(&self, field: u64) -> Option<&'a [u8]> {
        match self.value(field)? {
            Value::Bytes(bytes) => Some(bytes),
            Value::Number(_) => None,
        }
    }

    fn value(&self, field: u64) -> Option<Value<'a>> {
        self.0.iter().rev().find(|(known, _)| *known == field).map(|(_, value)| *value)
    }
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_written_as_protobuf_has_it() {
        let mut inner = Message::default();
        inner.text(1, "testing");
        let mut message = Message::default();
        message.number(1, 150).switch(2, true).switch(3, false).message(4, &inner).text(5, "");
        let expected = [&[0x08, 0x96, 0x01, 0x10, 0x01, 0x22, 0x09, 0x0a, 0x07][..], b"testing"].concat();
        assert_eq!(message.bytes(), expected);
    }

    #[test]
    fn what_was_written_is_read() {
        let mut inner = Message::default();
        inner.number(2, u64::MAX);
        let mut message = Message::default();
        message.number(1, 6).message(5, &inner).text(9, "why").number(1, 7);
        let read = fields(message.bytes()).unwrap();
        assert_eq!((read.number(1), read.text(9), read.number(9), read.text(3)), (Some(7), Some("why"), None, None));
        assert_eq!(read.message(5).and_then(fields).unwrap().number(2), Some(u64::MAX));
    }

    #[test]
    fn what_is_cut_short_is_no_message() {
        let mut message = Message::default();
        message.number(1, 300).text(2, "text");
        for length in [1, 2, 4, 5, message.bytes().len() - 1] {
            assert_eq!(fields(&message.bytes()[..length]), None, "{length}");
        }
        assert_eq!(fields(&[0x0d, 0, 0, 0, 0]), None);
        assert_eq!(fields(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), None);
    }
}
