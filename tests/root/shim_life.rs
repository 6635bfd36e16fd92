//! The life of a container in `orlop-shim`: create, start, exec, kill, exit, delete, and the end of the pod.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::cgroup::{self, CPU_SHARE, MEMORY_LIMIT, by_version};
use tests::{World, eventually, rounds};

use crate::shim_client::{LONG, Pod, exec_verb, memfd, process, sandbox};

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

#[test]
fn a_container_runs_to_its_end_and_everything_about_it_is_told_and_forgotten() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let web = pod.container("web", "echo hello; echo oops >&2; exit 3");
    let (created, _) = pod.create(&web).unwrap();
    assert_eq!(pod.hello()["containers"]["web"], json!({"created": created["process"]}));
    assert_eq!(pod.start_container("web").unwrap().0, "done");
    let exit = pod.exit("web");
    assert_eq!((&exit["code"], &exit["signal"], &exit["oom_killed"]), (&json!(3), &Value::Null, &json!(false)));
    assert_eq!(exit["process"], created["process"]);
    assert!(exit["started_at"].as_i64() > Some(1 << 60) && exit["started_at"].as_i64() <= exit["finished_at"].as_i64());
    assert_eq!(pod.log_lines("web"), ["stdout F hello", "stderr F oops"]);
    assert_eq!(pod.hello()["containers"]["web"], json!({"exited": exit}));

    let record = pod.dir.join("exits/web.json");
    assert_eq!(serde_json::from_str::<Value>(&fs::read_to_string(&record).unwrap()).unwrap(), exit);
    assert_eq!(fs::metadata(&record).unwrap().permissions().mode() & 0o777, 0o600);
    pod.delete("web").unwrap();
    assert!(!record.exists());
    assert_eq!(pod.hello()["containers"], json!({}));
    assert_eq!(pod.delete("web").unwrap_err()["kind"], "not_found");
    pod.stop();
}

#[test]
fn a_program_that_can_not_run_is_refused_and_its_container_exits_with_128() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let missing = pod.container("missing", "").spec("/process/args", json!(["/bin/no-such-program"]));
    pod.create(&missing).unwrap();
    let failure = pod.start_container("missing").unwrap_err();
    assert_eq!(failure["kind"], "start");
    assert!(failure["message"].as_str().unwrap().contains("/bin/no-such-program"), "{failure}");
    let exit = pod.exit("missing");
    assert_eq!((&exit["code"], &exit["started_at"]), (&json!(128), &json!(0)));
    pod.delete("missing").unwrap();
    pod.stop();
}

#[test]
fn a_signal_that_ends_a_container_is_told() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let sleeper = pod.container("sleeper", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done");
    pod.run(&sleeper);
    assert_eq!(pod.kill("sleeper", 77).unwrap_err()["kind"], "invalid");
    eventually("the trap is set", LONG, || pod.log_lines("sleeper") == ["stdout F ready"]);
    pod.kill("sleeper", SIGTERM).unwrap();
    assert_eq!(pod.exit("sleeper")["code"], 7);
    assert_eq!(pod.kill("sleeper", SIGTERM).unwrap_err()["kind"], "not_running");

    let other = pod.container("other", "sleep 1000");
    pod.run(&other);
    assert_eq!(pod.delete("other").unwrap_err()["kind"], "running");
    pod.kill("other", SIGKILL).unwrap();
    let exit = pod.exit("other");
    assert_eq!((&exit["code"], &exit["signal"]), (&json!(137), &json!(SIGKILL)));
    pod.stop();
}

