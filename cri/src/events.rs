//! Container events, for as many subscribers as there are.
//!
//! Each subscriber has the same bounded queue behind it. One that falls further behind than that is cut off with an
//! error, and lists again: it must not believe that nothing happened.

use proto::ContainerEventResponse;
use tokio::sync::broadcast;

/// How many events a subscriber may be behind.
const QUEUE: usize = 1024;

/// Where events go.
#[derive(Debug)]
pub(crate) struct Events(broadcast::Sender<ContainerEventResponse>);

impl Default for Events {
    fn default() -> Self {
        Events(broadcast::Sender::new(QUEUE))
    }
}

impl Events {
    /// Tells all subscribers; `event` is made only if there is one.
    pub(crate) fn tell(&self, event: impl FnOnce() -> ContainerEventResponse) {
        if self.0.receiver_count() > 0 {
            // The last subscriber may have left meanwhile.
            let _ = self.0.send(event());
        }
    }

    /// Everything from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<ContainerEventResponse> {
        self.0.subscribe()
    }
}
