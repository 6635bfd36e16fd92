//! When to ask again, and when to stop.

use std::time::Duration;

use super::error::RegistryError;

/// Attempts at an endpoint that is the last one.
const ATTEMPTS: u32 = 5;
/// Attempts at an endpoint behind which others wait.
const ATTEMPTS_BEFORE_OTHERS: u32 = 2;
const FIRST_DELAY: Duration = Duration::from_millis(200);
const MAX_DELAY: Duration = Duration::from_secs(10);
/// A registry that wants more patience than this gets an error instead; the caller's own back-off is longer.
const MAX_ASKED: Duration = Duration::from_secs(30);

/// How long to wait after the `attempt`th failure (from 1), or `None` to give up on this endpoint. `random` is in 0..1:
/// a thousand nodes that failed together must not come back together.
pub(super) fn delay(error: &RegistryError, attempt: u32, is_last: bool, random: f64) -> Option<Duration> {
    let attempts = if is_last { ATTEMPTS } else { ATTEMPTS_BEFORE_OTHERS };
    if !error.is_transient() || attempt >= attempts {
        return None;
    }
    if let Some(asked) = error.asked_delay() {
        return (is_last && asked <= MAX_ASKED).then_some(asked);
    }
    let full = FIRST_DELAY.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(MAX_DELAY);
    Some(full.mul_f64(0.5 + random / 2.0))
}

/// A random number in 0..1, as good as spreading out needs.
pub(super) fn random() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    // Every RandomState has its own keys.
    (RandomState::new().hash_one(0) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, retry_after: Option<Duration>) -> RegistryError {
        let status = reqwest::StatusCode::from_u16(code).unwrap();
        RegistryError::Status { host: "h".into(), what: "w".into(), status, message: String::new(), retry_after }
    }

    #[test]
    fn delays_grow_and_end() {
        let error = status(503, None);
        let delays: Vec<u128> = (1..6).filter_map(|n| delay(&error, n, true, 1.0)).map(|d| d.as_millis()).collect();
        assert_eq!(delays, [200, 400, 800, 1600]);
        assert_eq!(delay(&error, 1, true, 0.0), Some(Duration::from_millis(100)));
        assert_eq!(delay(&error, 2, false, 0.5), None);
        assert_eq!(delay(&status(400, None), 1, true, 0.5), None);
    }

    #[test]
    fn what_the_registry_asks_is_honoured_or_refused() {
        let three = Duration::from_secs(3);
        assert_eq!(delay(&status(503, Some(three)), 1, true, 0.5), Some(three));
        assert_eq!(delay(&status(503, Some(three)), 1, false, 0.5), None, "another endpoint is quicker");
        assert_eq!(delay(&status(503, Some(Duration::from_hours(1))), 1, true, 0.5), None);
    }

    #[test]
    fn random_numbers_are_in_range_and_differ() {
        let numbers: Vec<f64> = (0..8).map(|_| random()).collect();
        assert!(numbers.iter().all(|n| (0.0..1.0).contains(n)));
        assert!(numbers.iter().any(|n| *n != numbers[0]));
    }
}