#[test]
fn verbs_for_the_wrong_state_say_which_state_it_is() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("one", "sleep 1000");
    for verb in ["start", "update", "reopen_log"] {
        let resources = memfd(&json!({}));
        let fds = [resources.as_fd()];
        let fds = if verb == "update" { &fds[..] } else { &[] };
        let failure = pod.connection.call(&json!({verb: {"container": "one"}}), fds).unwrap_err();
        assert_eq!(failure["kind"], "not_found", "{verb}");
    }
    pod.create(&container).unwrap();
    assert_eq!(pod.create(&container).unwrap_err()["kind"], "exists");
    let exec = exec_verb("one", "e", &json!({"stdin": false, "stdout": false, "stderr": false}), false);
    let document = memfd(&process(&["/bin/true"]));
    assert_eq!(pod.connection.call(&exec, &[document.as_fd()]).unwrap_err()["kind"], "not_running");
    pod.start_container("one").unwrap();
    assert_eq!(pod.start_container("one").unwrap_err()["kind"], "running");
    let again = json!({"start_sandbox": sandbox()});
    assert_eq!(pod.connection.call(&again, &[]).unwrap_err()["kind"], "exists");
    for id in ["../evil", "", ".hidden", "a/b"] {
        let evil = pod.container("one", "").with("container", json!(id));
        assert_eq!(pod.create(&evil).unwrap_err()["kind"], "invalid", "{id}");
    }
    pod.stop();
}

/// As a daemon does that was started after one that died in the middle of RunPodSandbox.
#[test]
fn a_sandbox_that_is_still_being_started_is_stopped_all_the_same() {
    let world = World::enter();
    for _ in 0..rounds(10) {
        let mut pod = Pod::bare(&world);
        let cgroup = pod.cgroup_of("reaper");
        let mut sandbox = sandbox();
        sandbox["reaper"] = json!({"cgroup": cgroup, "oom_score_adj": null});
        pod.connection.ask(&json!({"start_sandbox": sandbox}), &[], LONG);
        pod.connection.call(&json!("stop_sandbox"), &[]).unwrap();
        assert_eq!(world.cgroup_dirs(&cgroup), Vec::<PathBuf>::new());
        pod.expect_end();
    }
}

#[test]
fn a_refused_spec_leaves_nothing_behind() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("bad", "true").with_mount(json!({
        "destination": "/mnt", "type": "bind", "source": "/no/such/source", "options": ["rbind"],
    }));
    let failure = pod.create(&container).unwrap_err();
    assert!(failure["message"].as_str().unwrap().contains("/no/such/source"), "{failure}");
    let user_namespace = pod.container("bad", "true").spec("/linux/namespaces/1/type", json!("user"));
    assert_ne!(pod.create(&user_namespace).unwrap_err()["kind"], "internal");
    assert_eq!(pod.hello()["containers"], json!({}));
    // The id is free again, and so is its cgroup.
    let good = pod.container("bad", "exit 0");
    pod.run(&good);
    assert_eq!(pod.exit("bad")["code"], 0);
    pod.stop();
}

#[test]
fn an_exec_runs_in_the_container_and_its_end_is_told() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("main", "echo $$ > /tmp/first; sleep 1000");
    pod.run(&container);
    eventually("the first process runs", LONG, || pod.exec("main", "look", "cat /tmp/first").0 == "1\n");
    let (output, exit) = pod.exec("main", "e1", "hostname; readlink /proc/self/cwd; exit 5");
    assert_eq!(output, "pod\n/\n");
    assert_eq!(exit["code"], 5);

    let verb = exec_verb("main", "e2", &json!({"stdin": false, "stdout": false, "stderr": false}), false);
    let document = memfd(&process(&["/bin/sleep", "1000"]));
    pod.connection.call(&verb, &[document.as_fd()]).unwrap();
    assert_eq!(pod.connection.call(&verb, &[document.as_fd()]).unwrap_err()["kind"], "exists");
    pod.connection.call(&json!({"kill_exec": {"exec": "e2", "signal": SIGTERM}}), &[]).unwrap();
    let exit = pod.connection.event("exec_exited", |event| event["exec"] == "e2")["exit"].take();
    assert_eq!((&exit["code"], &exit["signal"]), (&json!(143), &json!(SIGTERM)));
    let gone = pod.connection.call(&json!({"kill_exec": {"exec": "e2", "signal": SIGTERM}}), &[]).unwrap_err();
    assert_eq!(gone["kind"], "not_found");

    let document = memfd(&process(&["no-such-program"]));
    // Its end races with those who want to know why: whoever comes first, the answer is the same.
    for _ in 0..rounds(30) {
        let failure = pod.connection.call(&verb, &[document.as_fd()]).unwrap_err();
        assert_eq!(failure["kind"], "start", "{failure}");
        assert!(failure["message"].as_str().unwrap().contains("no-such-program"), "{failure}");
    }
    pod.stop();
}

