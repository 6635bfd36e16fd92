//! A host with cgroup v2 alone. Where v1 hierarchies are mounted too they are unmounted in the World, so that these tests
//! run on a hybrid machine as well; it offers few controllers then.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sys::bpf::{AttachFlags, Instruction, Program};
use tests::{World, output, write};

use super::cgroups::one_device;
use super::{Container, STAY, cgroup_of, check_refused};

/// A World with v2 alone, and where that is mounted.
fn enter() -> (World, PathBuf) {
    let world = World::enter();
    let mounts = || sys::mountinfo::read().expect("the own mounts").into_iter();
    for v1 in mounts().filter(|mount| mount.fstype == "cgroup") {
        nix::mount::umount2(&v1.mount_point, nix::mount::MntFlags::MNT_DETACH).expect("unmount a v1 hierarchy");
    }
    let v2 = mounts().find(|mount| mount.fstype == "cgroup2").expect("a cgroup v2 mount");
    (world, v2.mount_point)
}

fn dir(root: &Path, container: &Container<'_>) -> PathBuf {
    root.join(cgroup_of(container).trim_start_matches('/'))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

/// Makes the cgroup mount of the config writable.
fn with_writable_cgroups(container: &mut Container<'_>) {
    let mounts = container.bundle.config["mounts"].as_array_mut().expect("mounts");
    let mount = mounts.iter_mut().find(|mount| mount["type"] == "cgroup").expect("a cgroup mount");
    mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
}

#[test]
fn a_container_is_in_its_cgroup_and_sees_it_as_the_root() {
    let (world, _) = enter();
    let container = Container::started(&world);
    let pid = container.state()["pid"].to_string();
    assert_eq!(read(format!("/proc/{pid}/cgroup")).lines().last(), Some(&*format!("0::{}", cgroup_of(&container))));
    assert_eq!(
        container.exec(&[], &["grep", "^0:", "/proc/1/cgroup", "/proc/self/cgroup"]).success(),
        "/proc/1/cgroup:0::/\n/proc/self/cgroup:0::/\n"
    );
    let mounts = container.exec(&[], &["grep", " /sys/fs/cgroup ", "/proc/self/mountinfo"]).success();
    assert!(mounts.contains("- cgroup2 ") && mounts.contains(" ro,") && mounts.lines().count() == 1, "{mounts}");
    assert!(container.exec(&[], &["cat", "/sys/fs/cgroup/cgroup.procs"]).success().starts_with("1\n"));
    check_refused(&container.exec(&[], &["mkdir", "/sys/fs/cgroup/x"]), 1, "Read-only file system");
}

#[test]
fn without_a_cgroup_namespace_the_tree_and_the_place_in_it_are_the_hosts() {
    let (world, root) = enter();
    let mut container = Container::new(&world, STAY);
    container.without_namespace("cgroup");
    container.start();
    let place = cgroup_of(&container);
    assert_eq!(container.exec(&[], &["grep", "^0:", "/proc/self/cgroup"]).success(), format!("0::{place}\n"));
    let list = container.exec(&[], &["cat", &format!("/sys/fs/cgroup{place}/cgroup.procs")]).success();
    assert!(list.starts_with("1\n"), "{list}");
    check_refused(&container.exec(&[], &["mkdir", "/sys/fs/cgroup/x"]), 1, "Read-only file system");
    assert!(dir(&root, &container).is_dir());
}

#[test]
fn an_exec_goes_where_the_first_process_is_once_the_containers_cgroup_takes_none() {
    let (world, root) = enter();
    let controller = read(root.join("cgroup.controllers")).split(' ').next().expect("a controller").to_owned();
    let script = format!(
        "cd /sys/fs/cgroup; mkdir inner; echo 1 > inner/cgroup.procs; echo +{controller} > cgroup.subtree_control; {STAY}"
    );
    let mut container = Container::new(&world, &script);
    with_writable_cgroups(&mut container);
    container.start();
    assert_eq!(read(dir(&root, &container).join("cgroup.subtree_control")), controller);
    let place = container.exec(&[], &["grep", "^0:", "/proc/self/cgroup"]).success();
    assert_eq!(place, "0::/inner\n");
    container.verb(&["kill"]);
    container.verb(&["delete", "--force"]).success();
    assert!(!dir(&root, &container).exists());
}

#[test]
fn a_device_that_is_not_listed_cannot_be_opened() {
    let (world, _) = enter();
    let mut container = Container::new(&world, STAY);
    container.bundle.set("/linux/resources/devices", one_device());
    container.start();
    let run = |script: &str| container.exec(&[], &["sh", "-c", script]);
    run("mknod /dev/mem c 1 1 && mknod /dev/x c 240 7 && mknod /dev/again c 1 3").success();
    check_refused(&run("cat /dev/mem"), 1, "can't open '/dev/mem': Operation not permitted");
    check_refused(&run("echo x > /dev/x"), 1, "can't create /dev/x: Operation not permitted");
    // There is no such device, which only one who may open it is told.
    check_refused(&run("cat /dev/x"), 1, "can't open '/dev/x': No such device or address");
    run("echo x > /dev/again && echo x > /dev/null").success();
}

#[test]
fn a_config_without_device_rules_allows_no_device_but_the_default_ones() {
    let (world, _) = enter();
    for resources in [json!({}), json!({"devices": []}), json!({"devices": null})] {
        let mut container = Container::new(&world, STAY);
        container.bundle.set("/linux/resources", resources);
        container.start();
        let run = |script: &str| container.exec(&[], &["sh", "-c", script]);
        check_refused(&run("mknod /dev/mem c 1 1; cat /dev/mem"), 1, "can't open '/dev/mem': Operation not permitted");
        run("cat /dev/null").success();
    }
}

#[test]
fn a_cgroup_that_is_taken_over_loses_the_device_program_of_its_last_user() {
    let (world, root) = enter();
    let container = Container::new(&world, STAY);
    let dir = dir(&root, &container);
    fs::create_dir_all(&dir).expect("a cgroup");
    let cgroup = fs::File::open(&dir).expect("the cgroup");
    let refuse_all =
        [(0xb7, 0), (0x95, 0)].map(|(code, immediate)| Instruction { code, registers: 0, offset: 0, immediate });
    let old = Program::load_cgroup_device("refuse_all", &refuse_all).expect("a program");
    old.attach_device(&cgroup, AttachFlags::ALLOW_MULTI, None).expect("attached");
    let before = sys::bpf::device_programs(&cgroup).expect("the programs").ids;
    container.create(&[]).success();
    let after = sys::bpf::device_programs(&cgroup).expect("the programs").ids;
    assert!(before.len() == 1 && after.len() == 1 && before != after, "{before:?} {after:?}");
    container.verb(&["start"]).success();
    container.is_ready();
    container.exec(&[], &["sh", "-c", "echo x > /dev/null"]).success();
}

#[test]
fn a_cgroup_that_somebody_is_in_or_that_is_frozen_is_not_taken() {
    let (world, root) = enter();
    let container = Container::started(&world);
    let mut second = Container::new(&world, STAY);
    let own = second.bundle.config["linux"]["cgroupsPath"].clone();
    second.bundle.set("/linux/cgroupsPath", json!(cgroup_of(&container)));
    check_refused(&second.create(&[]), 1, "container's cgroup is not empty");
    assert_eq!(container.status(), "running");

    second.bundle.set("/linux/cgroupsPath", own);
    let place = dir(&root, &second);
    fs::create_dir(&place).expect("a cgroup");
    write(&place.join("cgroup.freeze"), "1");
    check_refused(&second.create(&[]), 1, "container's cgroup unexpectedly frozen");
    second.bundle.set("/linux/cgroupsPath", json!(format!("{}/below", cgroup_of(&second))));
    check_refused(&second.create(&[]), 1, "container's cgroup unexpectedly frozen");
    fs::remove_dir(&place).expect("what was refused is left as it was, and what was made is gone");
}

#[test]
fn a_place_in_a_threaded_tree_is_refused() {
    let (world, root) = enter();
    let mut container = Container::new(&world, STAY);
    let parent = dir(&root, &container);
    fs::create_dir(&parent).expect("a cgroup");
    write(&parent.join("cgroup.type"), "threaded");
    container.bundle.set("/linux/cgroupsPath", json!(format!("{}/below", cgroup_of(&container))));
    check_refused(&container.create(&[]), 1, "a container needs a domain");
    fs::remove_dir(&parent).expect("what was made below is gone");
}

#[test]
fn a_container_in_a_foreign_pid_namespace_is_killed_and_deleted_whole() {
    let (world, root) = enter();
    let mut container = Container::new(&world, "sleep 1000 & (sleep 1000 &) ; touch /ready; wait");
    container.without_namespace("pid");
    container.start();
    let dir = dir(&root, &container);
    assert!(read(dir.join("cgroup.procs")).lines().count() >= 3);
    container.verb(&["delete", "--force"]).success();
    assert!(!dir.exists());
}

/// Controllers that a container's cgroup can have here.
fn controllers(root: &Path) -> Vec<String> {
    read(root.join("cgroup.controllers")).split(' ').map(str::to_owned).collect()
}

#[test]
fn a_limit_is_written_where_its_controller_is_and_refused_by_name_where_it_is_not() {
    let (world, root) = enter();
    let there = controllers(&root);
    for (controller, field, resources, files) in [
        // The weight that runc gives: a straight line from shares would be 20.
        ("cpu", "cpu", json!({"cpu": {"shares": 512}}), vec![("cpu.weight", "59")]),
        ("cpu", "cpu", json!({"cpu": {"shares": 1024}}), vec![("cpu.weight", "100")]),
        (
            "cpu",
            "cpu",
            json!({"cpu": {"quota": 50000, "period": 200_000, "burst": 3000}}),
            vec![("cpu.max", "50000 200000"), ("cpu.max.burst", "3000")],
        ),
        ("cpu", "cpu", json!({"cpu": {"idle": 1, "shares": 512}}), vec![("cpu.idle", "1")]),
        (
            "cpuset",
            "cpu.cpus",
            json!({"cpu": {"cpus": "0", "mems": "0"}}),
            vec![("cpuset.cpus", "0"), ("cpuset.mems", "0")],
        ),
        (
            "memory",
            "memory",
            json!({"memory": {"limit": 67_108_864, "reservation": 33_554_432, "swap": 100_663_296}}),
            vec![("memory.max", "67108864"), ("memory.low", "33554432"), ("memory.swap.max", "33554432")],
        ),
        (
            "memory",
            "unified",
            json!({"unified": {"memory.oom.group": "1", "memory.high": "50331648", "memory.min": "4096"}}),
            vec![("memory.oom.group", "1"), ("memory.high", "50331648"), ("memory.min", "4096")],
        ),
        ("pids", "pids", json!({"pids": {"limit": 50}}), vec![("pids.max", "50")]),
        // A limit since version 1.3 of the specification: the first process is all there is.
        ("pids", "pids", json!({"pids": {"limit": 0}}), vec![("pids.max", "0"), ("pids.current", "1")]),
        (
            "hugetlb",
            "hugepageLimits",
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
            vec![("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")],
        ),
        ("rdma", "rdma", json!({"rdma": {"mlx5": {}}}), vec![]),
    ] {
        let mut container = Container::new(&world, STAY);
        container.bundle.set("/linux/resources", resources);
        let created = container.create(&[]);
        if there.iter().any(|name| name == controller) {
            created.success();
            for (file, value) in files {
                assert_eq!(read(dir(&root, &container).join(file)), value, "{file}");
            }
        } else {
            let text = format!("linux.resources.{field}: cgroup ");
            check_refused(&created, 1, &text);
            check_refused(&created, 1, &format!("has no {controller} controller: this host does not have it"));
            assert!(!dir(&root, &container).exists());
        }
    }
}

#[test]
fn what_cgroup_v2_has_no_file_for_is_refused_by_name() {
    let (world, _) = enter();
    for (resources, text) in [
        (json!({"memory": {"swappiness": 60}}), "linux.resources.memory.swappiness: "),
        (json!({"memory": {"disableOOMKiller": true}}), "linux.resources.memory.disableOOMKiller: "),
        (json!({"memory": {"kernelTCP": 1}}), "linux.resources.memory.kernelTCP: "),
        (json!({"cpu": {"realtimeRuntime": 1000}}), "linux.resources.cpu.realtimeRuntime: "),
        (json!({"blockIO": {"leafWeight": 10}}), "linux.resources.blockIO.leafWeight: "),
        (json!({"network": {"classID": 1}}), "linux.resources.network.classID: "),
        (json!({"unified": {"../cgroup.procs": "1"}}), "must be a file name (no slashes)"),
        // The first process would never run, and create never end.
        (json!({"unified": {"cgroup.freeze": "1"}}), "linux.resources.unified: "),
        (json!({"unified": {"cgroup.procs": "1"}}), "linux.resources.unified: "),
    ] {
        let mut container = Container::new(&world, STAY);
        container.bundle.set("/linux/resources", resources);
        check_refused(&container.create(&[]), 1, text);
    }
}

#[test]
fn a_cgroup_with_processes_passes_no_controller_on_and_the_refusal_says_so() {
    let (world, root) = enter();
    let mut container = Container::new(&world, STAY);
    let parent = dir(&root, &container);
    fs::create_dir(&parent).expect("a cgroup");
    let mut sleeper = world.command("sleep").arg("1000").spawn().expect("a process");
    write(&parent.join("cgroup.procs"), sleeper.id().to_string());
    container.bundle.set("/linux/resources", json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 2_097_152}]}));
    container.bundle.set("/linux/cgroupsPath", json!(format!("{}/below", cgroup_of(&container))));
    check_refused(&container.create(&[]), 1, "it has processes of its own, and only a cgroup without any passes");
    // Without a limit that needs it the container starts.
    container.bundle.set("/linux/resources", json!({}));
    container.create(&[]).success();
    container.verb(&["delete", "--force"]).success();
    sleeper.kill().and_then(|()| sleeper.wait()).expect("the process ends");
    fs::remove_dir(&parent).expect("nothing is left in it");
}

