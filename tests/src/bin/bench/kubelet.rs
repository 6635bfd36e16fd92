//! `bench kubelet [ROUNDS] [JSON_FILE]`: `orlop kubelet` on `orlop cri` beside the upstream kubelet on containerd.
//!
//! Both nodes belong to one control plane. A round makes one pod on each, in turn, through the real scheduler, and one round
//! in ten makes fifty at once; times are those of a client that watches the API server.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};
use tests::cluster::{ControlPlane, Implementation, Node, Settings, Watch};
use tests::{Registry, World, images};

use crate::measure::{Report, Samples, cpu_time, megabytes, pss};

/// Pods that are made at once, and that idle while memory and CPU are measured.
const PODS: usize = 50;
/// Rounds of one pod for each round of [`PODS`].
const SINGLE_PER_MASS: u32 = 10;
/// Rounds before the first that counts.
const WARM_UP: u32 = 2;
/// How long idle CPU is measured: upstream's longest period that matters, the resync of its pods, is a minute.
const IDLE: Duration = Duration::from_mins(1);
/// How long a node is left alone before that.
const SETTLE: Duration = Duration::from_secs(15);
/// No pod takes longer to do anything.
const DEADLINE: Duration = Duration::from_mins(2);
/// Where the pods are made.
const LIST: &str = "/api/v1/namespaces/bench/pods";

/// One node under measurement.
struct Side<'w> {
    name: &'static str,
    node: Node<'w>,
    samples: Samples,
}

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let rounds: u32 = arguments.first().map_or(Ok(20), |rounds| rounds.parse()).context("ROUNDS is a number")?;
    let world = World::enter();
    let registry = Registry::start(&world);
    for (repository, tag, image) in images::upstream::all() {
        registry.add(repository, tag, &image);
    }
    let cluster = ControlPlane::start(&world);
    cluster.create_namespace("bench");
    let side = |name, implementation| {
        let settings = Settings {
            name,
            kubelet: implementation,
            runtime: implementation,
            reserved: false,
            config: json!({}),
            quiet: true,
        };
        Side { name, node: Node::start(&world, &cluster, &registry, &settings), samples: Samples::default() }
    };
    let mut sides = [side("orlop", Implementation::Orlop), side("upstream", Implementation::Upstream)];
    for round in 0..rounds + WARM_UP {
        for side in &mut sides {
            side.pods(&cluster, round, 1, ["create → Ready, ms", "delete → gone, ms"])?;
            if round >= WARM_UP && (round - WARM_UP).is_multiple_of(SINGLE_PER_MASS) {
                side.pods(
                    &cluster,
                    round,
                    PODS,
                    ["50 at once, create → all Ready, ms", "50 at once, delete → all gone, ms"],
                )?;
            }
            if round + 1 == WARM_UP {
                side.samples = Samples::default();
            }
        }
    }
    for side in &mut sides {
        side.idle(&cluster)?;
    }
    let report = Report { rounds, sides: sides.into_iter().map(|side| (side.name, side.samples)).collect() };
    report.print();
    if let Some(file) = arguments.get(1) {
        report.write(file.as_ref())?;
    }
    Ok(())
}