#[test]
fn what_a_spec_says_for_all_processes_holds_for_an_exec() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let mut container = pod.container("web", "sleep 100");
    container.spec["linux"]["personality"] = json!({"domain": "LINUX32"});
    container.spec["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 3});
    pod.run(&container);
    let look = "busybox uname -m; read stat < /proc/self/stat; set -- ${stat##*)}; echo ${39} ${17}";
    assert_eq!(pod.exec("web", "look", look).0, "i686\n3 3\n");
    pod.stop();
}

#[test]
fn hundreds_of_short_execs_are_all_told() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("main", "sleep 1000");
    pod.run(&container);
    let none = json!({"stdin": false, "stdout": false, "stderr": false});
    let document = memfd(&process(&["/bin/true"]));
    for round in 0..rounds(20) {
        let ids: Vec<_> = (0..16)
            .map(|number| {
                let exec = format!("e-{round}-{number}");
                let verb = exec_verb("main", &exec, &none, false);
                (pod.connection.ask(&verb, &[document.as_fd()], LONG), exec)
            })
            .collect();
        for (id, exec) in ids {
            pod.connection.answer(id).unwrap();
            let exit = pod.connection.event("exec_exited", |event| event["exec"] == exec)["exit"].take();
            assert_eq!(exit["code"], 0);
        }
    }
    pod.stop();
}

#[test]
fn the_containers_of_a_pod_share_its_network_host_name_and_shared_memory() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let writer = pod.container("writer", "hostname; echo shared > /dev/shm/file; ip link show lo; sleep 1000");
    let writer_pid = pod.run(&writer);
    eventually("the file is there", LONG, || pod.exec("writer", "look", "cat /dev/shm/file").0 == "shared\n");
    let reader = pod.container("reader", "cat /dev/shm/file");
    pod.run(&reader);
    pod.exit("reader");
    assert_eq!(pod.log_lines("reader"), ["stdout F shared"]);
    let mut careful = pod.container("careful", "cat /dev/shm/file; touch /dev/shm/x 2>&1");
    let read_only = json!({"destination": "/dev/shm", "type": "bind", "options": ["bind", "remount", "ro"]});
    careful.spec["mounts"].as_array_mut().unwrap().push(read_only);
    pod.run(&careful);
    pod.exit("careful");
    let lines = pod.log_lines("careful");
    assert!(lines.len() == 2 && lines[1].contains("Read-only file system"), "{lines:?}");
    let lines = eventually("the link is shown", LONG, || Some(pod.log_lines("writer")).filter(|lines| lines.len() > 1));
    assert_eq!(lines[0], "stdout F pod");
    assert!(lines[1].contains("UP"), "lo is {}", lines[1]);
    for namespace in ["net", "ipc", "uts"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_eq!(of(&writer_pid.to_string()), of(&pod.pid().to_string()), "{namespace}");
        assert_ne!(of(&pod.pid().to_string()), of("thread-self"), "{namespace}");
    }
    // A detached mount can be given to a container since Linux 6.15; before, it has a place in the shim's own folder.
    let place = pod.dir.join("shm");
    let mut expected = vec![place.as_path()];
    expected.retain(|_| !sys::kernel::is_at_least(sys::kernel::Version { major: 6, minor: 15 }));
    let mounts = sys::mountinfo::read().unwrap();
    let below: Vec<_> =
        mounts.iter().map(|mount| mount.mount_point.as_path()).filter(|at| at.starts_with(&pod.dir)).collect();
    assert_eq!(below, expected, "mounts of the pod on the host");
    pod.stop();
    assert!(!sys::mountinfo::read().unwrap().iter().any(|mount| mount.mount_point == place));
}

#[test]
fn sysctls_are_set_inside_the_pod_before_anything_runs() {
    let world = World::enter();
    let host = || fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let before = host();
    let mut pod = Pod::start_with(&world, |sandbox, _| {
        sandbox["sysctls"] = json!({"net.ipv4.ip_unprivileged_port_start": "77", "kernel.shm_rmid_forced": "1"});
    });
    let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced";
    let container = pod.container("show", script);
    pod.run(&container);
    pod.exit("show");
    assert_eq!(pod.log_lines("show"), ["stdout F 77", "stdout F 1"]);
    assert_eq!(host(), before);
    pod.stop();
}

