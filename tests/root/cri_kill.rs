//! The daemon is killed at a system call in the middle of a pod's life, one call after the other: what was acknowledged is
//! there afterwards, everything can be removed, and nothing stays.

use std::fs;
use std::process::Child;
use std::time::Duration;

use proto::{ContainerState, PodSandboxState};
use tests::{Cri, CriDaemon, Registry, World, eventually, images, pods};

const IMAGE: &str = "registry.example/base:1";

/// Where something outside the daemon changes: its files, its shims, its network, the mounts.
const CALLS: [&str; 14] = [
    "sendmsg",
    "recvmsg",
    "connect",
    "bind",
    "renameat",
    "mkdir",
    "mkdirat",
    "unlink",
    "rmdir",
    "openat2",
    "fsmount",
    "move_mount",
    "umount2",
    "clone3",
];

/// Calls of one kind in one thread that are tried; a pod's life has fewer of each.
const DEEPEST: u32 = 12;

/// What a client was told.
#[derive(Debug, Default)]
struct Acknowledged {
    pod: Option<String>,
    container: Option<String>,
    started: bool,
    stopped: bool,
    removed: bool,
}

/// A pod's whole life, as far as the daemon lives.
fn live(client: &Cri, daemon: &CriDaemon<'_>, world: &World, name: &str) -> Acknowledged {
    let mut told = Acknowledged::default();
    let config = pods::as_kubelet(pods::pod(name, &daemon.logs().join(name), &world.cgroup(name)), None);
    let Ok(pod) = client.run_pod(&config) else { return told };
    told.pod = Some(pod.clone());
    let container = pods::container_as_kubelet(pods::container("sleep", IMAGE, &["sleep", "100000"]));
    let Ok(container) = client.create(&pod, &config, &container) else { return told };
    told.container = Some(container.clone());
    told.started = client.start(&container).is_ok();
    if told.started {
        told.stopped = client.stop(&container, Duration::ZERO).is_ok() && client.stop_pod(&pod).is_ok();
        told.removed = told.stopped && client.remove_pod(&pod).is_ok();
    }
    told
}

/// Kills the daemon at the `nth` call of this kind in one of its threads.
fn arm(world: &World, daemon: &CriDaemon<'_>, call: &str, nth: u32) -> Child {
    let pid = daemon.pid().to_string();
    let inject = format!("inject={call}:signal=SIGKILL:when={nth}");
    // What it executes is let go: shims and plugins are to live.
    let arguments =
        ["-f", "-b", "execve", "-qq", "-o", "/dev/null", "-p", &pid, "-e", &format!("trace={call}"), "-e", &inject];
    let strace = world.command("strace").args(arguments).spawn().expect("strace");
    eventually("strace is attached to every thread", Duration::from_secs(20), || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the daemon's threads");
        tasks.flatten().all(|task| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            !status.contains("TracerPid:\t0\n")
        })
    });
    strace
}

/// Ends strace, which lets go of whom it traces; whether the daemon still lives. Asked to end, it would wait for threads
/// that are dead already.
fn disarm(mut strace: Child, daemon: &CriDaemon<'_>, client: &Cri) -> bool {
    let _already_gone = strace.kill();
    let _reaped = strace.wait();
    eventually("the daemon is dead or answers", Duration::from_secs(20), || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap_or_default();
        let is_dead = stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('Z'));
        if is_dead { Some(false) } else { client.list_pods().is_ok().then_some(true) }
    })
}

#[track_caller]
fn check(client: &Cri, told: &Acknowledged, when: &str) {
    let listed: Vec<String> = client.list_pods().expect("list").into_iter().map(|pod| pod.id).collect();
    if let Some(pod) = told.pod.as_ref().filter(|_| !told.started) {
        // Nobody asked for it to be stopped.
        let status = client.pod_status(pod).unwrap_or_else(|status| panic!("{when}: {told:?}: {status}"));
        assert_eq!(status.state(), PodSandboxState::SandboxReady, "{when}: {told:?}");
    }
    if let Some(container) = told.container.as_ref().filter(|_| !told.started) {
        let status = client.status(container).unwrap_or_else(|status| panic!("{when}: {told:?}: {status}"));
        assert_ne!(status.state(), ContainerState::ContainerExited, "{when}: {told:?}: {status:?}");
        // Started, and nobody lived to hear of it.
        let is_dated = status.state() != ContainerState::ContainerRunning || status.started_at > 0;
        assert!(is_dated, "{when}: {told:?}: {status:?}");
    }
    assert!(!(told.removed && told.pod.as_ref().is_some_and(|pod| listed.contains(pod))), "{when}: {told:?}");
    client.remove_all_pods();
}

fn check_empty(daemon: &CriDaemon<'_>, when: &str) {
    for dir in ["state/shim", "root/cri/sandboxes", "root/cri/containers"] {
        let left: Vec<_> = fs::read_dir(daemon.dir().join(dir)).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{when}: {dir}: {left:?}");
    }
    let pins: Vec<_> = fs::read_dir("/run/netns").expect("/run/netns").flatten().collect();
    assert!(pins.is_empty(), "{when}: {pins:?}");
}

#[test]
fn killed_at_any_call_of_a_pod_s_life_the_next_daemon_knows_what_was_acknowledged_and_leaves_nothing() {
    let world = World::enter();
    let registry = Registry::start(&world);
    registry.add("base", "1", &images::busybox());
    let mut daemon = CriDaemon::start(&world);
    daemon.mirror("registry.example", &registry.host());
    daemon.client().pull(IMAGE).expect("pull");
    let mut kills = 0;
    for call in CALLS {
        for nth in 1..=DEEPEST {
            let when = format!("{call} {nth}");
            let client = daemon.client();
            let strace = arm(&world, &daemon, call, nth);
            let told = live(&client, &daemon, &world, &format!("{call}-{nth}"));
            if disarm(strace, &daemon, &client) {
                check(&client, &told, &when);
                check_empty(&daemon, &when);
                break;
            }
            kills += 1;
            daemon.kill();
            daemon.restart();
            let client = daemon.client();
            check(&client, &told, &when);
            check_empty(&daemon, &when);
        }
    }
    assert!(kills >= 10, "only {kills} kills");
}
