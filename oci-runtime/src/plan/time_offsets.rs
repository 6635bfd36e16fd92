//! `linux.timeOffsets`: how far the clocks of a new time namespace differ from the host's.

use std::collections::HashMap;
use std::fmt::Write as _;

use oci_spec::runtime::LinuxTimeOffset;

use super::{Namespace, PlanError, invalid};

/// The clocks that `time_namespaces(7)` can shift.
const CLOCKS: [&str; 2] = ["boottime", "monotonic"];

/// What goes into `/proc/self/timens_offsets`: a line per clock; empty for none.
pub(super) fn from_spec(
    time: &Namespace,
    offsets: Option<&HashMap<String, LinuxTimeOffset>>,
) -> Result<String, PlanError> {
    let Some(offsets) = offsets.filter(|offsets| !offsets.is_empty()) else { return Ok(String::new()) };
    if *time != Namespace::New {
        return Err(invalid("linux.timeOffsets", "can only be set for a time namespace that is new"));
    }
    if let Some(name) = offsets.keys().filter(|name| !CLOCKS.contains(&name.as_str())).min() {
        let reason = format!("not a clock of a time namespace: {}", CLOCKS.join(", "));
        return Err(invalid(format!("linux.timeOffsets[{name}]"), reason));
    }
    let mut text = String::new();
    for clock in CLOCKS {
        let Some(offset) = offsets.get(clock) else { continue };
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        if nanoseconds >= 1_000_000_000 {
            let reason = format!("{nanoseconds} is not below 1000000000");
            return Err(invalid(format!("linux.timeOffsets[{clock}].nanosecs"), reason));
        }
        let _ = writeln!(text, "{clock} {seconds} {nanoseconds}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(time: &Namespace, offsets: &str, expected: Result<&str, &str>) {
        let offsets = serde_json::from_str(offsets).unwrap();
        let text = from_spec(time, Some(&offsets)).map_err(|error| error.to_string());
        assert_eq!(text.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn a_line_per_clock_is_written() {
        let both = r#"{"monotonic": {"secs": -5, "nanosecs": 7}, "boottime": {"secs": 1337}}"#;
        check(&Namespace::New, both, Ok("boottime 1337 0\nmonotonic -5 7\n"));
        check(&Namespace::Inherited, "{}", Ok(""));
    }

    #[test]
    fn offsets_without_a_namespace_of_their_own_and_other_clocks_are_refused() {
        let one = r#"{"monotonic": {"secs": 1}}"#;
        let refused = Err("linux.timeOffsets: can only be set for a time namespace that is new");
        check(&Namespace::Inherited, one, refused);
        check(&Namespace::Joined("/proc/1/ns/time".into()), one, refused);
        let refused = Err("linux.timeOffsets[realtime]: not a clock of a time namespace: boottime, monotonic");
        check(&Namespace::New, r#"{"realtime": {"secs": 1}}"#, refused);
        let refused = Err("linux.timeOffsets[boottime].nanosecs: 1000000000 is not below 1000000000");
        check(&Namespace::New, r#"{"boottime": {"nanosecs": 1000000000}}"#, refused);
    }
}
