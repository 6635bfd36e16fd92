//! Work that several pulls want at once is done once: a layer on its way, by chain id.
//!
//! A flight is a task of its own. It goes on as long as anybody waits for it, whoever started it, and is cancelled when
//! the last one has gone. Each pull has resolved the image with its own credentials before it may wait here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::pull_error::FetchError;
use super::snapshot::NewSnapshot;
use crate::digest::Digest;
use crate::layer::LayerTree;

/// A layer that is unpacked and verified.
pub(super) struct Landed {
    pub(super) snapshot: Arc<NewSnapshot>,
    pub(super) tree: LayerTree,
}

/// Where a flight is: compressed bytes that have arrived, then how it ended. A layer that was committed while nobody
/// looked is `Ok(None)`.
pub(super) enum Status {
    Flying(u64),
    Ended(Result<Option<Arc<Landed>>, Arc<FetchError>>),
}

/// A layer on its way; cancelled when the last holder drops it.
pub(super) struct Flight {
    pub(super) status: watch::Receiver<Status>,
    task: AbortHandle,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The layers that are on their way.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<Digest, Weak<Flight>>>);

impl Flights {
    /// The flight of `chain`, started by `start` if there is none; `true` if this call started it.
    pub(super) fn join<F>(&self, chain: &Digest, start: impl FnOnce(watch::Sender<Status>) -> F) -> (Arc<Flight>, bool)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(chain).and_then(Weak::upgrade).filter(|flight| !flight.has_failed()) {
            return (flight, false);
        }
        let (sender, status) = watch::channel(Status::Flying(0));
        let flight = Arc::new(Flight { status, task: tokio::spawn(start(sender)).abort_handle() });
        flights.insert(chain.clone(), Arc::downgrade(&flight));
        (flight, true)
    }
}

impl Flight {
    fn has_failed(&self) -> bool {
        matches!(&*self.status.borrow(), Status::Ended(Err(_)))
    }

    /// Waits for the end, telling how many bytes have arrived.
    pub(super) async fn wait(&self, arrived: impl Fn(u64)) -> Result<Option<Arc<Landed>>, Arc<FetchError>> {
        let mut status = self.status.clone();
        loop {
            let bytes = match &*status.borrow_and_update() {
                Status::Ended(result) => return result.clone(),
                Status::Flying(bytes) => *bytes,
            };
            arrived(bytes);
            if status.changed().await.is_err() {
                // The task ended without a word: the runtime is shutting down.
                return Err(Arc::new(FetchError::Cancelled));
            }
        }
    }
}
