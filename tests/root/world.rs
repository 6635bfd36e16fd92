//! The World itself: that it is private, and that it notices what stays behind.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{World, cgroup, output, write};

/// Runs `suite` in a World and returns what the leak check says about it.
fn leaks_of(suite: impl FnOnce(&World)) -> String {
    let left = catch_unwind(AssertUnwindSafe(|| {
        let world = World::enter();
        suite(&world);
    }));
    match left {
        Ok(()) => String::new(),
        Err(message) => message.downcast_ref::<String>().cloned().unwrap_or_default(),
    }
}

#[test]
fn what_a_world_changes_in_etc_var_lib_and_run_stays_in_it() {
    let world = World::enter();
    let files = ["/etc/orlop-world-probe", "/var/lib/orlop-world-probe", "/run/orlop-world-probe"];
    files.iter().for_each(|file| write(Path::new(file), world.name()));
    drop(world);
    files.iter().for_each(|file| assert!(!Path::new(file).exists(), "{file}"));
}

#[test]
fn two_worlds_listen_on_the_same_port() {
    let listen = || {
        let _world = World::enter();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 12000)).expect("port 12000 is free in a new World");
        let other = std::thread::spawn(|| {
            let _world = World::enter();
            std::net::TcpListener::bind(("127.0.0.1", 12000)).map(drop)
        });
        other.join().expect("the second World").expect("port 12000 is free in the second World too");
        drop(listener);
    };
    listen();
}

#[track_caller]
fn check_leak(suite: impl FnOnce(&World), expected: &str) {
    let leaks = leaks_of(suite);
    assert!(leaks.contains(expected), "{expected:?} is missing in {leaks:?}");
}

#[test]
fn a_forgotten_mount_fails_the_suite() {
    let mount = |_: &World| _ = output(Command::new("mount").args(["-t", "tmpfs", "none", "/mnt"])).success();
    check_leak(mount, "mount /mnt (tmpfs)");
}

#[test]
fn a_forgotten_veth_fails_the_suite() {
    let add = |_: &World| _ = output(Command::new("ip").args("link add a0 type veth peer b0".split(' '))).success();
    check_leak(add, "link a0 (veth)");
}

#[test]
fn a_forgotten_nftables_table_fails_the_suite() {
    let add = |_: &World| _ = output(Command::new("nft").args(["add", "table", "ip", "left"])).success();
    check_leak(add, "nft ip left");
}

#[test]
fn a_forgotten_cgroup_fails_the_suite_and_is_removed() {
    let mut left = PathBuf::new();
    let create = |world: &World| {
        left = cgroup::dir(&format!("/{}", world.name()));
        std::fs::create_dir_all(left.join("pod/container")).expect("a cgroup");
    };
    check_leak(create, "pod/container");
    assert!(!left.exists(), "{}", left.display());
}

#[test]
fn a_forgotten_process_fails_the_suite_even_in_namespaces_of_its_own() {
    let start = |world: &World| {
        let mut shell = world.command("sh");
        output(shell.args(["-c", "setsid unshare -mn sleep 1000 >/dev/null 2>&1 &"])).success();
    };
    check_leak(start, "sleep 1000");
}

#[test]
fn a_clean_suite_passes_the_leak_check() {
    let leaks = leaks_of(|world| {
        world.cgroup("pod");
        output(&mut world.command("true")).success();
    });
    assert_eq!(leaks, "");
}
