//! Watches a kind of object for as long as somebody listens: a list, then a watch from there, resumed after each break.
//!
//! A version that the API server has forgotten (410, as an event or as the answer) means another list, and the listener
//! is given it as a whole: what is not in it was deleted meanwhile. Nothing is said while the API server is away.

use super::ApiError;
use super::client::map_error;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use kube::api::{ListParams, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, info, warn};

/// The API server ends a watch after this long, and we start the next.
const WATCH_SECONDS: u32 = 290;
/// Deadline of a list, and of the beginning of a watch.
const DEADLINE: Duration = Duration::from_secs(60);
/// Slack for its answer, before a watch counts as dead.
const SLACK: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Short enough that a node works again soon after a long outage; jitter keeps a cluster's nodes apart.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A watch that held so long was a success, whatever ended it.
const HELD: Duration = Duration::from_secs(10);

/// What a watch says.
#[derive(Debug, Clone)]
pub(super) enum Seen<K> {
    /// Everything there is.
    All(Vec<K>),
    /// One is new or changed.
    Upsert(K),
    /// One is gone; its last state.
    Gone(K),
    /// The first list failed so, and will be tried again.
    Failed(ApiError),
}

/// The verbs that a watch is made of; two real servers of them are the client and the tests' script.
pub(super) trait Lists<K>: Send + Sync + 'static {
    /// Everything, and the version that it is of.
    fn list(&self) -> impl Future<Output = Result<(Vec<K>, String), kube::Error>> + Send;
    /// What changes from a version on.
    fn watch(&self, version: &str) -> impl Future<Output = Result<Events<K>, kube::Error>> + Send;
}

/// Changes as the server sends them.
pub(super) type Events<K> = BoxStream<'static, Result<WatchEvent<K>, kube::Error>>;

/// A kind of object at the API server, all of it or what the selector says.
pub(super) struct Selected<K> {
    pub(super) api: kube::Api<K>,
    pub(super) fields: Option<String>,
}

impl<K> Lists<K> for Selected<K>
where
    K: Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    async fn list(&self) -> Result<(Vec<K>, String), kube::Error> {
        let params = ListParams { field_selector: self.fields.clone(), ..ListParams::default() };
        let list = self.api.list(&params).await?;
        Ok((list.items, list.metadata.resource_version.unwrap_or_default()))
    }

    async fn watch(&self, version: &str) -> Result<Events<K>, kube::Error> {
        let params = WatchParams {
            field_selector: self.fields.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        Ok(self.api.watch(&params, version).await?.boxed())
    }
}

/// An object whose version is known.
pub(super) trait Versioned {
    /// `metadata.resourceVersion`.
    fn version(&self) -> Option<&str>;
}

impl<K: k8s_openapi::Metadata<Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>> Versioned for K {
    fn version(&self) -> Option<&str> {
        self.metadata().resource_version.as_deref()
    }
}

/// Where a watch is.
enum Phase<K> {
    /// Nothing is known, or too little.
    List,
    /// All is known up to this version.
    Resume(String),
    /// The server is telling.
    Watching { version: String, events: Events<K>, since: Instant },
}

struct Watch<K, L> {
    /// For logs: `pods`, `secret default/x`.
    what: String,
    server: L,
    phase: Phase<K>,
    listed: bool,
    failures: u32,
}

/// Watches; the stream ends only when it is dropped.
pub(super) fn watch<K, L>(what: String, server: L) -> impl Stream<Item = Seen<K>> + Send
where
    K: Versioned + Send + 'static,
    L: Lists<K>,
{
    let start = Watch { what, server, phase: Phase::List, listed: false, failures: 0 };
    stream::unfold(start, |mut watch| async move {
        loop {
            if let Some(seen) = watch.step().await {
                return Some((seen, watch));
            }
        }
    })
}

