//! The command line is killed halfway: what it leaves behind is found and removed by `delete --force`, and nothing else is.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tests::{World, eventually, write_program};

use super::{Container, STAY, cgroup_of, check_refused, is_ours};

const PATIENCE: Duration = Duration::from_secs(20);

/// A restore whose criu has been asked and does not answer until its caller is gone.
fn restoring(container: &Container<'_>) -> Child {
    container.bundle.write_config();
    let dir = &container.bundle.dir;
    let [bin, images, asked] = ["bin", "images", "asked"].map(|name| dir.join(name));
    for made in [&bin, &images] {
        std::fs::create_dir(made).expect("a directory");
    }
    tests::write(&images.join("descriptors.json"), "[]");
    let criu = bin.join("criu");
    write_program(&criu, format!("#!/bin/bash\ntouch {}\nexec cat <&$2 >/dev/null\n", asked.display()));
    let mut restore = container.bundle.runtime();
    let path = std::env::join_paths([bin.as_path(), "/usr/bin".as_ref(), "/bin".as_ref()]).expect("a PATH");
    restore.env("PATH", path).args(["restore", "--detach", "--image-path"]).arg(images);
    restore.arg("--bundle").arg(dir).arg(&container.bundle.id);
    let restore = restore.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("start the runtime");
    eventually("criu is asked", PATIENCE, || asked.exists());
    restore
}

/// State directories that are there.
fn left(container: &Container<'_>) -> usize {
    std::fs::read_dir(container.bundle.dir.join("state")).map_or(0, Iterator::count)
}

fn content(container: &Container<'_>) -> String {
    let listed = Command::new("find").arg(container.bundle.rootfs("")).output().expect("run find");
    String::from_utf8_lossy(&listed.stdout).into_owned()
}

#[test]
fn deleting_what_a_killed_restore_left_touches_nothing_of_the_root_file_system() {
    if !is_ours() {
        return;
    }
    let world = World::enter();
    let container = Container::new(&world, "true");
    let before = content(&container);
    let mut restore = restoring(&container);
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("the mount table");
    assert!(!mounts.contains("criu-root"), "{mounts}");
    restore.kill().expect("kill the runtime");
    restore.wait().expect("its end");
    container.verb(&["delete", "--force"]).success();
    assert_eq!(content(&container), before);
    assert_eq!(left(&container), 0);
    // That no mount and no cgroup is left the World proves.
}

#[test]
fn a_mount_in_a_state_directory_is_an_error_of_delete_and_keeps_its_content() {
    if !is_ours() {
        return;
    }
    let world = World::enter();
    let container = Container::new(&world, "true");
    let target = container.bundle.dir.join("state").join(&container.bundle.id).join("criu-root");
    std::fs::create_dir_all(&target).expect("a state directory");
    let before = content(&container);
    let mounted = Command::new("mount").arg("--bind").arg(container.bundle.rootfs("")).arg(&target).status();
    assert!(mounted.expect("run mount").success());
    let deleted = container.verb(&["delete", "--force"]);
    let unmounted = Command::new("umount").arg(&target).status().expect("run umount");
    assert!(unmounted.success());
    assert_ne!(deleted.code, 0, "{deleted:?}");
    assert_eq!(content(&container), before);
}

