//! Something is away for a while: the API server, the kubelet, the container runtime. Each has a node of its own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::cluster::{ControlPlane, Node, Runtime, Settings, a_minute};
use tests::eventually;

use crate::cluster::stage::{POD_DEADLINE, Stage, condition, is_ready, lives};

/// How long the API server is away.
const OUTAGE: Duration = Duration::from_secs(180);
/// Pods that run while the kubelet is killed.
const PODS: usize = 30;

/// A Deployment whose pods come to the node `node` alone, though it is reserved.
fn deployment(node: &str, replicas: usize) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: steady}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: steady}}}}
  template:
    metadata: {{labels: {{app: steady}}}}
    spec:
      nodeSelector: {{kubernetes.io/hostname: {node}}}
      tolerations: [{{key: orlop.test/reserved, operator: Exists}}]
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: BUSYBOX
        command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 1; done']
        readinessProbe: {{exec: {{command: ['true']}}, periodSeconds: 10}}
"
    )
}

/// A node like the one under test, for one step alone.
fn own_node<'w>(stage: &Stage<'_, 'w>, cluster: &ControlPlane<'w>, name: &str) -> Node<'w> {
    let settings = Settings { name, reserved: true, ..stage.settings.clone() };
    Node::start(stage.world, cluster, stage.registry, &settings)
}

#[track_caller]
fn all_ready(stage: &Stage<'_, '_>, count: usize) -> Vec<Value> {
    eventually(&format!("{count} pods are ready"), Duration::from_secs(120), || {
        let pods = stage.pods("app=steady")?;
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        if ready == count && pods.len() == count { Ok(pods) } else { Err(format!("{ready} of {}", pods.len())) }
    })
}

pub(super) fn nothing_restarts_when_the_api_server_is_gone_for_three_minutes(stage: &Stage<'_, '_>) {
    let cluster = ControlPlane::start(stage.world);
    let node = own_node(stage, &cluster, "outage");
    let stage = stage.moved(&cluster, &node);
    stage.apply(&deployment(node.name(), 3));
    let before = lives(&all_ready(&stage, 3));
    let containers = running(&node);

    cluster.kill_api_server();
    let gone = Instant::now();
    eventually("three minutes without an API server", OUTAGE + POD_DEADLINE, || {
        assert!(node.kubelet().runs(), "the kubelet lives");
        assert_eq!(running(&node), containers, "no container is touched");
        gone.elapsed() >= OUTAGE
    });
    cluster.restart_api_server();
    node.wait_until_ready(&cluster);
    assert_eq!(lives(&all_ready(&stage, 3)), before);
    assert_eq!(running(&node), containers);
    // And it goes on as before.
    stage.ok("scale deployment/steady --replicas=4");
    all_ready(&stage, 4);
    node.retire(&cluster);
}

pub(super) fn a_killed_kubelet_touches_nothing_when_it_is_back(stage: &Stage<'_, '_>) {
    let node = own_node(stage, stage.cluster, "killed");
    stage.apply(&deployment(node.name(), PODS));
    let ready = all_ready(stage, PODS);
    let before = (lives(&ready), transitions(&ready));
    let containers = running(&node);
    // A kubelet writes its events when it has time; a pod's last one is that it started.
    let events = eventually("every start is told", Duration::from_secs(60), || {
        let events = told(stage);
        let started: u64 = events.iter().filter(|(event, _)| event.contains(" Started ")).map(|(_, count)| count).sum();
        if started == PODS as u64 { Ok(events) } else { Err(started) }
    });

    let heartbeat = || node.object(stage.cluster).map(|node| condition(&node, "Ready")["lastHeartbeatTime"].clone());
    node.kubelet().kill();
    let first = heartbeat().expect("the node");
    node.kubelet().restart();
    // The new process reports when it has looked at everything; the next time may be minutes later.
    eventually("the new kubelet reports", Duration::from_secs(60), || heartbeat().is_ok_and(|now| now != first));
    node.wait_until_ready(stage.cluster);
    let again = all_ready(stage, PODS);
    assert_eq!((lives(&again), transitions(&again)), before, "(pods and containers, conditions' transitions)");
    assert_eq!(running(&node), containers);
    let again_told: Vec<_> =
        told(stage).into_iter().filter(|(event, count)| events.get(event) != Some(count)).collect();
    assert!(again_told.is_empty(), "no event is told twice: {again_told:#?}");

    // A pod that is deleted while nobody looks is ended as soon as somebody does.
    let victim = again[0]["metadata"]["name"].as_str().expect("a name").to_owned();
    node.kubelet().kill();
    stage.ok(&format!("delete pod {victim} --wait=false"));
    node.kubelet().restart();
    stage.wait_until_gone(&victim, POD_DEADLINE);
    all_ready(stage, PODS);

    stage.ok("scale deployment/steady --replicas=4");
    all_ready(stage, 4);
    drain(stage, &node);
    node.retire(stage.cluster);
}

