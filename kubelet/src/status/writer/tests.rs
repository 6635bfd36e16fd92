//! When a status is written, and when not.

use super::*;
use crate::fakes::api::FakeApi;
use crate::pod::Source;
use serde_json::{Value, json};

/// A fake API server with one pod, and a writer to it.
struct Scene {
    fake: FakeApi,
    mirrors: Mirrors,
    writer: Writer,
    metrics: Metrics,
}

impl Scene {
    fn new() -> Scene {
        let fake = FakeApi::new();
        let mirrors = Mirrors::new(fake.api(), "n1");
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let metrics = Metrics::new("n1");
        let writer = Writer::start(fake.api(), mirrors.clone(), clock, metrics.clone());
        Scene { fake, mirrors, writer, metrics }
    }

    /// Puts a pod with this metadata and status, and returns it as its source would say it.
    fn pod(&self, meta: Value, status: Value) -> Pod {
        let mut object = json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u1"},
            "spec": {"containers": [{"name": "c"}]},
            "status": status,
        });
        crate::fakes::api::strategic_merge(&mut object["metadata"], &meta);
        let object = self.fake.put_pod(serde_json::from_value(object).unwrap());
        Pod::new(Arc::new(object), Source::Api).unwrap()
    }

    fn shown(&self) -> PodStatus {
        self.fake.state().pods.values().next().unwrap().status.clone().unwrap()
    }

    fn calls(&self) -> Vec<String> {
        self.fake.state().calls.clone()
    }
}

fn status(phase: &str) -> PodStatus {
    PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() }
}

/// Lets the writing task do all it can without time going by.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_is_written_once() {
    let scene = Scene::new();
    let pod = scene.pod(json!({}), json!({"phase": "Pending"}));
    for _ in 0..3 {
        scene.writer.set(&pod, status("Running"));
        settle().await;
    }
    assert_eq!(scene.shown().phase.as_deref(), Some("Running"));
    assert_eq!(scene.calls(), ["patch_pod_status default/web"]);
}

#[tokio::test(start_paused = true)]
async fn statuses_that_come_faster_than_they_are_written_are_one_write() {
    let scene = Scene::new();
    let pod = scene.pod(json!({}), json!({}));
    for n in 0..100 {
        scene.writer.set(&pod, PodStatus { message: Some(n.to_string()), ..status("Running") });
    }
    settle().await;
    assert_eq!(scene.shown().message.as_deref(), Some("99"));
    assert!(scene.calls().len() <= 2, "{:?}", scene.calls());
}

