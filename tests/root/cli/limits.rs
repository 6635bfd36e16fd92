//! update and events: limits that change while a container runs, and what it uses.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tests::{World, eventually, output, write};

use super::{Container, check_refused, is_ours};

const PATIENCE: Duration = Duration::from_secs(10);

/// A container that runs, with these limits.
fn limited(world: &World, resources: Value) -> Container<'_> {
    let mut container = Container::new(world, super::STAY);
    let limits = container.bundle.config["linux"]["resources"].as_object_mut().expect("resources");
    limits.extend(resources.as_object().expect("an object").clone());
    container.start();
    container
}

/// The first of these files that the container's cgroup has: v1's with its controller, or v2's.
fn file(container: &Container<'_>, candidates: &[&str]) -> String {
    let path = container.bundle.config["linux"]["cgroupsPath"].as_str().expect("a cgroup path");
    let read = candidates.iter().find_map(|candidate| {
        let (controller, name) = candidate.split_once('/').unwrap_or(("", candidate));
        std::fs::read_to_string(format!("/sys/fs/cgroup/{controller}{path}/{name}")).ok()
    });
    read.unwrap_or_else(|| panic!("none of {candidates:?} is in {path}")).trim().to_owned()
}

fn memory_limit(container: &Container<'_>) -> String {
    file(container, &["memory/memory.limit_in_bytes", "memory.max"])
}

fn pids_limit(container: &Container<'_>) -> String {
    file(container, &["pids/pids.max", "pids.max"])
}

/// "quota period"; v1 has two files for what v2 has in one.
fn cpu_limit(container: &Container<'_>) -> String {
    let quota = file(container, &["cpu/cpu.cfs_quota_us", "cpu.max"]);
    match quota.contains(' ') {
        true => quota,
        false => format!("{quota} {}", file(container, &["cpu/cpu.cfs_period_us"])),
    }
}

#[test]
fn an_update_changes_what_it_names_and_leaves_the_rest() {
    let world = World::enter();
    let container = limited(
        &world,
        json!({"memory": {"limit": 64 << 20}, "cpu": {"quota": 50000, "period": 100_000}, "pids": {"limit": 50}}),
    );
    container.verb(&["update", "--memory", "96M"]).success();
    assert_eq!(memory_limit(&container), (96 << 20).to_string());
    assert_eq!((cpu_limit(&container).as_str(), pids_limit(&container).as_str()), ("50000 100000", "50"));
    // Of quota and period each is kept when the other one is given.
    container.verb(&["update", "--cpu-quota", "30000"]).success();
    assert_eq!(cpu_limit(&container), "30000 100000");
    container.verb(&["update", "--cpu-period", "60000"]).success();
    assert_eq!(cpu_limit(&container), "30000 60000");
    container.verb(&["update", "--pids-limit", "77"]).success();
    assert_eq!((memory_limit(&container), pids_limit(&container)), ((96 << 20).to_string(), "77".to_owned()));
}

#[test]
fn limits_are_read_from_a_file_or_from_stdin() {
    let world = World::enter();
    let container = limited(&world, json!({"pids": {"limit": 50}}));
    let path = container.bundle.dir.join("limits.json");
    write(&path, json!({"memory": {"limit": 80 << 20}, "cpu": {}, "devices": []}).to_string());
    let mut update = container.bundle.runtime();
    update.args(["update", "--pids-limit", "9", "--resources"]).arg(&path).arg(&container.bundle.id);
    output(&mut update).success();
    assert_eq!((memory_limit(&container), pids_limit(&container)), ((80 << 20).to_string(), "50".to_owned()));

    let mut update =
        container.command(&["update", "-r", "-"]).stdin(Stdio::piped()).spawn().expect("start the runtime");
    let mut stdin = update.stdin.take().expect("a pipe");
    stdin.write_all(json!({"pids": {"limit": 60}}).to_string().as_bytes()).expect("stdin is read");
    drop(stdin);
    assert!(update.wait().expect("the runtime's end").success());
    assert_eq!((memory_limit(&container), pids_limit(&container)), ((80 << 20).to_string(), "60".to_owned()));
}

