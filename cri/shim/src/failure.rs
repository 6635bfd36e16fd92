//! How errors become [`Failure`]s, and the one place that the shim logs to.

use shim_protocol::{ErrorKind, Failure};
use std::error::Error;
use std::fmt;
use std::io::Write;

/// A message that is longer than this, in bytes, is cut: a datagram has to hold it beside the stages.
const MESSAGE_LIMIT: usize = 8 * 1024;

/// A failure without stages.
pub(crate) fn failure(kind: ErrorKind, message: impl fmt::Display) -> Failure {
    let mut message = message.to_string();
    if message.len() > MESSAGE_LIMIT {
        message.truncate(message.floor_char_boundary(MESSAGE_LIMIT));
        message.push('…');
    }
    Failure { kind, message, stages: Vec::new() }
}

/// An unexpected failure: what was tried, then the chain of causes.
pub(crate) fn internal(tried: impl fmt::Display, error: &dyn Error) -> Failure {
    failure(ErrorKind::Internal, format_args!("{tried}: {}", chain(error)))
}

/// `a: b: c` for an error and its sources.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Writes a line to the shim's log, which is its standard error. A log that can't be written must not end the pod, as
/// `eprintln!` would.
pub(crate) fn note(line: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "orlop-shim: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_no_datagram_could_hold_is_cut_at_a_character() {
        let long = failure(ErrorKind::Internal, "ä".repeat(MESSAGE_LIMIT));
        assert!(long.message.len() <= MESSAGE_LIMIT + '…'.len_utf8());
        assert!(long.message.ends_with("ä…"));
    }
}
