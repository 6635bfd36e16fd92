//! Where a request is and how long each step took, so that a deadline's error can say it.
//!
//! A creation names its stages as it enters them. Whoever waits for it, and whoever joined later, reads the list when
//! his patience ends; a stage that takes longer than [`STALLED`] is logged while it lasts.

use crate::failure::{Failure, Result};
use std::fmt::Write as _;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A stage that lasts longer is worth a line in the log.
pub(crate) const STALLED: Duration = Duration::from_secs(10);

/// A stopwatch with names; clones look at the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stages(Arc<Mutex<Vec<(String, Instant)>>>);

impl Stages {
    /// The stage before ends, this one begins.
    pub(crate) fn enter(&self, name: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((name.into(), Instant::now()));
    }

    /// The stage that runs, and since when.
    pub(crate) fn current(&self) -> Option<(String, Duration)> {
        let stages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stages.last().map(|(name, since)| (name.clone(), since.elapsed()))
    }

    /// `a 3 ms, b 118000 ms`.
    pub(crate) fn summary(&self, now: Instant) -> String {
        let stages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (index, (name, since)) in stages.iter().enumerate() {
            let end = stages.get(index + 1).map_or(now, |(_, next)| *next);
            let separator = if index == 0 { "" } else { ", " };
            let ms = end.saturating_duration_since(*since).as_millis();
            let _ = write!(text, "{separator}{name} {ms} ms");
        }
        text
    }

    /// Runs until the stages are dropped with the work they describe: logs each stage that stalls, once.
    pub(crate) async fn watch(self, what: String) {
        let mut told = String::new();
        let mut tick = tokio::time::interval(STALLED / 2);
        loop {
            tick.tick().await;
            match self.current() {
                Some((name, since)) if since >= STALLED && name != told => {
                    tracing::warn!(stage = name, seconds = since.as_secs(), "{what} does not get on");
                    told = name;
                }
                _ => {}
            }
        }
    }
}

tokio::task_local! {
    /// The stopwatch of the request that this task serves; a creation keeps one of its own, which its clients share.
    static REQUEST: Stages;
}

/// The request that this task serves enters a stage; outside of one nothing happens.
pub(crate) fn enter(name: impl Into<String>) {
    _ = REQUEST.try_with(|stages| stages.enter(name));
}

/// Work that goes on in a task of its own and still names the stages of the request that began it.
pub(crate) fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    REQUEST.scope(REQUEST.try_with(Stages::clone).unwrap_or_default(), work)
}

/// Runs a request's work for as long as its client waits; the error of a deadline tells where the time went.
pub(crate) async fn within<T>(
    what: &str,
    patience: Option<Duration>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let stages = Stages::default();
    stages.enter("wait for its turn");
    let work = REQUEST.scope(stages.clone(), work);
    let Some(patience) = patience else { return work.await };
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_elapsed| {
        let stage = stages.current().map_or_else(String::new, |(name, _)| name);
        let summary = stages.summary(Instant::now());
        let waited = patience.as_millis();
        let text = format!("{what}: not done after {waited} ms, in stage \"{stage}\" (stages: {summary})");
        Err(Failure::new(tonic::Code::DeadlineExceeded, text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_names_the_stages_even_of_work_that_went_on_in_a_task() {
        let work = async {
            enter("ask the shim");
            let hanging = carried(async {
                enter("stop a container");
                std::future::pending::<()>().await;
            });
            tokio::spawn(hanging).await.unwrap();
            Ok(())
        };
        let refused = within("StopContainer c1", Some(Duration::from_millis(1500)), work).await.unwrap_err();
        assert_eq!(refused.code, tonic::Code::DeadlineExceeded);
        let text = refused.to_string();
        assert!(text.starts_with("StopContainer c1: not done after 1500 ms, in stage \"stop a container\""), "{text}");
        assert!(text.contains("ask the shim 0 ms, stop a container 150"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_summary_names_every_stage_with_its_milliseconds() {
        let stages = Stages::default();
        stages.enter("start shim");
        stages.enter("cni add \"bridge\"");
        let later = Instant::now() + Duration::from_secs(118);
        assert_eq!(stages.summary(later), "start shim 0 ms, cni add \"bridge\" 118000 ms");
        assert_eq!(Stages::default().summary(later), "");
    }
}
