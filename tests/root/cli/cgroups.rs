//! Limits, and what is left of a container in its cgroups, on either version of them.

use std::fs;

use serde_json::{Value, json};
use tests::cgroup::{self, CPU_QUOTA, CPU_SHARE, Knob, MEMORY_LIMIT, PIDS_LIMIT, by_version};
use tests::{World, output};

use super::{Container, STAY, cgroup_of, check_refused};

const CPUS: Knob = Knob { v1: ("cpuset", "cpuset.cpus"), v2: "cpuset.cpus" };
const CPU_PERIOD: Knob = Knob { v1: ("cpu", "cpu.cfs_period_us"), v2: "cpu.max" };
const MEMORY_RESERVATION: Knob = Knob { v1: ("memory", "memory.soft_limit_in_bytes"), v2: "memory.low" };
/// On v1 of memory and swap together.
const SWAP_LIMIT: Knob = Knob { v1: ("memory", "memory.memsw.limit_in_bytes"), v2: "memory.swap.max" };

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
        }),
    );
    container.create(&[]).success();
    let cgroup = cgroup_of(&container);
    for (knob, value) in [
        (CPU_SHARE, by_version("512", "59")),
        (CPU_QUOTA, by_version("50000", "50000 100000")),
        (CPU_PERIOD, by_version("100000", "50000 100000")),
        (CPUS, "0"),
        (MEMORY_LIMIT, "67108864"),
        (SWAP_LIMIT, by_version("67108864", "0")),
        (MEMORY_RESERVATION, "33554432"),
        (PIDS_LIMIT, "50"),
    ] {
        assert_eq!(knob.read(&cgroup), value, "{knob:?}");
    }
}

/// Rules for a device that nobody drives: only one who may open it is told so.
pub(super) fn one_device() -> Value {
    json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 240, "minor": 7, "access": "r"},
    ])
}

#[test]
fn the_devices_that_are_listed_and_the_default_ones_can_be_opened_and_no_others() {
    let world = World::enter();
    let script = "mknod /dev/listed c 240 7 && mknod /dev/other c 240 8 && mknod /dev/again c 1 5 && \
                  head -c 1 /dev/again >/dev/null && echo default; \
                  tell() { grep -o 'Operation not permitted' || echo allowed; }; \
                  (: </dev/listed) 2>&1 | tell; (: >/dev/listed) 2>&1 | tell; (: </dev/other) 2>&1 | tell";
    let mut container = Container::new(&world, script);
    container.bundle.set("/linux/resources/devices", one_device());
    let done = container.run();
    assert_eq!(done.success(), "default\nallowed\nOperation not permitted\nOperation not permitted\n");
}

#[test]
fn the_container_is_in_its_cgroup_in_every_hierarchy() {
    let world = World::enter();
    let container = Container::started(&world);
    let pid = container.state()["pid"].to_string();
    let path = cgroup_of(&container);
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the container's cgroups");
    let own = fs::read_to_string("/proc/self/cgroup").expect("our own cgroups");
    assert_eq!(groups.lines().count(), own.lines().count(), "{groups}");
    for line in groups.lines() {
        assert!(line.ends_with(&path), "{line}");
    }
}

#[test]
fn a_limit_that_no_kernel_takes_is_refused_by_name_and_leaves_nothing() {
    let world = World::enter();
    let mut container = Container::new(&world, STAY);
    container.bundle.set("/linux/resources/cpu", json!({"shares": 1}));
    if cgroup::is_v2() {
        // It has weights, of which this is the least.
        container.create(&[]).success();
        assert_eq!(CPU_SHARE.read(&cgroup_of(&container)), "1");
        container.verb(&["delete", "--force"]).success();
    } else {
        check_refused(&container.create(&[]), 1, "the minimum allowed cpu-shares is 2");
    }
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
        container.without_namespace("pid");
        container.start();
        let cgroup = cgroup_of(&container);
        assert!(cgroup::processes(&cgroup).len() >= 3);
        let (verb, signal) = (verb[0], verb[1]);
        match verb {
            "kill" => output(container.command(&["kill"]).arg(signal)).success(),
            verb => container.verb(&[verb, signal]).success(),
        };
        if verb == "kill" {
            container.has_stopped();
            assert!(cgroup::processes(&cgroup).is_empty());
            container.verb(&["delete"]).success();
        }
        // That no process and no cgroup is left the World proves.
    }
}

#[test]
fn cgroups_that_were_made_below_the_containers_own_are_removed_with_it() {
    let world = World::enter();
    let container = Container::started(&world);
    let dirs = world.cgroup_dirs(&cgroup_of(&container));
    assert!(!dirs.is_empty());
    for dir in &dirs {
        fs::create_dir_all(dir.join("inner/most")).expect("cgroups below");
    }
    container.verb(&["delete", "--force"]).success();
    assert!(!dirs.iter().any(|dir| dir.exists()));
}

#[test]
fn a_container_over_its_memory_limit_is_killed() {
    let world = World::enter();
    let mut container = Container::new(&world, "x=x; while :; do x=$x$x; done");
    container.bundle.set("/linux/resources/memory", json!({"limit": 20_000_000, "swap": 20_000_000}));
    let done = container.run();
    assert_eq!(done.code, 137, "{done:?}");
}

#[test]
fn a_process_limit_holds() {
    let world = World::enter();
    let mut container = Container::new(&world, "(true) && echo forked || echo refused");
    container.bundle.set("/linux/resources/pids", json!({"limit": 1}));
    let done = container.run();
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