impl Side<'_> {
    /// Makes `count` pods and deletes them when all are Ready.
    fn pods(
        &mut self,
        cluster: &ControlPlane<'_>,
        round: u32,
        count: usize,
        [ready, gone]: [&'static str; 2],
    ) -> anyhow::Result<()> {
        let names: Vec<String> = (0..count).map(|number| format!("{}-{round}-{count}-{number}", self.name)).collect();
        let mut watch = cluster.api().watch(LIST).map_err(|reason| anyhow!(reason))?;
        self.create(cluster, &names, &mut watch, ready)?;
        let start = Instant::now();
        for name in &names {
            cluster.api().delete(&format!("{LIST}/{name}")).map_err(|reason| anyhow!(reason))?;
        }
        until(&mut watch, names.len(), |kind, _| kind == "DELETED")
            .with_context(|| format!("{}: {gone}", self.name))?;
        self.samples.add(gone, milliseconds(start));
        Ok(())
    }

    fn create(
        &mut self,
        cluster: &ControlPlane<'_>,
        names: &[String],
        watch: &mut Watch,
        what: &'static str,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        for name in names {
            cluster.api().post(LIST, &pod(name, self.node.name())).map_err(|reason| anyhow!(reason))?;
        }
        until(watch, names.len(), |_, pod| is_ready(pod)).with_context(|| format!("{}: {what}", self.name))?;
        self.samples.add(what, milliseconds(start));
        Ok(())
    }

    /// What the kubelet and its runtime take while fifty pods do nothing.
    fn idle(&mut self, cluster: &ControlPlane<'_>) -> anyhow::Result<()> {
        let kubelet = self.node.kubelet().pid().context("the kubelet runs")?;
        let runtime = self.node.runtime().pid();
        let names: Vec<String> = (0..PODS).map(|number| format!("{}-idle-{number}", self.name)).collect();
        let mut watch = cluster.api().watch(LIST).map_err(|reason| anyhow!(reason))?;
        self.create(cluster, &names, &mut watch, "50 idle pods, create → all Ready, ms")?;
        // What is left to do after the last pod is Ready is not idleness.
        pass(&mut watch, SETTLE);
        let before = [cpu_time(kubelet)?, cpu_time(runtime)?];
        pass(&mut watch, IDLE);
        let after = [cpu_time(kubelet)?, cpu_time(runtime)?];
        let [own, of_runtime] =
            [0, 1].map(|which| (after[which] - before[which]).as_secs_f64() * 1000.0 / IDLE.as_secs_f64());
        self.samples.add("50 pods, kubelet idle, ms CPU/s", own);
        self.samples.add("50 pods, runtime idle, ms CPU/s", of_runtime);
        self.samples.add("50 pods, both idle, ms CPU/s", own + of_runtime);
        self.samples.add("50 pods, kubelet, MB PSS", megabytes(pss(kubelet)?));
        self.samples.add("50 pods, runtime, MB PSS", megabytes(pss(runtime)?));
        for name in &names {
            cluster.api().delete(&format!("{LIST}/{name}")).map_err(|reason| anyhow!(reason))?;
        }
        until(&mut watch, names.len(), |kind, _| kind == "DELETED")
    }
}

/// Waits until `wanted` different pods have met the condition.
fn until(watch: &mut Watch, wanted: usize, condition: impl Fn(&str, &Value) -> bool) -> anyhow::Result<()> {
    let mut met = BTreeSet::new();
    let start = Instant::now();
    while met.len() < wanted {
        let left =
            DEADLINE.checked_sub(start.elapsed()).with_context(|| format!("{} of {wanted} in time", met.len()))?;
        let change = watch.next(left).map_err(|reason| anyhow!(reason))?;
        if condition(change["type"].as_str().unwrap_or_default(), &change["object"]) {
            met.insert(change["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(())
}

/// Lets time pass.
fn pass(watch: &mut Watch, time: Duration) {
    let start = Instant::now();
    while let Some(left) = time.checked_sub(start.elapsed()) {
        // The end of the time is an error of the watch; so is the end of the watch, and then the numbers show it.
        if watch.next(left).is_err() && start.elapsed() < time {
            return;
        }
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

/// A small pod as people write them; the scheduler may put it on one node only.
fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "nodeSelector": { "kubernetes.io/hostname": node },
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "c",
                "image": images::upstream::BUSYBOX,
                // PID 1 ignores SIGTERM unless it says otherwise: the clock shall measure work and not the grace period.
                "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"],
                "resources": { "requests": { "cpu": "1m", "memory": "8Mi" }, "limits": { "memory": "64Mi" } },
            }],
        },
    })
}
