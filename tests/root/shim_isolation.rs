//! What a container can see of the shim and of the reaper: nothing worth seeing.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use sys::credentials::{self, Limit, Resource};
use tests::{World, binary, cgroup, eventually};

use crate::shim_client::{Connection, LONG, Pod};

/// A pod whose containers share a PID namespace, and the reaper's pid.
fn pod_with_a_reaper(world: &World) -> (Pod, i32) {
    let mut pod = Pod::start_with(world, |sandbox, cgroup| {
        sandbox["reaper"] = json!({"cgroup": format!("{cgroup}/reaper"), "oom_score_adj": -998});
    });
    let reaper = pod.hello()["sandbox"][1]["reaper"]["pid"].as_i64().unwrap() as i32;
    (pod, reaper)
}

fn shared(reaper: i32) -> Option<String> {
    Some(format!("/proc/{reaper}/ns/pid"))
}

/// A field of `/proc/<pid>/status`.
fn status(pid: i32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(&format!("{field}:"))).unwrap();
    line.split_once(':').unwrap().1.trim().to_owned()
}

#[test]
fn the_reaper_has_nothing_that_a_container_could_take() {
    let world = World::enter();
    let (mut pod, reaper) = pod_with_a_reaper(&world);
    for ids in ["Uid", "Gid"] {
        assert_eq!(status(reaper, ids), "65534\t65534\t65534\t65534");
    }
    assert_eq!(status(reaper, "Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&status(reaper, set), 16), Ok(0), "{set}");
    }
    assert_eq!(status(reaper, "NoNewPrivs"), "1");
    assert_eq!(status(reaper, "Seccomp"), "2");
    let fds: Vec<_> = fs::read_dir(format!("/proc/{reaper}/fd"))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .collect();
    assert!(matches!(&fds[..], [only] if only.starts_with("pipe:")), "{fds:?}");
    assert_eq!(fs::read_dir(format!("/proc/{reaper}/root")).unwrap().count(), 0);
    let mounts = fs::read_to_string(format!("/proc/{reaper}/mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains(" / / ro,nosuid,nodev,noexec") && mounts.contains(" - tmpfs "), "{mounts}");
    // Not dumpable: what is in /proc/<pid> belongs to root, not to the process's own user.
    assert_eq!(fs::metadata(format!("/proc/{reaper}/environ")).unwrap().uid(), 0);
    assert_eq!(pod.hello()["ready"], true);
    pod.stop();
}

#[test]
fn a_neighbour_with_dockers_capabilities_reaches_nothing_through_the_reaper() {
    let world = World::enter();
    let (mut pod, reaper) = pod_with_a_reaper(&world);
    let container = pod.container("curious", "exec sleep 1000").with_pid_namespace(shared(reaper));
    pod.run(&container);
    let (own, _) = pod.exec("curious", "own", "echo $$");
    assert_ne!(own, "1\n");
    for (number, probe) in [
        "cat /proc/1/environ",
        "ls /proc/1/root/",
        "cat /proc/1/root/etc/passwd",
        "echo x > /proc/1/root/file",
        "readlink /proc/1/exe",
        "readlink /proc/1/cwd",
        "readlink /proc/1/fd/*",
        "cat /proc/1/fd/*",
        "cat /proc/1/maps",
        "head -c 1 /proc/1/mem",
        "readlink /proc/1/ns/mnt",
    ]
    .into_iter()
    .enumerate()
    {
        let (output, exit) = pod.exec("curious", &format!("probe-{number}"), probe);
        assert_ne!(exit["code"], 0, "{probe}: {output}");
        assert!(output.is_empty() || output.contains("ermission denied"), "{probe}: {output}");
    }
    // The kernel drops what a namespace's first process did not ask for.
    pod.exec("curious", "kill", "kill -9 1");
    assert_eq!(pod.hello()["ready"], true, "the reaper was killed from inside");
    pod.stop();
}

#[test]
fn containers_of_a_shared_pid_namespace_see_each_other_and_orphans_are_reaped() {
    let world = World::enter();
    let (mut pod, reaper) = pod_with_a_reaper(&world);
    let first = pod.container("first", "exec sleep 4321").with_pid_namespace(shared(reaper));
    pod.run(&first);
    // Twenty orphans: their parent ends before them.
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do (usleep 20000 &) ; done; \
                  ps -o args; while ps -o comm | grep -q usleep; do sleep 0.01; done; echo reaped";
    let second = pod.container("second", script).with_pid_namespace(shared(reaper));
    pod.run(&second);
    assert_eq!(pod.exit("second")["code"], 0);
    let lines = pod.log_lines("second");
    assert!(lines.iter().any(|line| line.contains("sleep 4321")), "{lines:?}");
    assert_eq!(lines.last().unwrap(), "stdout F reaped");
    pod.stop();
}

#[test]
fn a_container_in_a_shared_pid_namespace_has_ended_only_when_its_children_have() {
    let world = World::enter();
    let (mut pod, reaper) = pod_with_a_reaper(&world);
    let script = "(trap '' TERM HUP; echo child; while :; do usleep 10000; done) & usleep 50000; exit 4";
    let container = pod.container("c", script).with_pid_namespace(shared(reaper));
    pod.run(&container);
    assert_eq!(pod.exit("c")["code"], 4);
    assert!(cgroup::processes(&pod.cgroup_of("c")).is_empty());
    pod.delete("c").unwrap();
    pod.stop();
}

#[test]
fn the_death_of_the_reaper_is_told_and_ends_the_pods_processes() {
    let world = World::enter();
    let (mut pod, reaper) = pod_with_a_reaper(&world);
    let container = pod.container("c", "sleep 1000").with_pid_namespace(shared(reaper));
    pod.run(&container);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(reaper), nix::sys::signal::Signal::SIGKILL).unwrap();
    pod.connection.event("reaper_died", |_| true);
    assert_eq!(pod.exit("c")["code"], 137);
    let state = pod.hello();
    assert_eq!(state["ready"], false);
    let another = pod.container("another", "true");
    assert_eq!(pod.create(&another).unwrap_err()["kind"], "not_running");
    pod.stop();
}

#[test]
fn the_reaper_ends_with_a_killed_shim() {
    let world = World::enter();
    let (pod, reaper) = pod_with_a_reaper(&world);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pod.pid()), nix::sys::signal::Signal::SIGKILL).unwrap();
    // Whoever looks may come between its death and its burial, or after both.
    eventually("the reaper is gone", LONG, || {
        sys::process::stat(sys::process::Pid::from_raw(reaper)).map_or(true, |stat| stat.state == 'Z')
    });
    let cgroup = pod.cgroup_of("reaper");
    let dir = pod.dir.clone();
    drop(pod);
    remove_what_is_left(&world, &cgroup, &dir);
}

