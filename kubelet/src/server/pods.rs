//! `/pods`: what should run here, with our statuses. `/runningpods/`: what the runtime has.

use super::answer::json;
use super::state::State;
use crate::runtime::{ContainerState, RuntimePod};
use crate::table::Entry;
use axum::extract::State as Extract;
use axum::response::Response;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use std::sync::Arc;

/// v1.PodList, written without copying a pod.
#[derive(Serialize)]
struct PodList<'a> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    metadata: Empty,
    items: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Item<'a> {
    metadata: &'a ObjectMeta,
    spec: &'a PodSpec,
    status: &'a PodStatus,
}

fn list(items: Vec<Item<'_>>) -> PodList<'_> {
    PodList { kind: "PodList", api_version: "v1", metadata: Empty {}, items }
}

/// An entry's pod, with our status of it.
fn item(entry: &Entry) -> Item<'_> {
    Item { metadata: &entry.pod.object().metadata, spec: entry.pod.spec(), status: &entry.status }
}

/// All pods that should run here.
pub(super) async fn desired(Extract(state): Extract<Arc<State>>) -> Response {
    json(&state, || {
        let entries = state.inputs.table.list();
        let items = entries.iter().map(item).collect();
        serde_json::to_vec(&list(items))
    })
    .await
}

/// All pods of which the runtime has a running container or a ready sandbox.
pub(super) async fn running(Extract(state): Extract<Arc<State>>) -> Response {
    let pods = match state.inputs.runtime.list_pods().await {
        Ok(pods) => pods,
        Err(error) => return super::answer::refuse(axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.message),
    };
    json(&state, || {
        let pods: Vec<Pod> = pods.iter().filter(|pod| runs(pod)).map(object).collect();
        let (nothing, no_spec) = (PodStatus::default(), PodSpec::default());
        let items = pods
            .iter()
            .map(|pod| Item { metadata: &pod.metadata, spec: pod.spec.as_ref().unwrap_or(&no_spec), status: &nothing })
            .collect();
        serde_json::to_vec(&list(items))
    })
    .await
}

fn runs(pod: &RuntimePod) -> bool {
    let running = |state: &ContainerState| matches!(state, ContainerState::Running { .. });
    pod.observed.containers.iter().any(|container| running(&container.state))
        || pod.observed.sandboxes.iter().any(|sandbox| sandbox.ready)
}

/// What the runtime knows of a pod, as an object.
fn object(pod: &RuntimePod) -> Pod {
    let containers = pod.observed.containers.iter().map(|container| Container {
        name: container.name.clone(),
        image: Some(container.image.clone()),
        ..Container::default()
    });
    Pod {
        metadata: ObjectMeta {
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            uid: Some(pod.uid.to_string()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec { containers: containers.collect(), ..PodSpec::default() }),
        status: None,
    }
}
