//! The node's tasks against an API server and a runtime in memory, in virtual time.

use super::pressure::{Reading, Sample};
use super::status::tests::{facts, well};
use super::*;
use crate::api::ApiError;
use crate::fakes::api::FakeApi;
use crate::fakes::runtime::FakeRuntime;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, NodeCondition, NodeSpec};
use std::sync::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// A node and what it sees.
pub(super) struct World {
    pub(super) api: FakeApi,
    pub(super) health: watch::Sender<Health>,
    pub(super) config: Config,
    runtime: FakeRuntime,
    clock: Clock,
    recorder: Recorder,
    events: mpsc::Receiver<Event>,
    _folder: tempfile::TempDir,
}

impl World {
    pub(super) fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
        let (recorder, events) = Recorder::captured(clock.clone());
        let config = config(folder.path());
        let health = watch::Sender::new(Health::default());
        let runtime = FakeRuntime::new(clock.clone());
        World { api: FakeApi::new(), health, config, runtime, clock, recorder, events, _folder: folder }
    }

    pub(super) fn start(&self) -> Running {
        self.start_with(self.api.api())
    }

    fn start_with(&self, api: Arc<dyn Api>) -> Running {
        start(Inputs {
            config: Arc::new(self.config.clone()),
            facts: Arc::new(facts()),
            api,
            runtime: Arc::new(self.runtime.clone()),
            recorder: self.recorder.clone(),
            clock: self.clock.clone(),
            health: self.health.subscribe(),
        })
    }

    /// Reasons of the events that were recorded since the last call.
    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            told.push(event.reason.unwrap());
        }
        told
    }

    /// Writes of the API server since the last call.
    pub(super) fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.api.state().calls)
    }

    /// How often the status was written since the last call.
    fn patches(&self) -> usize {
        self.writes().iter().filter(|call| call.starts_with("patch_node_status")).count()
    }
}

fn config(folder: &Path) -> Config {
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let given =
        [("hostname-override", "n"), ("node-ip", "10.0.0.1"), ("fail-cgroupv1", "false"), ("fail-swap-on", "false")];
    let flags =
        crate::config::flags::Flags { given: given.map(owned).into(), defaults: Vec::new(), local_socket: None };
    let mut config = crate::config::load(&flags).unwrap();
    config.root = folder.to_owned();
    config
}

/// Lets so much virtual time pass, and everything happen that happens in it.
pub(super) async fn pass(millis: u64) {
    sleep_until(Instant::now() + Duration::from_millis(millis)).await;
}

