//! Waiting for a condition with a deadline: the only way in which a test waits.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// What a condition of [`eventually`] may return: `bool`, `Option` or `Result`.
pub trait Outcome {
    /// What the wait yields once the condition holds.
    type Value;
    /// `Ok` ends the wait; `Err` says why not yet, as far as the condition knows.
    fn met(self) -> Result<Self::Value, String>;
}

impl Outcome for bool {
    type Value = ();
    fn met(self) -> Result<(), String> {
        self.then_some(()).met()
    }
}

impl<T> Outcome for Option<T> {
    type Value = T;
    fn met(self) -> Result<T, String> {
        self.ok_or_else(|| String::from("not yet"))
    }
}

impl<T, E: Debug> Outcome for Result<T, E> {
    type Value = T;
    fn met(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:?}"))
    }
}

/// Asks `condition` again and again until it holds, and returns what it yields.
///
/// # Panics
/// When it does not hold within `deadline` (times [`slow`]); the message names `what` and the condition's last answer.
#[track_caller]
pub fn eventually<O: Outcome>(what: &str, deadline: Duration, condition: impl FnMut() -> O) -> O::Value {
    within(deadline, condition).unwrap_or_else(|reason| panic!("not within {:?}: {what}: {reason}", deadline * slow()))
}

/// As [`eventually`], but returns the condition's last answer when the deadline (times [`slow`]) has passed.
pub(crate) fn within<O: Outcome>(deadline: Duration, mut condition: impl FnMut() -> O) -> Result<O::Value, String> {
    let end = Instant::now() + deadline * slow();
    let mut pause = Duration::from_millis(1);
    loop {
        // What a look says that began before the deadline may be out of date when it has ended.
        let is_last = Instant::now() >= end;
        let reason = match condition().met() {
            Ok(value) => return Ok(value),
            Err(reason) => reason,
        };
        if is_last {
            return Err(reason);
        }
        #[expect(clippy::disallowed_methods, reason = "the one pause between two looks at a condition")]
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The factor by which deadlines grow on a slow machine: the environment's `SLOW`, or 1.
pub fn slow() -> u32 {
    std::env::var("SLOW").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1).max(1)
}

/// How often a loop or a storm that wants `count` rounds goes round: so often, or as many times less as the environment's
/// `FEWER` says, on a machine that is emulated.
pub fn rounds(count: u32) -> u32 {
    let fewer = std::env::var("FEWER").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1).max(1);
    count.div_ceil(fewer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_ends_as_soon_as_the_condition_holds() {
        let mut looks = 0;
        let value = eventually("three looks", Duration::from_secs(5), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(value, 3);
    }

    #[test]
    fn a_look_that_takes_longer_than_the_deadline_is_not_the_last() {
        let mut looks = 0;
        let instant = Duration::from_millis(50);
        eventually("the second look", instant, || {
            looks += 1;
            let begun = Instant::now();
            while looks == 1 && begun.elapsed() < instant * 2 * slow() {}
            looks == 2
        });
    }

    #[test]
    #[should_panic(expected = "not within 0ns: the impossible: \"never\"")]
    fn a_missed_deadline_names_the_condition_and_its_last_answer() {
        eventually("the impossible", Duration::ZERO, || Err::<(), _>("never"));
    }
}
