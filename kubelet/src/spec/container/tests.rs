//! Containers to their CRI configs.

use super::*;
use crate::pod::Source;
use crate::spec::files::tests::config;
use serde_json::{Value, json};
use std::sync::Arc;

fn pod(container: &Value) -> Pod {
    let mut object = json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u-1" },
        "spec": { "terminationGracePeriodSeconds": 17, "containers": [{ "name": "c", "image": "busybox" }] },
    });
    let fields = container.as_object().expect("an object").clone();
    object["spec"]["containers"][0].as_object_mut().expect("an object").extend(fields);
    Pod::new(Arc::new(serde_json::from_value(object).expect("a pod")), Source::Api).expect("a pod")
}

fn config_of(pod: &Pod, files: &ContainerFiles) -> Result<proto::ContainerConfig, SpecError> {
    let env = [("WHO", "world"), ("EMPTY", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    container_config(&ContainerInputs {
        config: &config(Path::new("/root")),
        machine: &Machine::default(),
        pod,
        container: &pod.spec().containers[0],
        image: &proto::Image { id: "sha256:1".to_owned(), ..proto::Image::default() },
        restart_count: 4,
        env: &BTreeMap::from(env),
        mounts: vec![proto::Mount { container_path: "/data".to_owned(), ..proto::Mount::default() }],
        files,
    })
}

#[test]
fn commands_and_arguments_are_expanded_once() {
    let container = json!({
        "command": ["echo", "$(WHO)", "$(ABSENT)"], "args": ["$$(WHO)", "a$(EMPTY)b"], "workingDir": "/tmp",
        "stdin": true, "tty": true,
    });
    let found = config_of(&pod(&container), &ContainerFiles::default()).expect("a config");
    assert_eq!(found.command, ["echo", "world", "$(ABSENT)"]);
    assert_eq!(found.args, ["$(WHO)", "ab"]);
    assert_eq!((found.working_dir.as_str(), found.stdin, found.stdin_once, found.tty), ("/tmp", true, false, true));
    let envs: Vec<_> = found.envs.iter().map(|env| (env.key.as_str(), env.value.as_slice())).collect();
    assert_eq!(envs, [("EMPTY", b"".as_slice()), ("WHO", b"world")]);
}

#[test]
fn a_container_is_known_again_after_its_pod_is_gone() {
    let container = json!({ "ports": [{ "containerPort": 80, "name": "web" }] });
    let found = config_of(&pod(&container), &ContainerFiles::default()).expect("a config");
    let texts =
        |map: &BTreeMap<String, String>| map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
    assert_eq!(
        texts(&found.labels),
        [
            "io.kubernetes.container.name=c",
            "io.kubernetes.pod.name=p",
            "io.kubernetes.pod.namespace=ns",
            "io.kubernetes.pod.uid=u-1",
        ]
    );
    assert_eq!(
        texts(&found.annotations),
        [
            &format!("io.kubernetes.container.hash={}", container_hash(&pod(&container).spec().containers[0])),
            "io.kubernetes.container.ports=[{\"containerPort\":80,\"name\":\"web\"}]",
            "io.kubernetes.container.restartCount=4",
            "io.kubernetes.container.terminationMessagePath=/dev/termination-log",
            "io.kubernetes.container.terminationMessagePolicy=File",
            "io.kubernetes.pod.terminationGracePeriod=17",
        ]
    );
    assert_eq!(found.log_path, "c/4.log");
    assert_eq!(found.metadata.expect("metadata").attempt, 4);
    let image = found.image.expect("an image");
    assert_eq!((image.image.as_str(), image.user_specified_image.as_str()), ("sha256:1", "busybox"));
}

#[test]
fn files_are_mounted_behind_volumes() {
    let files = ContainerFiles {
        hosts: Some("/root/pods/u-1/etc-hosts".into()),
        termination_log: Some("/root/pods/u-1/containers/c/0badcafe".into()),
        seccomp_profile: None,
    };
    let found = config_of(&pod(&json!({ "terminationMessagePath": "/tmp/words" })), &files).expect("a config");
    let mounts: Vec<_> =
        found.mounts.iter().map(|mount| (mount.container_path.as_str(), mount.host_path.as_str())).collect();
    assert_eq!(
        mounts,
        [
            ("/data", ""),
            ("/etc/hosts", "/root/pods/u-1/etc-hosts"),
            ("/tmp/words", "/root/pods/u-1/containers/c/0badcafe"),
        ]
    );
}

/// Upstream's `TestConsistentHashContainer` expects this number since 1.31.
#[test]
fn the_hash_is_upstream_s() {
    let container = |fields: Value| serde_json::from_value::<Container>(fields).expect("a container");
    let hash = container_hash(&container(json!({ "name": "test_container", "image": "foo/image:v1" })));
    assert_eq!(hash, "8e45cbd0");
    let defaulted = json!({
        "name": "test_container", "image": "foo/image:v1", "imagePullPolicy": "Always", "env": [{ "name": "A" }],
        "terminationMessagePath": "/dev/termination-log",
    });
    assert_eq!(container_hash(&container(defaulted)), hash);
    assert_ne!(container_hash(&container(json!({ "name": "test_container", "image": "foo/image:v2" }))), hash);
}

#[test]
fn a_localhost_profile_that_was_not_found_is_no_profile_at_all() {
    let own = json!({ "securityContext": { "seccompProfile": { "type": "Localhost", "localhostProfile": "p.json" } } });
    config_of(&pod(&own), &ContainerFiles::default()).expect_err("nobody looked for it");
    let files = ContainerFiles { seccomp_profile: Some("/root/seccomp/p.json".into()), ..ContainerFiles::default() };
    let found = config_of(&pod(&own), &files).expect("a config").linux.expect("linux").security_context;
    let expected = security::profile(ProfileType::Localhost, "/root/seccomp/p.json");
    assert_eq!(found.expect("a context").seccomp, Some(expected));
}

#[test]
fn block_devices_are_refused_by_name() {
    let container = json!({ "volumeDevices": [{ "name": "v", "devicePath": "/dev/x" }] });
    let error = config_of(&pod(&container), &ContainerFiles::default()).expect_err("not built");
    assert_eq!(error.message, "volumeDevices are not supported by this kubelet");
}

/// A megabyte of references, each to 128 KiB, was 32 GiB.
#[test]
fn words_that_no_process_could_be_given_are_refused_by_their_field() {
    let long = BTreeMap::from([("LONG".to_owned(), "x".repeat(100_000))]);
    let refused = |container: Value| {
        let pod = pod(&container);
        command_line(&pod.spec().containers[0], &long).expect_err("too long").message
    };
    let one = refused(json!({ "command": ["a", "$(LONG)$(LONG)"] }));
    assert!(one.starts_with("command[1] can't be passed to a process: it is longer"), "{one}");
    let all = refused(json!({ "command": ["a"], "args": vec!["$(LONG)"; 70] }));
    assert!(all.starts_with("args[61] can't be passed to a process: with it, arguments"), "{all}");
}
