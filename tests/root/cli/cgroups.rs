//! Limits, and what is left of a container in its cgroups, on this machine's cgroup v1.

use std::fs;

use serde_json::json;
use tests::{World, output};

use super::{Container, STAY, cgroup_file, check_refused};

#[test]
fn limits_are_written_where_the_kernel_keeps_them() {
    let world = World::enter();
    let mut container = Container::new(&world, STAY);
    container.bundle.set(
        "/linux/resources",
        json!({
            "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0"},
            "memory": {"limit": 67_108_864, "swap": 67_108_864, "reservation": 33_554_432},
            "pids": {"limit": 50},
            "devices": [
                {"allow": false, "access": "rwm"},
                {"allow": true, "type": "b", "major": 7, "minor": 0, "access": "r"},
            ],
        }),
    );
    container.create(&[]).success();
    for (controller, file, value) in [
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.memsw.limit_in_bytes", "67108864"),
        ("memory", "memory.soft_limit_in_bytes", "33554432"),
        ("pids", "pids.max", "50"),
    ] {
        assert_eq!(cgroup_file(&container, controller, file), value, "{file}");
    }
    let devices = cgroup_file(&container, "devices", "devices.list");
    assert!(!devices.lines().any(|line| line.starts_with('a')), "{devices}");
    for device in ["b 7:0 r", "c 1:3 rwm", "c *:* m"] {
        assert!(devices.lines().any(|line| line.trim_end() == device || line.starts_with(device)), "{devices}");
    }
}

#[test]
fn the_container_is_in_its_cgroup_in_every_hierarchy() {
    let world = World::enter();
    let container = Container::started(&world);
    let pid = container.state()["pid"].to_string();
    let path = container.bundle.config["linux"]["cgroupsPath"].as_str().expect("a cgroup path").to_owned();
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the container's cgroups");
    assert!(groups.lines().count() >= 8, "{groups}");
    for line in groups.lines() {
        assert!(line.ends_with(&path), "{line}");
    }
}

#[test]
fn a_limit_that_no_kernel_takes_is_refused_by_name_and_leaves_nothing() {
    let world = World::enter();
    let mut container = Container::new(&world, STAY);
    container.bundle.set("/linux/resources/cpu", json!({"shares": 1}));
    check_refused(&container.create(&[]), 1, "the minimum allowed cpu-shares is 2");
    container.bundle.set("/linux/resources/cpu", json!({"cpus": "4000"}));
    check_refused(&container.create(&[]), 1, "cpuset.cpus");
}

#[test]
fn a_cgroup_that_cannot_be_made_leaves_none_above_it() {
    let world = World::enter();
    let mut container = Container::new(&world, STAY);
    let parent = world.cgroup("parent");
    // Each component is a name that a cgroup can have, and all together are no path any more.
    container
        .bundle
        .set("/linux/cgroupsPath", json!(format!("{parent}{}", format!("/{}", "x".repeat(250)).repeat(20))));
    check_refused(&container.create(&[]), 1, "File name too long");
    for dir in world.cgroup_dirs(&parent) {
        let below =
            fs::read_dir(&dir).expect("a cgroup").filter(|entry| entry.as_ref().is_ok_and(|e| e.path().is_dir()));
        assert_eq!(below.count(), 0, "{}", dir.display());
    }
}

#[test]
fn a_cgroup_that_somebody_is_in_is_not_taken() {
    let world = World::enter();
    let container = Container::started(&world);
    let mut second = Container::new(&world, STAY);
    second.bundle.set("/linux/cgroupsPath", container.bundle.config["linux"]["cgroupsPath"].clone());
    check_refused(&second.create(&[]), 1, "container's cgroup is not empty");
    assert_eq!(container.status(), "running");
}

#[test]
fn a_container_in_a_foreign_pid_namespace_is_killed_and_deleted_whole() {
    let world = World::enter();
    for verb in [&["kill", "KILL"][..], &["delete", "--force"]] {
        let mut container = Container::new(&world, "sleep 1000 & (sleep 1000 &) ; touch /ready; wait");
        let namespaces = container.bundle.config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "pid");
        container.create(&[]).success();
        container.verb(&["start"]).success();
        container.is_ready();
        assert!(cgroup_file(&container, "pids", "cgroup.procs").lines().count() >= 3);
        let (verb, signal) = (verb[0], verb[1]);
        match verb {
            "kill" => output(container.command(&["kill"]).arg(signal)).success(),
            verb => container.verb(&[verb, signal]).success(),
        };
        if verb == "kill" {
            container.has_stopped();
            assert_eq!(cgroup_file(&container, "pids", "cgroup.procs"), "");
            container.verb(&["delete"]).success();
        }
        // That no process and no cgroup is left the World proves.
    }
}

#[test]
fn cgroups_that_were_made_below_the_containers_own_are_removed_with_it() {
    let world = World::enter();
    let container = Container::started(&world);
    let path = container.bundle.config["linux"]["cgroupsPath"].as_str().expect("a cgroup path");
    for controller in ["memory", "pids", "systemd"] {
        fs::create_dir_all(format!("/sys/fs/cgroup/{controller}{path}/inner/most")).expect("cgroups below");
    }
    container.verb(&["delete", "--force"]).success();
    assert!(!std::path::Path::new(&format!("/sys/fs/cgroup/memory{path}")).exists());
}

#[test]
fn a_container_over_its_memory_limit_is_killed() {
    let world = World::enter();
    let mut container = Container::new(&world, "x=x; while :; do x=$x$x; done");
    container.bundle.set("/linux/resources/memory", json!({"limit": 20_000_000, "swap": 20_000_000}));
    container.bundle.write_config();
    let done = output(container.command(&["run"]).current_dir(&container.bundle.dir));
    assert_eq!(done.code, 137, "{done:?}");
}

#[test]
fn a_process_limit_holds() {
    let world = World::enter();
    let mut container = Container::new(&world, "(true) && echo forked || echo refused");
    container.bundle.set("/linux/resources/pids", json!({"limit": 1}));
    container.bundle.write_config();
    let done = output(container.command(&["run"]).current_dir(&container.bundle.dir));
    assert!(!done.stdout.contains("forked"), "{done:?}");
}

#[test]
fn an_exec_is_counted_and_limited_with_the_container() {
    let world = World::enter();
    let container = Container::started(&world);
    let groups = container.exec(&[], &["cat", "/proc/self/cgroup"]).success();
    let own = container.exec(&[], &["cat", "/proc/1/cgroup"]).success();
    assert_eq!(groups, own);
}
