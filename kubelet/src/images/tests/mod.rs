//! Pulls against a runtime in memory.

mod registry;

use super::*;
use crate::api::ApiError;
use crate::config::flags::Flags;
use crate::fakes::api::FakeApi;
use crate::pod::Source;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Event, Secret};
use registry::{Registry, image};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// Images with all that they depend on.
struct World {
    images: Images,
    registry: Arc<Registry>,
    api: FakeApi,
    events: Mutex<mpsc::Receiver<Event>>,
    _root: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        World::with(|_| ())
    }

    fn with(settings: impl FnOnce(&mut crate::config::Images)) -> World {
        let root = tempfile::tempdir().expect("a temporary directory");
        let given = [
            ("hostname-override", "n"),
            ("node-ip", "192.0.2.1"),
            ("fail-cgroupv1", "false"),
            ("fail-swap-on", "false"),
        ];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mut config = crate::config::load(&Flags { given, ..Flags::default() }).expect("a configuration");
        config.root = root.path().to_owned();
        settings(&mut config.images);
        let (registry, api) = (Arc::new(Registry::default()), FakeApi::new());
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().expect("a time"));
        let (recorder, events) = Recorder::captured(clock.clone());
        let images = Images::new(registry.clone(), api.api(), recorder, clock, Metrics::new("n"), &config);
        World { images, registry, api, events: Mutex::new(events), _root: root }
    }

    /// `ok <image id>` or `reason: message`.
    async fn ensure(&self, pod: &Pod) -> String {
        let sandbox = proto::PodSandboxConfig::default();
        match self.images.ensure(pod, Role::Regular, &pod.spec().containers[0], &sandbox).await {
            Ok(found) => format!("ok {}", found.id),
            Err(error) => format!("{}: {}", error.reason, error.message),
        }
    }

    /// Events since the last look: `reason message`.
    fn events(&self) -> Vec<String> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |event: Event| format!("{} {}", event.reason.unwrap_or_default(), event.message.unwrap_or_default());
        std::iter::from_fn(|| events.try_recv().ok()).map(text).collect()
    }

    fn put_secret(&self, name: &str, user: &str, password: &str) {
        let config = json!({ "auths": { "reg.io": { "username": user, "password": password } } });
        let mut secret = Secret {
            type_: Some("kubernetes.io/dockerconfigjson".to_owned()),
            data: Some(BTreeMap::from([(".dockerconfigjson".to_owned(), ByteString(config.to_string().into_bytes()))])),
            ..Secret::default()
        };
        secret.metadata.name = Some(name.to_owned());
        secret.metadata.namespace = Some("ns".to_owned());
        secret.metadata.uid = Some(format!("uid-of-{name}"));
        self.api.put_secret(secret);
    }
}