#[tokio::test(start_paused = true)]
async fn what_the_api_server_has_already_is_not_written() {
    let scene = Scene::new();
    let pod = scene.pod(json!({}), json!({"phase": "Running"}));
    scene.writer.set(&pod, status("Running"));
    settle().await;
    assert!(scene.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_outage_delays_a_write_and_the_newest_status_wins() {
    let scene = Scene::new();
    let pod = scene.pod(json!({}), json!({}));
    scene.fake.fail("patch_pod_status", (0..5).map(|_| ApiError::Unavailable("refused".into())));
    scene.writer.set(&pod, status("Pending"));
    settle().await;
    scene.writer.set(&pod, status("Running"));
    for _ in 0..60 {
        tokio::time::advance(Duration::from_secs(1)).await;
        settle().await;
    }
    assert_eq!(scene.shown().phase.as_deref(), Some("Running"));
    assert_eq!(scene.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_the_same_name_is_not_told_of_another() {
    let scene = Scene::new();
    let old = scene.pod(json!({}), json!({}));
    scene.pod(json!({"uid": "u2"}), json!({}));
    scene.writer.set(&old, status("Failed"));
    settle().await;
    assert_eq!(scene.shown().phase, None);
}

#[tokio::test(start_paused = true)]
async fn a_final_phase_is_never_left() {
    let scene = Scene::new();
    let pod = scene.pod(json!({}), json!({"phase": "Failed", "reason": "Evicted"}));
    scene.writer.set(&pod, PodStatus { pod_ip: Some("10.0.0.1".into()), ..status("Running") });
    settle().await;
    let shown = scene.shown();
    assert_eq!((shown.phase.as_deref(), shown.reason.as_deref()), (Some("Failed"), Some("Evicted")));
    assert_eq!(shown.pod_ip.as_deref(), Some("10.0.0.1"));
}

#[tokio::test(start_paused = true)]
async fn conditions_of_others_stay_and_ours_come_back() {
    let scene = Scene::new();
    let gate = json!({"conditions": [{"type": "example.com/gate", "status": "True"}]});
    let pod = scene.pod(json!({}), gate);
    let ready = |status: &str| PodCondition { type_: "Ready".into(), status: status.into(), ..PodCondition::default() };
    scene.writer.set(&pod, PodStatus { conditions: Some(vec![ready("True")]), ..status("Running") });
    settle().await;
    let types = |status: PodStatus| -> Vec<_> {
        status.conditions.unwrap().into_iter().map(|condition| (condition.type_, condition.status)).collect()
    };
    let expected = [("example.com/gate".to_owned(), "True".to_owned()), ("Ready".to_owned(), "True".to_owned())];
    assert_eq!(types(scene.shown()), expected);

    // Somebody takes it away; the watch says so, and the worker syncs.
    let spoiled = scene.pod(
        json!({}),
        json!({"phase": "Running", "conditions": [
        {"type": "example.com/gate", "status": "True"}, {"type": "Ready", "status": "False"}]}),
    );
    scene.writer.set(&spoiled, PodStatus { conditions: Some(vec![ready("True")]), ..status("Running") });
    settle().await;
    assert_eq!(types(scene.shown()), expected);
}

#[tokio::test(start_paused = true)]
async fn a_disruption_that_others_announce_stays() {
    let scene = Scene::new();
    let pod = scene.pod(json!({}), json!({}));
    scene.pod(
        json!({}),
        json!({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]}),
    );
    let seen = scene.fake.state().pods.values().next().unwrap().clone();
    scene.writer.set(&pod, status("Running"));
    scene.writer.set(&Pod::new(Arc::new(seen), Source::Api).unwrap(), status("Running"));
    settle().await;
    assert_eq!(scene.shown().conditions.unwrap()[0].type_, "DisruptionTarget");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_goes_once_its_final_status_is_written() {
    let scene = Scene::new();
    let pod = scene.pod(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), json!({"phase": "Running"}));
    scene.writer.set(&pod, status("Running"));
    settle().await;
    assert!(scene.calls().is_empty(), "not finished");
    scene.writer.set(&pod, status("Succeeded"));
    scene.writer.finish(&pod);
    settle().await;
    assert_eq!(scene.calls(), ["patch_pod_status default/web", "delete_pod default/web"]);
    assert!(scene.fake.state().pods.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deletion_outlasts_an_outage() {
    let scene = Scene::new();
    let pod = scene.pod(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), json!({"phase": "Failed"}));
    scene.fake.fail("delete_pod", (0..3).map(|_| ApiError::Unavailable("refused".into())));
    scene.writer.set(&pod, status("Failed"));
    scene.writer.finish(&pod);
    for _ in 0..30 {
        settle().await;
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(scene.fake.state().pods.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_finished_pod_stays_until_it_is_deleted() {
    let scene = Scene::new();
    let pod = scene.pod(json!({}), json!({"phase": "Running"}));
    scene.writer.set(&pod, status("Succeeded"));
    scene.writer.finish(&pod);
    settle().await;
    assert_eq!(scene.calls(), ["patch_pod_status default/web"]);
    let deleted = scene.pod(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), json!({"phase": "Succeeded"}));
    scene.writer.finish(&deleted);
    settle().await;
    assert!(scene.fake.state().pods.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_is_told_of_by_its_mirror_once_there_is_one() {
    let scene = Scene::new();
    let mut object = scene.pod(json!({}), json!({})).object().clone();
    scene.fake.remove_pod("default", "web");
    object.metadata.uid = Some("hash".into());
    let pod = Pod::new(Arc::new(object.clone()), Source::File).unwrap();
    scene.writer.set(&pod, status("Running"));
    settle().await;
    assert!(scene.fake.state().patches.is_empty());
    object.metadata.uid = Some("mirror-uid".into());
    scene.mirrors.put(scene.fake.put_pod(object));
    tokio::time::advance(FULL_SYNC).await;
    settle().await;
    assert_eq!(scene.fake.state().patches[0]["metadata"]["uid"], "mirror-uid");
    assert_eq!(scene.shown().phase.as_deref(), Some("Running"));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_is_learnt_during_a_write_outlasts_its_answer() {
    let scene = Scene::new();
    let pod = scene.pod(json!({}), json!({"phase": "Running"}));
    let answer = scene.fake.hold("patch_pod_status");
    scene.writer.set(&pod, status("Succeeded"));
    settle().await;
    // The write is done, and its answer on the way, when somebody deletes the pod.
    let deleted = scene.pod(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), json!({"phase": "Succeeded"}));
    scene.writer.finish(&deleted);
    settle().await;
    answer.send(()).expect("the writer waits");
    settle().await;
    assert!(scene.fake.state().pods.is_empty(), "{:?}", scene.calls());
}

#[tokio::test(start_paused = true)]
async fn a_write_that_meets_another_one_is_tried_again() {
    let scene = Scene::new();
    let pod = scene.pod(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), json!({"phase": "Running"}));
    scene.fake.fail("patch_pod_status", [ApiError::Conflict("the object has been modified".into())]);
    scene.writer.set(&pod, status("Succeeded"));
    scene.writer.finish(&pod);
    for _ in 0..10 {
        settle().await;
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(scene.fake.state().pods.is_empty(), "{:?}", scene.calls());
}

#[tokio::test(start_paused = true)]
async fn a_condition_is_as_old_as_the_api_server_knows_it_to_be() {
    let scene = Scene::new();
    let told = json!({"phase": "Running", "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"},
        {"type": "Initialized", "status": "False", "lastTransitionTime": "2025-01-01T00:00:00Z"}]});
    let pod = scene.pod(json!({}), told);
    let now = |kind: &str| PodCondition {
        type_: kind.into(),
        status: "True".into(),
        last_transition_time: serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap(),
        ..PodCondition::default()
    };
    let conditions = Some(vec![now("Ready"), now("Initialized")]);
    scene.writer.set(&pod, PodStatus { conditions, ..status("Running") });
    settle().await;
    let since: Vec<_> = scene.shown().conditions.unwrap().iter().map(|it| json!(it.last_transition_time)).collect();
    assert_eq!(since, [json!("2025-01-01T00:00:00Z"), json!("2026-01-01T00:00:00Z")]);
}

#[tokio::test(start_paused = true)]
async fn it_is_measured_how_late_a_status_is_written() {
    let scene = Scene::new();
    let pod = scene.pod(json!({}), json!({}));
    scene.fake.fail("patch_pod_status", [ApiError::Unavailable("refused".into())]);
    scene.writer.set(&pod, status("Running"));
    settle().await;
    tokio::time::advance(FIRST_PAUSE).await;
    settle().await;
    let mut text = crate::metrics::text::Text::new();
    scene.metrics.write(&mut text);
    let text = text.finish();
    assert!(text.contains("kubelet_pod_status_sync_duration_seconds_sum 0.5"), "{text}");
}