#[test]
fn a_container_that_may_divide_its_cgroup_owns_what_that_takes_and_no_limit() {
    let (world, root) = enter();
    let mut container = Container::new(&world, STAY);
    fs::set_permissions(container.bundle.rootfs(""), fs::Permissions::from_mode(0o777)).expect("a root for anyone");
    with_writable_cgroups(&mut container);
    container.bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    container.create(&[]).success();
    let owner = |file: &str| fs::metadata(dir(&root, &container).join(file)).expect("a file of the cgroup").uid();
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        assert_eq!(owner(file), 1000, "{file}");
    }
    for file in ["cgroup.freeze", "cgroup.type", "cgroup.max.depth"] {
        assert_eq!(owner(file), 0, "{file}");
    }
    let read_only = Container::new(&world, STAY);
    read_only.create(&[]).success();
    assert_eq!(fs::metadata(dir(&root, &read_only)).expect("a cgroup").uid(), 0);
}

#[test]
fn a_relative_path_is_taken_below_the_cgroup_above_the_runtimes_own() {
    let (world, root) = enter();
    let mut container = Container::new(&world, STAY);
    let parent = cgroup_of(&container);
    fs::create_dir_all(dir(&root, &container).join("own")).expect("a cgroup for the runtime");
    container.bundle.set("/linux/cgroupsPath", json!("box"));
    container.bundle.write_config();
    let program = container.command(&["create"]);
    let arguments: Vec<_> = program.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let script = format!(
        "echo $$ > {}{parent}/own/cgroup.procs && exec {} {} </dev/null >/dev/null",
        root.display(),
        program.get_program().display(),
        arguments.join(" ")
    );
    let mut shell = world.command("sh");
    let done =
        shell.args(["-c", &script]).current_dir(&container.bundle.dir).stderr(std::process::Stdio::null()).status();
    assert!(done.expect("a shell").success());
    let pid = container.state()["pid"].to_string();
    let groups = read(format!("/proc/{pid}/cgroup"));
    assert_eq!(groups.lines().last(), Some(&*format!("0::{parent}/box")));
    container.verb(&["delete", "--force"]).success();
    let parent = root.join(parent.trim_start_matches('/'));
    assert!(!parent.join("box").exists());
    fs::remove_dir(parent.join("own")).and_then(|()| fs::remove_dir(&parent)).expect("nothing is left there");
}