impl<K: Versioned + Send + 'static, L: Lists<K>> Watch<K, L> {
    async fn step(&mut self) -> Option<Seen<K>> {
        match std::mem::replace(&mut self.phase, Phase::List) {
            Phase::List => self.list().await,
            Phase::Resume(version) => {
                match within(self.server.watch(&version)).await {
                    Ok(events) => self.phase = Phase::Watching { version, events, since: Instant::now() },
                    Err(error) if is_gone(&error) => self.relist(&error),
                    Err(error) => {
                        self.phase = Phase::Resume(version);
                        self.failed(&error).await;
                    }
                }
                None
            }
            Phase::Watching { version, events, since } => self.next(version, events, since).await,
        }
    }

    async fn list(&mut self) -> Option<Seen<K>> {
        match within(self.server.list()).await {
            Ok((all, version)) => {
                self.works();
                self.listed = true;
                self.phase = Phase::Resume(version);
                Some(Seen::All(all))
            }
            Err(error) if self.listed => {
                self.failed(&error).await;
                None
            }
            Err(error) => {
                // Said before the pause: somebody waits for the first list.
                let seen = (self.failures == 0).then(|| Seen::Failed(map_error(&error)));
                if seen.is_some() {
                    self.failures = 1;
                    debug!(what = self.what, error = %map_error(&error), "list");
                    return seen;
                }
                self.failed(&error).await;
                None
            }
        }
    }

    async fn next(&mut self, mut version: String, mut events: Events<K>, since: Instant) -> Option<Seen<K>> {
        let patience = Duration::from_secs(u64::from(WATCH_SECONDS)) + SLACK;
        let event = tokio::time::timeout_at(since + patience, events.next()).await;
        let seen = match event {
            Ok(Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)))) => Seen::Upsert(object),
            Ok(Some(Ok(WatchEvent::Deleted(object)))) => Seen::Gone(object),
            Ok(Some(Ok(WatchEvent::Bookmark(bookmark)))) => {
                version = bookmark.metadata.resource_version;
                self.phase = Phase::Watching { version, events, since };
                return None;
            }
            Ok(Some(Ok(WatchEvent::Error(status)))) => {
                self.broke(version, since, &kube::Error::Api(status.boxed())).await;
                return None;
            }
            Ok(Some(Err(error))) => {
                self.broke(version, since, &error).await;
                return None;
            }
            // The server ended it, as it does every few minutes, or nothing came for longer than it may last.
            Ok(None) | Err(_) => {
                self.phase = Phase::Resume(version);
                self.ended(since).await;
                return None;
            }
        };
        if let Seen::Upsert(object) | Seen::Gone(object) = &seen {
            self.works();
            version = object.version().map_or(version, str::to_owned);
        }
        self.phase = Phase::Watching { version, events, since };
        Some(seen)
    }

    async fn broke(&mut self, version: String, since: Instant, error: &kube::Error) {
        if is_gone(error) {
            self.relist(error);
            return;
        }
        self.phase = Phase::Resume(version);
        if since.elapsed() >= HELD {
            self.failures = 0;
        }
        self.failed(error).await;
    }

    /// A watch that ends at once, again and again, would be a busy loop.
    async fn ended(&mut self, since: Instant) {
        if since.elapsed() >= HELD {
            self.works();
        } else {
            self.failures += 1;
            tokio::time::sleep_until(Instant::now() + pause(self.failures, random())).await;
        }
    }

    fn relist(&mut self, error: &kube::Error) {
        info!(what = self.what, error = %map_error(error), "the watch can't be resumed: list again");
        self.phase = Phase::List;
    }

    async fn failed(&mut self, error: &kube::Error) {
        self.failures = self.failures.saturating_add(1);
        let error = map_error(error);
        // Said once it is more than a hiccup, and once only.
        match self.failures {
            3 => warn!(what = self.what, %error, "the watch is broken; it is tried again until it works"),
            _ => debug!(what = self.what, %error, failures = self.failures, "watch"),
        }
        tokio::time::sleep_until(Instant::now() + pause(self.failures, random())).await;
    }

    fn works(&mut self) {
        if self.failures >= 3 {
            info!(what = self.what, "the watch works again");
        }
        self.failures = 0;
    }
}

/// A call that an API server which took it never answers has failed.
async fn within<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    let silence = |_| kube::Error::Service(format!("the API server did not answer within {DEADLINE:?}").into());
    tokio::time::timeout(DEADLINE, call).await.map_err(silence)?
}

/// Whether the version is too old to resume from.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 410 || matches!(status.reason.as_str(), "Expired" | "Gone"))
}

/// The pause after so many failures: doubled each time, with jitter, so that a cluster's nodes don't come back in step.
fn pause(failures: u32, random: u64) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    whole.mul_f64(0.5 + (random % 1000) as f64 / 1000.0)
}

/// Random enough for jitter: the seed of each hash map is.
fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests;
