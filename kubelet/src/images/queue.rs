//! How many pulls run at a time, and how many begin in a second.

use crate::config;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Lets pulls begin.
#[derive(Debug)]
pub(super) struct Queue {
    /// `None` does not limit.
    slots: Option<Arc<Semaphore>>,
    bucket: Mutex<Bucket>,
    images: Mutex<BTreeMap<String, Weak<AsyncMutex<()>>>>,
}

impl Queue {
    pub(super) fn new(settings: &config::Images, now: Instant) -> Queue {
        let slots = match (settings.serialize, settings.max_parallel) {
            (true, _) => Some(1),
            (false, limit) => limit.map(|limit| limit.max(1) as usize),
        };
        Queue {
            slots: slots.map(|slots| Arc::new(Semaphore::new(slots))),
            bucket: Mutex::new(Bucket::new(settings.registry_qps, settings.registry_burst, now)),
            images: Mutex::default(),
        }
    }

    /// Waits until nobody else pulls this image: it may be there then.
    pub(super) async fn image(&self, image: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
            images.retain(|_, lock| lock.strong_count() > 0);
            let known = images.get(image).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::new(AsyncMutex::new(()));
                images.insert(image.to_owned(), Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }

    /// Waits for a slot; it is held until it is dropped.
    pub(super) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let slots = self.slots.clone()?;
        Some(slots.acquire_owned().await.expect("nobody closes the slots"))
    }

    /// Whether one more pull may begin now.
    pub(super) fn admit(&self, now: Instant) -> bool {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(now)
    }
}

/// A bucket of tokens: `burst` at most, `rate` new ones a second.
#[derive(Debug)]
struct Bucket {
    rate: u32,
    burst: f64,
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    fn new(rate: u32, burst: u32, now: Instant) -> Bucket {
        let burst = f64::from(burst.max(1));
        Bucket { rate, burst, tokens: burst, filled_at: now }
    }

    /// A rate of 0 does not limit.
    fn take(&mut self, now: Instant) -> bool {
        if self.rate == 0 {
            return true;
        }
        let passed = now.duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + passed * f64::from(self.rate)).min(self.burst);
        self.filled_at = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_let_through_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2, 3, start);
        let admitted = |bucket: &mut Bucket, at: u64| {
            let now = start + Duration::from_millis(at);
            (0..10).filter(|_| bucket.take(now)).count()
        };
        assert_eq!(admitted(&mut bucket, 0), 3);
        assert_eq!(admitted(&mut bucket, 400), 0);
        assert_eq!(admitted(&mut bucket, 500), 1);
        assert_eq!(admitted(&mut bucket, 60_000), 3);
        assert_eq!(admitted(&mut Bucket::new(0, 0, start), 0), 10);
    }
}
