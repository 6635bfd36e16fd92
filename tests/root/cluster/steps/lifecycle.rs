//! From a pod's first container to its last second.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::cluster::a_minute;
use tests::{eventually, images, write};

use crate::cluster::stage::{POD_DEADLINE, Stage, condition, container, runs, script};

pub(super) fn init_containers_and_a_sidecar_come_in_order(stage: &Stage<'_, '_>) {
    let step = |name: &str, text: &str| {
        let mut container = script(text);
        container["name"] = json!(name);
        container["volumeMounts"] = json!([{ "name": "shared", "mountPath": "/shared" }]);
        container
    };
    // The next container waits until the sidecar has started, which its probe says.
    let mut sidecar = step(
        "sidecar",
        "trap 'echo sidecar ends >> /shared/order; exit 0' TERM; echo sidecar >> /shared/order; sleep 1; touch /shared/up; while :; do usleep 100000; done",
    );
    sidecar["restartPolicy"] = json!("Always");
    // With patience: a sidecar that is slow to start must not be started anew.
    sidecar["startupProbe"] = json!({ "exec": { "command": ["test", "-e", "/shared/up"] }, "periodSeconds": 1,
        "timeoutSeconds": 10, "failureThreshold": 60 });
    let spec = json!({
        "volumes": [{ "name": "shared", "emptyDir": {} }],
        "initContainers": [
            step("first", "echo first >> /shared/order"),
            sidecar,
            step("second", "test -e /shared/up && echo second >> /shared/order"),
        ],
        "containers": [step("main", "echo main >> /shared/order; cat /shared/order; sleep 1; echo main ends")],
        "terminationGracePeriodSeconds": 10,
    });
    stage.create("ordered", &spec);
    let pod = stage.wait_until_succeeded("ordered");
    assert_eq!(stage.ok("logs ordered -c main"), "first\nsidecar\nsecond\nmain\nmain ends\n");
    let ended = |name: &str| container(&pod, name)["state"]["terminated"].clone();
    for name in ["first", "second", "main"] {
        assert_eq!(ended(name)["reason"], json!("Completed"), "{name}: {}", ended(name));
    }
    assert_eq!(ended("sidecar")["exitCode"], json!(0), "it ends after the main container: {}", ended("sidecar"));
    assert!(ended("sidecar")["finishedAt"].as_str() >= ended("main")["finishedAt"].as_str());
    assert_eq!(condition(&pod, "Initialized")["status"], json!("True"));
    assert_eq!(condition(&pod, "Ready")["reason"], json!("PodCompleted"));

    let mut failing = runs("true");
    failing["initContainers"] = json!([step("first", "exit 7")]);
    failing["volumes"] = json!([{ "name": "shared", "emptyDir": {} }]);
    stage.create("failing", &failing);
    let pod = stage.wait_for("failing", "Failed", POD_DEADLINE, |pod| pod["status"]["phase"] == "Failed");
    assert_eq!(container(&pod, "first")["state"]["terminated"]["exitCode"], json!(7));
    assert_eq!(condition(&pod, "Initialized")["message"], json!("containers with incomplete status: [first]"));
    assert_eq!(container(&pod, "main")["state"]["waiting"]["reason"], json!("PodInitializing"));
}