#[test]
fn a_container_without_a_pid_namespace_has_ended_only_when_all_in_its_cgroup_have() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let script = "(trap '' TERM; while :; do sleep 0.01; done) & echo child $!; exit 4";
    let container = pod.container("host-pid", script).with_pid_namespace(None);
    pod.run(&container);
    assert_eq!(pod.exit("host-pid")["code"], 4);
    let lines = pod.log_lines("host-pid");
    let child = lines[0].strip_prefix("stdout F child ").unwrap();
    // The kernel lists no process that has begun to exit; it may be a moment until nothing is left of it.
    let left = cgroup::processes(&pod.cgroup_of("host-pid"));
    assert!(left.is_empty(), "process {child} outlived its container's end: {left:?}");
    eventually("nothing is left of it", LONG, || !Path::new("/proc").join(child).exists());
    pod.delete("host-pid").unwrap();
    pod.stop();
}

#[test]
fn a_signal_to_all_reaches_every_process_of_the_container() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let script = "(trap 'echo heard' USR1; echo ready; while :; do sleep 0.01; done) & \
                  trap 'echo heard' USR1; echo ready; while :; do sleep 0.01; done";
    let container = pod.container("both", script);
    pod.run(&container);
    let count = |pod: &Pod, what: &str| pod.log_lines("both").iter().filter(|line| line.ends_with(what)).count();
    eventually("both traps are set", LONG, || count(&pod, "ready") == 2);
    pod.connection.call(&json!({"kill": {"container": "both", "signal": 10, "all": true}}), &[]).unwrap();
    eventually("both have heard", LONG, || count(&pod, "heard") == 2);
    pod.stop();
}

#[test]
fn delete_by_force_ends_a_container_first() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let running = pod.container("running", "sleep 1000");
    pod.run(&running);
    let created = pod.container("created", "sleep 1000");
    pod.create(&created).unwrap();
    for id in ["running", "created"] {
        pod.connection.call(&json!({"delete": {"container": id, "force": true}}), &[]).unwrap();
        assert_eq!(pod.exit(id)["code"], 137);
        assert!(!cgroup::dir(&pod.cgroup_of(id)).exists());
    }
    assert_eq!(pod.hello()["containers"], json!({}));
    pod.stop();
}

#[test]
fn new_limits_are_applied_to_a_running_container() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("limited", "sleep 1000");
    pod.run(&container);
    let resources = memfd(&json!({"memory": {"limit": 64 << 20}, "cpu": {"shares": 512}}));
    pod.connection.call(&json!({"update": {"container": "limited"}}), &[resources.as_fd()]).unwrap();
    let limited = pod.cgroup_of("limited");
    assert_eq!(MEMORY_LIMIT.read(&limited), (64 << 20).to_string());
    assert_eq!(CPU_SHARE.read(&limited), by_version("512", "59"));
    let nonsense = memfd(&json!({"memory": {"limit": "much"}}));
    let failure = pod.connection.call(&json!({"update": {"container": "limited"}}), &[nonsense.as_fd()]).unwrap_err();
    assert_eq!(failure["kind"], "invalid");
    pod.stop();
}

#[test]
fn a_container_that_runs_out_of_memory_says_so() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let hog = pod
        .container("hog", "dd if=/dev/zero of=/dev/null bs=64M")
        .spec("/linux/resources", json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}}));
    pod.run(&hog);
    let exit = pod.exit("hog");
    assert_eq!((&exit["code"], &exit["oom_killed"]), (&json!(137), &json!(true)));
    pod.connection.event("oom", |event| event["container"] == "hog");

    let child = pod
        .container("child", "dd if=/dev/zero of=/dev/null bs=64M; exit 9")
        .spec("/linux/resources", json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}}));
    pod.run(&child);
    let exit = pod.exit("child");
    assert_eq!((&exit["code"], &exit["oom_killed"]), (&json!(9), &json!(true)));
    pod.stop();
}

