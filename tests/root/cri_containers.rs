//! What a container's verbs promise beyond what the upstream suite looks at.

use std::fs;
use std::time::{Duration, Instant};

use proto::{ContainerConfig, ContainerEventType, ContainerState, PodSandboxConfig};
use tests::{Cri, CriDaemon, Registry, World, eventually, images, pods};
use tonic::Code;

const IMAGE: &str = "registry.example/base:1";

/// A node with one pod, and a way to run scripts in it.
struct Node<'w> {
    daemon: CriDaemon<'w>,
    client: Cri,
    pod: String,
    config: PodSandboxConfig,
    registry: Registry,
}

impl<'w> Node<'w> {
    fn start(world: &'w World) -> Node<'w> {
        let registry = Registry::start(world);
        registry.add("base", "1", &images::busybox());
        let daemon = CriDaemon::start(world);
        daemon.mirror("registry.example", &registry.host());
        let client = daemon.client();
        client.pull(IMAGE).expect("pull");
        let config = pods::pod("pod", &daemon.logs(), &world.cgroup("pod"));
        let pod = client.run_pod(&config).expect("a pod");
        Node { daemon, client, pod, config, registry }
    }

    fn run(&self, container: &ContainerConfig) -> String {
        let id = self.client.create(&self.pod, &self.config, container).expect("create a container");
        self.client.start(&id).expect("start it");
        id
    }

    fn script(&self, name: &str, script: &str) -> String {
        self.run(&pods::container(name, IMAGE, &["sh", "-c", script]))
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.daemon.logs().join(format!("{name}.log"))).unwrap_or_default()
    }

    #[track_caller]
    fn exec(&self, container: &str, script: &str) -> String {
        let deadline = Duration::from_secs(30) * tests::slow();
        let done = self.client.exec(container, &["sh", "-c", script], deadline).expect("an exec");
        assert_eq!(done.exit_code, 0, "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("text")
    }
}

#[test]
fn two_stops_at_once_send_one_signal_and_share_one_clock() {
    let world = World::enter();
    let node = Node::start(&world);
    let id = node.script("trap", "trap 'echo term' TERM; echo ready; while :; do sleep 0.1; done");
    eventually("the trap is set", Duration::from_secs(20), || node.log("trap").contains("ready"));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for grace in [Duration::from_secs(3) * tests::slow(), Duration::from_secs(600)] {
            let (client, id) = (node.daemon.client(), &id);
            scope.spawn(move || client.stop(id, grace).expect("a stop"));
        }
    });
    // The shorter grace counts for both: nobody waited for the other one's ten minutes.
    assert!(begin.elapsed() < Duration::from_secs(60) * tests::slow(), "{:?}", begin.elapsed());
    assert_eq!(node.log("trap").matches("term").count(), 1, "{}", node.log("trap"));
    let status = node.client.status(&id).expect("its status");
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    node.client.stop(&id, Duration::ZERO).expect("a stop of what has ended");
}

#[test]
fn an_exec_returns_with_its_process_even_if_a_child_holds_the_pipes() {
    let world = World::enter();
    let node = Node::start(&world);
    let id = node.script("sleep", "sleep 100000");
    let begin = Instant::now();
    assert_eq!(node.exec(&id, "sleep 1000 & echo started"), "started\n");
    assert!(begin.elapsed() < Duration::from_secs(20) * tests::slow(), "{:?}", begin.elapsed());
}

#[test]
fn an_exec_keeps_16_mib_of_each_stream_and_throws_the_rest_away() {
    let world = World::enter();
    let node = Node::start(&world);
    let id = node.script("sleep", "sleep 100000");
    // One byte of it makes the answer as a whole longer than a message may be, so that both streams are not full.
    let script = ["sh", "-c", "yes | head -c 40000000 >/dev/null; yes | head -c 15000000"];
    let done = node.client.exec(&id, &script, Duration::from_secs(60) * tests::slow()).expect("an exec");
    assert_eq!(done.stdout.len(), 15_000_000);
}

