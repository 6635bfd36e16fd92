//! Pods and files that mean harm: each row is a hole that some kubelet once had.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::json;
use tests::{eventually, images, write};

use crate::cluster::stage::{POD_DEADLINE, Stage, container, script};

/// KHV047: who may write to the folder of pods' logs puts a link there, and `kubectl logs` reads the host.
pub(super) fn logs_never_follow_a_link_that_a_pod_made(stage: &Stage<'_, '_>) {
    if stage.is_upstream() {
        // Upstream follows it.
        return;
    }
    let secret = stage.world.dir().join("host-secret");
    write(&secret, "2026-01-01T00:00:00.000000000Z stdout F do not tell\n");
    stage.create("liar", &json!({ "containers": [script("echo honest; sleep 1000")] }));
    let pod = stage.wait_until_ready("liar");
    eventually("it has spoken", POD_DEADLINE, || stage.logs("liar").is_ok_and(|log| log == "honest\n"));
    let uid = pod["metadata"]["uid"].as_str().expect("a uid");
    let dir = stage.node.kubelet().pod_logs().join(format!("{}_liar_{uid}/main", stage.namespace));
    let moved = dir.with_file_name("moved");
    std::fs::remove_file(dir.join("0.log")).expect("the log");
    symlink(&secret, dir.join("0.log")).expect("a link in its place");
    let told = stage.run("logs liar");
    assert!(!told.stdout.contains("do not tell"), "{told:?}");
    // The same with the folder.
    std::fs::rename(&dir, &moved).expect("move the folder away");
    let outside = stage.world.new_dir("outside");
    std::fs::rename(&secret, outside.join("0.log")).expect("move the secret");
    symlink(&outside, &dir).expect("a link in the folder's place");
    let told = stage.run("logs liar");
    assert!(!told.stdout.contains("do not tell"), "{told:?}");
    std::fs::remove_file(&dir).expect("remove the link");
    std::fs::rename(&moved, &dir).expect("move the folder back");
}

/// A probe's server may not make the kubelet ask others.
pub(super) fn a_probe_does_not_follow_a_redirect_to_another_host(stage: &Stage<'_, '_>) {
    let address = stage.node.kubelet().ip();
    let sink = TcpListener::bind((address, 0)).expect("a listener on the node");
    sink.set_nonblocking(true).expect("a listener that does not block");
    let port = sink.local_addr().expect("its address").port();
    let target = format!("/redirect?location=http%3A%2F%2F{address}%3A{port}%2Fcaught&code=302");
    let main = json!({ "name": "main", "image": images::AGNHOST, "args": ["netexec", "--http-port=8080"],
        "readinessProbe": { "httpGet": { "path": target, "port": 8080 }, "periodSeconds": 1 } });
    stage.create("lure", &json!({ "containers": [main] }));
    // A redirect to another host counts as an answer, with a warning.
    stage.wait_until_ready("lure");
    stage.wait_for_event(
        "lure",
        "ProbeWarning",
        "Readiness probe warning: Probe terminated redirects, Response body: ",
    );
    if let Ok((mut caught, _)) = sink.accept() {
        let mut request = [0; 200];
        let length = caught.read(&mut request).unwrap_or(0);
        let _gone = caught.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
        panic!("the kubelet came: {}", String::from_utf8_lossy(&request[..length]));
    }
}

/// CVE-2019-11245: a second start forgot the image's user.
pub(super) fn the_images_user_is_kept_over_restarts(stage: &Stage<'_, '_>) {
    let mut main = script("id -u; exit 1");
    main["image"] = json!("registry.k8s.io/k8s-staging-cri-tools/test-image-user-uid:latest");
    stage.create("user", &json!({ "containers": [main], "restartPolicy": "OnFailure" }));
    for restarts in [1, 2] {
        stage.wait_for("user", "restarted", POD_DEADLINE, |pod| {
            container(pod, "main")["restartCount"].as_u64() >= Some(restarts)
        });
        eventually("it says who it is", POD_DEADLINE, || {
            let log = stage.run("logs user");
            if log.stdout == "1002\n" { Ok(()) } else { Err(log) }
        });
    }
}

/// CVE-2020-8557: what a pod writes into the files that the kubelet mounts counts as its own.
pub(super) fn growth_of_the_hosts_file_is_counted(stage: &Stage<'_, '_>) {
    let main = script("dd if=/dev/zero of=/etc/hosts bs=1M count=20 2>/dev/null; sleep 1000");
    stage.create("grower", &json!({ "containers": [main] }));
    stage.wait_until_ready("grower");
    let path = format!("/api/v1/nodes/{}/proxy/stats/summary", stage.node.name());
    eventually("20 MiB of ephemeral storage are the pod's", Duration::from_secs(110), || {
        let summary = stage.api().get(&path)?;
        let mut pods = summary["pods"].as_array().into_iter().flatten();
        let pod = pods.find(|pod| pod["podRef"]["name"] == "grower").ok_or("not in it")?;
        let used = &pod["ephemeral-storage"]["usedBytes"];
        if used.as_u64() >= Some(20 << 20) { Ok(()) } else { Err(used.to_string()) }
    });
}

/// CVE-2019-11253: bombs among the static pods. The kubelet stays small, and the good file beside them runs.
pub(super) fn bombs_among_the_static_pods_harm_nobody(stage: &Stage<'_, '_>) {
    if stage.is_upstream() {
        // Upstream refuses them as well, but its memory says nothing: it is a hundred megabytes anyway.
        return;
    }
    let before = memory(stage);
    let levels = |from: char, to: char| format!("{to}: &{to} [{}]\n", vec![format!("*{from}"); 9].join(", "));
    let aliases: String = ('b'..='j').zip('a'..='i').map(|(to, from)| levels(from, to)).collect();
    let deep = format!("apiVersion: v1\nkind: Pod\nmetadata: {}\n", "[".repeat(100_000));
    let manifests = stage.node.kubelet().manifests();
    let good = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: good, namespace: {}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers: [{{name: main, image: {}, command: [sleep, '1000']}}]\n",
        stage.namespace,
        images::upstream::BUSYBOX
    );
    let files = [
        ("aliases.yaml", format!("a: &a [lol]\n{aliases}apiVersion: v1\nkind: Pod\nmetadata: {{name: x}}\nspec: *j\n")),
        ("deep.yaml", deep),
        ("deep.json", "[".repeat(1_000_000)),
        ("binary.yaml", "\u{0}\u{1}\u{2}".repeat(1000)),
        ("empty.yaml", String::new()),
        ("unknown.yaml", "apiVersion: v9\nkind: Bomb\n".to_owned()),
        ("good.yaml", good),
    ];
    for (name, text) in &files {
        write(&manifests.join(name), text);
    }
    let pod = format!("good-{}", stage.node.name());
    stage.wait_until_ready(&pod);
    assert!(stage.node.kubelet().runs());
    let after = memory(stage);
    assert!(after < before + (64 << 10), "{before} KB before, {after} KB after");
    for (name, _) in &files {
        std::fs::remove_file(manifests.join(name)).expect("remove a manifest");
    }
    stage.wait_until_gone(&pod, POD_DEADLINE);
}

/// The kubelet's resident memory in KB.
fn memory(stage: &Stage<'_, '_>) -> u64 {
    let pid = stage.node.kubelet().pid().expect("a running kubelet");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the kubelet's status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}
