//! Probes of a pod whose containers a runtime in memory runs, in virtual time.

use super::*;
use crate::fakes::runtime::{FakeRuntime, container, sandbox};
use crate::pod::Source;
use crate::runtime::{Container, ContainerState, Sandbox};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{self as api, Event};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

/// One pod, its probes and what they tell.
struct World {
    runtime: FakeRuntime,
    clock: Clock,
    probes: Probes,
    pod: Pod,
    events: mpsc::Receiver<Event>,
    wakes: mpsc::UnboundedReceiver<PodUid>,
}

impl World {
    /// A pod with one container `c` that has these probes. The kubelet has run for a minute.
    async fn new(probes: Value) -> World {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let runtime = FakeRuntime::new(clock.clone());
        let (recorder, events) = Recorder::captured(clock.clone());
        let (wake, wakes) = mpsc::unbounded_channel();
        let host = Some("192.0.2.1".parse().unwrap());
        let metrics = Metrics::new("n");
        let all = Probes::new(Arc::new(runtime.clone()), recorder, clock.clone(), metrics, host, wake);
        let world = World { runtime, clock, probes: all, pod: pod(probes), events, wakes };
        pass(60_000).await;
        world
    }

    /// What runs: containers with these ids, the newest first, started as many seconds ago.
    fn runs(&self, running: &[(&str, i64)], terminating: bool) {
        let now = self.clock.now().wall;
        let runs = |(id, age): &(&str, i64)| Container {
            sandbox_id: "s".to_owned(),
            state: ContainerState::Running { started_at: now - SignedDuration::from_secs(*age) },
            ..container(id, "c")
        };
        let containers = running.iter().map(runs).collect();
        let observed = ObservedPod { sandboxes: vec![sandbox("s")], containers };
        self.probes.sync(&self.pod, &observed, terminating);
    }

    /// From now on the command of this name ends so.
    fn exec(&self, command: &str, code: i32) {
        self.runtime.state().execs.insert(command.to_owned(), (code, format!("{command} said {code}")));
    }

    fn is(&self, id: &str) -> (bool, bool) {
        let state = self.probes.state(id);
        (state.started, state.ready)
    }

    /// Reasons and messages of the events since the last call.
    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            assert_eq!(event.involved_object.field_path.as_deref(), Some("spec.containers{c}"));
            told.push(format!("{}: {}", event.reason.unwrap(), event.message.unwrap()));
        }
        told
    }

    /// How often the pod's worker was woken since the last call.
    fn woken(&mut self) -> usize {
        std::iter::from_fn(|| self.wakes.try_recv().ok()).count()
    }

    /// How often a command ran since the last call.
    fn ran(&self, command: &str) -> usize {
        let calls = self.runtime.take_calls();
        calls.iter().filter(|call| call.ends_with(&format!(" {command}"))).count()
    }
}

fn pod(probes: Value) -> Pod {
    let mut c = json!({"name": "c"});
    c.as_object_mut().unwrap().extend(probes.as_object().unwrap().clone());
    let object = json!({
        "metadata": {"name": "p", "namespace": "default", "uid": "u"},
        "spec": {"containers": [c], "initContainers": [{"name": "i", "readinessProbe": exec("never", json!({}))}]},
    });
    Pod::new(Arc::new(serde_json::from_value::<api::Pod>(object).unwrap()), Source::Api).unwrap()
}

/// A probe that runs a command each second.
fn exec(command: &str, more: Value) -> Value {
    let mut probe = json!({"exec": {"command": [command]}, "periodSeconds": 1});
    probe.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    probe
}