#[test]
fn an_exec_that_takes_too_long_is_killed_and_told_as_a_deadline() {
    let world = World::enter();
    let node = Node::start(&world);
    let id = node.script("sleep", "sleep 100000");
    let refusal = node.client.exec(&id, &["sleep", "4711"], Duration::from_secs(1)).expect_err("a deadline");
    assert_eq!(refusal.code(), Code::DeadlineExceeded, "{}", refusal.message());
    assert!(refusal.message().contains("sleep") && refusal.message().contains("1 s"), "{}", refusal.message());
    assert_eq!(node.exec(&id, "ps | grep '[s]leep 4711' || :"), "");
}

#[test]
fn a_volume_of_the_image_begins_with_the_image_s_content_and_is_the_container_s_own() {
    let world = World::enter();
    let node = Node::start(&world);
    let mut image = images::busybox();
    let layer = images::Layer::new().dir("data", 0o1777).file("data/seed", 0o640, "seed\n");
    image.layers.push(layer.finish(images::Compression::Gzip));
    let volumes = serde_json::json!({"/data": {}, "/empty/deep": {}});
    node.registry.add("volumes", "1", &image.with("Volumes", volumes));
    node.client.pull("registry.example/volumes:1").expect("pull");
    let container = |name: &str| pods::container(name, "registry.example/volumes:1", &["sleep", "100000"]);
    let (first, second) = (node.run(&container("first")), node.run(&container("second")));
    assert_eq!(node.exec(&first, "cat /data/seed; stat -c %a /data/seed /data"), "seed\n640\n1777\n");
    node.exec(&first, "echo mine >/data/seed; echo x >/empty/deep/x");
    assert_eq!(node.exec(&second, "cat /data/seed; ls /empty/deep"), "seed\n");
}

#[test]
fn events_tell_a_container_s_life_to_every_subscriber() {
    let world = World::enter();
    let node = Node::start(&world);
    let ended = node.client.runtime(async |mut client| {
        let request = proto::GetEventsRequest {};
        let mut first = client.get_container_events(request).await?.into_inner();
        let mut second = client.get_container_events(request).await?.into_inner();
        let config = pods::container("short", IMAGE, &["true"]);
        let create = proto::CreateContainerRequest {
            pod_sandbox_id: node.pod.clone(),
            config: Some(config),
            sandbox_config: Some(node.config.clone()),
        };
        let id = client.create_container(create).await?.into_inner().container_id;
        client.start_container(proto::StartContainerRequest { container_id: id.clone() }).await?;
        let mut seen = [Vec::new(), Vec::new()];
        for (events, seen) in [&mut first, &mut second].into_iter().zip(&mut seen) {
            while seen.last() != Some(&ContainerEventType::ContainerStoppedEvent) {
                let event = events.message().await?.expect("an event");
                assert_eq!(event.container_id, id);
                assert!(event.pod_sandbox_status.is_some() && event.containers_statuses.len() == 1);
                seen.push(event.container_event_type());
            }
        }
        Ok(tonic::Response::new(seen))
    });
    let [first, second] = ended.expect("events");
    assert_eq!(first[0], ContainerEventType::ContainerCreatedEvent);
    assert!(first.contains(&ContainerEventType::ContainerStartedEvent), "{first:?}");
    assert_eq!(first, second);
}

#[test]
fn an_id_may_be_shortened_as_long_as_it_is_the_only_one() {
    let world = World::enter();
    let node = Node::start(&world);
    let id = node.script("sleep", "sleep 100000");
    assert_eq!(node.client.status(&id[..12]).expect("its status").id, id);
    assert_eq!(node.client.pod_status(&node.pod[..12]).expect("the pod's status").id, node.pod);
    node.client.stop(&id[..12], Duration::ZERO).expect("a stop");
    let status = node.client.status(&id).expect("its status");
    assert_eq!(status.state(), ContainerState::ContainerExited);
}