/// Runs a verb that is killed at the `nth` call of this kind that it, or what it clones, makes; whether it came that far.
fn is_killed(container: &Container<'_>, verb: &[&str], call: &str, nth: u32) -> bool {
    container.bundle.write_config();
    let mut command = Command::new("strace");
    let inject = format!("inject={call}:signal=SIGKILL:when={nth}");
    // Not what it clones: that is to be found when its creator is gone.
    command.args(["-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
    let runtime = container.command(verb);
    command.arg(runtime.get_program()).args(runtime.get_args()).current_dir(&container.bundle.dir);
    let null = || Stdio::null();
    let status = command.stdin(null()).stdout(null()).stderr(null()).status().expect("run strace");
    !status.success()
}

/// Where a creation changes something outside of itself, or hears of what does.
const CALLS: [&str; 12] = [
    "mkdir",
    "openat",
    "fcntl",
    "write",
    "mkdirat",
    "mknodat",
    "rename",
    "renameat2",
    "clone3",
    "recvmsg",
    "unlinkat",
    "move_mount",
];

#[test]
fn whatever_a_creator_that_was_killed_has_made_is_deleted() {
    if !is_ours() {
        return;
    }
    let world = World::enter();
    let mut kills = 0;
    for call in CALLS {
        for nth in 1..=40 {
            let container = Container::new(&world, STAY);
            let killed = is_killed(&container, &["create"], call, nth);
            container.verb(&["delete", "--force"]).success();
            let when = format!("{call} {nth}");
            assert_eq!(left(&container), 0, "{when}");
            let cgroups = world.cgroup_dirs(&cgroup_of(&container));
            assert!(cgroups.is_empty(), "{when}: {cgroups:?}");
            if !killed {
                break;
            }
            kills += 1;
        }
    }
    assert!(kills >= 20, "only {kills} kills");
    // That no process is left the World proves.
}

#[test]
fn a_creation_that_goes_on_is_deleted_by_force_alone() {
    if !is_ours() {
        return;
    }
    let world = World::enter();
    let mut container = Container::new(&world, STAY);
    let hook = container.bundle.dir.join("hook");
    let script = format!("touch {}; exec sleep 1000", hook.display());
    container.bundle.set("/hooks", json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}));
    container.bundle.write_config();
    let mut create = container.command(&["create"]);
    create.current_dir(&container.bundle.dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut create = create.spawn().expect("start the runtime");
    eventually("the hook runs", PATIENCE, || hook.exists());
    check_refused(&container.verb(&["delete"]), 1, "container is being created");
    assert!(create.try_wait().expect("its status").is_none(), "the creator has ended");
    container.verb(&["delete", "--force"]).success();
    assert!(!create.wait().expect("its end").success());
    assert_eq!(left(&container), 0);
}

#[test]
fn a_program_whose_start_was_killed_is_running() {
    if !is_ours() {
        return;
    }
    let world = World::enter();
    let container = Container::new(&world, STAY);
    container.create(&[]).success();
    assert!(["unlink", "unlinkat"].iter().any(|call| is_killed(&container, &["start"], call, 1)));
    container.is_ready();
    assert_eq!(container.status(), "running");
    check_refused(&container.verb(&["delete"]), 1, "that is not stopped: running");
    check_refused(&container.verb(&["start"]), 1, "cannot start an already running container");
}

#[test]
fn a_first_process_that_left_the_cgroup_is_killed_too() {
    if !is_ours() {
        return;
    }
    let world = World::enter();
    let container = Container::started(&world);
    let pid = container.state()["pid"].to_string();
    let elsewhere = world.cgroup("elsewhere");
    for dir in world.cgroup_dirs(&elsewhere) {
        let _without_cpus = sys::fs::write_knob(dir.join("cgroup.procs"), &pid);
    }
    container.verb(&["delete", "--force"]).success();
    eventually("its end", PATIENCE, || !is_running(&pid));
    assert_eq!(left(&container), 0);
}

fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

#[test]
fn an_exec_that_cannot_be_handed_over_leaves_no_process() {
    if !is_ours() {
        return;
    }
    let world = World::enter();
    let container = Container::started(&world);
    let mut exec = container.command(&["exec", "--detach", "--pid-file", "/nonexistent/pid"]);
    exec.args(["sleep", "98765"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert_eq!(exec.status().expect("start the runtime").code(), Some(255));
    let left = container.exec(&[], &["ps"]);
    assert!(!left.success().contains("98765"));
}

#[test]
fn a_creation_whose_record_cannot_be_written_leaves_nothing() {
    if !is_ours() {
        return;
    }
    let world = World::enter();
    let container = Container::new(&world, STAY);
    container.bundle.write_config();
    let mut command = Command::new("strace");
    // The only file that is renamed is state.json.
    command.args(["-qq", "-o", "/dev/null", "-e", "trace=renameat2,renameat,rename"]);
    command.args(["-e", "inject=renameat2,renameat,rename:error=ENOSPC"]);
    let runtime = container.command(&["create"]);
    command.arg(runtime.get_program()).args(runtime.get_args()).current_dir(&container.bundle.dir);
    let null = || Stdio::null();
    let status = command.stdin(null()).stdout(null()).stderr(null()).status().expect("run strace");
    assert!(!status.success());
    assert_eq!(left(&container), 0);
    let cgroups = world.cgroup_dirs(&cgroup_of(&container));
    assert!(cgroups.is_empty(), "{cgroups:?}");
}
