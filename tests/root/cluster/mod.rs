//! The cluster scenario: what people do with a node of a real control plane, step by step, with `kubectl`.
//!
//! A step is a function that gets a [`Stage`]: one shared control plane, one shared node, a namespace of its own. Steps run
//! at the same time, because most of them wait: for a back-off, a cron minute, an API server that is away for three
//! minutes. Steps that break a node or a control plane bring their own.
//!
//! Kubelet and container runtime are parameters. The steps were first made to pass on the upstream kubelet; what they ask
//! for is Kubernetes, not us.
//!
//! `CLUSTER_STEPS="word word"` runs only the steps whose names hold one of the words.

mod stage;
mod steps;

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::cluster::{ControlPlane, Implementation, Node, Settings};
use tests::{Registry, World, images};

use stage::Stage;
use steps::STEPS;

/// Steps at the same time: most of them wait, so there are more of them than CPUs.
const AT_ONCE: usize = 14;
/// The name of the node that the steps share.
const NODE: &str = "main";

/// One step of the scenario.
struct Step {
    name: &'static str,
    run: fn(&Stage<'_, '_>),
}

#[test]
fn the_scenario_passes_on_our_kubelet_and_our_runtime() {
    scenario(Implementation::Orlop, Implementation::Orlop);
}

#[test]
#[ignore = "scripts/test --peers"]
fn the_scenario_passes_on_our_kubelet_and_containerd() {
    scenario(Implementation::Orlop, Implementation::Upstream);
}

#[test]
#[ignore = "scripts/test --peers"]
fn the_scenario_passes_on_the_upstream_kubelet_and_our_runtime() {
    scenario(Implementation::Upstream, Implementation::Orlop);
}

/// Shows that a step that is red elsewhere is not red by itself.
#[test]
#[ignore = "scripts/test --peers"]
fn the_scenario_passes_on_the_upstream_kubelet_and_containerd() {
    scenario(Implementation::Upstream, Implementation::Upstream);
}

#[test]
fn two_control_planes_start_side_by_side_in_time_and_leave_nothing() {
    let world = World::enter();
    let start = Instant::now();
    let planes = [ControlPlane::start(&world), ControlPlane::start(&world)];
    // 20 s each, as for one: they take turns here.
    assert!(start.elapsed() < Duration::from_secs(40) * tests::slow(), "ready after {:?}", start.elapsed());
    for plane in &planes {
        assert_eq!(plane.kubectl().json(&["get", "nodes"])["items"], json!([]));
    }
}

fn scenario(kubelet: Implementation, runtime: Implementation) {
    let world = World::enter();
    let registry = Registry::start(&world);
    registry.add("e2e-test-images/agnhost", "2.63.0", &images::agnhost());
    for (repository, tag, image) in images::upstream::all() {
        registry.add(repository, tag, &image);
    }
    let start = Instant::now();
    let cluster = ControlPlane::start(&world);
    println!("control plane ready after {:.1} s", start.elapsed().as_secs_f64());
    let settings = Settings { name: NODE, kubelet, runtime, reserved: false, config: json!({}), quiet: false };
    let start = Instant::now();
    let node = Node::start(&world, &cluster, &registry, &settings);
    println!("node Ready after {:.1} s", start.elapsed().as_secs_f64());

    let chosen = chosen();
    let results = run_all(&chosen, |step| {
        let stage = Stage::new(&world, &cluster, &registry, &node, &settings, step.name);
        (step.run)(&stage);
        stage.finish();
    });
    let failed: Vec<&str> = results.iter().filter(|(_, passed)| !passed).map(|(name, _)| *name).collect();
    println!("steps result: {} passed; {} failed; 0 ignored", results.len() - failed.len(), failed.len());
    println!("the kubelet's log: {}", keep(&node, kubelet, runtime).display());
    assert!(failed.is_empty(), "steps that failed: {}", failed.join(", "));
    node.retire(&cluster);
}

fn chosen() -> Vec<&'static Step> {
    let words = std::env::var("CLUSTER_STEPS").unwrap_or_default();
    let words: Vec<&str> = words.split_whitespace().collect();
    STEPS.iter().filter(|step| words.is_empty() || words.iter().any(|word| step.name.contains(word))).collect()
}

/// Runs the steps, some at a time and in their order, and says of each whether it passed.
fn run_all(steps: &[&'static Step], run: impl Fn(&Step) + Sync) -> Vec<(&'static str, bool)> {
    let waiting = Mutex::new(steps.iter());
    let results = Mutex::new(Vec::new());
    let run = &run;
    std::thread::scope(|scope| {
        let work = || {
            loop {
                let next = waiting.lock().expect("the list of steps").next();
                let Some(step) = next else { return };
                let start = Instant::now();
                // A panic names its thread.
                let thread = std::thread::Builder::new().name(step.name.to_owned());
                let passed = thread.spawn_scoped(scope, move || run(step)).expect("a thread").join().is_ok();
                let verdict = if passed { "ok" } else { "FAILED" };
                println!("step {} ... {verdict} ({:.1} s)", step.name, start.elapsed().as_secs_f64());
                results.lock().expect("the results").push((step.name, passed));
            }
        };
        let workers: Vec<_> = (0..AT_ONCE.min(steps.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| worker.join().expect("a worker"));
    });
    results.into_inner().expect("the results")
}

/// The World vanishes; what a person wants to read after a failure is copied beside the build's output.
fn keep(node: &Node<'_>, kubelet: Implementation, runtime: Implementation) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cluster");
    std::fs::create_dir_all(&dir).expect("a folder for logs");
    let kept = dir.join(format!("kubelet-{kubelet:?}-on-{runtime:?}.log"));
    let _missing = std::fs::copy(node.kubelet().log_file(), &kept);
    kept
}
