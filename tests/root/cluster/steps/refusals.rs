//! Pods that this node does not take.

use serde_json::{Value, json};
use tests::images;

use crate::cluster::stage::{POD_DEADLINE, Stage, runs, script};

pub(super) fn a_pod_that_does_not_fit_is_rejected_with_its_reason(stage: &Stage<'_, '_>) {
    // With the node's name in it a pod does not meet the scheduler: the kubelet has to look for itself.
    let on_node = |mut spec: Value| {
        spec["nodeName"] = json!(stage.node.name());
        spec
    };
    let mut greedy = script("true");
    greedy["resources"] = json!({ "requests": { "cpu": "1000" } });
    stage.create("cpu", &on_node(json!({ "containers": [greedy] })));
    let mut elsewhere = runs("true");
    elsewhere["nodeSelector"] = json!({ "kubernetes.io/hostname": "elsewhere" });
    stage.create("selector", &on_node(elsewhere));
    let mut sysctl = runs("true");
    sysctl["securityContext"] = json!({ "sysctls": [{ "name": "kernel.msgmax", "value": "65536" }] });
    stage.create("sysctl", &on_node(sysctl));

    let cpu = "Pod was rejected: Node didn't have enough resource: cpu, requested: 1000000, used: ";
    rejected(stage, "cpu", "OutOfcpu", cpu);
    rejected(
        stage,
        "selector",
        "NodeAffinity",
        "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
    );
    rejected(
        stage,
        "sysctl",
        "SysctlForbidden",
        "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted",
    );

    let mut ports = script("sleep 1000");
    ports["ports"] = json!([{ "containerPort": 80, "hostPort": 8099 }]);
    stage.create("port", &on_node(json!({ "containers": [ports] })));
    stage.wait_until_ready("port");
    stage.create("same-port", &on_node(json!({ "containers": [ports] })));
    rejected(
        stage,
        "same-port",
        "NodePorts",
        "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
    );
}

#[track_caller]
fn rejected(stage: &Stage<'_, '_>, name: &str, reason: &str, message: &str) {
    let pod = stage.wait_for(name, "rejected", POD_DEADLINE, |pod| pod["status"]["phase"] == "Failed");
    assert_eq!(pod["status"]["reason"], json!(reason), "{}", pod["status"]);
    let text = pod["status"]["message"].as_str().unwrap_or_default();
    assert!(text.starts_with(message), "{text}");
    let event = stage.wait_for_event(name, reason, message.trim_start_matches("Pod was rejected: "));
    assert_eq!(event.kind, "Warning");
    assert_eq!(pod["status"]["containerStatuses"].as_array().map_or(0, Vec::len), 0, "nothing ran");
}

/// What upstream runs and we don't yet. A pod must never run without what it asks for.
pub(super) fn what_is_not_built_yet_is_refused_by_its_field(stage: &Stage<'_, '_>) {
    if stage.is_upstream() {
        return;
    }
    let mut hook = script("true");
    hook["lifecycle"] = json!({ "postStart": { "exec": { "command": ["true"] } } });
    let mut user_namespace = runs("true");
    user_namespace["hostUsers"] = json!(false);
    let mut claim = runs("true");
    claim["volumes"] = json!([{ "name": "data", "ephemeral": { "volumeClaimTemplate": { "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } } } }]);
    let mut image = runs("true");
    image["volumes"] = json!([{ "name": "data", "image": { "reference": images::AGNHOST } }]);
    for (name, mut spec, field) in [
        ("hook", json!({ "containers": [hook] }), "spec.containers[0].lifecycle.postStart"),
        ("users", user_namespace, "spec.hostUsers"),
        ("claim", claim, "spec.volumes[0].ephemeral"),
        ("image", image, "spec.volumes[0].image"),
    ] {
        spec["nodeName"] = json!(stage.node.name());
        stage.create(name, &spec);
        let pod = stage.wait_for(name, "rejected", POD_DEADLINE, |pod| pod["status"]["phase"] == "Failed");
        let message = pod["status"]["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("Pod was rejected: ") && message.contains(field), "{name}: {message}");
    }
}
