//! What stands before a log line's content: `2026-11-21T12:00:00.000000000Z stdout F `.

use super::line::Tag;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The stream that a line came from. A terminal's output counts as standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Always 40 bytes: nanoseconds have nine digits, so that lines sort by time as text. Go's RFC3339Nano parses it.
pub(crate) type Header = [u8; 40];

/// The header of a line of `stream` that was read at `now`, in UTC.
pub(crate) fn header(now: SystemTime, stream: Stream, tag: Tag) -> Header {
    let time = CivilTime::at(now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO));
    let stream = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    let tag = match tag {
        Tag::Partial => 'P',
        Tag::Full => 'F',
    };
    let CivilTime { year, month, day, hour, minute, second, nanosecond } = time;
    let mut header = [b' '; 40];
    // A slice takes what fits: the year would need a fifth digit for this to be cut.
    let _ = write!(
        header.as_mut_slice(),
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanosecond:09}Z {stream} {tag} "
    );
    header
}

/// A moment in UTC, in the proleptic Gregorian calendar.
#[derive(Debug, PartialEq, Eq)]
struct CivilTime {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    nanosecond: u32,
}

impl CivilTime {
    /// The moment `since` 1970-01-01T00:00:00Z.
    fn at(since: Duration) -> Self {
        let (days, second_of_day) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        // Count from 0000-03-01, so that the leap day is the last of its year: 719468 days before 1970, 146097 days
        // in 400 years. A month that starts the year in March has (153 * month + 2) / 5 days before it.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * march_month + 2) / 5 + 1,
            hour: second_of_day / 3_600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
            nanosecond: since.subsec_nanos(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seconds: u64, nanoseconds: u32, expected: &str) {
        let now = UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        let header = header(now, Stream::Stdout, Tag::Full);
        assert_eq!(std::str::from_utf8(&header).unwrap(), format!("{expected} stdout F "));
    }

    #[test]
    fn times_are_utc_with_nine_digits() {
        // Expected: `date -u -d @N +%FT%T`.
        check(0, 0, "1970-01-01T00:00:00.000000000Z");
        check(951_782_399, 999_999_999, "2000-02-28T23:59:59.999999999Z");
        check(951_782_400, 0, "2000-02-29T00:00:00.000000000Z");
        check(951_868_800, 7, "2000-03-01T00:00:00.000000007Z");
        check(1_709_210_096, 1_000, "2024-02-29T12:34:56.000001000Z");
        check(1_795_262_400, 0, "2026-11-21T12:00:00.000000000Z");
        check(4_107_542_400, 0, "2100-03-01T00:00:00.000000000Z");
        check(253_402_300_799, 0, "9999-12-31T23:59:59.000000000Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let month_days = |year: u64| {
            let leap = (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
            [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        };
        let mut days = 0;
        for year in 1970..2410 {
            for (month, count) in (1..).zip(month_days(year)) {
                for day in 1..=count {
                    let time = CivilTime::at(Duration::from_secs(days * 86_400 + 86_399));
                    assert_eq!((time.year, time.month, time.day), (year, month, day));
                    assert_eq!((time.hour, time.minute, time.second), (23, 59, 59));
                    days += 1;
                }
            }
        }
    }

    #[test]
    fn stream_and_tag_are_named() {
        let text = |stream, tag| String::from_utf8(header(UNIX_EPOCH, stream, tag).to_vec()).unwrap();
        assert!(text(Stream::Stderr, Tag::Partial).ends_with("Z stderr P "));
        assert!(text(Stream::Stdout, Tag::Partial).ends_with("Z stdout P "));
    }
}
