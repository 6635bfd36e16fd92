//! Time, as a parameter.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Tells the time: the machine's, or in tests one that follows tokio's virtual clock.
#[derive(Debug, Clone)]
pub struct Clock {
    /// What a fake clock showed when it was made.
    origin: Option<(Timestamp, Instant)>,
}

/// One moment on both clocks: timers and back-offs compare `mono`, which never jumps; the API speaks of `wall`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The time of day.
    pub wall: Timestamp,
    /// The monotonic clock.
    pub mono: Instant,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock { origin: None }
    }

    /// A clock that shows `wall` now and goes as tokio's clock goes, which a test may pause and advance.
    pub fn starting_at(wall: Timestamp) -> Clock {
        Clock { origin: Some((wall, Instant::now())) }
    }

    /// The present moment.
    pub fn now(&self) -> Now {
        let mono = Instant::now();
        let wall = match self.origin {
            None => Timestamp::now(),
            Some((wall, start)) => {
                wall + SignedDuration::try_from(mono - start).expect("a test lasts less than an age")
            }
        };
        Now { wall, mono }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_fake_clock_follows_virtual_time() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock = Clock::starting_at(start);
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(clock.now().wall, "2026-01-01T00:01:30Z".parse().unwrap());
    }
}