/// `kubectl drain` empties the node, `kubectl uncordon` lets the pods come back.
fn drain(stage: &Stage<'_, '_>, node: &Node<'_>) {
    let pods = eventually("all wait for a node", POD_DEADLINE, || {
        // Again: the scheduler may give it one more before it hears that it should not.
        let drain = ["drain", node.name(), "--ignore-daemonsets", "--delete-emptydir-data", &a_minute()];
        let told = stage.kubectl().run(&drain);
        if told.code != 0 {
            return Err(told.stderr);
        }
        let pods = stage.pods("app=steady")?;
        let pending = pods.iter().all(|pod| pod["spec"]["nodeName"].is_null()) && pods.len() == 4;
        if pending { Ok(pods) } else { Err(format!("{} pods", pods.len())) }
    });
    assert_eq!(pods.len(), 4);
    assert_eq!(running(node), Vec::<String>::new());
    stage.kubectl().ok(&["uncordon", node.name()]);
    all_ready(stage, 4);
}

pub(super) fn a_lost_runtime_is_named_and_its_pods_live_on(stage: &Stage<'_, '_>) {
    let mut node = own_node(stage, stage.cluster, "bereft");
    stage.apply(&deployment(node.name(), 2));
    let before = lives(&all_ready(stage, 2));
    if !matches!(node.runtime(), Runtime::Orlop(_)) {
        // The peer's daemon cannot be started again under its pods by this harness.
        return;
    }
    if let Runtime::Orlop(daemon) = node.runtime_mut() {
        daemon.kill();
    }
    eventually("the node says that its runtime is down", Duration::from_secs(90), || {
        let ready = condition(&node.object(stage.cluster)?, "Ready").clone();
        let message = ready["message"].as_str().unwrap_or_default();
        if ready["status"] == "False" && message.contains("container runtime is down") {
            Ok(())
        } else {
            Err(ready.to_string())
        }
    });
    assert!(node.kubelet().runs(), "the kubelet lives");
    if let Runtime::Orlop(daemon) = node.runtime_mut() {
        daemon.restart();
    }
    node.wait_until_ready(stage.cluster);
    assert_eq!(lives(&all_ready(stage, 2)), before);
    node.retire(stage.cluster);
}

/// The ids of the node's running containers.
fn running(node: &Node<'_>) -> Vec<String> {
    let request = proto::ListContainersRequest::default();
    let answer = node.runtime().client().runtime(async |mut client| client.list_containers(request).await);
    let containers = answer.expect("a list of containers").containers;
    let running =
        containers.into_iter().filter(|container| container.state() == proto::ContainerState::ContainerRunning);
    let mut ids: Vec<String> = running.map(|container| container.id).collect();
    ids.sort();
    ids
}

/// When each condition of each pod last changed.
fn transitions(pods: &[Value]) -> Vec<String> {
    let mut transitions: Vec<String> = pods
        .iter()
        .flat_map(|pod| {
            let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            conditions.map(move |condition| {
                format!(
                    "{} {} {} {}",
                    pod["metadata"]["name"], condition["type"], condition["status"], condition["lastTransitionTime"]
                )
            })
        })
        .collect();
    transitions.sort();
    transitions
}

/// What the kubelet has told of the pods' starts and ends, and how often: `pod reason message`.
fn told(stage: &Stage<'_, '_>) -> BTreeMap<String, u64> {
    let events = stage.object("api/v1", "events").expect("the events");
    // A probe that failed once on a busy machine is news, not a repetition.
    let about_pods = |event: &&Value| event["source"]["component"] == "kubelet" && event["reason"] != "Unhealthy";
    let mut told = BTreeMap::new();
    for event in events["items"].as_array().into_iter().flatten().filter(about_pods) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let pod = text(&event["involvedObject"]["name"]);
        let line = format!("{pod} {} {}", text(&event["reason"]), text(&event["message"]));
        *told.entry(line).or_default() += event["count"].as_u64().unwrap_or(1);
    }
    told
}
