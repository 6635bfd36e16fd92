//! A shim that dies: its pod is killed, told as such, and can be stopped and removed.

use std::fs;
use std::process::Command;
use std::time::Duration;

use proto::{ContainerState, PodSandboxState};
use tests::{Cri, CriDaemon, Registry, World, eventually, images, output, pods};

const IMAGE: &str = "registry.example/base:1";

struct Pod {
    pod: String,
    container: String,
    pid: u64,
    shim: String,
}

fn node(world: &World) -> (Registry, CriDaemon<'_>, Cri) {
    let registry = Registry::start(world);
    registry.add("base", "1", &images::busybox());
    let daemon = CriDaemon::start(world);
    daemon.mirror("registry.example", &registry.host());
    let client = daemon.client();
    client.pull(IMAGE).expect("pull");
    (registry, daemon, client)
}

fn pod(world: &World, daemon: &CriDaemon<'_>, client: &Cri, name: &str) -> Pod {
    let config = pods::as_kubelet(pods::pod(name, &daemon.logs().join(name), &world.cgroup(name)), None);
    let pod = client.run_pod(&config).expect("run a pod");
    let container = pods::container_as_kubelet(pods::container("sleep", IMAGE, &["sleep", "100000"]));
    let container = client.create(&pod, &config, &container).expect("create a container");
    client.start(&container).expect("start it");
    let pid = client.info(&container).expect("its info")["pid"].as_u64().expect("its pid");
    let stat = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let parent = stat.lines().find_map(|line| line.strip_prefix("PPid:")).expect("its parent").trim();
    Pod { pod, container, pid, shim: parent.to_owned() }
}

fn kill(pid: &str) {
    output(Command::new("kill").args(["-KILL", pid])).success();
}

/// A zombie does not run: it waits for whoever adopted it.
fn runs(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

#[track_caller]
fn check_lost(client: &Cri, pod: &Pod) {
    let state = || client.pod_status(&pod.pod).map(|status| status.state() == PodSandboxState::SandboxNotready);
    eventually("the sandbox is not ready", Duration::from_secs(20), || state().unwrap_or(false));
    let exited = || {
        let status = client.status(&pod.container).ok()?;
        (status.state() == ContainerState::ContainerExited).then_some(status)
    };
    let status = eventually("the container is told as ended", Duration::from_secs(20), exited);
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Unknown"));
    assert!(!runs(pod.pid), "the container still runs");
    client.stop_pod(&pod.pod).expect("stop what is left");
    client.stop_pod(&pod.pod).expect("stop it again");
    client.remove_pod(&pod.pod).expect("remove it");
    assert_eq!(client.status(&pod.container).expect_err("it is gone").code(), tonic::Code::NotFound);
}

#[test]
fn a_pod_whose_shim_is_killed_is_killed_too_and_its_neighbour_lives() {
    let world = World::enter();
    let (_registry, daemon, client) = node(&world);
    let (lost, neighbour) = (pod(&world, &daemon, &client, "lost"), pod(&world, &daemon, &client, "neighbour"));
    kill(&lost.shim);
    check_lost(&client, &lost);
    let status = client.status(&neighbour.container).expect("the neighbour's status");
    assert_eq!(status.state(), ContainerState::ContainerRunning);
}

#[test]
fn a_shim_that_is_killed_while_no_daemon_runs_is_noticed_by_the_next_one() {
    let world = World::enter();
    let (_registry, mut daemon, client) = node(&world);
    let lost = pod(&world, &daemon, &client, "lost");
    daemon.kill();
    kill(&lost.shim);
    daemon.restart();
    check_lost(&client, &lost);
}
