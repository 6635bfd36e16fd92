//! Pauses between pulls that fail, for each pod and image: 10 s, twice as long each time, 5 min at most. Pure.

use crate::pod::PodUid;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
/// After this long without a failure the next one is the first again.
const FORGIVEN: Duration = Duration::from_secs(600);

/// The images that could not be pulled lately.
#[derive(Debug, Default)]
pub(super) struct Backoffs(BTreeMap<(PodUid, String), Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    pause: Duration,
    failed_at: Instant,
    /// What went wrong last, `ErrImagePull: …`.
    error: String,
}

impl Backoffs {
    /// Until when a pod's image is not pulled, and why; `None` if it may be.
    pub(super) fn waiting(&self, pod: &PodUid, image: &str, now: Instant) -> Option<(Instant, &str)> {
        let entry = self.0.get(&(pod.clone(), image.to_owned()))?;
        let until = entry.failed_at + entry.pause;
        (now < until).then_some((until, entry.error.as_str()))
    }

    /// A pull failed.
    pub(super) fn failed(&mut self, pod: &PodUid, image: &str, error: String, now: Instant) {
        let key = (pod.clone(), image.to_owned());
        let pause = match self.0.get(&key) {
            Some(entry) if now.duration_since(entry.failed_at) <= FORGIVEN => (entry.pause * 2).min(LONGEST),
            _ => FIRST,
        };
        self.0.insert(key, Entry { pause, failed_at: now, error });
    }

    /// Forgets what is long over.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.0.retain(|_, entry| now.duration_since(entry.failed_at) <= FORGIVEN);
    }

    /// The pod is gone.
    pub(super) fn forget(&mut self, pod: &PodUid) {
        self.0.retain(|(uid, _), _| uid != pod);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> PodUid {
        PodUid::parse(text).expect("a uid")
    }

    /// Fails at these seconds; how long each pause is.
    #[track_caller]
    fn check(failures: &[(u64, u64)]) {
        let start = Instant::now();
        let mut backoffs = Backoffs::default();
        for (at, pause) in failures {
            let now = start + Duration::from_secs(*at);
            backoffs.failed(&uid("a"), "x", format!("ErrImagePull: {at}"), now);
            let (until, error) = backoffs.waiting(&uid("a"), "x", now).expect("a pause");
            assert_eq!((until - now, error), (Duration::from_secs(*pause), format!("ErrImagePull: {at}").as_str()));
            assert_eq!(backoffs.waiting(&uid("a"), "x", until), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_pause_is_twice_the_last_until_five_minutes() {
        check(&[(0, 10), (10, 20), (30, 40), (70, 80), (150, 160), (310, 300), (610, 300)]);
    }

    #[tokio::test(start_paused = true)]
    async fn ten_minutes_without_a_failure_are_forgiven() {
        check(&[(0, 10), (600, 20), (1201, 10)]);
    }

    #[tokio::test(start_paused = true)]
    async fn other_pods_and_images_do_not_wait() {
        let (mut backoffs, now) = (Backoffs::default(), Instant::now());
        backoffs.failed(&uid("a"), "x", String::new(), now);
        assert_eq!(backoffs.waiting(&uid("b"), "x", now), None);
        assert_eq!(backoffs.waiting(&uid("a"), "y", now), None);
        backoffs.sweep(now + FORGIVEN);
        assert!(backoffs.waiting(&uid("a"), "x", now).is_some());
        backoffs.forget(&uid("a"));
        assert_eq!(backoffs.waiting(&uid("a"), "x", now), None);
    }
}