#[test]
fn after_an_update_that_fails_the_old_limits_hold() {
    let world = World::enter();
    let container = limited(&world, json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 50}}));
    let failed = container.verb(&["update", "--memory", "96M", "--pids-limit", "77", "--cpuset-cpus", "4000"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    assert_eq!((memory_limit(&container), pids_limit(&container)), ((64 << 20).to_string(), "50".to_owned()));
    // Nor are they kept for the next one.
    container.verb(&["update", "--pids-limit", "51"]).success();
    assert_eq!((memory_limit(&container), pids_limit(&container)), ((64 << 20).to_string(), "51".to_owned()));
}

#[test]
fn a_limit_that_the_kernel_has_dropped_is_warned_of() {
    let world = World::enter();
    let container = limited(&world, json!({}));
    let done = container.verb(&["update", "--kernel-memory", "64M", "--pids-limit", "20"]);
    assert!(done.code == 0 && done.stderr.contains("Kernel memory settings are ignored"), "{done:?}");
}

#[test]
fn an_update_that_makes_no_sense_is_refused_by_the_flags_name() {
    let world = World::enter();
    let container = limited(&world, json!({}));
    check_refused(
        &container.verb(&["update", "--memory", "much"]),
        1,
        "invalid value for memory: invalid size: 'much'",
    );
    check_refused(&container.verb(&["update", "--cpu-quota", "x"]), 1, "invalid value for cpu-quota");
    output(container.command(&["kill"]).arg("KILL")).success();
    container.has_stopped();
    check_refused(&container.verb(&["update", "--memory", "64M"]), 1, "container not running");
}

#[test]
fn devices_that_somebody_else_allowed_since_survive_an_update() {
    let world = World::enter();
    let container = limited(&world, json!({}));
    let path = container.bundle.config["linux"]["cgroupsPath"].as_str().expect("a cgroup path");
    let devices = format!("/sys/fs/cgroup/devices{path}");
    // On cgroup v2 there is no file to allow a device with: what an update does to programs is the cgroup crate's test.
    if Path::new(&devices).exists() {
        write(&Path::new(&devices).join("devices.allow"), "c 10:229 rwm");
        container.verb(&["update", "--pids-limit", "51"]).success();
        let list = std::fs::read_to_string(format!("{devices}/devices.list")).expect("devices.list");
        assert!(list.contains("c 10:229 rwm"), "{list}");
    }
}

#[test]
fn events_tells_once_what_a_container_uses() {
    let world = World::enter();
    let container = limited(&world, json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 50}}));
    let line = container.verb(&["events", "--stats"]).success();
    assert!(
        line.starts_with(&format!("{{\"type\":\"stats\",\"id\":\"{}\",\"data\":{{\"cpu\":", container.bundle.id)),
        "{line}"
    );
    assert!(line.ends_with("}\n") && line.lines().count() == 1, "{line}");
    let event: Value = serde_json::from_str(&line).expect("JSON");
    let data = &event["data"];
    assert!(data["cpu"]["usage"]["total"].as_u64() > Some(0), "{data}");
    assert_eq!(data["memory"]["usage"]["limit"], json!(64 << 20));
    assert!(data["memory"]["usage"]["usage"].as_u64() > Some(0), "{data}");
    assert_eq!(
        (data["pids"]["limit"].as_u64(), data["pids"]["current"].as_u64() >= Some(1)),
        (Some(50), true),
        "{data}"
    );
    for key in ["cpuset", "blkio", "hugetlb", "intel_rdt", "network_interfaces"] {
        assert!(data.get(key).is_some(), "{key}: {data}");
    }
}

/// events in the background, and the file with what it prints.
fn watch(container: &Container<'_>, interval: &str) -> (Child, PathBuf) {
    let path = container.bundle.dir.join("events");
    let file = File::create(&path).expect("a file for the events");
    let child = container.command(&["events", "--interval", interval]).stdout(file).spawn();
    (child.expect("start the runtime"), path)
}

