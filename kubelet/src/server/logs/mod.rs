//! `/containerLogs/{namespace}/{pod}/{container}`: what `kubectl logs` shows.
//!
//! The pod's status says which container is meant (this one, or with `previous` the one before); the log's path follows
//! from names alone, never from what a pod can write.

mod file;
mod query;
mod reader;
mod record;
mod stream;

use super::answer::{refuse, text_stream};
use super::state::State;
use crate::pod::Pod;
use crate::runtime::{Container, ContainerState};
use crate::table::{Entry, PodTable};
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::Response;
use file::{Location, is_component};
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use query::{Options, Refused};
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

/// GET.
pub(super) async fn get(
    axum::extract::State(state): axum::extract::State<Arc<State>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Response {
    let permit = Arc::clone(&state.log_streams).try_acquire_owned();
    let Ok(permit) = permit else {
        return refuse(StatusCode::TOO_MANY_REQUESTS, "too many logs are being read: try again later");
    };
    match open(&state, &namespace, &pod, &container, &pairs).await {
        Ok(stream) => text_stream(stream, permit),
        Err((status, text)) => refuse(status, text),
    }
}

async fn open(
    state: &State,
    namespace: &str,
    name: &str,
    container: &str,
    pairs: &[(String, String)],
) -> Result<impl futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static, Refused> {
    let options = Options::parse(pairs, state.inputs.clock.now().wall)?;
    let not_found = |text: String| (StatusCode::NOT_FOUND, text);
    let table = &state.inputs.table;
    let entry = table.find(namespace, name).ok_or_else(|| not_found(format!("pod {name:?} does not exist")))?;
    if entry.pod.container(container).is_none() {
        return Err(not_found(format!("container {container:?} not found in pod {name:?}")));
    }
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let id = which(name, &entry.status, container, options.previous).map_err(bad)?;
    let observed = observed(&entry, &id)
        .ok_or_else(|| bad(format!("unable to retrieve container logs for {}://{id}", scheme(&entry.status))))?;
    let location = location(&state.inputs.config.pod_logs, &entry.pod, observed)
        .ok_or_else(|| bad(format!("the names of container {container:?} in pod {name:?} make no path")))?;
    let shown = location.display();
    let runs = runs(table.clone(), entry.pod.clone(), id);
    stream::open(location, options, runs)
        .await
        .map_err(|error| bad(format!("failed to open log file {shown:?}: {error}")))
}

/// The id of the container whose log is meant. The texts are upstream's (validateContainerLogStatus).
fn which(pod: &str, status: &PodStatus, container: &str, previous: bool) -> Result<String, String> {
    let one = status_of(status, container)
        .ok_or_else(|| format!("container {container:?} in pod {pod:?} is not available"))?;
    let state = one.state.as_ref();
    let last = one.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let last_id = last.and_then(|last| last.container_id.as_deref()).filter(|id| !id.is_empty());
    let terminated = || format!("container {container:?} in pod {pod:?} is terminated");
    let id = if previous {
        last_id.ok_or_else(|| format!("previous terminated container {container:?} in pod {pod:?} not found"))?
    } else if state.is_some_and(|state| state.running.is_some()) {
        one.container_id.as_deref().unwrap_or_default()
    } else if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        let id = ended.container_id.as_deref().filter(|id| !id.is_empty());
        id.or(last_id).ok_or_else(terminated)?
    } else if last.is_some() {
        last_id.ok_or_else(terminated)?
    } else {
        let waiting = state.and_then(|state| state.waiting.as_ref());
        let why = match waiting.map(|waiting| waiting.reason.as_deref().unwrap_or_default()) {
            Some("ErrImagePull") => ": image can't be pulled".to_owned(),
            Some("ImagePullBackOff") => ": trying and failing to pull image".to_owned(),
            Some(reason) => format!(": {reason}"),
            None => " - no logs yet".to_owned(),
        };
        return Err(format!("container {container:?} in pod {pod:?} is waiting to start{why}"));
    };
    Ok(id.split_once("://").map_or(id, |(_, id)| id).to_owned())
}