pub(super) fn a_deleted_pod_gets_its_grace_period_and_a_forced_one_none(stage: &Stage<'_, '_>) {
    let with_grace = |text: &str, seconds: u64| {
        let mut spec = runs(text);
        spec["terminationGracePeriodSeconds"] = json!(seconds);
        spec
    };
    const STUBBORN: &str = "trap '' TERM; echo up; while :; do usleep 100000; done";
    stage.create(
        "polite",
        &with_grace("trap 'echo goodbye; exit 0' TERM; echo up; while :; do usleep 100000; done", 30),
    );
    stage.create("stubborn", &with_grace(STUBBORN, 3));
    stage.create("forced", &with_grace(STUBBORN, 600));
    for pod in ["polite", "stubborn", "forced"] {
        stage.wait_until_ready(pod);
        eventually("it has set its trap", POD_DEADLINE, || stage.logs(pod).is_ok_and(|log| log.contains("up")));
    }
    let start = Instant::now();
    stage.ok(&format!("delete pod polite {}", a_minute()));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(20) * tests::slow(), "it had ended by itself long before: {took:?}");

    let start = Instant::now();
    stage.ok(&format!("delete pod stubborn {}", a_minute()));
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(3), "killed before its grace period was over: {took:?}");
    assert!(took < Duration::from_secs(25) * tests::slow(), "killed long after its grace period: {took:?}");

    let uid = stage.pod("forced").expect("the pod")["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let start = Instant::now();
    stage.ok(&format!("delete pod forced --grace-period=0 --force {}", a_minute()));
    assert!(start.elapsed() < Duration::from_secs(30) * tests::slow(), "a forced deletion waits for nobody");
    eventually("the node has ended it too", Duration::from_secs(45), || {
        let running = stage.node.runtime().client().list_pods().map_err(|status| status.to_string())?;
        let left = running.iter().any(|pod| {
            pod.metadata.as_ref().is_some_and(|metadata| metadata.uid == uid)
                && pod.state() == proto::PodSandboxState::SandboxReady
        });
        if left { Err("its sandbox is ready".to_owned()) } else { Ok(()) }
    });
    // A pod of the same name is another pod.
    stage.create("forced", &runs("true"));
    stage.wait_until_succeeded("forced");
}

pub(super) fn a_static_pod_has_a_mirror_that_cannot_be_deleted(stage: &Stage<'_, '_>) {
    let file = stage.node.kubelet().manifests().join("static.yaml");
    let manifest = |text: &str| {
        let image = images::upstream::BUSYBOX;
        let metadata = format!("metadata: {{name: static, namespace: {}}}", stage.namespace);
        format!(
            "apiVersion: v1\nkind: Pod\n{metadata}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: {image}\n    command: [sh, -c, '{text}; sleep 1000']\n"
        )
    };
    write(&file, manifest("echo one"));
    let name = format!("static-{}", stage.node.name());
    let mirror = stage.wait_until_ready(&name);
    let annotations = mirror["metadata"]["annotations"].clone();
    for annotation in ["kubernetes.io/config.mirror", "kubernetes.io/config.hash", "kubernetes.io/config.seen"] {
        assert!(annotations[annotation].is_string(), "{annotation} in {annotations}");
    }
    assert_eq!(annotations["kubernetes.io/config.source"], json!("file"));
    let owner = &mirror["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["name"]), (&json!("Node"), &json!(stage.node.name())));
    let id = container(&mirror, "main")["containerID"].clone();

    // Its mirror comes back, and the containers do not notice.
    stage.ok(&format!("delete pod {name} {}", a_minute()));
    let again = stage.wait_until_ready(&name);
    assert_ne!(again["metadata"]["uid"], mirror["metadata"]["uid"]);
    assert_eq!(container(&again, "main")["containerID"], id);
    eventually("it has spoken, once", POD_DEADLINE, || stage.logs(&name).is_ok_and(|log| log == "one\n"));

    write(&file, manifest("echo two"));
    eventually("the changed file is a new pod", POD_DEADLINE, || {
        let log = stage.logs(&name);
        if log.as_ref().is_ok_and(|log| log == "two\n") { Ok(()) } else { Err(log) }
    });
    // With a mirror of its own: the end of the old one is not what comes next.
    stage.wait_for(&name, "mirrored anew", POD_DEADLINE, |pod| {
        pod["metadata"]["annotations"]["kubernetes.io/config.hash"] != annotations["kubernetes.io/config.hash"]
    });
    std::fs::remove_file(&file).expect("remove the manifest");
    stage.wait_until_gone(&name, POD_DEADLINE);
}

pub(super) fn an_active_deadline_ends_the_pod(stage: &Stage<'_, '_>) {
    let mut spec = runs("sleep 1000");
    spec["activeDeadlineSeconds"] = json!(4);
    stage.create("late", &spec);
    let pod = stage.wait_for("late", "Failed", Duration::from_secs(60), |pod| pod["status"]["phase"] == "Failed");
    assert_eq!(pod["status"]["reason"], json!("DeadlineExceeded"));
    assert_eq!(pod["status"]["message"], json!("Pod was active on the node longer than the specified deadline"));
}
