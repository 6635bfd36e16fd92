//! PAX extended headers: `length key=value\n` records that correct the ustar header behind them.

use super::{Fault, Timestamp};
use crate::layer::limits::Limits;

/// What the records of one extended header say, as far as we use it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) modified: Option<Timestamp>,
    /// Name and value of every `SCHILY.xattr.` record.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: SparseRecords,
}

/// The `GNU.sparse.` records of the formats 0.0, 0.1 and 1.0.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SparseRecords {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// 0.0: alternating offsets and lengths; 0.1: the same in one record.
    pub(super) numbers: Vec<u64>,
}

impl SparseRecords {
    pub(super) fn any(&self) -> bool {
        *self != Self::default()
    }
}

impl Records {
    /// Parses the data of an `x` header.
    pub(super) fn parse(mut data: &[u8], limits: &Limits) -> Result<Self, Fault> {
        let mut records = Self::default();
        let mut xattr_bytes = 0;
        while !data.is_empty() {
            let (key, value) = take_record(&mut data)?;
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                xattr_bytes += name.len() + value.len();
                if xattr_bytes > limits.xattr_bytes {
                    return Err(Fault::TooLarge("extended attributes"));
                }
                records.xattrs.push((name.to_vec(), value.to_vec()));
            } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                records.sparse.set(key, value, limits)?;
            } else {
                records.set(key, value)?;
            }
        }
        Ok(records)
    }

    /// True if these records, as global ones, would change what archives mean to readers that honour them.
    pub(super) fn changes_entries(&self) -> bool {
        self.path.is_some() || self.link.is_some() || self.size.is_some() || self.sparse.any()
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        match key {
            b"path" => once(&mut self.path, text(value)?, "path"),
            b"linkpath" => once(&mut self.link, text(value)?, "linkpath"),
            b"size" => once(&mut self.size, decimal(value)?, "size"),
            b"uid" => once(&mut self.uid, decimal(value)?, "uid"),
            b"gid" => once(&mut self.gid, decimal(value)?, "gid"),
            b"mtime" => once(&mut self.modified, timestamp(value)?, "mtime"),
            // Names of owners, other times, comments, character sets: nothing that we restore.
            _ => Ok(()),
        }
    }
}

impl SparseRecords {
    fn set(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<(), Fault> {
        match key {
            b"major" => once(&mut self.major, decimal(value)?, "GNU.sparse.major"),
            b"minor" => once(&mut self.minor, decimal(value)?, "GNU.sparse.minor"),
            b"name" => once(&mut self.name, text(value)?, "GNU.sparse.name"),
            b"size" | b"realsize" => once(&mut self.real_size, decimal(value)?, "GNU.sparse.realsize"),
            b"numblocks" => Ok(()), // implied by the segments themselves
            b"offset" | b"numbytes" => {
                let want_offset = self.numbers.len().is_multiple_of(2);
                if want_offset != (key == b"offset") {
                    return Err(Fault::Sparse("offset and numbytes do not alternate"));
                }
                self.push(decimal(value)?, limits)
            }
            b"map" if value.is_empty() => Ok(()),
            b"map" => value.split(|b| *b == b',').try_for_each(|number| self.push(decimal(number)?, limits)),
            _ => Err(Fault::Sparse("an unknown GNU.sparse record")),
        }
    }

    fn push(&mut self, number: u64, limits: &Limits) -> Result<(), Fault> {
        if self.numbers.len() >= 2 * limits.sparse_segments {
            return Err(Fault::TooLarge("sparse map"));
        }
        self.numbers.push(number);
        Ok(())
    }
}

/// A value that is given twice is read differently by different tars.
fn once<T: PartialEq>(field: &mut Option<T>, value: T, name: &'static str) -> Result<(), Fault> {
    match field {
        Some(old) if *old != value => Err(Fault::Ambiguous(name)),
        _ => {
            *field = Some(value);
            Ok(())
        }
    }
}

/// Splits the first record off `data`: its key and its value.
fn take_record<'a>(data: &mut &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Fault> {
    let space = data.iter().take(20).position(|b| *b == b' ').ok_or(Fault::PaxRecord)?;
    let length = usize::try_from(decimal(&data[..space])?).map_err(|_| Fault::PaxRecord)?;
    if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
        return Err(Fault::PaxRecord);
    }
    let record = &data[space + 1..length - 1];
    *data = &data[length..];
    let equals = record.iter().position(|b| *b == b'=').filter(|at| *at > 0).ok_or(Fault::PaxRecord)?;
    Ok((&record[..equals], &record[equals + 1..]))
}

