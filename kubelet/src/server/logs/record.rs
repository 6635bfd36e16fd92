//! One record of a container's log, in the CRI's format: `<time> <stdout|stderr> <P|F>[:…] <text>`.

use jiff::Timestamp;

/// A record, borrowed from the line it was read from.
#[derive(Debug, PartialEq)]
pub(super) struct Record<'a> {
    /// As it was written.
    pub(super) time: &'a str,
    /// The text, with its newline unless the record is a part of a longer line.
    pub(super) text: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads a line. `None` for what no runtime writes.
    pub(super) fn parse(line: &'a [u8]) -> Option<Record<'a>> {
        let (time, rest) = split(line)?;
        let (stream, rest) = split(rest)?;
        let (tag, text) = split(rest)?;
        if stream != b"stdout" && stream != b"stderr" {
            return None;
        }
        let partial = tag.split(|byte| *byte == b':').next() == Some(b"P");
        let text = if partial { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
        Some(Record { time: std::str::from_utf8(time).ok().filter(|time| time.contains('T'))?, text })
    }

    /// When it was written.
    pub(super) fn at(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }

    /// Its time with nine digits of fraction, so that the columns of an output line up.
    pub(super) fn fixed_time(&self) -> String {
        let zone = self.time.rfind(['Z', '+', '-']).filter(|at| *at > 10).unwrap_or(self.time.len());
        let (local, zone) = self.time.split_at(zone);
        let (seconds, fraction) = local.split_once('.').unwrap_or((local, ""));
        format!("{seconds}.{fraction:0<9}{zone}")
    }
}

fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == b' ')?;
    Some((&text[..at], &text[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_and_partial_records_are_told_apart() {
        for (line, text) in [
            (&b"2026-01-01T00:00:00.1Z stdout F hello \n"[..], Some(&b"hello \n"[..])),
            (b"2026-01-01T00:00:00.1Z stderr P part\n", Some(b"part")),
            (b"2026-01-01T00:00:00.1Z stderr P:more part\n", Some(b"part")),
            (b"2026-01-01T00:00:00.1Z stdout F \n", Some(b"\n")),
            (b"2026-01-01T00:00:00.1Z stdout F\n", None),
            (b"2026-01-01T00:00:00.1Z stdin F x\n", None),
            (b"{\"log\":\"x\"}\n", None),
            (b"root:x:0:0:root user of this host\n", None),
            (b"", None),
        ] {
            assert_eq!(Record::parse(line).map(|record| record.text), text, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn times_are_shown_with_nine_digits() {
        for (time, fixed) in [
            ("2026-01-01T00:00:00.12Z", "2026-01-01T00:00:00.120000000Z"),
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000000000Z"),
            ("2026-01-01T00:00:00.123456789+01:00", "2026-01-01T00:00:00.123456789+01:00"),
            ("2026-01-01T00:00:00.5-03:30", "2026-01-01T00:00:00.500000000-03:30"),
        ] {
            assert_eq!(Record { time, text: b"" }.fixed_time(), fixed);
        }
    }
}