#[test]
fn a_paused_container_is_frozen_and_is_killed_as_it_is() {
    let (world, root) = enter();
    let container = Container::started(&world);
    let frozen = || read(dir(&root, &container).join("cgroup.events")).lines().any(|line| line == "frozen 1");
    container.verb(&["pause"]).success();
    assert!(frozen() && container.status() == "paused");
    container.verb(&["resume"]).success();
    assert!(!frozen() && container.status() == "running");
    container.verb(&["pause"]).success();
    output(container.command(&["kill"]).arg("KILL")).success();
    container.has_stopped();
    container.verb(&["delete"]).success();
    assert!(!dir(&root, &container).exists());
}

#[test]
fn events_tell_of_pressure() {
    let (world, root) = enter();
    let container = Container::started(&world);
    let place = dir(&root, &container);
    let event: Value = serde_json::from_str(&container.verb(&["events", "--stats"]).success()).expect("JSON");
    let told = !event["data"]["cpu"]["psi"].is_null();
    // Debian's kernel has it off.
    let counted = fs::read_to_string(place.join("cpu.pressure")).is_ok();
    assert_eq!(told, counted, "{event}");
    assert!(event["data"]["cpu"]["usage"]["total"].as_u64().is_some_and(|total| total > 0), "{event}");
}