/// events ends with the container; runc's only with its cgroup.
fn ends(container: &Container<'_>, events: &mut Child) {
    if !is_ours() {
        container.has_stopped();
        container.verb(&["delete"]).success();
    }
    eventually("events has ended", PATIENCE, || events.try_wait().expect("wait").is_some());
    assert!(events.wait().expect("the runtime's end").success());
}

fn lines_of(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("the events");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn events_goes_on_until_the_container_ends() {
    let world = World::enter();
    let container = limited(&world, json!({}));
    check_refused(&container.verb(&["events", "--interval", "0"]), 1, "duration interval must be greater than 0");
    let (mut events, path) = watch(&container, "20ms");
    // The last one may still be on its way.
    eventually("three lines of statistics", PATIENCE, || lines_of(&path).len() > 3);
    for line in &lines_of(&path)[..3] {
        assert!(line.starts_with("{\"type\":\"stats\","), "{line}");
    }
    output(container.command(&["kill"]).arg("KILL")).success();
    ends(&container, &mut events);
    if is_ours() {
        check_refused(&container.verb(&["events", "--stats"]), 1, "is not running");
    }
}

#[test]
fn events_tells_when_the_container_runs_out_of_memory() {
    let world = World::enter();
    let hog = "while ! test -e /go; do sleep 0.1; done; sh -c 'x=x; while :; do x=$x$x; done'";
    let mut container = Container::new(&world, &format!("touch /ready; {hog}; sleep 1000"));
    container.bundle.set("/linux/resources/memory", json!({"limit": 20_000_000, "swap": 20_000_000}));
    container.start();
    let (mut events, path) = watch(&container, "100ms");
    eventually("it watches", PATIENCE, || !lines_of(&path).is_empty());
    write(&container.bundle.rootfs("go"), "");
    let expected = format!("{{\"type\":\"oom\",\"id\":\"{}\"}}", container.bundle.id);
    eventually("it is told", PATIENCE, || lines_of(&path).contains(&expected));
    output(container.command(&["kill"]).arg("KILL")).success();
    ends(&container, &mut events);
}

#[test]
fn an_exec_can_begin_in_a_cgroup_below_the_containers() {
    let world = World::enter();
    let container = limited(&world, json!({}));
    let path = container.bundle.config["linux"]["cgroupsPath"].as_str().expect("a cgroup path");
    for hierarchy in world.cgroup_dirs(path) {
        std::fs::create_dir(hierarchy.join("below")).expect("a cgroup below");
        // A new cpuset of v1 has no CPU, and takes no process.
        for name in ["cpuset.cpus", "cpuset.mems"] {
            if let Some(value) = std::fs::read(hierarchy.join(name)).ok().filter(|value| value.len() > 1) {
                write(&hierarchy.join("below").join(name), value);
            }
        }
    }
    let exec = |cgroup: &str| {
        let mut command = container.command(&["exec", "--detach", "--pid-file", "exec.pid", "--cgroup", cgroup]);
        let null = || Stdio::from(File::options().read(true).write(true).open("/dev/null").expect("the null device"));
        command.args(["sleep", "1000"]).current_dir(&container.bundle.dir).stdin(null()).stdout(null()).stderr(null());
        assert!(command.status().expect("start the runtime").success());
        let pid = std::fs::read_to_string(container.bundle.dir.join("exec.pid")).expect("the pid file");
        std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups")
    };
    for line in exec("below").lines() {
        assert!(line.ends_with(&format!("{path}/below")), "{line}");
    }
    for line in exec("/").lines() {
        assert!(line.ends_with(path), "{line}");
    }
    if !tests::cgroup::is_v2() {
        for line in exec("cpu:below").lines() {
            let place = if line.split(':').nth(1).is_some_and(|names| names.split(',').any(|name| name == "cpu")) {
                "/below"
            } else {
                ""
            };
            assert!(line.ends_with(&format!("{path}{place}")), "{line}");
        }
    }
    for wrong in ["nonesuch", "../..", "teleport:below"] {
        let done = container.exec(&["--cgroup", wrong], &["true"]);
        assert_eq!(done.code, 255, "{done:?}");
    }
}