fn status_of<'a>(status: &'a PodStatus, container: &str) -> Option<&'a ContainerStatus> {
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.chain(status.ephemeral_container_statuses.iter().flatten()).find(|one| one.name == container)
}

fn scheme(status: &PodStatus) -> &str {
    let first = status.container_statuses.iter().flatten().find_map(|one| one.container_id.as_deref());
    first.and_then(|id| id.split_once("://")).map_or("cri", |(scheme, _)| scheme)
}

fn observed<'a>(entry: &'a Entry, id: &str) -> Option<&'a Container> {
    entry.observed.containers.iter().find(|container| container.id == id)
}

/// `<namespace>_<pod>_<uid>/<container>/<restarts>.log` below the folder of logs.
fn location(root: &FsPath, pod: &Pod, container: &Container) -> Option<Location> {
    let folder = format!("{}_{}_{}", pod.namespace(), pod.name(), pod.uid());
    let plain = is_component(&folder) && is_component(&container.name);
    let path: PathBuf = [folder, container.name.clone(), format!("{}.log", container.restart_count)].iter().collect();
    plain.then(|| Location { root: root.to_owned(), path })
}

fn runs(table: PodTable, pod: Pod, id: String) -> stream::Runs {
    Box::new(move || {
        table.get(pod.uid()).is_some_and(|entry| {
            observed(&entry, &id).is_some_and(|container| matches!(container.state, ContainerState::Running { .. }))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(container: serde_json::Value, previous: bool, expected: Result<&str, &str>) {
        let status = serde_json::json!({ "containerStatuses": [container] });
        let status: PodStatus = serde_json::from_value(status).unwrap();
        let found = which("p", &status, "c", previous);
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{container:?}");
    }

    fn container(state: serde_json::Value, last: serde_json::Value) -> serde_json::Value {
        serde_json::json!({
            "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "containerID": "orlop://now", "state": state, "lastState": last,
        })
    }

    #[test]
    fn the_status_says_whose_log_is_meant() {
        use serde_json::json;
        let running = json!({ "running": {} });
        let ended = |id: &str| json!({ "terminated": { "exitCode": 1, "containerID": id } });
        let waiting = |reason: &str| json!({ "waiting": { "reason": reason } });
        check(container(running.clone(), json!({})), false, Ok("now"));
        check(container(running.clone(), ended("orlop://before")), true, Ok("before"));
        check(container(ended("orlop://now"), json!({})), false, Ok("now"));
        check(container(ended(""), ended("orlop://before")), false, Ok("before"));
        check(container(waiting("CrashLoopBackOff"), ended("orlop://before")), false, Ok("before"));
        for (state, last, previous, text) in [
            (running, json!({}), true, r#"previous terminated container "c" in pod "p" not found"#),
            (ended(""), json!({}), false, r#"container "c" in pod "p" is terminated"#),
            (waiting("CrashLoopBackOff"), ended(""), false, r#"container "c" in pod "p" is terminated"#),
            (
                waiting("ContainerCreating"),
                json!({}),
                false,
                r#"container "c" in pod "p" is waiting to start: ContainerCreating"#,
            ),
            (
                waiting("ErrImagePull"),
                json!({}),
                false,
                r#"container "c" in pod "p" is waiting to start: image can't be pulled"#,
            ),
            (
                waiting("ImagePullBackOff"),
                json!({}),
                false,
                r#"container "c" in pod "p" is waiting to start: trying and failing to pull image"#,
            ),
            (json!({}), json!({}), false, r#"container "c" in pod "p" is waiting to start - no logs yet"#),
        ] {
            check(container(state, last), previous, Err(text));
        }
    }

    #[test]
    fn a_container_without_status_is_not_available() {
        let found = which("p", &PodStatus::default(), "c", false);
        assert_eq!(found, Err(r#"container "c" in pod "p" is not available"#.to_owned()));
    }
}
