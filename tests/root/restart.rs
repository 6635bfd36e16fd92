//! A crash of the daemon under load: pods, logs and exit codes are there afterwards, as if nothing had happened.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::{ContainerState, PodSandboxState};
use tests::{Cri, CriDaemon, Registry, World, eventually, images, pods, rounds, slow};

const IMAGE: &str = "registry.example/base:1";
/// Pods that run through the crash.
const RUNNING: u32 = 20;
/// How many numbered lines each of them logs in a second.
const LINES_PER_SECOND: u32 = 500;
/// For as many seconds' worth of lines the daemon stays down.
const SECONDS_WITHOUT: u64 = 10;
/// Pods that end while the daemon is down, with exit codes 10, 11, ….
const ENDING: i32 = 5;

struct Workload {
    pod: String,
    container: String,
    pid: u64,
    log: PathBuf,
}

fn start(world: &World, daemon: &CriDaemon<'_>, client: &Cri, name: &str, count: &[&str]) -> Workload {
    let config = pods::as_kubelet(pods::pod(name, &daemon.logs().join(name), &world.cgroup(name)), None);
    let pod = client.run_pod(&config).expect("run a pod");
    let command = [&["workload", "count"], count].concat();
    let container = pods::container_as_kubelet(pods::container("count", IMAGE, &command));
    let container = client.create(&pod, &config, &container).expect("create a container");
    client.start(&container).expect("start it");
    let pid = client.info(&container).expect("its info")["pid"].as_u64().expect("its pid");
    Workload { pod, container, pid, log: daemon.logs().join(name).join("count.log") }
}

/// The numbers in a CRI log, in the order in which they stand.
fn numbers(log: &Path) -> Vec<u64> {
    let text = fs::read_to_string(log).unwrap_or_default();
    // The last line may be in the middle of being written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let number = |line: &str| {
        let content = line.splitn(4, ' ').nth(3).unwrap_or_default();
        content.parse().unwrap_or_else(|_| panic!("{}: {line:?} is not a CRI line with a number", log.display()))
    };
    whole.lines().map(number).collect()
}

#[track_caller]
fn assert_gapless(workload: &Workload) -> u64 {
    let numbers = numbers(&workload.log);
    let gap = numbers.iter().zip(1..).find(|(found, expected)| *found != expected);
    assert_eq!(gap, None, "{}: (found, expected)", workload.log.display());
    numbers.len() as u64
}

#[test]
fn twenty_chatty_pods_survive_a_crash_and_ten_seconds_without_a_daemon() {
    let world = World::enter();
    let registry = Registry::start(&world);
    registry.add("base", "1", &images::busybox());
    let mut daemon = CriDaemon::start(&world);
    daemon.mirror("registry.example", &registry.host());
    let client = daemon.client();
    client.pull(IMAGE).expect("pull");

    let per_second = u64::from(rounds(LINES_PER_SECOND));
    let rate = per_second.to_string();
    let running: Vec<Workload> = (0..rounds(RUNNING))
        .map(|index| start(&world, &daemon, &client, &format!("running-{index}"), &[&rate]))
        .collect();
    // Each writes for three seconds, times `SLOW`, so that it ends while the daemon is down.
    let lines = 3 * u64::from(slow()) * per_second;
    let ending: Vec<(Workload, i32)> = (0..ENDING)
        .map(|index| {
            let code = 10 + index;
            let name = format!("ending-{index}");
            (start(&world, &daemon, &client, &name, &[&rate, &lines.to_string(), &code.to_string()]), code)
        })
        .collect();
    for workload in running.iter().chain(ending.iter().map(|(workload, _)| workload)) {
        eventually("the pod logs", Duration::from_secs(20), || !numbers(&workload.log).is_empty());
    }

    daemon.kill();
    let written: Vec<u64> = running.iter().map(|workload| numbers(&workload.log).len() as u64).collect();
    for (workload, written) in running.iter().zip(written) {
        eventually("the log grows without a daemon", Duration::from_secs(60), || {
            numbers(&workload.log).len() as u64 >= written + SECONDS_WITHOUT * per_second
        });
    }
    for (workload, _) in &ending {
        eventually("the short pod ends", Duration::from_secs(30), || {
            !Path::new(&format!("/proc/{}", workload.pid)).exists()
        });
    }
    daemon.restart();

    let client = daemon.client();
    for workload in &running {
        let status = client.status(&workload.container).expect("a container's status after the crash");
        assert_eq!(status.state(), ContainerState::ContainerRunning);
        let pod = client.pod_status(&workload.pod).expect("a pod's status after the crash");
        assert_eq!(pod.state(), PodSandboxState::SandboxReady);
        assert_eq!(client.info(&workload.container).expect("its info")["pid"].as_u64(), Some(workload.pid));
        let lines = assert_gapless(workload);
        eventually("the log goes on", Duration::from_secs(20), || numbers(&workload.log).len() as u64 > lines);
        assert_gapless(workload);
    }
    for (workload, code) in &ending {
        let status = client.status(&workload.container).expect("an ended container's status");
        assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, *code));
        assert_eq!(assert_gapless(workload), lines);
    }
}
