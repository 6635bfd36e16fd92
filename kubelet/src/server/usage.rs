//! `/stats/summary` and the four pages of metrics.

use super::answer::{document, json, refuse};
use super::state::State;
use crate::metrics::text::{CONTENT_TYPE, Text};
use crate::metrics::{process, table};
use axum::extract::{Query, State as Extract};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use std::sync::Arc;

/// `/stats/summary`.
pub(super) async fn summary(
    Extract(state): Extract<Arc<State>>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Response {
    let only = pairs.iter().find(|(key, _)| key == "only_cpu_and_memory").map(|(_, value)| value.as_str());
    let only_cpu_and_memory = matches!(only, Some("1" | "t" | "T" | "true" | "TRUE" | "True"));
    match state.inputs.stats.summary(only_cpu_and_memory).await {
        Ok(summary) => json(&state, || serde_json::to_vec(&summary)).await,
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("Internal Error: {error}")),
    }
}

/// `/metrics`: ourselves.
pub(super) async fn own(Extract(state): Extract<Arc<State>>) -> Response {
    page(&state, |text| {
        state.inputs.metrics.write(text);
        table::write(&state.inputs.table.list(), text);
        process::write(text);
    })
    .await
}

/// `/metrics/probes`.
pub(super) async fn probes(Extract(state): Extract<Arc<State>>) -> Response {
    page(&state, |text| state.inputs.metrics.write_probes(text)).await
}

/// `/metrics/resource`: what `kubectl top` shows.
pub(super) async fn resource(Extract(state): Extract<Arc<State>>) -> Response {
    let stats = &state.inputs.stats;
    let snapshot = stats.snapshot().await.ok();
    page(&state, |text| stats.write_resource(snapshot.as_deref(), text)).await
}

/// `/metrics/cadvisor`: what dashboards show.
pub(super) async fn cadvisor(Extract(state): Extract<Arc<State>>) -> Response {
    let stats = &state.inputs.stats;
    match stats.snapshot().await {
        Ok(snapshot) => page(&state, |text| stats.write_cadvisor(&snapshot, text)).await,
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// A page of metrics. Whatever has to be waited for was waited for: others want the turn.
async fn page(state: &State, write: impl FnOnce(&mut Text)) -> Response {
    document(state, CONTENT_TYPE, || {
        let mut text = Text::new();
        write(&mut text);
        Bytes::from(text.finish())
    })
    .await
}
