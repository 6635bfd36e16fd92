//! The upstream CRI suite, `critest -parallel`, against `orlop cri`, its images served from this machine.
//!
//! `tests/expected/critest.txt` lists the specs that do not pass, with the reason: `name<TAB>reason`. A spec that fails or
//! skips without being listed is red, and so is one that is listed and passes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{Containerd, CriDaemon, Registry, World, eventually, images, tool};

/// The specs of v1.36.0 (without benchmarks and NRI) that remain after [`LEFT_OUT`].
const SPECS: usize = 107;
/// How many of them must pass.
const FLOOR: usize = 80;
/// Left out: the spec that names an image by a digest that nobody can rebuild, and those that skip themselves where the kernel has no AppArmor.
const LEFT_OUT: &str = "public image with digest should be pulled and removed|AppArmor";
/// What `-parallel` runs at the same time.
const PARALLEL: u32 = 4;

/// How one spec ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ended {
    Passed,
    Failed(String),
    Skipped(String),
}

#[test]
fn the_upstream_suite_passes_as_expected() {
    let world = World::enter();
    let registry = Registry::start(&world);
    let daemon = CriDaemon::start(&world);
    images::upstream::serve(&registry, &daemon.hosts_dir());
    let report = run_suite(&world, &daemon.endpoint());
    daemon.remove_pods();
    check(&parse(&report), &listed(include_str!("../expected/critest.txt")));
}

/// Shows that the suite's images and this runner are right where a mature server is.
#[test]
#[ignore = "scripts/test --peers"]
fn the_upstream_suite_passes_on_containerd_as_expected() {
    let world = World::enter();
    let registry = Registry::start(&world);
    let containerd = Containerd::start(&world);
    images::upstream::serve(&registry, &containerd.hosts_dir());
    let report = run_suite(&world, &containerd.endpoint());
    containerd.remove_pods();
    check(&parse(&report), &listed(include_str!("../expected/critest-containerd.txt")));
}

fn check(specs: &BTreeMap<String, Ended>, expected: &BTreeMap<String, String>) {
    let passed = specs.values().filter(|ended| **ended == Ended::Passed).count();
    let surprises = surprises(specs, expected);
    let failed = surprises.len();
    println!("critest: {passed} of {SPECS} specs pass, {PARALLEL} at a time");
    // What scripts/test sums up; a spec that is listed as not passing counts as skipped.
    println!("specs result: {passed} passed; {failed} failed; {} ignored", SPECS.saturating_sub(passed + failed));
    assert!(surprises.is_empty(), "not as the list says:\n  {}", surprises.join("\n  "));
    assert_eq!(specs.len(), SPECS, "specs that ran");
    assert!(passed >= FLOOR, "{passed} specs pass, at least {FLOOR} must");
}

/// Runs the suite in the World and returns its JSON report.
fn run_suite(world: &World, endpoint: &str) -> Value {
    let dir = world.new_dir("critest");
    let (report, log) = (dir.join("report.json"), dir.join("log"));
    let seed = seed();
    println!("critest seed: {seed} (CRITEST_SEED={seed} repeats the order)");
    let output = std::fs::File::create(&log).expect("the suite's log");
    let mut suite = world.command(tool("critest"));
    suite
        .arg(format!("-runtime-endpoint={endpoint}"))
        .arg(format!("-parallel={PARALLEL}"))
        .arg(format!("-ginkgo.json-report={}", report.display()))
        .arg(format!("-ginkgo.seed={seed}"))
        .arg(format!("-ginkgo.skip={LEFT_OUT}"))
        .args(std::env::var("CRITEST_FOCUS").ok().map(|focus| format!("-ginkgo.focus={focus}")))
        .env("PATH", path_with_tools())
        .current_dir(&dir)
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("the suite's log"))
        .stderr(output);
    let start = Instant::now();
    let mut process = suite.spawn().expect("start critest");
    eventually("critest ends", Duration::from_secs(15 * 60), || process.try_wait().expect("critest's end"));
    println!("critest time: {} s", start.elapsed().as_secs());
    let kept = keep(&log, &report);
    println!("critest report and log: {}", kept.display());
    let text = std::fs::read_to_string(&report)
        .unwrap_or_else(|error| panic!("critest left no report ({error}); its log ends:\n{}", tail(&log)));
    serde_json::from_str(&text).expect("ginkgo's JSON report")
}

/// The World vanishes; what a person wants to read after a failure is copied beside the build's output.
fn keep(log: &Path, report: &Path) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("critest");
    std::fs::create_dir_all(&dir).expect("a folder for the report");
    for file in [log, report] {
        let _missing = std::fs::copy(file, dir.join(file.file_name().expect("a file")));
    }
    dir
}

fn seed() -> u32 {
    let given = std::env::var("CRITEST_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().map_or(1, |now| now.subsec_micros() + 1))
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// `-parallel` looks for the `ginkgo` program on PATH.
fn path_with_tools() -> String {
    let tools = tool("ginkgo").parent().expect("a folder").display().to_string();
    format!("{tools}:{}", std::env::var("PATH").unwrap_or_default())
}

/// The specs that ran or skipped themselves, by full name. What our own filter left out does not count.
fn parse(report: &Value) -> BTreeMap<String, Ended> {
    let suites = report.as_array().into_iter().flatten();
    let specs = suites.flat_map(|suite| suite["SpecReports"].as_array().into_iter().flatten());
    let filtered = |spec: &Value| spec["State"] == "skipped" && spec["NumAttempts"].as_u64().unwrap_or(0) == 0;
    specs.filter(|spec| spec["LeafNodeType"] == "It" && !filtered(spec)).map(|spec| (name(spec), ended(spec))).collect()
}

fn name(spec: &Value) -> String {
    let containers = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten();
    let texts = containers.chain([&spec["LeafNodeText"]]).filter_map(Value::as_str);
    texts.map(str::trim).collect::<Vec<_>>().join(" ")
}

fn ended(spec: &Value) -> Ended {
    let message = spec["Failure"]["Message"].as_str().unwrap_or_default();
    let first_lines = message.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect();
    match spec["State"].as_str() {
        Some("passed") => Ended::Passed,
        Some("skipped" | "pending") => Ended::Skipped(first_lines),
        _ => Ended::Failed(first_lines),
    }
}

/// The rows of a list: names with their reasons.
fn listed(list: &str) -> BTreeMap<String, String> {
    let rows = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parse = |row: &str| {
        let (name, reason) = row.split_once('\t').unwrap_or_else(|| panic!("no tab in {row:?}"));
        (name.to_owned(), reason.to_owned())
    };
    rows.map(parse).collect()
}

/// What is not as the list says, one line each.
fn surprises(specs: &BTreeMap<String, Ended>, expected: &BTreeMap<String, String>) -> Vec<String> {
    let ran = specs.iter().filter_map(|(name, ended)| match (ended, expected.get(name)) {
        (Ended::Passed, Some(reason)) => Some(format!("passes, listed as {reason:?}: {name}")),
        (Ended::Failed(why), None) => Some(format!("fails: {name}\t{why}")),
        (Ended::Skipped(why), None) => Some(format!("skips: {name}\t{why}")),
        _ => None,
    });
    let known: BTreeSet<&String> = specs.keys().collect();
    let gone = expected
        .keys()
        .filter(|name| !known.contains(name))
        .map(|name| format!("listed, but there is no such spec: {name}"));
    ran.chain(gone).collect()
}