/// A path: anything but NUL, which would end it early in C.
fn text(value: &[u8]) -> Result<Vec<u8>, Fault> {
    match value.is_empty() || value.contains(&0) {
        true => Err(Fault::PaxRecord),
        false => Ok(value.to_vec()),
    }
}

pub(super) fn decimal(digits: &[u8]) -> Result<u64, Fault> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Number("PAX number"));
    }
    let text = std::str::from_utf8(digits).map_err(|_| Fault::Number("PAX number"))?;
    text.parse().map_err(|_| Fault::Number("PAX number"))
}

/// `[-]seconds[.fraction]`; beyond what an inode can hold it is clamped.
fn timestamp(value: &[u8]) -> Result<Timestamp, Fault> {
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = digits.splitn(2, |b| *b == b'.');
    let whole = parts.next().unwrap_or_default();
    let fraction = parts.next().unwrap_or_default();
    if whole.is_empty() || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return Err(Fault::Number("mtime"));
    }
    let seconds = decimal(whole).ok().and_then(|s| i64::try_from(s).ok()).unwrap_or(i64::MAX);
    let nanoseconds =
        fraction.iter().chain(std::iter::repeat(&b'0')).take(9).fold(0, |n, d| n * 10 + u32::from(d - b'0'));
    Ok(match (negative, nanoseconds) {
        (false, nanoseconds) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds: 0 },
        (true, n) => Timestamp { seconds: (-seconds).saturating_sub(1), nanoseconds: 1_000_000_000 - n },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(data: &[u8]) -> Result<Records, Fault> {
        Records::parse(data, &Limits::PULL)
    }

    #[test]
    fn records_are_read_with_any_bytes_in_their_values() {
        let records = parse(b"12 path=a\nb\n26 SCHILY.xattr.user.a=\0\xff\n13 size=1000\n16 mtime=-1.250\n").unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(records.xattrs, [(b"user.a".to_vec(), b"\0\xff".to_vec())]);
        assert_eq!(records.size, Some(1000));
        assert_eq!(records.modified, Some(Timestamp { seconds: -2, nanoseconds: 750_000_000 }));
    }

    #[test]
    fn broken_and_ambiguous_records_are_refused() {
        for data in [
            &b"8 path=a\n"[..],
            b"11 path=a\n",
            b"99 path=a\n",
            b"9 path=a\n9 path=b\n",
            b"9 path=\0\n",
            b"8 path=\n",
            b"7 =abc\n",
            b"path=a\n",
            b"99999999999999999999999 a=b\n",
            b"-1 a=b\n",
            b"9 size=-1",
            b"10 size=-1\n",
            b"12 size=0x10\n",
            b"28 GNU.sparse.numbytes=512\n",
            b"21 GNU.sparse.new=1\n",
        ] {
            assert!(parse(data).is_err(), "{}", data.escape_ascii());
        }
    }

    #[test]
    fn the_extended_attributes_are_bounded() {
        let value = "x".repeat(200 << 10);
        let body = format!(" SCHILY.xattr.user.a={value}\n");
        let data = format!("{}{body}", body.len() + 6);
        assert!(matches!(parse(data.as_bytes()), Err(Fault::TooLarge(_))));
    }
}
