//! What the runtime has, as news: its events, and complete lists.
//!
//! With events a list every half minute is for what an event may have missed; a runtime without them is listed every
//! second, as upstream does. A stream that ends or falls behind is opened anew, and everything listed meanwhile.
//! Listing never waits for the stream: a server in Go (containerd) does not answer before it has an event to tell.

use super::{Changed, Health, Result, Runtime, RuntimePod};
use crate::metrics::Metrics;
use crate::pod::PodUid;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

/// How often everything is listed beside events, and without.
const WITH_EVENTS: Duration = Duration::from_secs(30);
const WITHOUT_EVENTS: Duration = Duration::from_secs(1);
/// How often a runtime without events is asked whether it has some by now.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// News of the runtime.
#[derive(Debug)]
pub(crate) enum News {
    /// Something of this pod changed.
    Changed(PodUid),
    /// Everything that it has.
    All(Vec<RuntimePod>),
}

type Stream = BoxStream<'static, Result<Changed>>;

/// What we have of the runtime's events.
enum Events {
    /// Nothing; it is asked at this time.
    Absent { ask: Instant },
    /// The question.
    Asked(BoxFuture<'static, Result<Stream>>),
    /// All of them, from the first list after this on.
    Open(Stream),
}

/// What there was to hear.
enum Heard {
    Changed(PodUid),
    /// The stream opened or broke: only a list tells what happened meanwhile.
    Gap,
}

/// Lists and listens until nobody hears the news any more; lists soon when `asked` to.
pub(crate) async fn run(
    runtime: Arc<dyn Runtime>,
    asked: Arc<Notify>,
    news: mpsc::Sender<News>,
    health: Arc<watch::Sender<Health>>,
    metrics: Metrics,
) {
    let mut events = Events::Absent { ask: Instant::now() };
    loop {
        if list(&*runtime, &news, &health, &metrics).await.is_none() {
            return;
        }
        let period = if matches!(events, Events::Open(_)) { WITH_EVENTS } else { WITHOUT_EVENTS };
        if !hear(&mut events, &runtime, &asked, &news, Instant::now() + period).await {
            return;
        }
    }
}

/// Lists everything; `None` if nobody listens any more.
async fn list(
    runtime: &dyn Runtime,
    news: &mpsc::Sender<News>,
    health: &watch::Sender<Health>,
    metrics: &Metrics,
) -> Option<()> {
    let started = Instant::now();
    match runtime.list_pods().await {
        Ok(pods) => {
            metrics.relist(started.elapsed());
            metrics.runtime_seen();
            health.send_modify(|health| health.last_relist = Some(Instant::now()));
            news.send(News::All(pods)).await.ok()
        }
        Err(error) => {
            tracing::debug!(%error, "the runtime can't be listed");
            (!news.is_closed()).then_some(())
        }
    }
}

/// Passes events on until it is time to list again. False if nobody listens any more.
async fn hear(
    events: &mut Events,
    runtime: &Arc<dyn Runtime>,
    asked: &Notify,
    news: &mpsc::Sender<News>,
    mut until: Instant,
) -> bool {
    loop {
        tokio::select! {
            // However many ask, and however often.
            () = asked.notified() => until = until.min(Instant::now() + WITHOUT_EVENTS),
            heard = events.next(runtime) => match heard {
                Heard::Changed(uid) => if news.send(News::Changed(uid)).await.is_err() { return false },
                Heard::Gap => return true,
            },
            () = tokio::time::sleep_until(until) => return true,
            () = news.closed() => return false,
        }
    }
}

impl Events {
    /// Waits for something to hear. Nothing is lost when the caller stops waiting.
    async fn next(&mut self, runtime: &Arc<dyn Runtime>) -> Heard {
        loop {
            match self {
                Events::Absent { ask } => {
                    tokio::time::sleep_until(*ask).await;
                    let runtime = Arc::clone(runtime);
                    *self = Events::Asked(async move { runtime.events().await }.boxed());
                }
                Events::Asked(answer) => match answer.await {
                    Ok(stream) => {
                        *self = Events::Open(stream);
                        return Heard::Gap;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "no events");
                        *self = Events::Absent { ask: Instant::now() + ASK_AGAIN };
                    }
                },
                Events::Open(stream) => {
                    match stream.next().await {
                        Some(Ok(changed)) => return Heard::Changed(changed.uid),
                        Some(Err(error)) => tracing::debug!(%error, "the events of the runtime ended"),
                        None => {}
                    }
                    // A runtime that is back has events again.
                    *self = Events::Absent { ask: Instant::now() + WITHOUT_EVENTS };
                    return Heard::Gap;
                }
            }
        }
    }
}
