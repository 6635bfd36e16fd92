//! Answers that are kept for a while, a bounded number of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Answers by question; the least recently asked one makes room.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    most: usize,
    kept: Mutex<HashMap<K, Kept<V>>>,
}

#[derive(Debug)]
struct Kept<V> {
    value: V,
    until: Instant,
    asked: Instant,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    /// Keeps `most` answers at most.
    pub(super) fn new(most: usize) -> Cache<K, V> {
        Cache { most, kept: Mutex::default() }
    }

    /// The answer to `key`, if it is kept and not too old.
    pub(super) fn get(&self, key: &K) -> Option<V> {
        let now = Instant::now();
        let mut kept = self.lock();
        let one = kept.get_mut(key).filter(|one| one.until > now)?;
        one.asked = now;
        Some(one.value.clone())
    }

    /// Keeps an answer for `time`.
    pub(super) fn put(&self, key: K, value: V, time: Duration) {
        let now = Instant::now();
        let mut kept = self.lock();
        if kept.len() >= self.most && !kept.contains_key(&key) {
            kept.retain(|_, one| one.until > now);
        }
        if kept.len() >= self.most && !kept.contains_key(&key) {
            let oldest = kept.iter().min_by_key(|(_, one)| one.asked).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| kept.remove(&oldest));
        }
        kept.insert(key, Kept { value, until: now + time, asked: now });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<K, Kept<V>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_age() {
        let cache = Cache::new(2);
        cache.put("a", 1, Duration::from_secs(30));
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(cache.get(&"a"), Some(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(cache.get(&"a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_recently_asked_answer_makes_room() {
        let cache = Cache::new(2);
        for key in ["a", "b"] {
            cache.put(key, key, Duration::from_secs(60));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(cache.get(&"a"), Some("a"));
        tokio::time::advance(Duration::from_secs(1)).await;
        cache.put("c", "c", Duration::from_secs(60));
        assert_eq!((cache.get(&"a"), cache.get(&"b"), cache.get(&"c")), (Some("a"), None, Some("c")));
    }
}