#[test]
fn a_killed_shim_leaves_its_containers_to_the_daemon_to_kill() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("c", "echo up; exec sleep 1000");
    let pid = pod.run(&container);
    eventually("the container runs", LONG, || pod.log_lines("c") == ["stdout F up"]);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pod.pid()), nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("nobody listens", LONG, || sys::socket::connect(pod.dir.join("shim.sock")).is_err());
    // What a daemon has: the cgroup's path, and the records.
    assert_eq!(cgroup::processes(&pod.cgroup_of("c")), [pid]);
    let identity: Value = serde_json::from_slice(&fs::read(pod.dir.join("shim.json")).unwrap()).unwrap();
    assert_eq!((&identity["version"], &identity["pid"]), (&json!(1), &json!(pod.pid())));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("the container is gone", LONG, || !Path::new("/proc").join(pid.to_string()).exists());
    let cgroup = pod.cgroup_of("c");
    let dir = pod.dir.clone();
    drop(pod);
    remove_what_is_left(&world, &cgroup, &dir);
}

#[test]
fn a_container_finds_no_fd_and_no_socket_of_the_shim() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let script = "ls /proc/self/fd; cat /proc/net/unix; echo end";
    let container = pod.container("c", script).with("stdin", json!(true));
    pod.run(&container);
    pod.exit("c");
    let lines = pod.log_lines("c");
    // 3 is the directory that ls reads.
    assert_eq!(lines[..4], ["stdout F 0", "stdout F 1", "stdout F 2", "stdout F 3"], "{lines:?}");
    assert!(lines[5..].iter().all(|line| !line.contains('@')), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("shim.sock")), "{lines:?}");
    let mode = |name: &str| fs::metadata(pod.dir.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("shim.sock"), 0o600);
    pod.stop();
}

