//! The forms of an answer: a refusal in upstream's plain text, a document, a stream.

use super::state::State;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// How much of a document is handed to the connection at a time.
const PIECE: usize = 64 * 1024;
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
    let pieces = stream::unfold((content, permit), |(mut rest, permit)| async move {
        let piece = rest.split_to(rest.len().min(PIECE));
        (!piece.is_empty()).then_some((io::Result::Ok(piece), (rest, permit)))
    });
    (headers, Body::from_stream(pieces)).into_response()
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