fn pod(uid: &str, image: &str, policy: &str, secrets: &[&str]) -> Pod {
    let secrets: Vec<Value> = secrets.iter().map(|name| json!({ "name": name })).collect();
    let object = json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": uid },
        "spec": {
            "imagePullSecrets": secrets,
            "containers": [{ "name": "c", "image": image, "imagePullPolicy": policy }],
        },
    });
    Pod::new(Arc::new(serde_json::from_value(object).expect("a pod")), Source::Api).expect("a pod")
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_there_is_not_pulled() {
    let world = World::new();
    world.registry.shelf().there.insert("busybox:latest".to_owned(), image(3));
    assert_eq!(world.ensure(&pod("a", "busybox", "IfNotPresent", &[])).await, "ok sha256:3");
    assert_eq!(world.ensure(&pod("a", "busybox", "Never", &[])).await, "ok sha256:3");
    let found = "Pulled Container image \"busybox\" already present on machine and can be accessed by the pod";
    assert_eq!(world.events(), [found, found]);
    assert!(world.registry.shelf().pulls.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_not_there_is_pulled_and_how_long_it_took_is_told() {
    let world = World::new();
    world.registry.shelf().takes = Duration::from_millis(1234);
    assert_eq!(world.ensure(&pod("a", "reg.io/app:1", "IfNotPresent", &[])).await, "ok sha256:7");
    assert_eq!(
        world.events(),
        [
            "Pulling Pulling image \"reg.io/app:1\"",
            "Pulled Successfully pulled image \"reg.io/app:1\" in 1.234s (1.234s including waiting). Image size: 7 bytes.",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_not_given_goes_by_the_tag() {
    for (image_name, pulled) in [("reg.io/app", 1), ("reg.io/app:latest", 1), ("reg.io/app:1", 0)] {
        let world = World::new();
        let full = reference::parse(image_name).expect("a name").full;
        world.registry.shelf().there.insert(full, image(3));
        world.ensure(&pod("a", image_name, "", &[])).await;
        assert_eq!(world.registry.shelf().pulls.len(), pulled, "{image_name}");
    }
}

#[tokio::test(start_paused = true)]
async fn never_is_never() {
    let world = World::new();
    let text = "Container image \"reg.io/app:1\" is not present with pull policy of Never";
    assert_eq!(world.ensure(&pod("a", "reg.io/app:1", "Never", &[])).await, format!("ErrImageNeverPull: {text}"));
    assert_eq!(world.events(), [format!("ErrImageNeverPull {text}")]);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_none_and_a_runtime_that_is_blind_are_told() {
    let world = World::new();
    let text = "Failed to apply default image tag \"No Name\": couldn't parse image name \"No Name\": invalid reference \
        format: repository name must be lowercase";
    assert_eq!(world.ensure(&pod("a", "No Name", "Always", &[])).await, format!("InvalidImageName: {text}"));
    assert_eq!(world.events(), [format!("InspectFailed {text}")]);
    world.registry.shelf().blind = Some("gone");
    let text = "Failed to inspect image \"\": rpc error: code = Unavailable desc = gone";
    assert_eq!(world.ensure(&pod("a", "x", "IfNotPresent", &[])).await, format!("ImageInspectError: {text}"));
    assert_eq!(world.events(), [format!("InspectFailed {text}")]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_pull_waits_and_keeps_saying_why() {
    let world = World::new();
    let failure = (tonic::Code::Unknown, "no such host");
    world.registry.shelf().failures = [failure; 2].into();
    let pod = pod("a", "reg.io/app:1", "IfNotPresent", &[]);
    assert_eq!(world.ensure(&pod).await, "ErrImagePull: no such host");
    assert_eq!(
        world.events(),
        ["Pulling Pulling image \"reg.io/app:1\"", "Failed Failed to pull image \"reg.io/app:1\": no such host"]
    );
    let until = world.images.retry_at(&pod, &pod.spec().containers[0]).expect("a back-off");
    assert_eq!(until - Instant::now(), Duration::from_secs(10));
    let waiting = "ImagePullBackOff: Back-off pulling image \"reg.io/app:1\": ErrImagePull: no such host";
    assert_eq!(world.ensure(&pod).await, waiting);
    assert_eq!(world.events(), ["BackOff Back-off pulling image \"reg.io/app:1\""]);

    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(world.ensure(&pod).await, "ErrImagePull: no such host");
    let until = world.images.retry_at(&pod, &pod.spec().containers[0]).expect("a back-off");
    assert_eq!(until - Instant::now(), Duration::from_secs(20));
    world.images.forget(pod.uid());
    assert_eq!(world.ensure(&pod).await, "ok sha256:7");
}

#[tokio::test(start_paused = true)]
async fn two_kinds_of_failure_have_reasons_of_their_own() {
    for (code, text, expected) in [
        (
            tonic::Code::Unknown,
            "RegistryUnavailable: try later",
            "RegistryUnavailable: image pull failed for x because the registry is unavailable: try later",
        ),
        (
            tonic::Code::Unknown,
            "SignatureValidationFailed",
            "SignatureValidationFailed: image pull failed for x because the signature validation failed",
        ),
        (tonic::Code::NotFound, "no x", "ErrImagePull: rpc error: code = NotFound desc = no x"),
    ] {
        let world = World::new();
        world.registry.shelf().failures = [(code, text)].into();
        assert_eq!(world.ensure(&pod("a", "x", "Always", &[])).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn every_credential_is_tried_and_all_failures_are_told_once() {
    let world = World::new();
    world.registry.shelf().password = "right";
    world.put_secret("one", "u1", "wrong");
    world.put_secret("two", "u2", "right");
    assert_eq!(world.ensure(&pod("a", "reg.io/app:1", "Always", &["one", "two"])).await, "ok sha256:7");
    assert_eq!(world.registry.shelf().pulls, ["reg.io/app:1 u1", "reg.io/app:1 u2"]);
    assert_eq!(
        world.ensure(&pod("b", "reg.io/app:1", "Always", &["one", "one"])).await,
        "ErrImagePull: pull access denied"
    );
    assert!(world.events().iter().all(|event| !event.contains("wrong") && !event.contains("right")));
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_not_there_is_told_and_the_pull_goes_on() {
    let world = World::new();
    world.api.fail("secret", [ApiError::Unavailable("no answer".to_owned())]);
    assert_eq!(world.ensure(&pod("a", "reg.io/app:1", "Always", &["x", "absent", ""])).await, "ok sha256:7");
    assert_eq!(
        world.events()[0],
        "FailedToRetrieveImagePullSecret Unable to retrieve some image pull secrets (x, absent); attempting to pull the \
         image may not succeed."
    );
}

/// A private image on the node is for pods that may pull it. Mutant: everybody a holder.
#[tokio::test(start_paused = true)]
async fn what_one_pod_pulled_with_a_secret_is_no_gift_to_another() {
    let world = World::new();
    world.registry.shelf().password = "right";
    world.put_secret("mine", "u", "right");
    assert_eq!(world.ensure(&pod("a", "reg.io/app:1", "IfNotPresent", &["mine"])).await, "ok sha256:7");
    assert_eq!(world.ensure(&pod("b", "reg.io/app:1", "IfNotPresent", &["mine"])).await, "ok sha256:7");
    assert_eq!(world.registry.shelf().pulls.len(), 1);
    assert_eq!(world.ensure(&pod("c", "reg.io/app:1", "IfNotPresent", &[])).await, "ErrImagePull: pull access denied");
    let never = world.ensure(&pod("d", "reg.io/app:1", "Never", &[])).await;
    assert!(never.starts_with("ErrImageNeverPull: "), "{never}");
}

/// Mutant: what nobody knows the credentials of is for everybody.
#[tokio::test(start_paused = true)]
async fn what_a_crashed_pull_left_behind_is_for_those_who_can_pull_it() {
    let world = World::new();
    world.images.records.begin("reg.io/app:1").expect("a note");
    world.registry.shelf().there.insert("reg.io/app:1".to_owned(), image(3));
    world.registry.shelf().password = "right";
    let app = |uid, secrets: &[&str]| pod(uid, "reg.io/app:1", "IfNotPresent", secrets);
    assert_eq!(world.ensure(&app("a", &[])).await, "ErrImagePull: pull access denied");
    world.images.records.begin("reg.io/app:1").expect("a note");
    world.put_secret("mine", "u", "right");
    assert_eq!(world.ensure(&app("b", &["mine"])).await, "ok sha256:7");
}

/// Mutant: notes are found under the very words that a pull was asked for with.
#[tokio::test(start_paused = true)]
async fn what_a_crashed_pull_left_behind_is_known_by_its_other_names_too() {
    let world = World::new();
    world.images.records.begin("reg.io/app:1").expect("a note");
    world.images.records.begin("reg.io/never:1").expect("a note");
    for name in ["reg.io/app:1", "reg.io/app:2", "sha256:3"] {
        world.registry.shelf().there.insert(name.to_owned(), image(3));
    }
    world.registry.shelf().password = "right";
    let error = world.ensure(&pod("a", "reg.io/app:2", "IfNotPresent", &[])).await;
    assert_eq!(error, "ErrImagePull: pull access denied");
    assert!(world.images.records.begun().is_empty(), "what nobody goes on with has ended");
    let error = world.ensure(&pod("b", "reg.io/app:2", "IfNotPresent", &[])).await;
    assert_eq!(error, "ErrImagePull: pull access denied");
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_is_looked_into_again_where_the_runtime_did_not_answer() {
    let world = World::new();
    world.images.records.begin("reg.io/app:1").expect("a note");
    world.registry.shelf().blind = Some("gone");
    let _ = world.ensure(&pod("a", "reg.io/app:1", "IfNotPresent", &[])).await;
    assert_eq!(world.images.records.begun(), ["reg.io/app:1"]);
    world.registry.shelf().blind = None;
    let _ = world.ensure(&pod("a", "reg.io/other:1", "IfNotPresent", &[])).await;
    assert!(world.images.records.begun().is_empty());
}

/// Mutant: the record is written after the look at the image, which may fail.
#[tokio::test(start_paused = true)]
async fn a_private_image_that_can_not_be_looked_at_after_its_pull_is_no_gift() {
    let world = World::new();
    world.registry.shelf().password = "right";
    world.put_secret("mine", "u", "right");
    world.registry.shelf().blind_after_pull = Some("restarting");
    let error = world.ensure(&pod("a", "reg.io/app:1", "IfNotPresent", &["mine"])).await;
    assert_eq!(error, "ErrImagePull: rpc error: code = Unavailable desc = restarting");
    world.registry.shelf().blind = None;
    let error = world.ensure(&pod("b", "reg.io/app:1", "IfNotPresent", &[])).await;
    assert_eq!(error, "ErrImagePull: pull access denied");
    world.images.forget(pod("a", "x", "", &[]).uid());
    assert_eq!(world.ensure(&pod("a", "reg.io/app:1", "IfNotPresent", &["mine"])).await, "ok sha256:7");
    assert_eq!(world.registry.shelf().pulls, ["reg.io/app:1 u", "reg.io/app:1"], "who has the secret needs no pull");
}

/// Mutant: every error ends the note that a pull was begun.
#[tokio::test(start_paused = true)]
async fn a_private_image_whose_pull_ended_unheard_is_no_gift() {
    for code in [tonic::Code::DeadlineExceeded, tonic::Code::Cancelled, tonic::Code::Unavailable] {
        let world = World::new();
        world.registry.shelf().password = "right";
        world.put_secret("mine", "u", "right");
        world.registry.shelf().failures = [(code, "no answer")].into();
        let error = world.ensure(&pod("a", "reg.io/app:1", "IfNotPresent", &["mine"])).await;
        assert!(error.starts_with("ErrImagePull: "), "{error}");
        for name in ["reg.io/app:1", "reg.io/app:2"] {
            world.registry.shelf().there.insert(name.to_owned(), image(7));
        }
        for (uid, name) in [("b", "reg.io/app:1"), ("c", "reg.io/app:1"), ("d", "reg.io/app:2")] {
            let error = world.ensure(&pod(uid, name, "IfNotPresent", &[])).await;
            assert_eq!(error, "ErrImagePull: pull access denied", "{code:?} {name}");
        }
    }
}

/// Mutant: every `Unavailable` leaves a doubt; then an outage of the registry takes the images that are there, too.
#[tokio::test(start_paused = true)]
async fn a_registry_that_is_away_takes_no_image_from_anybody() {
    let world = World::new();
    world.registry.shelf().there.insert("reg.io/app:1".to_owned(), image(3));
    world.registry.shelf().failures = [(tonic::Code::Unavailable, "RegistryUnavailable: try later")].into();
    let error = world.ensure(&pod("a", "reg.io/app:1", "Always", &[])).await;
    assert!(error.contains("RegistryUnavailable"), "{error}");
    assert_eq!(world.ensure(&pod("b", "reg.io/app:1", "IfNotPresent", &[])).await, "ok sha256:3");
}

async fn together(world: &World, pods: &[Pod]) -> Vec<String> {
    futures_util::future::join_all(pods.iter().map(|pod| world.ensure(pod))).await
}

#[tokio::test(start_paused = true)]
async fn pods_that_need_the_same_image_wait_for_one_pull() {
    let world = World::with(|settings| settings.serialize = false);
    world.registry.shelf().takes = Duration::from_secs(5);
    let pods = ["a", "b", "c"].map(|uid| pod(uid, "reg.io/app:1", "IfNotPresent", &[]));
    assert_eq!(together(&world, &pods).await, ["ok sha256:7"; 3]);
    assert_eq!(world.registry.shelf().pulls.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn as_many_images_are_pulled_at_a_time_as_are_allowed() {
    for (serialize, limit, expected) in [(true, None, 1), (false, Some(2), 2), (false, None, 4)] {
        let world = World::with(|settings| {
            settings.serialize = serialize;
            settings.max_parallel = limit;
        });
        world.registry.shelf().takes = Duration::from_secs(5);
        let pods = ["a", "b", "c", "d"].map(|uid| pod(uid, &format!("reg.io/{uid}:1"), "IfNotPresent", &[]));
        assert_eq!(together(&world, &pods).await, ["ok sha256:7"; 4]);
        assert_eq!(world.registry.shelf().running, (0, expected), "{serialize} {limit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn pulls_beyond_the_rate_fail_and_are_tried_again() {
    let world = World::with(|settings| (settings.registry_qps, settings.registry_burst) = (1, 1));
    assert_eq!(world.ensure(&pod("a", "reg.io/a:1", "Always", &[])).await, "ok sha256:7");
    assert_eq!(world.ensure(&pod("a", "reg.io/b:1", "Always", &[])).await, "ErrImagePull: pull QPS exceeded");
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(world.ensure(&pod("a", "reg.io/b:1", "Always", &[])).await, "ok sha256:7");
}

#[test]
fn durations_are_written_as_go_writes_them() {
    for (millis, text) in [
        (0, "0s"),
        (7, "7ms"),
        (1000, "1s"),
        (1234, "1.234s"),
        (1500, "1.5s"),
        (60_000, "1m0s"),
        (62_500, "1m2.5s"),
        (3_600_000, "1h0m0s"),
    ] {
        assert_eq!(go_millis(Duration::from_millis(millis)), text);
    }
}
