//! GetContainerEvents: everything that happens from now on, until the client leaves, falls too far behind, or the daemon
//! stops.

use crate::pods::Pods;
use futures_util::{Stream, StreamExt as _};
use proto::ContainerEventResponse;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tonic::Status;

/// One event, or why there are no more.
pub(crate) type Event = Result<ContainerEventResponse, Status>;

pub(crate) fn get_container_events(pods: &Pods) -> impl Stream<Item = Event> + Send + use<> {
    let events = BroadcastStream::new(pods.events.subscribe());
    let mut over = false;
    events
        .map(|event| {
            event.map_err(|BroadcastStreamRecvError::Lagged(missed)| {
                Status::resource_exhausted(format!("{missed} events were missed: list again and subscribe anew"))
            })
        })
        .take_while(move |event| {
            // The error is told, and is the last.
            let goes_on = !over;
            over = event.is_err();
            std::future::ready(goes_on)
        })
        .take_until(pods.events.ended())
}
