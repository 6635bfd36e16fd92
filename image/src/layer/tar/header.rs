//! One 512-byte header block: v7, ustar, star and GNU layouts (tar(5), POSIX.1-2017 pax "ustar Interchange Format").

use super::{Fault, Timestamp};

pub(super) const BLOCK: usize = 512;

/// Which dialect a header speaks; it decides what stands behind byte 345.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V7,
    Ustar,
    /// Joerg Schilling's star: a ustar whose prefix is 24 bytes shorter.
    Star,
    Gnu,
}

/// The part of a header that describes an old GNU sparse file.
pub(super) struct GnuSparse {
    /// Offset and length, four at most.
    pub(super) segments: Vec<(u64, u64)>,
    pub(super) real_size: u64,
    /// A block of more segments follows.
    pub(super) more: bool,
}

/// A header block whose checksum is right.
pub(super) struct Header<'a> {
    block: &'a [u8; BLOCK],
    dialect: Dialect,
}

impl<'a> Header<'a> {
    pub(super) fn check(block: &'a [u8; BLOCK]) -> Result<Self, Fault> {
        let want = octal(&block[148..156]).ok_or(Fault::Checksum)?;
        // Historic tars summed signed bytes.
        let (mut unsigned, mut signed) = (0_u64, 0_i64);
        for (at, byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            unsigned += u64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if want != unsigned && i64::try_from(want) != Ok(signed) {
            return Err(Fault::Checksum);
        }
        let dialect = match &block[257..265] {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar\0") && block[508..512] == *b"tar\0" => Dialect::Star,
            magic if magic.starts_with(b"ustar\0") => Dialect::Ustar,
            _ => Dialect::V7,
        };
        Ok(Self { block, dialect })
    }

    pub(super) fn is_gnu(&self) -> bool {
        self.dialect == Dialect::Gnu
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.block[156]
    }

    /// The name with its prefix.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = until_nul(&self.block[..100]);
        let prefix = match self.dialect {
            Dialect::Ustar => until_nul(&self.block[345..500]),
            Dialect::Star => until_nul(&self.block[345..476]),
            Dialect::V7 | Dialect::Gnu => b"",
        };
        match prefix {
            b"" => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        until_nul(&self.block[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u32, Fault> {
        // Some writers keep the file type in the upper bits.
        Ok(u32::try_from(self.number("mode", 100..108)? & 0o7777).unwrap_or(0))
    }

    pub(super) fn uid(&self) -> Result<u64, Fault> {
        self.number("uid", 108..116)
    }

    pub(super) fn gid(&self) -> Result<u64, Fault> {
        self.number("gid", 116..124)
    }

    pub(super) fn size(&self) -> Result<u64, Fault> {
        self.number("size", 124..136)
    }

    pub(super) fn modified(&self) -> Result<Timestamp, Fault> {
        let seconds = signed_number(&self.block[136..148]).ok_or(Fault::Number("mtime"))?;
        Ok(Timestamp { seconds, nanoseconds: 0 })
    }

    /// Major and minor number; v7 has no such fields.
    pub(super) fn device(&self) -> Result<(u64, u64), Fault> {
        match self.dialect {
            Dialect::V7 => Err(Fault::Number("device number")),
            _ => Ok((self.number("device number", 329..337)?, self.number("device number", 337..345)?)),
        }
    }

    /// What an old GNU sparse header says beyond the others.
    pub(super) fn gnu_sparse(&self) -> Result<GnuSparse, Fault> {
        let segments = gnu_segments(&self.block[386..482])?;
        Ok(GnuSparse { segments, real_size: self.number("real size", 483..495)?, more: self.block[482] != 0 })
    }

    fn number(&self, field: &'static str, range: std::ops::Range<usize>) -> Result<u64, Fault> {
        let number = signed_number(&self.block[range]).ok_or(Fault::Number(field))?;
        u64::try_from(number).map_err(|_| Fault::Number(field))
    }
}

/// The pairs of offset and length in (an extension of) an old GNU sparse header; the first empty field ends them.
pub(super) fn gnu_segments(fields: &[u8]) -> Result<Vec<(u64, u64)>, Fault> {
    let mut segments = Vec::new();
    for pair in fields.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        let field = |bytes: &[u8]| {
            signed_number(bytes).and_then(|n| u64::try_from(n).ok()).ok_or(Fault::Number("sparse segment"))
        };
        segments.push((field(&pair[..12])?, field(&pair[12..])?));
    }
    Ok(segments)
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal digits between leading spaces and a trailing space or NUL; nothing at all is 0.
fn octal(field: &[u8]) -> Option<u64> {
    let start = field.iter().position(|b| *b != b' ')?;
    let digits = field[start..].split(|b| matches!(b, b' ' | 0)).next()?;
    let rest = &field[start + digits.len()..];
    if rest.iter().any(|b| !matches!(b, b' ' | 0)) {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, digit| match digit {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// A number in octal, or in base 256 if its first bit is set (then the next one is the sign).
fn signed_number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 == 0 {
        return match field.iter().all(|b| matches!(b, b' ' | 0)) {
            true => Some(0),
            false => i64::try_from(octal(field)?).ok(),
        };
    }
    let negative = field[0] & 0x40 != 0;
    let first = if negative { i128::from(field[0]) - 256 } else { i128::from(field[0] & 0x7f) };
    let number = field[1..].iter().try_fold(first, |sum, byte| sum.checked_mul(256)?.checked_add(i128::from(*byte)))?;
    i64::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, want) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777", Some(0o7777_7777)),
            (b"\x80\0\0\0\0\0\x01\x02", Some(258)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"000064x\0", None),
            (b"0644\0 9 ", None),
            (b"-1\0\0\0\0\0\0", None),
            (b"0x10\0\0\0\0", None),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(signed_number(field), want, "{}", field.escape_ascii());
        }
    }
}
