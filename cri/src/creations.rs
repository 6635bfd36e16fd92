//! Creations that run: keyed, so that a retry joins the one that is under way instead of failing on its name.
//!
//! A kubelet repeats a RunPodSandbox or CreateContainer that timed out, with the same metadata. The work runs in a task
//! of its own, which no client's patience ends; each client waits for it as long as it likes and is told, when it gives
//! up, which stage the work is in.

use crate::failure::{Failure, Result};
use crate::stages::Stages;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tonic::Code;

type Running<K, R> = Arc<Mutex<HashMap<K, Arc<Creation<R>>>>>;

/// What runs, by key. `R` is the request: one with the same key and another content does not join.
#[derive(Debug)]
pub(crate) struct Creations<K, R> {
    running: Running<K, R>,
}

#[derive(Debug)]
struct Creation<R> {
    request: Arc<R>,
    since: Instant,
    stages: Stages,
    outcome: Shared<BoxFuture<'static, Result<String>>>,
}

impl<K, R> Default for Creations<K, R> {
    fn default() -> Self {
        Creations { running: Arc::default() }
    }
}

impl<K, R> Creations<K, R>
where
    K: Hash + Eq + Clone + Send + 'static,
    R: PartialEq + Send + Sync + 'static,
{
    /// Joins the creation under `key`, or begins it with what `begin` returns: the id of what was made.
    ///
    /// `begin` runs while no other creation of this kind begins, and decides what to do about things made earlier.
    pub(crate) async fn join_or_begin<F>(
        &self,
        what: &str,
        key: K,
        request: Arc<R>,
        patience: Option<Duration>,
        begin: impl FnOnce(Stages) -> Result<Begin<F>>,
    ) -> Result<String>
    where
        F: Future<Output = Result<String>> + Send + 'static,
    {
        let creation = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            match running.get(&key) {
                Some(creation) if *creation.request == *request => Arc::clone(creation),
                Some(_) => {
                    return Err(Failure::exists(format!("{what} is being created with another configuration")));
                }
                None => {
                    let stages = Stages::default();
                    match begin(stages.clone())? {
                        Begin::Done(id) => return Ok(id),
                        Begin::Run(work) => {
                            let creation = self.spawn(what, key.clone(), request, stages, work);
                            running.insert(key, Arc::clone(&creation));
                            creation
                        }
                    }
                }
            }
        };
        wait(what, &creation, patience).await
    }

    fn spawn<F>(&self, what: &str, key: K, request: Arc<R>, stages: Stages, work: F) -> Arc<Creation<R>>
    where
        F: Future<Output = Result<String>> + Send + 'static,
    {
        let occupied = Occupied { running: Arc::clone(&self.running), key };
        let watch = stages.clone().watch(what.to_owned());
        let task = tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = work => outcome,
                () = watch => unreachable!("the watch has no end"),
            };
            // Only now may another creation begin under this key: until here it joins this one.
            drop(occupied);
            outcome
        });
        let what = what.to_owned();
        let outcome = task
            .map(move |joined| joined.unwrap_or_else(|error| Err(Failure::internal(format!("create {what}"), &error))))
            .boxed()
            .shared();
        Arc::new(Creation { request, since: Instant::now(), stages, outcome })
    }
}

/// A key under which a creation runs; free again when this is dropped, even by a panic.
struct Occupied<K: Eq + Hash, R> {
    running: Running<K, R>,
    key: K,
}

