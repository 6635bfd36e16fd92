//! What to write for an event, given those before it (client-go's `EventCorrelator`).
//!
//! 1. More than ten that differ in their message only, within ten minutes, are one: "(combined from similar events): …".
//! 2. One that was written before is counted up by a patch.
//! 3. Each object has a bucket of 25 writes, refilled by one in five minutes; what is beyond is dropped.

use crate::clock::Now;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;
use tokio::time::Instant;

const SIMILAR: usize = 10;
const SIMILAR_WITHIN: Duration = Duration::from_secs(600);
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);
/// Entries of each memory; the least recently used are forgotten.
const CAPACITY: usize = 4096;
const COMBINED: &str = "(combined from similar events): ";

/// What is to be written.
#[derive(Debug, PartialEq)]
pub(super) enum Write {
    /// A new event.
    Create(Event),
    /// One more of an event that is there.
    Patch {
        /// As it should be, should it not be there any more.
        event: Event,
        /// Count, time and message.
        patch: Value,
    },
}

impl Write {
    /// The event that it is about.
    pub(super) fn event(&self) -> &Event {
        match self {
            Write::Create(event) | Write::Patch { event, .. } => event,
        }
    }
}

/// What was observed.
#[derive(Debug, Default)]
pub(super) struct Correlator {
    similar: Recent<Subject, Similar>,
    written: Recent<(Subject, String), Written>,
    buckets: Recent<Object, Bucket>,
}

/// Who an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Object {
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
}

/// Everything of an event but its message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Subject {
    object: Object,
    field_path: Option<String>,
    kind: Option<String>,
    reason: Option<String>,
}

#[derive(Debug)]
struct Similar {
    messages: BTreeSet<String>,
    last: Instant,
}