/// Lets so much virtual time pass, and everything happen that happens in it.
async fn pass(millis: u64) {
    sleep_until(Instant::now() + Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_without_probes_is_started_and_ready_while_it_runs() {
    let world = World::new(json!({})).await;
    assert_eq!(world.is("c-1"), (false, false));
    world.runs(&[("c-1", 0)], false);
    assert_eq!(world.is("c-1"), (true, true));
    world.runs(&[], false);
    assert_eq!(world.is("c-1"), (false, false));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_runs_before_others_start_is_not_probed() {
    let world = World::new(json!({})).await;
    let mut init = container("i-1", "i");
    init.state = ContainerState::Running { started_at: world.clock.now().wall };
    world.probes.sync(&world.pod, &ObservedPod { sandboxes: Vec::new(), containers: vec![init] }, false);
    pass(5000).await;
    assert_eq!((world.is("i-1"), world.ran("never")), ((true, false), 0));
}

#[tokio::test(start_paused = true)]
async fn readiness_begins_false_and_follows_the_probe() {
    let mut world = World::new(json!({"readinessProbe": exec("r", json!({"failureThreshold": 2}))})).await;
    world.runs(&[("c-1", 0)], false);
    assert_eq!(world.is("c-1"), (true, false));
    pass(10).await;
    assert_eq!((world.is("c-1"), world.woken()), ((true, true), 1));
    world.exec("r", 3);
    pass(1000).await;
    assert_eq!((world.is("c-1"), world.woken()), ((true, true), 0));
    pass(1000).await;
    assert_eq!((world.is("c-1"), world.woken()), ((true, false), 1));
    let event = "Unhealthy: Readiness probe failed: r said 3";
    assert_eq!(world.told(), [event, event]);
    world.exec("r", 0);
    pass(1000).await;
    assert_eq!((world.is("c-1"), world.woken(), world.told().len()), ((true, true), 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_port_that_opens_late_costs_no_period_and_no_event() {
    let mut world = World::new(json!({"readinessProbe": exec("r", json!({"periodSeconds": 10}))})).await;
    world.exec("r", 1);
    world.runs(&[("c-1", 0)], false);
    pass(250).await;
    world.exec("r", 0);
    pass(100).await;
    assert_eq!((world.is("c-1"), world.told().len()), ((true, true), 0));
    assert_eq!(world.ran("r"), 3);
    pass(9000).await;
    assert_eq!(world.ran("r"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_liveness_probe_is_said_once_and_the_next_container_is_probed_anew() {
    let probe = exec("l", json!({"failureThreshold": 3, "terminationGracePeriodSeconds": 7}));
    let mut world = World::new(json!({"livenessProbe": probe})).await;
    world.exec("l", 1);
    world.runs(&[("c-1", 0)], false);
    assert_eq!(world.is("c-1"), (true, true));
    pass(2900).await;
    assert_eq!(world.probes.state("c-1").unhealthy, None);
    pass(200).await;
    let unhealthy = Unhealthy {
        kind: Kind::Liveness,
        message: "Container c failed liveness probe".to_owned(),
        grace: Some(Duration::from_secs(7)),
    };
    assert_eq!(world.probes.state("c-1").unhealthy, Some(unhealthy));
    assert_eq!((world.woken(), world.told().len(), world.ran("l")), (1, 3, 3));
    // It takes its time to stop: nobody asks it meanwhile.
    world.runs(&[("c-1", 3)], false);
    pass(60_000).await;
    assert_eq!((world.ran("l"), world.woken()), (0, 0));
    world.runs(&[("c-2", 0)], false);
    pass(1100).await;
    assert_eq!((world.probes.state("c-2").unhealthy, world.ran("l")), (None, 1));
    assert_eq!(world.probes.state("c-1"), State::default());
}

#[tokio::test(start_paused = true)]
async fn the_other_probes_wait_for_the_startup_probe() {
    let probes = json!({
        "startupProbe": exec("s", json!({"failureThreshold": 30})),
        "livenessProbe": exec("l", json!({})),
        "readinessProbe": exec("r", json!({})),
    });
    let world = World::new(probes).await;
    world.exec("s", 1);
    world.runs(&[("c-1", 0)], false);
    pass(10_500).await;
    assert_eq!(world.is("c-1"), (false, false));
    let calls = world.runtime.take_calls();
    assert!(calls.iter().all(|call| call == "exec c-1 s"), "{calls:?}");
    world.exec("s", 0);
    pass(1000).await;
    assert_eq!(world.is("c-1"), (true, true));
    world.runtime.take_calls();
    pass(3000).await;
    let calls = world.runtime.take_calls();
    assert!(!calls.contains(&"exec c-1 s".to_owned()) && calls.len() == 6, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_startup_probe_that_gives_up_ends_the_container() {
    let mut world = World::new(json!({"startupProbe": exec("s", json!({"failureThreshold": 2}))})).await;
    world.exec("s", 1);
    world.runs(&[("c-1", 0)], false);
    pass(2100).await;
    let state = world.probes.state("c-1");
    assert!(!state.started);
    let unhealthy = state.unhealthy.unwrap();
    assert_eq!((unhealthy.kind, unhealthy.message.as_str()), (Kind::Startup, "Container c failed startup probe"));
    assert_eq!(world.told(), ["Unhealthy: Startup probe failed: s said 1"; 2]);
    assert_eq!(world.woken(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_before_the_initial_delay() {
    let delayed = json!({"initialDelaySeconds": 5});
    let probes = json!({"livenessProbe": exec("l", delayed.clone()), "readinessProbe": exec("r", delayed)});
    let world = World::new(probes).await;
    world.runs(&[("c-1", 2)], false);
    pass(2900).await;
    assert_eq!(world.runtime.take_calls(), Vec::<String>::new());
    pass(200).await;
    assert_eq!(world.runtime.take_calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_is_asked_for_readiness_only() {
    let probes = json!({
        "startupProbe": exec("s", json!({})),
        "livenessProbe": exec("l", json!({"failureThreshold": 1})),
        "readinessProbe": exec("r", json!({"failureThreshold": 1})),
    });
    let world = World::new(probes).await;
    world.exec("s", 1);
    world.runs(&[("c-1", 0)], false);
    pass(500).await;
    assert_eq!(world.is("c-1"), (false, false));
    world.exec("l", 1);
    world.runs(&[("c-1", 1)], true);
    world.runtime.take_calls();
    pass(5000).await;
    assert_eq!(world.probes.state("c-1").unhealthy, None);
    assert_eq!(world.is("c-1"), (true, true));
    let calls = world.runtime.take_calls();
    assert!(!calls.is_empty() && calls.iter().all(|call| call == "exec c-1 r"), "{calls:?}");
    world.exec("r", 1);
    pass(1000).await;
    assert_eq!(world.is("c-1"), (true, false));
    // A kubelet that finds a pod ending begins so.
    world.runs(&[("c-2", 9)], true);
    world.runtime.take_calls();
    pass(3000).await;
    assert!(world.runtime.take_calls().iter().all(|call| call == "exec c-2 r"));
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_of_the_kubelet_a_ready_container_stays_ready_until_the_probe_disagrees() {
    let probes = json!({
        "startupProbe": exec("s", json!({})),
        "readinessProbe": exec("r", json!({"failureThreshold": 2})),
    });
    let mut world = World::new(probes).await;
    for (command, code) in [("s", 1), ("r", 1)] {
        world.exec(command, code);
    }
    world.probes.seed("c-1", true, true);
    world.runs(&[("c-1", 600)], false);
    assert_eq!(world.is("c-1"), (true, true));
    pass(900).await;
    assert_eq!((world.is("c-1"), world.ran("s")), ((true, true), 0));
    pass(1000).await;
    assert_eq!((world.is("c-1"), world.woken()), ((true, false), 1));
    // What the API server called unready is asked first.
    world.probes.seed("c-2", true, false);
    world.exec("r", 0);
    world.runs(&[("c-2", 600)], false);
    assert_eq!(world.is("c-2"), (true, false));
    pass(1000).await;
    assert_eq!(world.is("c-2"), (true, true));
}

#[tokio::test(start_paused = true)]
async fn a_question_that_can_not_be_asked_is_asked_three_times_and_told_once() {
    let mut world = World::new(json!({"readinessProbe": exec("r", json!({}))})).await;
    world.runs(&[("c-1", 600)], false);
    pass(10).await;
    assert_eq!(world.is("c-1"), (true, true));
    for _ in 0..3 {
        world.runtime.fail("ExecSync", "container is paused");
    }
    pass(1000).await;
    let errored = "Unhealthy: Readiness probe errored and resulted in unknown state: rpc error: code = Unknown desc = \
                   container is paused";
    assert_eq!(world.told(), [errored]);
    assert_eq!(world.is("c-1"), (true, true));
    for _ in 0..2 {
        world.runtime.fail("ExecSync", "container is paused");
    }
    pass(1000).await;
    assert_eq!(world.told(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_is_asked_no_more() {
    let world = World::new(json!({"readinessProbe": exec("r", json!({}))})).await;
    world.runs(&[("c-1", 0)], false);
    pass(10).await;
    world.probes.remove(world.pod.uid());
    world.runtime.take_calls();
    pass(10_000).await;
    assert_eq!((world.is("c-1"), world.ran("r")), ((false, false), 0));

    world.runs(&[("c-2", 0)], false);
    pass(10).await;
    let runtime = world.runtime.clone();
    drop(world);
    runtime.take_calls();
    pass(10_000).await;
    assert_eq!(runtime.take_calls(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_address_is_asked_when_it_has_one() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let world = World::new(json!({"readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1}})).await;
    let sync = |ips| {
        let state = ContainerState::Running { started_at: world.clock.now().wall };
        let containers = vec![Container { sandbox_id: "s".to_owned(), state, ..container("c-1", "c") }];
        let sandboxes = vec![Sandbox { ips, ..sandbox("s") }];
        world.probes.sync(&world.pod, &ObservedPod { sandboxes, containers }, false);
    };
    sync(Vec::new());
    assert_eq!(world.probes.table.asked("c-1"), 0);
    sync(vec!["127.0.0.1".parse().unwrap()]);
    assert_eq!(world.probes.table.asked("c-1"), 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_newest_container_of_a_name_is_asked() {
    let world = World::new(json!({"livenessProbe": exec("l", json!({}))})).await;
    world.runs(&[("c-2", 5), ("c-1", 50)], false);
    pass(100).await;
    assert_eq!(world.runtime.take_calls(), ["exec c-2 l"]);
    assert_eq!(world.probes.state("c-1"), State::default());
}
