//! What only cgroup v1 has, or does in its own way. On a host with v2 alone there is nothing to test here: scripts/vm leaves it
//! out by its name.

use std::fs;

use serde_json::json;
use tests::World;

use super::{Container, STAY, cgroup_of, check_refused};

/// A file of a container's cgroup.
fn cgroup_file(container: &Container<'_>, controller: &str, file: &str) -> String {
    let path = format!("/sys/fs/cgroup/{controller}{}/{file}", cgroup_of(container));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")).trim().to_owned()
}

/// The first block device of the machine, `8:0`.
fn block_device() -> String {
    let first = fs::read_dir("/sys/block").expect("block devices").next().expect("a block device").expect("its name");
    let number = fs::read_to_string(first.path().join("dev")).expect("its number");
    number.trim().to_owned()
}

#[test]
fn limits_of_devices_pages_and_buffers_are_written() {
    let world = World::enter();
    let mut container = Container::new(&world, STAY);
    let device = block_device();
    let (major, minor) = device.split_once(':').expect("major and minor number");
    let (major, minor): (u32, u32) = (major.parse().expect("a number"), minor.parse().expect("a number"));
    let throttle = |rate: u32| json!([{"major": major, "minor": minor, "rate": rate}]);
    container.bundle.set(
        "/linux/resources",
        json!({
            "blockIO": {"throttleReadBpsDevice": throttle(1_048_576), "throttleWriteIOPSDevice": throttle(70)},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}],
            "memory": {"kernelTCP": 8_388_608},
            "cpu": {"burst": 5000, "quota": 20000, "period": 100_000},
        }),
    );
    container.create(&[]).success();
    for (controller, file, value) in [
        ("blkio", "blkio.throttle.read_bps_device", format!("{device} 1048576")),
        ("blkio", "blkio.throttle.write_iops_device", format!("{device} 70")),
        ("memory", "memory.kmem.tcp.limit_in_bytes", "8388608".to_owned()),
        ("unified", "hugetlb.2MB.max", "4194304".to_owned()),
        ("unified", "hugetlb.2MB.rsvd.max", "4194304".to_owned()),
        ("cpu", "cpu.cfs_burst_us", "5000".to_owned()),
    ] {
        assert_eq!(cgroup_file(&container, controller, file), value, "{file}");
    }
}

#[test]
fn an_idle_container_keeps_the_shares_that_the_kernel_gives_it() {
    let world = World::enter();
    let mut container = Container::new(&world, STAY);
    container.bundle.set("/linux/resources/cpu", json!({"shares": 512, "idle": 1}));
    container.create(&[]).success();
    assert_eq!(cgroup_file(&container, "cpu", "cpu.idle"), "1");
    assert_ne!(cgroup_file(&container, "cpu", "cpu.shares"), "512");
}

#[test]
fn what_this_machine_cannot_keep_is_refused_by_name() {
    let world = World::enter();
    for (resources, text) in [
        (
            json!({"network": {"classID": 1}}),
            "linux.resources.network.classID: the v1 net_cls controller is not mounted",
        ),
        (
            json!({"network": {"priorities": [{"name": "lo", "priority": 1}]}}),
            "linux.resources.network.priorities: the v1 net_prio controller is not mounted",
        ),
        (json!({"rdma": {"mlx5": {"hcaHandles": 1}}}), "linux.resources.rdma: the v1 rdma controller is not mounted"),
        (json!({"unified": {"memory.high": "max"}}), "invalid configuration: cannot use unified on cgroup v1"),
        (
            json!({"cpu": {"realtimeRuntime": 1000}}),
            "linux.resources.cpu.realtimeRuntime: 1000 is refused: the cgroup above",
        ),
        (
            json!({"blockIO": {"leafWeight": 10}}),
            "linux.resources.blockIO.leafWeight: this kernel has no I/O scheduler",
        ),
        (json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}), "linux.resources.hugepageLimits: "),
    ] {
        let mut container = Container::new(&world, STAY);
        container.bundle.set("/linux/resources", resources);
        check_refused(&container.create(&[]), 1, text);
    }
}

#[test]
fn memory_and_swap_go_up_and_down_together() {
    let world = World::enter();
    let container = Container::started(&world);
    for (flags, memory, sum) in [
        (&["--memory", "64M", "--memory-swap", "96M"][..], 64, 96),
        (&["--memory", "128M", "--memory-swap", "256M"], 128, 256),
        (&["--memory", "32M", "--memory-swap", "32M"], 32, 32),
    ] {
        container.verb(&[&["update"], flags].concat()).success();
        let limit = |file| cgroup_file(&container, "memory", file);
        assert_eq!(limit("memory.limit_in_bytes"), (memory << 20).to_string(), "{flags:?}");
        assert_eq!(limit("memory.memsw.limit_in_bytes"), (sum << 20).to_string(), "{flags:?}");
    }
    container.verb(&["update", "--memory", "-1"]).success();
    assert!(cgroup_file(&container, "memory", "memory.memsw.limit_in_bytes").starts_with("92233720368"));
}