#[derive(Debug)]
struct Written {
    name: Option<String>,
    first: Option<Time>,
    count: i32,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Correlator {
    /// What to write for this event; `None` for one too many.
    pub(super) fn observe(&mut self, event: Event, now: Now) -> Option<Write> {
        let (event, key) = self.combine(event, now.mono);
        let write = self.count(event, key);
        self.accept(object(write.event()), now.mono).then_some(write)
    }

    /// Forgets that an event was written: it was not.
    pub(super) fn forget(&mut self, event: &Event) {
        let subject = subject(event);
        let message = event.message.clone().unwrap_or_default();
        let key = if message.starts_with(COMBINED) { String::new() } else { message };
        self.written.remove(&(subject, key));
    }

    fn combine(&mut self, mut event: Event, now: Instant) -> (Event, (Subject, String)) {
        let subject = subject(&event);
        let message = event.message.clone().unwrap_or_default();
        let similar = self.similar.entry(subject.clone(), || Similar { messages: BTreeSet::new(), last: now });
        if now.duration_since(similar.last) > SIMILAR_WITHIN {
            similar.messages.clear();
        }
        similar.last = now;
        similar.messages.insert(message.clone());
        if similar.messages.len() < SIMILAR {
            return (event, (subject, message));
        }
        similar.messages.pop_first();
        event.message = Some(format!("{COMBINED}{message}"));
        // All of them are one event, whatever they say.
        (event, (subject, String::new()))
    }

    fn count(&mut self, mut event: Event, key: (Subject, String)) -> Write {
        let written = self.written.entry(key, || Written {
            name: event.metadata.name.clone(),
            first: event.first_timestamp.clone(),
            count: 0,
        });
        written.count = written.count.saturating_add(1);
        if written.count == 1 {
            return Write::Create(event);
        }
        event.metadata.name = written.name.clone();
        event.first_timestamp = written.first.clone();
        event.count = Some(written.count);
        let patch = json!({"count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message});
        Write::Patch { event, patch }
    }

    fn accept(&mut self, object: Object, now: Instant) -> bool {
        let bucket = self.buckets.entry(object, || Bucket { tokens: BURST, at: now });
        let refilled = now.duration_since(bucket.at).as_secs_f64() / REFILL.as_secs_f64();
        bucket.tokens = (bucket.tokens + refilled).min(BURST);
        bucket.at = now;
        let free = bucket.tokens >= 1.0;
        if free {
            bucket.tokens -= 1.0;
        }
        free
    }
}

fn object(event: &Event) -> Object {
    let object = &event.involved_object;
    Object {
        kind: object.kind.clone(),
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        uid: object.uid.clone(),
    }
}

fn subject(event: &Event) -> Subject {
    Subject {
        object: object(event),
        field_path: event.involved_object.field_path.clone(),
        kind: event.type_.clone(),
        reason: event.reason.clone(),
    }
}

/// A map that forgets what was not used for long.
#[derive(Debug)]
struct Recent<K, V> {
    entries: HashMap<K, (V, u64)>,
    uses: u64,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Recent { entries: HashMap::new(), uses: 0 }
    }
}

impl<K: Eq + Hash + Clone, V> Recent<K, V> {
    fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if self.entries.len() >= CAPACITY && !self.entries.contains_key(&key) {
            let oldest = self.uses.saturating_sub(CAPACITY as u64 / 2);
            self.entries.retain(|_, (_, used)| *used > oldest);
        }
        self.uses += 1;
        let (value, used) = self.entries.entry(key).or_insert_with(|| (make(), 0));
        *used = self.uses;
        value
    }

    fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use k8s_openapi::api::core::v1::ObjectReference;

    fn event(name: &str, reason: &str, message: &str) -> Event {
        Event {
            involved_object: ObjectReference { name: Some(name.to_owned()), ..ObjectReference::default() },
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            count: Some(1),
            ..Event::default()
        }
    }

    fn clock() -> Clock {
        Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn ten_messages_of_one_reason_are_combined() {
        let (mut correlator, clock) = (Correlator::default(), clock());
        let messages: Vec<_> = (0..12)
            .filter_map(|n| correlator.observe(event("a", "Failed", &format!("try {n}")), clock.now()))
            .map(|write| (matches!(write, Write::Create(_)), write.event().message.clone().unwrap()))
            .collect();
        assert_eq!(messages[8], (true, "try 8".to_owned()));
        assert_eq!(messages[9], (true, format!("{COMBINED}try 9")));
        assert_eq!(messages[10], (false, format!("{COMBINED}try 10")));
    }

    #[tokio::test(start_paused = true)]
    async fn after_ten_quiet_minutes_messages_stand_alone_again() {
        let (mut correlator, clock) = (Correlator::default(), clock());
        for n in 0..11 {
            correlator.observe(event("a", "Failed", &format!("try {n}")), clock.now());
        }
        tokio::time::advance(SIMILAR_WITHIN + Duration::from_secs(1)).await;
        let write = correlator.observe(event("a", "Failed", "try 99"), clock.now()).unwrap();
        assert_eq!(write.event().message.as_deref(), Some("try 99"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_may_speak_25_times_and_then_once_in_five_minutes() {
        let (mut correlator, clock) = (Correlator::default(), clock());
        let mut speak = |name: &str, now| correlator.observe(event(name, "BackOff", "b"), now).is_some();
        assert_eq!((0..40).filter(|_| speak("a", clock.now())).count(), 25);
        assert!(speak("b", clock.now()), "another object has a bucket of its own");
        tokio::time::advance(REFILL).await;
        assert_eq!((0..5).filter(|_| speak("a", clock.now())).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_dropped_is_counted_when_it_speaks_again() {
        let (mut correlator, clock) = (Correlator::default(), clock());
        for _ in 0..30 {
            correlator.observe(event("a", "BackOff", "b"), clock.now());
        }
        tokio::time::advance(REFILL).await;
        let write = correlator.observe(event("a", "BackOff", "b"), clock.now()).unwrap();
        assert_eq!(write.event().count, Some(31));
    }

    #[test]
    fn memories_are_bounded() {
        let mut recent = Recent::default();
        for key in 0..3 * CAPACITY {
            recent.entry(key, || ());
        }
        assert!(recent.entries.len() <= CAPACITY);
        assert!(recent.entries.contains_key(&(3 * CAPACITY - 1)));
    }
}