#[test]
fn a_running_container_is_updated_up_and_down() {
    let (world, root) = enter();
    let there = controllers(&root);
    let container = Container::started(&world);
    let place = dir(&root, &container);
    for (controller, flags, file, value) in [
        ("memory", &["--memory", "64M", "--memory-swap", "96M"][..], "memory.swap.max", "33554432"),
        ("memory", &["--memory", "128M", "--memory-swap", "256M"], "memory.max", "134217728"),
        ("memory", &["--memory", "32M", "--memory-swap", "32M"], "memory.swap.max", "0"),
        ("memory", &["--memory", "-1"], "memory.max", "max"),
        ("memory", &["--memory-reservation", "16M"], "memory.low", "16777216"),
        ("cpu", &["--cpu-share", "2048"], "cpu.weight", "174"),
        ("cpu", &["--cpu-quota", "20000"], "cpu.max", "20000 100000"),
        ("cpu", &["--cpu-period", "50000"], "cpu.max", "20000 50000"),
        ("cpu", &["--cpu-quota", "-1"], "cpu.max", "max 50000"),
        ("cpu", &["--cpu-idle", "1"], "cpu.idle", "1"),
        ("cpu", &["--cpu-idle", "0"], "cpu.weight", "174"),
        ("cpuset", &["--cpuset-cpus", "0"], "cpuset.cpus", "0"),
        ("pids", &["--pids-limit", "20"], "pids.max", "20"),
        ("pids", &["--pids-limit", "-1"], "pids.max", "max"),
    ] {
        let updated = container.verb(&[&["update"], flags].concat());
        // Without the controller "no limit" is kept as it is, but for memory's, which ask for its files.
        match there.iter().any(|name| name == controller) {
            true => {
                updated.success();
                assert_eq!(read(place.join(file)), value, "{flags:?}");
            }
            false if flags == ["--pids-limit", "-1"] => _ = updated.success(),
            false => check_refused(&updated, 1, &format!("has no {controller} controller")),
        }
    }
}

#[test]
fn a_limit_below_what_is_in_use_is_refused_where_that_is_asked_for() {
    let (world, root) = enter();
    let mut container = Container::new(&world, "x=$(printf %05000000d 1); touch /ready; while :; do sleep 1; done");
    container.bundle.set("/linux/resources", json!({"memory": {"limit": 67_108_864, "checkBeforeUpdate": true}}));
    let created = container.create(&[]);
    if !controllers(&root).iter().any(|name| name == "memory") {
        // Nothing counts the memory of a container here.
        return check_refused(&created, 1, "has no memory controller");
    }
    created.success();
    container.verb(&["start"]).success();
    container.is_ready();
    check_refused(&container.verb(&["update", "--memory", "1M"]), 1, "rejecting memory limit 1048576 <= usage ");
    assert_eq!(read(dir(&root, &container).join("memory.max")), "67108864");
}
