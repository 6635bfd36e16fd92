//! Container events, for as many subscribers as there are.
//!
//! Each subscriber has the same bounded queue behind it. One that falls further behind than that is cut off with an
//! error, and lists again: it must not believe that nothing happened.

use proto::ContainerEventResponse;
use tokio::sync::{broadcast, watch};

/// How many events a subscriber may be behind.
const QUEUE: usize = 1024;

/// Where events go.
#[derive(Debug)]
pub(crate) struct Events {
    queue: broadcast::Sender<ContainerEventResponse>,
    over: watch::Sender<bool>,
}

impl Default for Events {
    fn default() -> Self {
        Events { queue: broadcast::Sender::new(QUEUE), over: watch::Sender::new(false) }
    }
}

impl Events {
    /// Tells all subscribers; `event` is made only if there is one.
    pub(crate) fn tell(&self, event: impl FnOnce() -> ContainerEventResponse) {
        if self.queue.receiver_count() > 0 {
            // The last subscriber may have left meanwhile.
            let _ = self.queue.send(event());
        }
    }

    /// Everything from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<ContainerEventResponse> {
        self.queue.subscribe()
    }

    /// There will be no more: the daemon stops.
    pub(crate) fn end(&self) {
        self.over.send_replace(true);
    }

    /// Completes once there are no more.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut over = self.over.subscribe();
        async move {
            // A dropped sender is an end too.
            let _ = over.wait_for(|over| *over).await;
        }
    }
}
