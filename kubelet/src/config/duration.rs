//! Durations in Go's syntax: `1m30s`, `1.5h`, `250ms`.

use std::time::Duration;

/// Parses what Go's `time.ParseDuration` accepts, but for signs that make it negative.
///
/// `None` for everything else, also for what is longer than Go's 292 years.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        nanos = nanos.checked_add(amount(number, unit_nanos(unit)?)?)?;
        rest = tail;
    }
    let nanos = u64::try_from(i64::try_from(nanos).ok()?).ok()?;
    Some(Duration::from_nanos(nanos))
}

/// As Go prints it: `1m30s`, `0s`, `1.5s`, `100ms`.
pub(crate) fn format(duration: Duration) -> String {
    const SECOND: u128 = 1_000_000_000;
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanos, 1_000)),
        1_000_000..SECOND => format!("{}ms", decimal(nanos, 1_000_000)),
        _ => {
            let seconds = decimal(nanos % (60 * SECOND), SECOND);
            match (duration.as_secs() / 3600, duration.as_secs() / 60 % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `nanos` in a unit that is a power of ten, without zeros at the end.
fn decimal(nanos: u128, unit: u128) -> String {
    let text = format!("{}.{:0width$}", nanos / unit, nanos % unit, width = unit.ilog10() as usize);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn amount(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || fraction.len() > 18 {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0_u128) } else { text.parse().ok() };
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    digits(whole)?.checked_mul(unit)?.checked_add(digits(fraction)?.checked_mul(unit)? / scale)
}

fn unit_nanos(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, nanos: u64, printed: &str) {
        let parsed = parse(text).unwrap();
        assert_eq!(parsed, Duration::from_nanos(nanos));
        assert_eq!(format(parsed), printed);
    }

    #[test]
    fn durations_are_read_and_printed_as_go_does() {
        check("0", 0, "0s");
        check("10s", 10_000_000_000, "10s");
        check("1m30s", 90_000_000_000, "1m30s");
        check("1h", 3_600_000_000_000, "1h0m0s");
        check("90m", 5_400_000_000_000, "1h30m0s");
        check("1.5h", 5_400_000_000_000, "1h30m0s");
        check("100ms", 100_000_000, "100ms");
        check("1500ms", 1_500_000_000, "1.5s");
        check(".5s", 500_000_000, "500ms");
        check("1us2ns", 1_002, "1.002µs");
        check("+2m", 120_000_000_000, "2m0s");
        check("61.25s", 61_250_000_000, "1m1.25s");
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in ["", "10", "s", "1d", "-1s", "1..5s", ".s", "1s ", "99999999999h", "1.2.3s", "10 s"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