impl<K: Eq + Hash, R> Drop for Occupied<K, R> {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// What a creation comes to before it begins.
pub(crate) enum Begin<F> {
    /// An identical request has been answered before: this is what it made.
    Done(String),
    /// Work to do.
    Run(F),
}

async fn wait<R>(what: &str, creation: &Creation<R>, patience: Option<Duration>) -> Result<String> {
    let Some(patience) = patience else { return creation.outcome.clone().await };
    match tokio::time::timeout(patience, creation.outcome.clone()).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => {
            let now = Instant::now();
            let total = now.saturating_duration_since(creation.since).as_secs();
            let stage = creation.stages.current().map_or_else(String::new, |(name, _)| name);
            let summary = creation.stages.summary(now);
            Err(Failure::new(
                Code::DeadlineExceeded,
                format!(
                    "create {what}: waiting {total} s in stage \"{stage}\"; it goes on, and a retry joins it (stages: {summary})"
                ),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::oneshot;

    type Test = Creations<&'static str, u32>;

    async fn never() -> Result<String> {
        std::future::pending().await
    }

    async fn panicking() -> Result<String> {
        panic!("on purpose")
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_joins_the_running_creation_and_gets_its_result() {
        let creations = Arc::new(Test::default());
        let begun = Arc::new(AtomicUsize::new(0));
        let (finish, finished) = oneshot::channel::<()>();
        let mut finished = Some(finished);
        let mut create = |patience| {
            let (creations, begun, finished) = (Arc::clone(&creations), Arc::clone(&begun), finished.take());
            async move {
                creations
                    .join_or_begin("sandbox a", "a", Arc::new(1), patience, |_| {
                        begun.fetch_add(1, Ordering::Relaxed);
                        Ok(Begin::Run(async move {
                            finished.expect("begun once").await.expect("sender lives");
                            Ok("id-a".to_owned())
                        }))
                    })
                    .await
            }
        };
        let first = create(Some(Duration::from_secs(5))).await.unwrap_err();
        assert_eq!(first.code, Code::DeadlineExceeded);
        let second = tokio::spawn(create(None));
        tokio::task::yield_now().await;
        finish.send(()).unwrap();
        assert_eq!(second.await.unwrap().unwrap(), "id-a");
        assert_eq!(begun.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_names_the_stages() {
        let creations = Test::default();
        let error = creations
            .join_or_begin("sandbox a", "a", Arc::new(1), Some(Duration::from_secs(118)), |stages| {
                stages.enter("cni add");
                Ok(Begin::Run(never()))
            })
            .await
            .unwrap_err();
        assert_eq!(error.code, Code::DeadlineExceeded);
        assert!(error.message.contains("in stage \"cni add\""), "{error}");
    }

    #[tokio::test]
    async fn another_configuration_under_the_same_key_is_refused() {
        let creations = Test::default();
        let begin = |_| Ok(Begin::Run(never()));
        let patience = Some(Duration::from_millis(1));
        let _ = creations.join_or_begin("sandbox a", "a", Arc::new(1), patience, begin).await;
        let error = creations.join_or_begin("sandbox a", "a", Arc::new(2), patience, begin).await.unwrap_err();
        assert_eq!(error.code, Code::AlreadyExists);
    }

    #[tokio::test]
    async fn a_creation_that_panics_leaves_the_key_free() {
        let creations = Test::default();
        let panics = |_: Stages| Ok(Begin::Run(panicking()));
        let error = creations.join_or_begin("sandbox a", "a", Arc::new(1), None, panics).await.unwrap_err();
        assert_eq!(error.code, Code::Internal);
        let done = |_: Stages| Ok(Begin::Run(async { Ok("id".to_owned()) }));
        assert_eq!(creations.join_or_begin("sandbox a", "a", Arc::new(1), None, done).await.unwrap(), "id");
    }

    #[tokio::test]
    async fn a_failed_creation_leaves_the_key_free() {
        let creations = Test::default();
        let fail = |_: Stages| Ok(Begin::Run(async { Err::<String, _>(Failure::invalid("no")) }));
        creations.join_or_begin("sandbox a", "a", Arc::new(1), None, fail).await.unwrap_err();
        let done = |_: Stages| Ok(Begin::Run(async { Ok("id".to_owned()) }));
        assert_eq!(creations.join_or_begin("sandbox a", "a", Arc::new(2), None, done).await.unwrap(), "id");
    }
}
