//! `count`: a workload whose log shows every gap.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// `count PER_SECOND [LINES [EXIT_CODE]]`: writes the numbers 1, 2, 3, … one per line at the given rate; after LINES (0
/// or none: never) it ends with EXIT_CODE. A reader that is late makes it late, never makes it skip.
pub(crate) fn count(arguments: &[String]) -> ExitCode {
    let number =
        |index: usize, default: u64| arguments.get(index).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (per_second, lines, code) = (number(0, 1).max(1), number(1, 0), number(2, 0));
    let start = Instant::now();
    let mut output = std::io::stdout();
    for line in 1.. {
        // Written at once and whole: the log must never show half of a number.
        if output.write_all(format!("{line}\n").as_bytes()).is_err() {
            return ExitCode::FAILURE;
        }
        if line == lines {
            break;
        }
        let due = Duration::from_nanos(line * 1_000_000_000 / per_second);
        std::thread::park_timeout(due.saturating_sub(start.elapsed()));
    }
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