fn condition(node: &watch::Receiver<Option<Arc<Node>>>, kind: &str) -> NodeCondition {
    let node = node.borrow().clone().expect("the node is known");
    let status = node.status.clone().unwrap();
    status.conditions.unwrap().into_iter().find(|condition| condition.type_ == kind).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_node_is_registered_and_ready_within_a_second_of_a_ready_runtime() {
    let mut world = World::new();
    let running = world.start();
    pass(100).await;
    assert_eq!(condition(&running.node, "Ready").status, "False");
    let told = ["Starting", "NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"];
    assert_eq!(world.told(), told);
    pass(3210).await;
    world.health.send_replace(well());
    pass(999).await;
    assert_eq!(condition(&running.node, "Ready").reason.as_deref(), Some("KubeletReady"));
    assert_eq!(world.told(), ["NodeReady"]);
}

#[tokio::test(start_paused = true)]
async fn registration_is_tried_again_with_growing_pauses() {
    let world = World::new();
    let down = || ApiError::Unavailable("connection refused".to_owned());
    world.api.fail("create_node", [down(), down(), down()]);
    let running = world.start();
    pass(100 + 200 + 399).await;
    assert!(running.node.borrow().is_none());
    pass(2).await;
    assert!(running.node.borrow().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_status_that_does_not_change_is_written_every_few_minutes() {
    let world = World::new();
    let running = world.start();
    world.health.send_replace(well());
    pass(1000).await;
    world.writes();
    let alive = |world: &World| {
        world.health.send_modify(|health| {
            (health.last_ready, health.last_relist) = (Some(Instant::now()), Some(Instant::now()));
        });
    };
    let mut written = Vec::new();
    for second in (5..=1800).step_by(5) {
        pass(5000).await;
        alive(&world);
        written.extend(std::iter::repeat_n(second, world.patches()));
    }
    // The first after 0.5 to 1.5 times five minutes, then every five minutes; statuses are made every ten seconds.
    assert!((150..=460).contains(&written[0]), "{written:?}");
    assert!(written.windows(2).all(|pair| (295..=310).contains(&(pair[1] - pair[0]))), "{written:?}");
    let beat = condition(&running.node, "Ready").last_heartbeat_time.unwrap().0;
    let since = condition(&running.node, "Ready").last_transition_time.unwrap().0;
    assert!(beat.duration_since(since).as_secs() > 1000, "{since} {beat}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_is_tried_five_times_and_again_in_the_next_period() {
    let world = World::new();
    let running = world.start();
    pass(1000).await;
    world.writes();
    let down = || ApiError::Unavailable("connection refused".to_owned());
    world.api.fail("patch_node_status", std::iter::repeat_with(down).take(5));
    world.api.fail("node", std::iter::repeat_with(down).take(1));
    world.health.send_replace(well());
    pass(500).await;
    assert_eq!(world.patches(), 0);
    pass(10_000).await;
    assert!(world.patches() > 0);
    assert_eq!(condition(&running.node, "Ready").status, "True");
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_goes_is_told_when_nobody_publishes_its_health() {
    let mut world = World::new();
    let running = world.start();
    world.health.send_replace(well());
    pass(1000).await;
    world.told();
    pass(41_000).await;
    let ready = condition(&running.node, "Ready");
    assert_eq!((ready.status.as_str(), ready.message.as_deref()), ("False", Some("container runtime is down")));
    assert_eq!(world.told(), ["NodeNotReady"]);
}

#[tokio::test(start_paused = true)]
async fn a_cordon_is_told_once() {
    let mut world = World::new();
    let running = world.start();
    pass(1000).await;
    world.told();
    for (unschedulable, expected) in
        [(true, &["NodeNotSchedulable"][..]), (true, &[]), (false, &["NodeSchedulable"]), (false, &[])]
    {
        let mut node = Node::clone(running.node.borrow().as_deref().unwrap());
        node.spec = Some(NodeSpec { unschedulable: Some(unschedulable), ..NodeSpec::default() });
        world.api.put_node(node);
        pass(100).await;
        assert_eq!(world.told(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn labels_that_the_scheduler_needs_come_back() {
    let world = World::new();
    let running = world.start();
    pass(1000).await;
    let mut node = Node::clone(running.node.borrow().as_deref().unwrap());
    node.metadata.labels.as_mut().unwrap().clear();
    world.api.put_node(node);
    pass(10_000).await;
    let labels = running.node.borrow().as_deref().unwrap().metadata.labels.clone().unwrap();
    assert_eq!(labels["kubernetes.io/os"], "linux");
    assert!(labels.contains_key("kubernetes.io/arch"));
}

/// Says what a test wants.
struct Said(Mutex<Sample>);

impl Sampler for Said {
    fn sample(&self) -> BoxFuture<'_, Sample> {
        let sample = self.0.lock().unwrap().clone();
        Box::pin(async { sample })
    }
}

#[tokio::test(start_paused = true)]
async fn each_pressure_reaches_the_condition_and_goes_after_the_transition_period() {
    let mut world = World::new();
    world.config.limits.eviction_hard.insert("pid.available".to_owned(), "10%".to_owned());
    let mut running = world.start();
    world.health.send_replace(well());
    let said = Arc::new(Said(Mutex::default()));
    running.sample(said.clone());
    pass(1000).await;
    world.told();
    for (signal, kind, begins, ends) in [
        (Signal::Memory, "MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
        (Signal::ImageInodes, "DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
        (Signal::Pids, "PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
    ] {
        *said.0.lock().unwrap() = Sample::from([(signal, Reading { available: 1, capacity: 1000 })]);
        pass(10_100).await;
        assert_eq!(condition(&running.node, kind).status, "True", "{kind}");
        *said.0.lock().unwrap() = Sample::from([(signal, Reading { available: 1 << 40, capacity: 1 << 40 })]);
        pass(280_000).await;
        assert_eq!(condition(&running.node, kind).status, "True", "{kind}");
        pass(40_000).await;
        assert_eq!(condition(&running.node, kind).status, "False", "{kind}");
        let told: Vec<String> = world.told().into_iter().filter(|reason| reason != "NodeNotReady").collect();
        assert_eq!(told, [begins, ends]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_file_system_without_size_is_told_once() {
    let mut world = World::new();
    let mut running = world.start();
    pass(1000).await;
    world.told();
    let empty = Sample::from([(Signal::ImageStorage, Reading { available: 0, capacity: 0 })]);
    running.sample(Arc::new(Said(Mutex::new(empty))));
    pass(30_000).await;
    assert_eq!(world.told(), ["InvalidDiskCapacity"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stands_alone_knows_itself_and_writes_nothing() {
    let world = World::new();
    let running = world.start_with(crate::api::standalone::Standalone::start());
    world.health.send_replace(well());
    pass(1000).await;
    assert_eq!(condition(&running.node, "Ready").status, "True");
    assert_eq!(
        running.node.borrow().as_deref().unwrap().metadata.labels.as_ref().unwrap()["kubernetes.io/os"],
        "linux"
    );
    assert_eq!(world.writes(), Vec::<String>::new());
    running.stop().await;
}

#[tokio::test]
async fn this_machine_has_what_a_node_needs() {
    let world = World::new();
    let facts = crate::node::facts::facts(&world.config).unwrap();
    assert_eq!(facts.host_ips, world.config.node_ips);
    for resource in ["cpu", "memory", "ephemeral-storage", "pods"] {
        assert!(facts.capacity.get(resource).is_some_and(|quantity| quantity.0 != "0"), "{resource}");
        assert!(facts.allocatable.contains_key(resource), "{resource}");
    }
    assert!(!facts.boot_id.is_empty() && !facts.kernel_version.is_empty() && !facts.os_image.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_controller_sets_aside_for_pods_is_told_to_the_runtime() {
    let world = World::new();
    let running = world.start();
    pass(1000).await;
    let mut node = Node::clone(running.node.borrow().as_deref().unwrap());
    let cidrs = vec!["10.1.0.0/24".to_owned(), "fd00:1::/64".to_owned()];
    node.spec = Some(NodeSpec { pod_cidrs: Some(cidrs), ..NodeSpec::default() });
    world.api.put_node(node);
    pass(100).await;
    assert_eq!(world.runtime.state().pod_cidrs, ["10.1.0.0/24,fd00:1::/64"]);
}
