//! What people and monitoring ask of a node: logs, exec, stats, metrics, health.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tests::{eventually, write};

use crate::cluster::stage::{POD_DEADLINE, Stage, container, runs};

pub(super) fn logs_are_cut_followed_and_kept_across_a_restart(stage: &Stage<'_, '_>) {
    // It ends when it is told to, however long the questions before take.
    let gate = stage.world.new_dir("gate");
    let mut spec = runs(
        "for i in 1 2 3 4 5; do echo line $i; done; until rm /gate/oops; do usleep 100000; done 2>/dev/null; echo oops >&2; \
         until rm /gate/open; do usleep 100000; done 2>/dev/null; echo late; exit 1",
    );
    spec["containers"][0]["volumeMounts"] = json!([{ "name": "gate", "mountPath": "/gate" }]);
    spec["volumes"] = json!([{ "name": "gate", "hostPath": { "path": gate, "type": "Directory" } }]);
    spec["restartPolicy"] = json!("OnFailure");
    stage.create("talker", &spec);
    // Two streams are two pipes: nobody knows which was written first, unless one was read before.
    eventually("it has spoken", POD_DEADLINE, || stage.run("logs talker").stdout.contains("line 5\n"));
    write(&gate.join("oops"), "");
    eventually("it has complained", POD_DEADLINE, || stage.run("logs talker").stdout.contains("oops\n"));
    assert_eq!(stage.ok("logs talker --tail=2"), "line 5\noops\n");
    assert_eq!(stage.ok("logs talker --limit-bytes=6"), "line 1");
    assert_eq!(stage.ok("logs talker --since=1h").lines().next(), Some("line 1"));
    assert_eq!(stage.ok("logs talker --since-time=2100-01-01T00:00:00Z"), "");
    let stamped = stage.ok("logs talker --timestamps --tail=1");
    assert!(stamped.starts_with("20") && stamped.ends_with("Z oops\n"), "{stamped}");

    // Followed to its end, which comes with the container's.
    let mut follow =
        stage.kubectl().command(&["--namespace", &stage.namespace, "logs", "talker", "--follow", "--tail=1"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().expect("start kubectl");
    let mut followed = BufReader::new(follow.stdout.take().expect("its output")).lines().map_while(Result::ok);
    assert_eq!(followed.next().as_deref(), Some("oops"));
    write(&gate.join("open"), "");
    assert_eq!(followed.collect::<Vec<_>>(), ["late"]);
    follow.wait().expect("kubectl's end");

    stage.wait_for("talker", "restarted", POD_DEADLINE, |pod| {
        container(pod, "main")["restartCount"].as_u64() >= Some(1)
    });
    let previous = stage.ok("logs talker --previous");
    assert!(previous.starts_with("line 1\n") && previous.ends_with("late\n"), "{previous}");
    let refused = stage.run("logs talker -c absent");
    assert!(refused.stderr.contains("container absent is not valid for pod talker"), "{}", refused.stderr);
    assert_ne!(refused.code, 0);
}

pub(super) fn exec_attach_and_port_forward_answer(stage: &Stage<'_, '_>) {
    stage.create("target", &runs("sleep 1000"));
    stage.wait_until_ready("target");
    if stage.is_upstream() {
        return;
    }
    for command in ["exec target -- true", "attach target", "port-forward target 18090:80"] {
        let verb = command.split(' ').next().expect("a verb");
        let refused = stage.kubectl().run(
            &[
                &["--namespace", &stage.namespace][..],
                &[&format!("--request-timeout={}s", 20 * tests::slow())],
                &command.split(' ').collect::<Vec<_>>(),
            ]
            .concat(),
        );
        assert_ne!(refused.code, 0, "{command}");
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(said.contains("which this version of Orlop does not have yet"), "{verb}: {said}");
    }
}

pub(super) fn the_node_answers_for_stats_metrics_and_health(stage: &Stage<'_, '_>) {
    stage.create("measured", &runs("while :; do :; done"));
    stage.wait_until_ready("measured");
    let proxied = |path: &str| format!("/api/v1/nodes/{}/proxy/{path}", stage.node.name());
    assert_eq!(stage.api().text(&proxied("healthz")).as_deref(), Ok("ok"));
    let pods = stage.api().get(&proxied("pods")).expect("/pods");
    let names: Vec<&Value> =
        pods["items"].as_array().into_iter().flatten().map(|pod| &pod["metadata"]["name"]).collect();
    assert!(names.contains(&&json!("measured")), "{names:?}");

    // Usage of a second needs two looks at it.
    let summary = eventually("/stats/summary knows the pod's CPU", Duration::from_secs(60), || {
        let summary = stage.api().get(&proxied("stats/summary"))?;
        let pods = summary["pods"].as_array().into_iter().flatten();
        let pod = pods
            .into_iter()
            .find(|pod| pod["podRef"]["name"] == "measured" && pod["podRef"]["namespace"] == *stage.namespace);
        let pod = pod.ok_or("the pod is not in it")?;
        let busy = pod["cpu"]["usageNanoCores"].as_u64() > Some(1_000_000)
            && pod["containers"][0]["memory"]["workingSetBytes"].as_u64() > Some(0);
        if busy { Ok(summary.clone()) } else { Err(pod.to_string()) }
    });
    for (section, fields) in [
        ("cpu", ["usageNanoCores", "usageCoreNanoSeconds"]),
        ("memory", ["workingSetBytes", "availableBytes"]),
        ("fs", ["capacityBytes", "availableBytes"]),
    ] {
        for field in fields {
            assert!(summary["node"][section][field].is_u64(), "node {section}.{field}: {}", summary["node"][section]);
        }
    }
    assert_eq!(summary["node"]["nodeName"], json!(stage.node.name()));

    let resource = eventually("/metrics/resource names the pod", POD_DEADLINE, || {
        let text = stage.api().text(&proxied("metrics/resource"))?;
        let labels = [format!("namespace=\"{}\"", stage.namespace), "pod=\"measured\"".to_owned()];
        let mut series = text.lines().filter(|line| line.starts_with("pod_memory_working_set_bytes{"));
        if series.any(|line| labels.iter().all(|label| line.contains(label))) { Ok(text) } else { Err(text) }
    });
    for name in [
        "node_cpu_usage_seconds_total",
        "node_memory_working_set_bytes",
        "container_cpu_usage_seconds_total",
        "container_memory_working_set_bytes",
        "container_start_time_seconds",
        "pod_cpu_usage_seconds_total",
    ] {
        assert!(resource.contains(&format!("# TYPE {name} ")), "{name}");
    }
    let metrics = stage.api().text(&proxied("metrics")).expect("/metrics");
    for name in [
        "kubelet_node_name",
        "kubelet_running_pods",
        "kubelet_running_containers",
        "kubelet_pod_start_duration_seconds",
        "kubelet_pod_worker_duration_seconds",
        "kubelet_pleg_relist_duration_seconds",
        "kubelet_runtime_operations_total",
        "kubelet_runtime_operations_duration_seconds",
        "kubelet_cgroup_manager_duration_seconds",
        "kubelet_started_pods_total",
        "kubelet_started_containers_total",
        "storage_operation_duration_seconds",
        "rest_client_requests_total",
        "process_resident_memory_bytes",
    ] {
        assert!(metrics.contains(&format!("# TYPE {name} ")), "{name} in /metrics");
    }
}
