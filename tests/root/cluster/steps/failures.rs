//! What goes wrong inside a pod, and what a person reads about it.

use std::time::Duration;

use serde_json::{Value, json};
use tests::images;

use crate::cluster::stage::{POD_DEADLINE, Stage, container, is_ready, runs, script};

pub(super) fn a_crashing_container_backs_off(stage: &Stage<'_, '_>) {
    let mut spec = runs("echo attempt; exit 3");
    spec["restartPolicy"] = json!("Always");
    stage.create("crash", &spec);
    let backing_off = |after: u64| {
        move |pod: &Value| {
            let main = container(pod, "main");
            main["state"]["waiting"]["reason"] == "CrashLoopBackOff" && main["restartCount"].as_u64() >= Some(after)
        }
    };
    // Upstream does not show the first pauses: between two looks at a pod they are over.
    let pod = stage.wait_for("crash", "CrashLoopBackOff", Duration::from_secs(120), backing_off(1));
    let main = container(&pod, "main");
    let uid = pod["metadata"]["uid"].as_str().expect("a uid");
    let whole_name = format!("crash_{}({uid})", stage.namespace);
    let restarts = main["restartCount"].as_u64().expect("a number");
    let pause = if restarts < 5 { format!("{}s", 10 << (restarts - 1)) } else { "2m40s".to_owned() };
    let message =
        format!("back-off {} restarting failed container=main pod={whole_name}", pause.replace("80s", "1m20s"));
    assert_eq!(main["state"]["waiting"]["message"], json!(message));
    assert_eq!(main["lastState"]["terminated"]["exitCode"], json!(3), "{main}");
    assert_eq!(main["lastState"]["terminated"]["reason"], json!("Error"), "{main}");
    assert_eq!(main["ready"], json!(false));
    assert_eq!(pod["status"]["phase"], json!("Running"), "a pod that will restart is not failed");
    stage.wait_for_event("crash", "BackOff", &format!("Back-off restarting failed container main in pod {whole_name}"));
    stage.wait_for("crash", "restarted after the pause", Duration::from_secs(90), |pod| {
        container(pod, "main")["restartCount"].as_u64() > Some(restarts)
    });
}

