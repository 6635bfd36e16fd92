//! The calls that are under way, so that one that hangs can be named.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// All calls under way.
#[derive(Debug, Default)]
pub(super) struct Calls {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Numbers rise with time.
    calls: BTreeMap<u64, Blocked>,
}

#[derive(Debug)]
struct Blocked {
    call: &'static str,
    pod: String,
    since: Instant,
}

/// A call under way; it is over when this is dropped.
pub(super) struct UnderWay<'a> {
    calls: &'a Calls,
    number: u64,
}

impl Calls {
    /// A call begins, for the pod `namespace/name` or for none.
    pub(super) fn begin(&self, call: &'static str, pod: &str) -> UnderWay<'_> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.calls.insert(number, Blocked { pod: pod.to_owned(), call, since: Instant::now() });
        UnderWay { calls: self, number }
    }

    /// The oldest, if it began longer ago than this: `ContainerStatus of default/web`.
    pub(super) fn oldest(&self, age: Duration) -> Option<String> {
        let state = self.lock();
        let oldest = state.calls.values().next().filter(|call| call.since.elapsed() > age)?;
        Some(if oldest.pod.is_empty() { oldest.call.to_owned() } else { format!("{} of {}", oldest.call, oldest.pod) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.calls.lock().calls.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_call_that_hangs_longest_is_named() {
        let calls = Calls::default();
        let first = calls.begin("RunPodSandbox", "default/web");
        tokio::time::advance(Duration::from_secs(3)).await;
        let second = calls.begin("Status", "");
        tokio::time::advance(Duration::from_secs(3)).await;
        let oldest = |age| calls.oldest(Duration::from_secs(age));
        assert_eq!(oldest(7), None);
        assert_eq!(oldest(4).as_deref(), Some("RunPodSandbox of default/web"));
        drop(first);
        assert_eq!((oldest(4), oldest(2).as_deref()), (None, Some("Status")));
        drop(second);
        assert_eq!(oldest(0), None);
    }
}
