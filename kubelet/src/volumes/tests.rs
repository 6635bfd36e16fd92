//! Volumes as a whole, on a disk and against a fake API server. What needs mounts is in tests/root/kubelet_volumes.rs.

use super::*;
use crate::fakes::api::FakeApi;
use crate::pod::Source as PodSource;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;

struct Fixture {
    api: FakeApi,
    volumes: Volumes,
    root: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let (api, root) = (FakeApi::new(), tempfile::tempdir().unwrap());
        let volumes = Volumes::below(root.path(), api.api(), Clock::system(), Metrics::new("n"));
        Fixture { api, volumes, root }
    }

    fn config_map(&self, name: &str, data: Value) {
        let object = json!({ "metadata": { "namespace": "n", "name": name }, "data": data });
        self.api.put_config_map(serde_json::from_value(object).unwrap());
    }

    async fn mount(&self, pod: &Pod) -> Result<(), String> {
        self.volumes.mount(pod, &BTreeMap::new()).await.map_err(|error| {
            assert_eq!(error.reason, "FailedMount");
            error.message
        })
    }

    async fn container_mounts(&self, pod: &Pod) -> Result<Vec<proto::Mount>, VolumeError> {
        let container = &pod.spec().containers[0];
        self.volumes.container_mounts(pod, container, &BTreeMap::new(), false).await
    }

    fn volume(&self, kind: &str, name: &str) -> PathBuf {
        self.root.path().join("pods/u/volumes").join(format!("kubernetes.io~{kind}")).join(name)
    }
}

/// A pod with these volumes, all of which its one container mounts.
fn pod(volumes: Value) -> Pod {
    let names = volumes.as_array().unwrap().iter().map(|volume| volume["name"].as_str().unwrap());
    let mounts: Vec<_> = names.map(|name| json!({ "name": name, "mountPath": format!("/{name}") })).collect();
    pod_with(volumes.clone(), json!(mounts))
}

fn pod_with(volumes: Value, mounts: Value) -> Pod {
    pod_of(json!({ "containers": [{ "name": "main", "volumeMounts": mounts }], "volumes": volumes }))
}

/// The pod `n/p(u)` with this spec.
pub(super) fn pod_of(spec: Value) -> Pod {
    let object = json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u" }, "spec": spec });
    Pod::new(Arc::new(serde_json::from_value(object).unwrap()), PodSource::Api).unwrap()
}

#[tokio::test]
async fn a_config_map_shows_its_newest_content() {
    let fixture = Fixture::new();
    let pod = pod(json!([{ "name": "c", "configMap": { "name": "settings" } }]));
    fixture.config_map("settings", json!({ "colour": "red", "old": "x" }));
    fixture.mount(&pod).await.unwrap();
    let read = |key: &str| fs::read_to_string(fixture.volume("configmap", "c").join(key));
    assert_eq!(read("colour").unwrap(), "red");
    let folder = fs::read_link(fixture.volume("configmap", "c").join("..data")).unwrap();
    fixture.mount(&pod).await.unwrap();
    assert_eq!(fs::read_link(fixture.volume("configmap", "c").join("..data")).unwrap(), folder);
    fixture.config_map("settings", json!({ "colour": "blue" }));
    fixture.mount(&pod).await.unwrap();
    assert_eq!(read("colour").unwrap(), "blue");
    assert!(read("old").is_err());
}

#[tokio::test]
async fn what_a_volume_needs_and_is_not_there_is_named() {
    let check = async |volume: Value, expected: Result<(), &str>| {
        let fixture = Fixture::new();
        fixture.config_map("empty", json!({}));
        let result = fixture.mount(&pod(json!([volume]))).await;
        assert_eq!(
            result,
            expected.map_err(|error| format!("MountVolume.SetUp failed for volume \"x\" : {error}")),
            "{volume}"
        );
    };
    check(json!({ "name": "x", "configMap": { "name": "y" } }), Err("configmap \"y\" not found")).await;
    check(json!({ "name": "x", "configMap": { "name": "y", "optional": true } }), Ok(())).await;
    check(json!({ "name": "x", "secret": { "secretName": "y" } }), Err("secret \"y\" not found")).await;
    let items = json!([{ "key": "k", "path": "p" }]);
    check(
        json!({ "name": "x", "configMap": { "name": "empty", "items": items } }),
        Err("configmap references non-existent config key: k"),
    )
    .await;
    let sources =
        json!([{ "secret": { "name": "a" } }, { "configMap": { "name": "b" } }, { "configMap": { "name": "empty" } }]);
    check(
        json!({ "name": "x", "projected": { "sources": sources } }),
        Err("[secret \"a\" not found, configmap \"b\" not found]"),
    )
    .await;
    check(
        json!({ "name": "x", "hostPath": { "path": "/dev/null", "type": "Directory" } }),
        Err("hostPath type check failed: /dev/null is not a directory"),
    )
    .await;
    check(json!({ "name": "x", "nfs": { "path": "/", "server": "s" } }), Err("nfs is not supported by this kubelet"))
        .await;
}

