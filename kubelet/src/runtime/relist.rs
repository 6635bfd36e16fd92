//! What the runtime has, as news: its events, and complete lists.
//!
//! With events a list every half minute is for what an event may have missed; a runtime without them is listed every
//! second, as upstream does. A stream that ends or falls behind is opened anew, and everything listed meanwhile.

use super::{Changed, Health, Result, Runtime, RuntimePod};
use crate::metrics::Metrics;
use crate::pod::PodUid;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
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

/// Lists and listens until nobody hears the news any more.
pub(crate) async fn run(
    runtime: Arc<dyn Runtime>,
    news: mpsc::Sender<News>,
    health: Arc<watch::Sender<Health>>,
    metrics: Metrics,
) {
    let mut events: Option<BoxStream<'static, Result<Changed>>> = None;
    let mut ask_again = Instant::now();
    loop {
        if events.is_none() && Instant::now() >= ask_again {
            events = runtime.events().await.inspect_err(|error| tracing::debug!(%error, "no events")).ok();
            ask_again = Instant::now() + ASK_AGAIN;
        }
        // After the stream was opened: what happens from here on is heard or listed.
        let listed = list(&*runtime, &news, &health, &metrics).await;
        if listed.is_none() {
            return;
        }
        let period = if events.is_some() { WITH_EVENTS } else { WITHOUT_EVENTS };
        if !hear(&mut events, &news, Instant::now() + period).await {
            return;
        }
        if events.is_none() && period == WITH_EVENTS {
            // The stream broke: a runtime that is back has one again.
            ask_again = Instant::now();
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

/// Passes events on until it is time to list again or the stream ends. False if nobody listens any more.
async fn hear(
    events: &mut Option<BoxStream<'static, Result<Changed>>>,
    news: &mpsc::Sender<News>,
    until: Instant,
) -> bool {
    loop {
        let Some(stream) = events else {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return true,
                () = news.closed() => return false,
            }
        };
        tokio::select! {
            event = stream.next() => match event {
                Some(Ok(changed)) => if news.send(News::Changed(changed.uid)).await.is_err() { return false },
                Some(Err(error)) => {
                    tracing::debug!(%error, "the events of the runtime ended");
                    *events = None;
                    return true;
                }
                None => {
                    *events = None;
                    return true;
                }
            },
            () = tokio::time::sleep_until(until) => return true,
            () = news.closed() => return false,
        }
    }
}