#[test]
fn stopping_the_sandbox_ends_everything_and_the_exit_records_stay() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    for id in ["one", "two"] {
        let container = pod.container(id, "sleep 1000");
        pod.run(&container);
    }
    let created = pod.container("three", "true");
    pod.create(&created).unwrap();
    let dir = pod.dir.clone();
    pod.stop();
    for id in ["one", "two", "three"] {
        let record: Value = serde_json::from_slice(&fs::read(dir.join(format!("exits/{id}.json"))).unwrap()).unwrap();
        assert_eq!(record["code"], 137, "{id}");
    }
    assert!(!dir.join("shim.sock").exists());
}

#[test]
fn a_sandbox_that_can_not_be_started_ends_its_shim() {
    let world = World::enter();
    let mut pod = Pod::bare(&world);
    let mut sandbox = crate::shim_client::sandbox();
    sandbox["sysctls"] = json!({"kernel.no_such_sysctl": "1"});
    let failure = pod.connection.call(&json!({"start_sandbox": sandbox}), &[]).unwrap_err();
    assert!(failure["message"].as_str().unwrap().contains("kernel.no_such_sysctl"), "{failure}");
    assert!(failure["stages"].as_array().unwrap().iter().any(|stage| stage["name"] == "set sysctls"), "{failure}");
    pod.expect_end();
}

#[test]
fn an_exec_that_meets_the_containers_end_is_told_that_it_is_not_running() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    for round in 0..u64::from(rounds(40)) {
        let id = format!("c{round}");
        let pid = pod.run(&pod.container(&id, "exec sleep 1000"));
        let process = memfd(&process(&["/bin/true"]));
        let none = json!({"stdin": false, "stdout": false, "stderr": false});
        let asked: Vec<u64> = (0..3)
            .map(|number| {
                let verb = exec_verb(&id, &format!("{id}-{number}"), &none, false);
                pod.connection.ask(&verb, &[process.as_fd()], LONG)
            })
            .collect();
        // At another moment of the execs in every round.
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(100 * round) {}
        send(pid, "KILL");
        for exec in asked {
            if let Err(failure) = pod.connection.answer(exec) {
                assert_eq!(failure["kind"], "not_running", "{failure}");
            }
        }
        assert_eq!(pod.exit(&id)["code"], 137);
        pod.delete(&id).unwrap();
    }
    pod.stop();
}

#[test]
fn a_start_that_the_process_never_heard_of_has_failed() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let (created, _) = pod.create(&pod.container("c", "true")).unwrap();
    let pid = created["process"]["pid"].as_i64().unwrap() as i32;
    send(pid, "STOP");
    let state = || sys::process::stat(sys::process::Pid::from_raw(pid)).unwrap().state;
    eventually("it is stopped", LONG, || state() == 'T');
    let asked = pod.connection.ask(&json!({"start": {"container": "c"}}), &[], LONG);
    pod.hello();
    send(pid, "KILL");
    let failure = pod.connection.answer(asked).unwrap_err();
    assert_eq!(failure["kind"], "start", "{failure}");
    assert_eq!(pod.exit("c")["started_at"], 0);
    pod.stop();
}

#[test]
fn a_creation_that_is_given_up_at_any_moment_leaves_nothing_once_it_is_deleted() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    // At moments that are spread over a creation.
    for round in (0..20).step_by(20 / rounds(20) as usize) {
        let container = pod.container("c", "exec sleep 1000");
        let (verb, fds) = container.message(pod.rootfs());
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let created = pod.connection.ask(&verb, &fds, Duration::from_millis(round));
        let cgroup = cgroup::dir(&pod.cgroup_of("c"));
        if pod.connection.answer(created).is_err() {
            let again = json!({"delete": {"container": "c", "force": true}});
            let gone = pod.connection.call(&again, &[]);
            assert!(gone.is_ok() || gone.unwrap_err()["kind"] == "not_found");
        } else {
            pod.connection.call(&json!({"delete": {"container": "c", "force": true}}), &[]).unwrap();
        }
        assert!(!cgroup.exists(), "after {round} ms something is left");
    }
    pod.stop();
}

fn send(pid: i32, signal: &str) {
    let signal: sys::signal::Number = signal.parse().unwrap();
    let process = sys::process::PidFd::open(sys::process::Pid::from_raw(pid)).unwrap();
    process.send_signal(signal).unwrap();
}