#[tokio::test]
async fn a_path_of_a_key_can_not_leave_the_volume() {
    for path in ["../escape", "/escape", "a/../../escape", "..data"] {
        let fixture = Fixture::new();
        fixture.config_map("c", json!({ "k": "v" }));
        let items = json!([{ "key": "k", "path": path }]);
        let error = fixture.mount(&pod(json!([{ "name": "x", "configMap": { "name": "c", "items": items } }]))).await;
        assert!(error.clone().unwrap_err().contains("invalid path: must"), "{path}: {error:?}");
        assert!(!fixture.root.path().join("pods").exists());
    }
}

#[tokio::test]
async fn one_volume_that_fails_does_not_stop_the_others() {
    let fixture = Fixture::new();
    let pod = pod(json!([{ "name": "bad", "configMap": { "name": "gone" } }, { "name": "good", "emptyDir": {} }]));
    assert!(fixture.mount(&pod).await.unwrap_err().contains("\"bad\""));
    assert!(fixture.volume("empty-dir", "good").is_dir());
}

#[tokio::test]
async fn a_mount_point_inside_of_a_read_only_volume_is_there_before_the_runtime_comes() {
    let fixture = Fixture::new();
    fixture.config_map("c", json!({ "k": "v" }));
    let mounts = json!([{ "name": "x", "mountPath": "/etc/x" }, { "name": "y", "mountPath": "/etc/x/inner" }]);
    let volumes = json!([{ "name": "x", "configMap": { "name": "c" } }, { "name": "y", "emptyDir": {} }]);
    fixture.mount(&pod_with(volumes, mounts)).await.unwrap();
    assert!(fixture.volume("configmap", "x").join("inner").is_dir());
}

#[tokio::test]
async fn a_host_path_is_checked_once() {
    let fixture = Fixture::new();
    let path = fixture.root.path().join("host");
    fs::create_dir(&path).unwrap();
    let pod = pod(json!([{ "name": "h", "hostPath": { "path": path, "type": "Directory" } }]));
    fixture.mount(&pod).await.unwrap();
    fs::remove_dir(&path).unwrap();
    fixture.mount(&pod).await.unwrap();
    fixture.volumes.unmount(pod.uid()).await.unwrap();
    fixture.mount(&pod).await.unwrap_err();
}

#[tokio::test]
async fn a_sub_path_that_leads_out_is_refused_without_a_word_about_the_host() {
    let fixture = Fixture::new();
    let mounts = json!([{ "name": "v", "mountPath": "/v", "subPath": "link/secret" }]);
    let pod = pod_with(json!([{ "name": "v", "emptyDir": {} }]), mounts);
    fixture.mount(&pod).await.unwrap();
    symlink(fixture.root.path(), fixture.volume("empty-dir", "v").join("link")).unwrap();
    let error = fixture.container_mounts(&pod).await.unwrap_err();
    assert_eq!(error.message, "failed to prepare subPath for volumeMount \"v\" of container \"main\"");
    assert_eq!(error.reason, "CreateContainerConfigError");
    assert!(!fixture.root.path().join("secret").exists());
}

#[tokio::test]
async fn volumes_are_taken_down_by_a_kubelet_that_knows_nothing_of_the_pod() {
    let fixture = Fixture::new();
    fixture.config_map("c", json!({ "k": "v" }));
    let pod = pod(json!([{ "name": "c", "configMap": { "name": "c" } }, { "name": "e", "emptyDir": {} }]));
    fixture.mount(&pod).await.unwrap();
    fs::create_dir_all(fixture.volume("empty-dir", "e").join("a/b")).unwrap();
    let another = Volumes::below(fixture.root.path(), FakeApi::new().api(), Clock::system(), Metrics::new("n"));
    assert_eq!(another.pods_on_disk().await.unwrap(), [pod.uid().clone()]);
    assert_eq!(another.usage(pod.uid()).await.unwrap().volumes.len(), 2);
    another.unmount(pod.uid()).await.unwrap();
    another.unmount(pod.uid()).await.unwrap();
    assert_eq!(fs::read_dir(fixture.root.path().join("pods/u")).unwrap().count(), 0);
}
