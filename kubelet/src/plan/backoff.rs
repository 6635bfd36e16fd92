//! What planning remembers: how often a container failed lately, and why one can't be started.

use super::Waiting;
use crate::pod::Pod;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The first pause between restarts; the first restart itself is at once.
const FIRST: Duration = Duration::from_secs(10);
/// A container that ran for so long starts with [`FIRST`] again.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// What planning remembers of one pod.
#[derive(Debug)]
pub struct Memory {
    longest: Duration,
    restarts: BTreeMap<String, Restarts>,
    failures: BTreeMap<String, Failure>,
    /// When a sandbox may be tried again after one could not be made.
    pub sandbox_retry_at: Option<Instant>,
}

/// The back-off of a container.
#[derive(Debug)]
struct Restarts {
    /// Of the spec that failed: another one starts afresh.
    hash: String,
    delay: Duration,
    /// When the container was last started.
    at: Timestamp,
}

/// Why a container could not be made or started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What its status says meanwhile.
    pub waiting: Waiting,
    /// When to try again.
    pub retry_at: Instant,
}

impl Memory {
    /// Nothing happened yet; `longest` is the longest pause between restarts.
    pub fn new(longest: Duration) -> Memory {
        Memory { longest, restarts: BTreeMap::new(), failures: BTreeMap::new(), sandbox_retry_at: None }
    }

    /// Learns the back-offs from the status that a kubelet before us wrote, so that a restart of ours restarts nothing:
    /// the pause is in the message of `CrashLoopBackOff`. `hashes` are those of the present spec.
    pub fn recall(&mut self, pod: &Pod, hashes: &BTreeMap<String, String>) {
        let Some(status) = &pod.object().status else { return };
        let statuses = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        for container in statuses {
            let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
            let Some(message) = waiting
                .filter(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
                .and_then(|waiting| waiting.message.as_deref())
            else {
                continue;
            };
            let delay = message.strip_prefix("back-off ").and_then(|rest| parse_go_duration(rest.split(' ').next()?));
            let ended = container.last_state.as_ref().and_then(|state| state.terminated.as_ref()?.finished_at.as_ref());
            if let (Some(delay), Some(hash), Some(ended)) = (delay, hashes.get(&container.name), ended) {
                let restarts = Restarts { hash: hash.clone(), delay: delay.min(self.longest), at: ended.0 };
                self.restarts.insert(container.name.clone(), restarts);
            }
        }
    }

    /// Whether a container that ended at `exited` has to wait: until when, and the pause.
    pub(super) fn back_off(
        &self,
        name: &str,
        hash: &str,
        exited: Timestamp,
        now: Timestamp,
    ) -> Option<(Timestamp, Duration)> {
        let restarts = self.restarts.get(name).filter(|restarts| restarts.counts(hash, exited))?;
        let until = exited.checked_add(restarts.delay).ok()?;
        (now < until).then_some((until, restarts.delay))
    }

    /// A container is started again after one that ended at `exited`.
    pub fn restarted(&mut self, name: &str, hash: &str, exited: Timestamp, now: Timestamp) {
        let before = self.restarts.get(name).filter(|restarts| restarts.counts(hash, exited));
        let delay = before.map_or(FIRST, |restarts| restarts.delay * 2).min(self.longest);
        self.restarts.insert(name.to_owned(), Restarts { hash: hash.to_owned(), delay, at: now });
    }

    /// A container could not be started.
    pub fn failed(&mut self, name: &str, failure: Failure) {
        self.failures.insert(name.to_owned(), failure);
    }

    /// A container was started.
    pub fn succeeded(&mut self, name: &str) {
        self.failures.remove(name);
    }

    /// Something that a failure may have depended on has changed: everything may be tried again at once.
    pub fn retry_now(&mut self, now: Instant) {
        self.sandbox_retry_at = None;
        for failure in self.failures.values_mut() {
            failure.retry_at = now;
        }
    }

    pub(super) fn failure(&self, name: &str) -> Option<&Failure> {
        self.failures.get(name)
    }
}

impl Restarts {
    /// Whether this still says something of a container of this spec that ended at `exited`.
    fn counts(&self, hash: &str, exited: Timestamp) -> bool {
        self.hash == hash && exited.duration_since(self.at) <= FORGOTTEN_AFTER
    }
}

/// `name_namespace(uid)`, as upstream's messages name a pod.
pub(super) fn pod_name(pod: &Pod) -> String {
    format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid())
}

/// Whole seconds as Go prints a duration: `10s`, `2m40s`, `5m0s`.
pub(super) fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// The reverse of [`go_duration`].
fn parse_go_duration(text: &str) -> Option<Duration> {
    let mut seconds = 0;
    let mut number = 0_u64;
    let mut digits = false;
    for letter in text.chars() {
        if let Some(digit) = letter.to_digit(10) {
            number = number.checked_mul(10)?.checked_add(digit.into())?;
            digits = true;
            continue;
        }
        let unit = match letter {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds += digits.then_some(number)?.checked_mul(unit)?;
        (number, digits) = (0, false);
    }
    (!digits && !text.is_empty()).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_and_read_as_go_writes_them() {
        for (seconds, text) in [(10, "10s"), (160, "2m40s"), (300, "5m0s"), (3661, "1h1m1s")] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
            assert_eq!(parse_go_duration(text), Some(Duration::from_secs(seconds)));
        }
        for text in ["", "10", "s", "1x", "1m5"] {
            assert_eq!(parse_go_duration(text), None, "{text:?}");
        }
    }

    /// The pauses before each of a row of failures that come `run` seconds after the start.
    fn pauses(run: i64, longest: u64, times: usize) -> Vec<u64> {
        let mut memory = Memory::new(Duration::from_secs(longest));
        let mut now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut pauses = Vec::new();
        for _ in 0..times {
            let exited = now + SignedDuration::from_secs(run);
            now = exited;
            let pause = memory.back_off("web", "h", exited, now).map_or(0, |(_, pause)| pause.as_secs());
            pauses.push(pause);
            now += SignedDuration::from_secs(i64::try_from(pause).unwrap());
            memory.restarted("web", "h", exited, now);
        }
        pauses
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        assert_eq!(pauses(1, 300, 8), [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(pauses(1, 15, 4), [0, 10, 15, 15]);
    }

    #[test]
    fn ten_good_minutes_forgive_everything() {
        assert_eq!(pauses(601, 300, 4), [0, 0, 0, 0]);
        assert_eq!(pauses(600, 300, 4), [0, 10, 20, 40]);
    }

    #[test]
    fn another_spec_starts_afresh() {
        let mut memory = Memory::new(Duration::from_secs(300));
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        memory.restarted("web", "old", now, now);
        assert!(memory.back_off("web", "old", now, now).is_some());
        assert!(memory.back_off("web", "new", now, now).is_none());
    }
}
