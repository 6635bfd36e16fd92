//! `bench cri [ROUNDS] [JSON_FILE]`: `orlop cri` beside containerd.
//!
//! Both get the same registry, the same images and the same pods, as a kubelet sends them; every round does one pod on
//! each, in turn, so that whatever else the machine does meets both.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tests::{Containerd, Cri, CriDaemon, Registry, World, images, pods};

use crate::measure::{Report, Samples, kilobytes, megabytes, processes, pss};

/// Pods that idle at the same time while memory is measured.
const IDLE_PODS: u32 = 20;
/// One pod in this many has a host port.
const HOST_PORT_EVERY: u32 = 5;
/// Rounds before the first that counts: caches, the bridge, first use of everything.
const WARM_UP: u32 = 3;

/// One implementation under measurement.
struct Side<'d> {
    name: &'static str,
    client: Cri,
    logs: std::path::PathBuf,
    daemon: u32,
    /// Whether a command line belongs to what the implementation adds to a pod.
    overhead: &'d dyn Fn(&str) -> bool,
    samples: Samples,
    /// Host ports differ between the two: they share a network namespace.
    first_port: i32,
}

/// A pod that runs.
struct Pod {
    pod: String,
    container: String,
}

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
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
            samples: Samples::default(),
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
            samples: Samples::default(),
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
                side.samples.keep(|what| what.contains("PSS"));
            }
        }
    }
    for side in &mut sides {
        side.idle_pods(&world)?;
    }
    let report = Report { rounds, sides: sides.into_iter().map(|side| (side.name, side.samples)).collect() };
    report.print();
    if let Some(file) = arguments.get(1) {
        report.write(file.as_ref())?;
    }
    Ok(())
}

impl Side<'_> {
    fn sample(&mut self, what: &'static str, value: f64) {
        self.samples.add(what, value);
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
