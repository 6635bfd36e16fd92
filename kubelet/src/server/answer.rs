//! The forms of an answer: a refusal in upstream's plain text, a document, a stream.

use super::state::State;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// How much of a document is handed to the connection at a time.
const PIECE: usize = 64 * 1024;
/// How long a client may take for a document: /pods of a large node at dial-up speed.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);
/// How long a document waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// A refusal.
pub(super) fn refuse(status: StatusCode, text: impl Into<String>) -> Response {
    let headers = [(CONTENT_TYPE, TEXT), (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))];
    (status, headers, text.into()).into_response()
}

/// Short text.
pub(super) fn text(text: impl Into<String>) -> Response {
    ([(CONTENT_TYPE, TEXT)], text.into()).into_response()
}

/// A document. Only some are written at a time, and one counts until its last piece is taken: clients that read slowly, or
/// in their thousands, don't fill our memory.
pub(super) async fn document(state: &State, content_type: &'static str, write: impl FnOnce() -> Bytes) -> Response {
    let turn = tokio::time::timeout(PATIENCE, Arc::clone(&state.documents).acquire_owned()).await;
    let Ok(Ok(permit)) = turn else {
        return refuse(StatusCode::TOO_MANY_REQUESTS, "too many requests at once: try again later");
    };
    let content = write();
    let headers = [(CONTENT_TYPE, HeaderValue::from_static(content_type))];
    if content.len() <= PIECE {
        return (headers, content).into_response();
    }
    (headers, Body::from_stream(pieces(content, permit))).into_response()
}

/// What is left of a document, and its turn.
struct Rest {
    content: Bytes,
    _permit: OwnedSemaphorePermit,
}

/// A document in pieces. Who has not taken all in time gets no more: the turn and the memory are the next one's.
fn pieces(content: Bytes, permit: OwnedSemaphorePermit) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let rest = Arc::new(Mutex::new(Some(Rest { content, _permit: permit })));
    let until = Instant::now() + TAKEN_WITHIN;
    let late = Arc::downgrade(&rest);
    let timer = AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::time::sleep_until(until).await;
        if let Some(late) = late.upgrade() {
            late.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }));
    stream::unfold(Some((rest, timer)), |state| async move {
        let (rest, timer) = state?;
        let piece = match &mut *rest.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(rest) => rest.content.split_to(rest.content.len().min(PIECE)),
            None => return Some((Err(io::ErrorKind::TimedOut.into()), None)),
        };
        (!piece.is_empty()).then_some((Ok(piece), Some((rest, timer))))
    })
}

/// A JSON document.
pub(super) async fn json(state: &State, write: impl FnOnce() -> serde_json::Result<Vec<u8>>) -> Response {
    let mut failed = None;
    let content = || match write() {
        Ok(content) => Bytes::from(content),
        Err(error) => {
            failed = Some(error.to_string());
            Bytes::new()
        }
    };
    let answer = document(state, "application/json", content).await;
    match failed {
        Some(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error),
        None => answer,
    }
}

/// Text that comes as it comes; `permit` is given back when the stream ends or its client leaves.
pub(super) fn text_stream(
    pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    permit: OwnedSemaphorePermit,
) -> Response {
    let pieces = pieces.map(move |piece| {
        let _held = &permit;
        piece
    });
    ([(CONTENT_TYPE, TEXT)], Body::from_stream(pieces)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

    #[tokio::test(start_paused = true)]
    async fn a_document_that_is_not_taken_in_time_gives_its_turn_to_the_next() {
        let turns = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&turns).acquire_owned().await.unwrap();
        let mut slow = Box::pin(pieces(Bytes::from(vec![0; 3 * PIECE]), permit));
        assert_eq!(slow.next().await.unwrap().unwrap().len(), PIECE);
        let began = Instant::now();
        let permit = Arc::clone(&turns).acquire_owned().await.unwrap();
        assert_eq!(began.elapsed().as_secs(), TAKEN_WITHIN.as_secs());
        assert_eq!(slow.next().await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(slow.next().await.is_none());
        let quick: Vec<_> = pieces(Bytes::from(vec![0; PIECE + 1]), permit).collect().await;
        assert_eq!(quick.iter().map(|piece| piece.as_ref().unwrap().len()).sum::<usize>(), PIECE + 1);
        assert_eq!(turns.available_permits(), 1);
    }
}