pub(super) fn a_failed_liveness_probe_restarts_the_container(stage: &Stage<'_, '_>) {
    // It says 500 after ten seconds.
    let probe = json!({ "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1, "failureThreshold": 2 });
    let main = json!({ "name": "main", "image": images::AGNHOST, "args": ["liveness"], "livenessProbe": probe });
    stage.create("sick", &json!({ "containers": [main], "restartPolicy": "Always" }));
    let first = stage.wait_until_ready("sick");
    // It may have been late to be seen, and its first container gone.
    let before = container(&first, "main")["restartCount"].as_u64();
    let pod = stage
        .wait_for("sick", "restarted", POD_DEADLINE, |pod| container(pod, "main")["restartCount"].as_u64() > before);
    assert_ne!(container(&first, "main")["containerID"], container(&pod, "main")["containerID"]);
    assert_eq!(pod["status"]["podIP"], first["status"]["podIP"], "the pod's sandbox stays");
    stage.wait_for_event("sick", "Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 500");
    stage.wait_for_event("sick", "Killing", "Container main failed liveness probe, will be restarted");
}

pub(super) fn probes_of_every_kind_make_a_pod_ready(stage: &Stage<'_, '_>) {
    let startup =
        json!({ "exec": { "command": ["test", "-e", "/tmp/started"] }, "periodSeconds": 1, "failureThreshold": 30 });
    let exec = json!({ "exec": { "command": ["test", "-e", "/tmp/ready"] }, "periodSeconds": 1 });
    let mut shell =
        script("touch /tmp/started; until test -e /tmp/go; do usleep 100000; done; touch /tmp/ready; sleep 1000");
    shell["volumeMounts"] = json!([{ "name": "tmp", "mountPath": "/tmp" }]);
    shell["startupProbe"] = startup;
    shell["readinessProbe"] = exec;
    let mut trigger = shell.clone();
    trigger["name"] = json!("trigger");
    trigger["command"] = json!(["sh", "-c", "sleep 3; touch /tmp/go; sleep 1000"]);
    for probe in ["startupProbe", "readinessProbe"] {
        trigger[probe] = Value::Null;
    }
    let http = json!({ "name": "http", "image": images::AGNHOST, "args": ["netexec", "--http-port=8080"],
        "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 } });
    let tcp = json!({ "name": "tcp", "image": images::AGNHOST, "args": ["netexec", "--http-port=8081", "--udp-port=8082"],
        "readinessProbe": { "tcpSocket": { "port": 8081 }, "periodSeconds": 1 } });
    let grpc = json!({ "name": "grpc", "image": images::AGNHOST, "args": ["grpc-health-checking"],
        "ports": [{ "containerPort": 5000 }, { "containerPort": 8083 }],
        "readinessProbe": { "grpc": { "port": 5000 }, "periodSeconds": 1 } });
    let mut grpc = grpc;
    // Its other server would take the port of `http`.
    grpc["args"] = json!(["grpc-health-checking", "--port=5000", "--http-port=8083"]);
    let volumes = json!([{ "name": "tmp", "emptyDir": {} }]);
    stage.create("probed", &json!({ "containers": [shell, trigger, http, tcp, grpc], "volumes": volumes }));
    let not_yet = stage.wait_for("probed", "all but the shell ready", POD_DEADLINE, |pod| {
        ["trigger", "http", "tcp", "grpc"].iter().all(|name| container(pod, name)["ready"] == true)
    });
    if container(&not_yet, "main")["ready"] == false {
        assert!(!is_ready(&not_yet), "one container that is not ready keeps the pod from being so");
    }
    let ready = stage.wait_until_ready("probed");
    assert_eq!(container(&ready, "main")["started"], json!(true));
}

pub(super) fn an_out_of_memory_kill_is_called_by_its_name(stage: &Stage<'_, '_>) {
    // `tail` keeps a line until it ends; this one never does.
    let mut main = script("exec tail /dev/zero");
    main["resources"] = json!({ "limits": { "memory": "32Mi" } });
    stage.create("greedy", &json!({ "containers": [main] }));
    let pod = stage.wait_for("greedy", "Failed", POD_DEADLINE, |pod| pod["status"]["phase"] == "Failed");
    let ended = &container(&pod, "main")["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("OOMKilled"), &json!(137)), "{ended}");
}

pub(super) fn a_termination_message_comes_from_its_file_or_the_log(stage: &Stage<'_, '_>) {
    let mut written = script("echo why > /dev/termination-log; exit 1");
    written["name"] = json!("written");
    let mut logged = script("echo first; echo last words; exit 1");
    logged["name"] = json!("logged");
    logged["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    let mut fine = script("echo nothing to say");
    fine["name"] = json!("fine");
    fine["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    stage.create("last", &json!({ "containers": [written, logged, fine] }));
    let pod = stage.wait_for("last", "Failed", POD_DEADLINE, |pod| pod["status"]["phase"] == "Failed");
    let message = |name: &str| container(&pod, name)["state"]["terminated"]["message"].clone();
    assert_eq!(message("written"), json!("why\n"));
    assert_eq!(message("logged"), json!("first\nlast words\n"));
    assert_eq!(message("fine"), Value::Null, "a container that ended well says nothing");
}

pub(super) fn a_missing_object_is_named_and_the_pod_starts_once_it_is_there(stage: &Stage<'_, '_>) {
    let mut wants_secret = script("sleep 1000");
    wants_secret["env"] =
        json!([{ "name": "KEY", "valueFrom": { "secretKeyRef": { "name": "absent", "key": "key" } } }]);
    stage.create("env", &json!({ "containers": [wants_secret] }));
    let mut wants_map = script("sleep 1000");
    wants_map["volumeMounts"] = json!([{ "name": "config", "mountPath": "/config" }]);
    let volumes = json!([{ "name": "config", "configMap": { "name": "absent" } }]);
    stage.create("volume", &json!({ "containers": [wants_map], "volumes": volumes }));

    // An API server whose authorizer does not know the pod yet refuses to say that; the next try is told.
    stage.wait_for("env", "CreateContainerConfigError, by name", POD_DEADLINE, |pod| {
        let waiting = &container(pod, "main")["state"]["waiting"];
        waiting["reason"] == "CreateContainerConfigError" && waiting["message"] == "secret \"absent\" not found"
    });
    stage.wait_for_event("env", "Failed", "Error: secret \"absent\" not found");
    stage.wait_for_event(
        "volume",
        "FailedMount",
        "MountVolume.SetUp failed for volume \"config\" : configmap \"absent\" not found",
    );
    stage.wait_until_creating("volume");

    stage.ok("create secret generic absent --from-literal=key=value");
    stage.ok("create configmap absent --from-literal=key=value");
    // A mount that failed is tried again after a pause that doubles.
    for pod in ["env", "volume"] {
        stage.wait_for(pod, "Ready", Duration::from_secs(90), is_ready);
    }
}
