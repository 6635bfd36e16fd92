//! Static pods, and what the API server is shown of them.

use super::*;
use crate::api::ApiError;
use crate::fakes::runtime as fake;
use crate::runtime::{Container, ContainerState, Sandbox};
use crate::sources::mirror::{HASH, MIRROR};
use crate::spec;
use k8s_openapi::api::core::v1::Pod as PodObject;

/// A static pod with one container, `web`.
fn manifest(hash: &str) -> Pod {
    let spec = json!({"containers": [{"name": "web", "image": "i"}]});
    object("web", Source::File, &spec, &json!({"uid": hash, "annotations": {HASH: hash}}))
}

/// A stage whose node is registered and whose API server has no pods.
async fn registered() -> Stage {
    let stage = Stage::new().await;
    let node = json!({"metadata": {"name": "node", "uid": "node-uid"}});
    stage.api.put_node(serde_json::from_value(node).unwrap());
    stage.wants(&[]).await;
    stage
}

fn unavailable(times: usize) -> Vec<ApiError> {
    vec![ApiError::Unavailable("refused".into()); times]
}

fn mirrors(stage: &Stage) -> Vec<String> {
    let hash = |pod: &PodObject| pod.metadata.annotations.clone().unwrap()[MIRROR].clone();
    stage.api.state().pods.values().map(hash).collect()
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_could_not_be_made_is_tried_again() {
    let stage = registered().await;
    stage.api.fail("create_pod", unavailable(3));
    stage.upsert(&manifest("h1")).await;
    assert!(mirrors(&stage).is_empty());
    stage.pass(60).await;
    assert_eq!(mirrors(&stage), ["h1"]);
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_could_not_be_removed_is_tried_again() {
    let stage = registered().await;
    stage.upsert(&manifest("h1")).await;
    assert_eq!(mirrors(&stage), ["h1"]);
    stage.api.fail("delete_pod", unavailable(2));
    stage.gone(&manifest("h1")).await;
    assert_eq!(mirrors(&stage), ["h1"]);
    stage.pass(120).await;
    assert!(mirrors(&stage).is_empty());
}

/// A kubelet that starts where a static pod has crashed before, and was told to wait until 00:01:20.
async fn restarted() -> Stage {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let runtime = FakeRuntime::new(clock.clone());
    let pod = manifest("h1");
    let sandbox = Sandbox { ips: vec!["10.0.0.2".parse().unwrap()], ..fake::sandbox("sandbox-1") };
    let container = Container {
        sandbox_id: "sandbox-1".into(),
        hash: spec::container_hash(&pod.spec().containers[0]),
        state: ContainerState::Running { started_at: clock.now().wall },
        ..fake::container("web-1", "web")
    };
    runtime.put(uid(&pod), "web", sandbox, vec![container]);
    runtime.exit("web", 1);
    let stage = Stage::with(runtime, FakeHost::default(), clock, Arc::new(|_, _| Ok(()))).await;
    let mut mirror = pod.object().clone();
    mirror.metadata.annotations.get_or_insert_default().insert(MIRROR.into(), "h1".into());
    let status = json!({"phase": "Running", "containerStatuses": [{
        "name": "web", "image": "i", "imageID": "", "ready": false, "started": false, "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff",
            "message": "back-off 1m20s restarting failed container=web pod=web_default(h1)"}},
        "lastState": {"terminated": {
            "exitCode": 1, "finishedAt": "2026-01-01T00:00:00Z", "containerID": "fake://web-1"}},
    }]});
    mirror.status = Some(serde_json::from_value(status).unwrap());
    stage.mirrors.put(mirror);
    stage.updates.send(Update::Set { source: Source::File, pods: vec![pod] }).await.unwrap();
    stage.pass(1).await;
    stage
}

#[tokio::test(start_paused = true)]
async fn what_was_told_of_a_static_pod_holds_over_a_restart() {
    let stage = restarted().await;
    stage.wants(&[]).await;
    stage.pass(70).await;
    assert!(stage.calls().is_empty(), "the back-off is over at 00:01:20");
    assert_eq!(stage.state(&manifest("h1"), "web"), "waiting CrashLoopBackOff");
    stage.pass(10).await;
    assert_eq!(stage.calls(), ["start web"]);
}

#[tokio::test(start_paused = true)]
async fn without_an_api_server_a_static_pod_is_looked_after_all_the_same() {
    let stage = restarted().await;
    assert!(stage.calls().is_empty(), "it is held");
    stage.pass(90).await;
    assert_eq!(stage.calls(), ["start web"]);
}