#[test]
fn what_the_shim_takes_for_itself_is_not_for_its_containers() {
    let world = World::enter();
    let own = credentials::limit(Resource::NOFILE).unwrap();
    if own.soft == own.hard {
        // One less makes no difference to anybody, and can be told apart from the hard limit.
        credentials::set_limit(Resource::NOFILE, Limit { soft: own.soft - 1, ..own }).unwrap();
    }
    let own = credentials::limit(Resource::NOFILE).unwrap();
    let score = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let mut pod = Pod::start(&world);
    let limits = fs::read_to_string(format!("/proc/{}/limits", pod.pid())).unwrap();
    let files: Vec<&str> =
        limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().collect();
    assert_eq!(files[3..5], [own.hard.to_string(), own.hard.to_string()]);
    assert_eq!(fs::read_link(format!("/proc/{}/cwd", pod.pid())).unwrap(), Path::new("/"));
    let container = pod.container("c", "ulimit -n; cat /proc/self/oom_score_adj");
    pod.run(&container);
    pod.exit("c");
    assert_eq!(pod.log_lines("c"), [format!("stdout F {}", own.soft), format!("stdout F {}", score.trim())]);
    pod.stop();
}

/// Removes what a pod whose shim was killed has left, as its daemon would: a cgroup, and below Linux 6.15 the `/dev/shm`.
fn remove_what_is_left(world: &World, cgroup: &str, dir: &Path) {
    let _mounted_nowhere = sys::mount::umount_detach(dir.join("shm"));
    for dir in world.cgroup_dirs(cgroup) {
        eventually("a cgroup is removed", LONG, || !dir.exists() || fs::remove_dir(&dir).is_ok());
    }
}

/// CVE-2019-5736: a container's process that is made to execute `/proc/self/exe` gets hold of the shim's file. While a shim
/// runs, the kernel lets nobody write to it; the container only has to wait.
#[test]
fn whoever_gets_hold_of_the_shims_file_can_not_open_it_for_writing() {
    let world = World::enter();
    let dir = world.new_dir("shim");
    // A copy, which no other test runs.
    let program = dir.join("program");
    fs::copy(binary("orlop-shim"), &program).unwrap();
    let start = || world.command(&program).arg("--dir").arg(&dir).stdin(Stdio::null()).spawn();
    // ETXTBSY: another test's child has inherited the file that was just written, until its exec.
    let mut shim = eventually("the copy can be executed", LONG, start);
    let mut connection = Connection::open(&dir.join("shim.sock"));
    connection.call(&json!({"hello": {"version": 1, "subscribe": false}}), &[]).unwrap();
    let comm = fs::read_to_string(format!("/proc/{}/comm", shim.id())).unwrap();
    assert_eq!(comm, "orlop-shim\n");
    let image = fs::File::open(format!("/proc/{}/exe", shim.id())).unwrap();
    connection.call(&json!("stop_sandbox"), &[]).unwrap();
    assert!(eventually("the shim ends", LONG, || shim.try_wait().unwrap()).success());
    let again = format!("/proc/self/fd/{}", sys::fd::number(&image));
    let error = fs::OpenOptions::new().append(true).open(again).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{error}");
}

/// An fd without close-on-exec that some other thread of the daemon had open at the wrong moment.
#[test]
fn what_the_shim_inherits_by_accident_is_closed() {
    let world = World::enter();
    let dir = world.new_dir("shim");
    let listener = sys::socket::listen(dir.join("shim.sock")).unwrap();
    let mut command = world.command("/bin/sh");
    let script = "exec 7</dev/zero \"$0\" --dir \"$1\" --listen-fd 0";
    command.args(["-c", script]).arg(binary("orlop-shim")).arg(&dir).stdin(Stdio::from(listener));
    let mut shim = command.spawn().unwrap();
    let mut connection = Connection::open(&dir.join("shim.sock"));
    connection.call(&json!({"hello": {"version": 1, "subscribe": false}}), &[]).unwrap();
    let open: Vec<_> = fs::read_dir(format!("/proc/{}/fd", shim.id()))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_owned(), fs::read_link(&path).unwrap()))
        .collect();
    assert!(open.contains(&("0".into(), "/dev/null".into())), "{open:?}");
    assert!(!open.iter().any(|(_, target)| target == Path::new("/dev/zero")), "{open:?}");
    connection.call(&json!("stop_sandbox"), &[]).unwrap();
    assert!(eventually("the shim ends", LONG, || shim.try_wait().unwrap()).success());
}
