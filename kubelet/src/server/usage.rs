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
        Ok(summary) => json(&state, async { serde_json::to_vec(&summary) }).await,
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("Internal Error: {error}")),
    }
}

/// `/metrics`: ourselves.
pub(super) async fn own(Extract(state): Extract<Arc<State>>) -> Response {
    page(&state, async |text: &mut Text| {
        state.inputs.metrics.write(text);
        table::write(&state.inputs.table.list(), text);
        process::write(text);
    })
    .await
}

/// `/metrics/probes`.
pub(super) async fn probes(Extract(state): Extract<Arc<State>>) -> Response {
    page(&state, async |text: &mut Text| state.inputs.metrics.write_probes(text)).await
}

/// `/metrics/resource`: what `kubectl top` shows.
pub(super) async fn resource(Extract(state): Extract<Arc<State>>) -> Response {
    page(&state, async |text: &mut Text| state.inputs.stats.write_resource(text).await).await
}

/// `/metrics/cadvisor`: what dashboards show.
pub(super) async fn cadvisor(Extract(state): Extract<Arc<State>>) -> Response {
    page(&state, async |text: &mut Text| state.inputs.stats.write_cadvisor(text).await).await
}

async fn page(state: &State, write: impl AsyncFnOnce(&mut Text)) -> Response {
    document(state, CONTENT_TYPE, async {
        let mut text = Text::new();
        write(&mut text).await;
        Bytes::from(text.finish())
    })
    .await
}
