//! `bench cri [ROUNDS] [JSON_FILE]`: `orlop cri` beside containerd, in the same run.
//!
//! Both get the same registry, the same images and the same pods, as a kubelet sends them; every round does one pod on
//! each, in turn, so that whatever else the machine does meets both. It prints a table of medians with ratios, and writes
//! all samples as JSON. `scripts/bench` builds what it needs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tests::{Containerd, Cri, CriDaemon, Registry, World, images, pods, write};

/// Pods that idle at the same time while memory is measured.
const IDLE_PODS: u32 = 20;
/// One pod in this many has a host port.
const HOST_PORT_EVERY: u32 = 5;
/// Rounds before the first that counts: caches, the bridge, first use of everything.
const WARM_UP: u32 = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.first().map(String::as_str) {
        Some("cri") => cri(&arguments[1..]),
        _ => Err(anyhow::anyhow!("usage: bench cri [ROUNDS] [JSON_FILE]")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One implementation under measurement.
struct Side<'d> {
    name: &'static str,
    client: Cri,
    logs: std::path::PathBuf,
    daemon: u32,
    /// Whether a command line belongs to what the implementation adds to a pod.
    overhead: &'d dyn Fn(&str) -> bool,
    samples: BTreeMap<&'static str, Vec<f64>>,
    /// Host ports differ between the two: they share a network namespace.
    first_port: i32,
}

/// A pod that runs.
struct Pod {
    pod: String,
    container: String,
}

fn cri(arguments: &[String]) -> anyhow::Result<()> {
    let rounds: u32 = arguments.first().map_or(Ok(50), |rounds| rounds.parse()).context("ROUNDS is a number")?;
    let world = World::enter();
    let registry = Registry::start(&world);
    let orlop = CriDaemon::start_quiet(&world);
    let containerd = Containerd::start(&world);
    for hosts_dir in [orlop.hosts_dir(), containerd.hosts_dir()] {
        images::upstream::serve(&registry, &hosts_dir);
    }
    let mut sides = [
        Side {
            name: "orlop",
            client: orlop.client(),
            logs: orlop.logs(),
            daemon: orlop.pid(),
            overhead: &|command_line| command_line.contains("orlop-shim"),
            samples: BTreeMap::new(),
            first_port: 20_000,
        },
        Side {
            name: "containerd",
            client: containerd.client(),
            logs: containerd.logs(),
            daemon: containerd.pid(),
            overhead: &|command_line| {
                command_line.contains("containerd-shim-runc-v2") || command_line.starts_with("/bin/workload pause")
            },
            samples: BTreeMap::new(),
            first_port: 30_000,
        },
    ];
    for side in &mut sides {
        side.client.pull(images::upstream::BUSYBOX)?;
        side.client.pull("registry.k8s.io/pause:3.9")?;
        side.sample("daemon idle, MB PSS", megabytes(pss(side.daemon)?));
    }
    for round in 0..rounds + WARM_UP {
        for side in &mut sides {
            side.one_pod(&world, round)?;
            if round + 1 == WARM_UP {
                side.samples.retain(|what, _| what.contains("PSS"));
            }
        }
    }
    for side in &mut sides {
        side.idle_pods(&world)?;
    }
    let report = json!({
        "rounds": rounds,
        "idle_pods": IDLE_PODS,
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "cpus": std::thread::available_parallelism()?.get(),
        "samples": sides.iter().map(|side| (side.name.to_owned(), json!(side.samples))).collect::<serde_json::Map<String, Value>>(),
    });
    print_table(&sides);
    if let Some(file) = arguments.get(1) {
        write(Path::new(file), format!("{report:#}\n"));
    }
    Ok(())
}

impl Side<'_> {
    fn sample(&mut self, what: &'static str, value: f64) {
        self.samples.entry(what).or_default().push(value);
    }

    /// Runs `call` and notes how long it took, in milliseconds.
    fn timed<T>(
        &mut self,
        what: &'static str,
        call: impl FnOnce(&Cri) -> Result<T, tonic::Status>,
    ) -> anyhow::Result<T> {
        let start = Instant::now();
        let value = call(&self.client).with_context(|| format!("{}: {what}", self.name))?;
        self.sample(what, start.elapsed().as_secs_f64() * 1000.0);
        Ok(value)
    }

    fn start_pod(&mut self, world: &World, name: &str, number: u32) -> anyhow::Result<Pod> {
        let port = number.is_multiple_of(HOST_PORT_EVERY).then(|| self.first_port + i32::try_from(number).unwrap_or(0));
        let parent = world.cgroup(&format!("{}-{name}", self.name));
        let config = pods::as_kubelet(pods::pod(name, &self.logs.join(name), &parent), port);
        let container = pods::container("c", images::upstream::BUSYBOX, &["sleep", "100000"]);
        let container = pods::container_as_kubelet(container);
        let start = Instant::now();
        let pod = self.timed("  RunPodSandbox, ms", |client| client.run_pod(&config))?;
        let container = self.timed("  CreateContainer, ms", |client| client.create(&pod, &config, &container))?;
        self.timed("  StartContainer, ms", |client| client.start(&container))?;
        self.sample("pod start, ms", start.elapsed().as_secs_f64() * 1000.0);
        Ok(Pod { pod, container })
    }

    fn one_pod(&mut self, world: &World, round: u32) -> anyhow::Result<()> {
        let Pod { pod, container } = self.start_pod(world, &format!("round-{round}"), round)?;
        let executed = self.timed("ExecSync true, ms", |client| client.exec(&container, &["true"], Duration::ZERO))?;
        if executed.exit_code != 0 {
            bail!("{}: true ended with {}", self.name, executed.exit_code);
        }
        let start = Instant::now();
        // A shell's `sleep` as PID 1 ignores SIGTERM: no grace, so that the clock measures work and not waiting.
        self.timed("  StopContainer, ms", |client| client.stop(&container, Duration::ZERO))?;
        self.timed("  StopPodSandbox, ms", |client| client.stop_pod(&pod))?;
        self.timed("  RemovePodSandbox, ms", |client| client.remove_pod(&pod))?;
        self.sample("stop and remove, ms", start.elapsed().as_secs_f64() * 1000.0);
        Ok(())
    }

    /// Many pods that do nothing: what each costs in memory, and what one list of their statistics takes.
    fn idle_pods(&mut self, world: &World) -> anyhow::Result<()> {
        let timed = self.samples.clone();
        let pods = (0..IDLE_PODS)
            .map(|number| self.start_pod(world, &format!("idle-{number}"), number))
            .collect::<anyhow::Result<Vec<Pod>>>()?;
        // Starting many at once is another measurement than one at a time.
        self.samples = timed;
        let total: u64 = processes(self.overhead)?.into_iter().map(pss).sum::<anyhow::Result<u64>>()?;
        self.sample("per idle pod, KB PSS", kilobytes(total) / f64::from(IDLE_PODS));
        self.sample("daemon with idle pods, MB PSS", megabytes(pss(self.daemon)?));
        for _ in 0..10 {
            let request = proto::ListContainerStatsRequest { filter: None };
            self.timed("ListContainerStats, ms", |client| {
                client.runtime(async |mut client| client.list_container_stats(request).await)
            })?;
        }
        for pod in pods {
            self.client.stop_pod(&pod.pod)?;
            self.client.remove_pod(&pod.pod)?;
        }
        Ok(())
    }
}

/// The ids of the processes whose command line satisfies `belongs`.
fn processes(belongs: &dyn Fn(&str) -> bool) -> anyhow::Result<Vec<u32>> {
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let command_line =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
    Ok(pids.filter(|pid| belongs(&command_line(pid))).collect())
}

/// The proportional set size of a process, in bytes.
fn pss(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let rollup = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let kilobytes =
        rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
    let kilobytes: u64 = kilobytes.with_context(|| format!("no Pss in {path}"))?;
    Ok(kilobytes * 1024)
}

#[expect(clippy::cast_precision_loss, reason = "memory sizes of processes are far below 2^52")]
fn kilobytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

fn megabytes(bytes: u64) -> f64 {
    kilobytes(bytes) / 1024.0
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print_table(sides: &[Side<'_>; 2]) {
    let [ours, theirs] = sides;
    println!("{:<32} {:>10} {:>12} {:>7}", "median", ours.name, theirs.name, "ratio");
    for (what, samples) in &ours.samples {
        let (own, other) = (median(samples), theirs.samples.get(what).map_or(f64::NAN, |samples| median(samples)));
        println!("{what:<32} {own:>10.2} {other:>12.2} {:>7.3}", own / other);
    }
}
