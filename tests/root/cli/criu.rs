//! checkpoint and restore: what a container was doing goes on elsewhere, or later.
//!
//! Debian's CRIU does not know every newer kernel: these tests are run in the virtual machine (`scripts/vm root cli::criu`), and
//! left out of `scripts/test root`.

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tests::{World, eventually, output};

use super::{Container, check_refused};

const PATIENCE: Duration = Duration::from_secs(30);

/// Counts, a line for each number: one that is missing or comes twice shows.
const COUNT: &str =
    "touch /ready; i=0; while ! test -e /stop; do i=$((i+1)); echo $i >>/count; sleep 0.1; done; exit 5";

fn counter(world: &World) -> Container<'_> {
    let container = Container::new(world, COUNT);
    started_with_null(&container);
    container
}

/// Streams of the host are no part of a container that is saved, apart from pipes and the null device.
fn started_with_null(container: &Container<'_>) {
    container.bundle.write_config();
    let mut run = container.command(&["run", "--detach"]);
    run.current_dir(&container.bundle.dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(run.status().expect("start the runtime").success());
    container.is_ready();
}

fn images(container: &Container<'_>, name: &str) -> PathBuf {
    container.bundle.dir.join(name)
}

fn checkpoint(container: &Container<'_>, name: &str, flags: &[&str]) {
    let mut command = container.bundle.runtime();
    command.arg("checkpoint").arg("--image-path").arg(images(container, name)).args(flags).arg(&container.bundle.id);
    let done = output(&mut command);
    let log = std::fs::read_to_string(images(container, name).join("dump.log")).unwrap_or_default();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("Error")).collect();
    assert_eq!(done.code, 0, "{done:?}\n{errors:#?}");
}

fn restore_detached(container: &Container<'_>, name: &str, flags: &[&str]) {
    let errors = container.bundle.dir.join("restore.err");
    let mut command = container.bundle.runtime();
    command.args(["restore", "--detach", "--image-path"]).arg(images(container, name)).args(flags);
    command.arg("--bundle").arg(&container.bundle.dir).arg(&container.bundle.id);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&errors).expect("a file"));
    let done = command.status().expect("start the runtime");
    let log = std::fs::read_to_string(images(container, name).join("restore.log")).unwrap_or_default();
    let log: Vec<&str> = log.lines().filter(|line| line.contains("Error")).collect();
    assert!(done.success(), "{}\n{log:#?}", std::fs::read_to_string(errors).unwrap_or_default());
}

/// What was counted so far: all numbers in order. The end of the last line may still be on its way.
fn counted(container: &Container<'_>) -> usize {
    let text = std::fs::read_to_string(container.bundle.rootfs("count")).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let numbers: Vec<usize> = whole.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len()), "{numbers:?}");
    numbers.len()
}

fn goes_on(container: &Container<'_>) {
    let before = counted(container);
    eventually("it goes on counting", PATIENCE, || counted(container) > before + 2);
}

#[test]
fn a_saved_container_is_gone_and_a_restored_one_goes_on_where_it_was() {
    let world = World::enter();
    let container = counter(&world);
    goes_on(&container);
    checkpoint(&container, "images", &[]);
    check_refused(&container.verb(&["state"]), 1, "container does not exist");
    let before = counted(&container);
    let pid_file = container.bundle.dir.join("pid");
    restore_detached(&container, "images", &["--pid-file", pid_file.to_str().expect("UTF-8")]);
    assert!(counted(&container) >= before);
    goes_on(&container);
    assert_eq!(container.status(), "running");
    let pid = std::fs::read_to_string(pid_file).expect("the pid file");
    assert_eq!(container.state()["pid"].to_string(), pid);
    let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups");
    assert!(group.trim_end().ends_with(&container.bundle.id), "{group}");
    container.exec(&[], &["true"]).success();
    output(container.command(&["kill"]).arg("KILL")).success();
    container.has_stopped();
    container.verb(&["delete"]).success();
}

#[test]
fn a_container_that_is_left_running_can_be_saved_in_steps() {
    let world = World::enter();
    let container = counter(&world);
    checkpoint(&container, "first", &["--pre-dump"]);
    goes_on(&container);
    checkpoint(&container, "second", &["--leave-running", "--parent-path", "../first"]);
    goes_on(&container);
    assert_eq!(container.status(), "running");
    checkpoint(&container, "last", &["--parent-path", "../second"]);
    restore_detached(&container, "last", &[]);
    goes_on(&container);
}

#[test]
fn a_restored_container_has_the_streams_and_the_exit_code_of_who_restores_it() {
    let world = World::enter();
    let container =
        Container::new(&world, "touch /ready; while ! test -e /stop; do sleep 0.1; done; echo done; exit 5");
    container.bundle.write_config();
    let mut run = container.command(&["run"]);
    run.current_dir(&container.bundle.dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut run = run.spawn().expect("start the runtime");
    container.is_ready();
    checkpoint(&container, "images", &[]);
    run.wait().expect("the runtime's end");
    let mut restore = container.bundle.runtime();
    restore.arg("restore").arg("--image-path").arg(images(&container, "images"));
    restore.arg("--bundle").arg(&container.bundle.dir).arg(&container.bundle.id);
    let restored = restore.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("start the runtime");
    eventually("it runs again", PATIENCE, || container.verb(&["state"]).code == 0);
    tests::write(&container.bundle.rootfs("stop"), "");
    let done = restored.wait_with_output().expect("the runtime's end");
    assert_eq!((done.status.code(), String::from_utf8_lossy(&done.stdout).as_ref()), (Some(5), "done\n"));
    check_refused(&container.verb(&["state"]), 1, "container does not exist");
}

#[test]
fn a_restored_terminal_is_handed_over() {
    let world = World::enter();
    let mut container = Container::new(&world, COUNT);
    container.bundle.set("/process/terminal", json!(true));
    container.bundle.write_config();
    let socket = container.bundle.dir.join("console.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let path = socket.to_str().expect("UTF-8");
    let mut run = container.command(&["run", "--detach", "--console-socket", path]);
    run.current_dir(&container.bundle.dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(run.status().expect("start the runtime").success());
    let (first, _) = listener.accept().expect("the terminal");
    container.is_ready();
    checkpoint(&container, "images", &[]);
    drop(first);
    restore_detached(&container, "images", &["--console-socket", path]);
    let (second, _) = listener.accept().expect("the terminal again");
    let (_, fds) = sys::socket::recv(&second, &mut [0; 4096]).expect("a message");
    assert_eq!(fds.len(), 1);
    goes_on(&container);
}

#[test]
fn a_failed_restore_names_crius_log_and_leaves_nothing() {
    let world = World::enter();
    let container = counter(&world);
    checkpoint(&container, "images", &[]);
    let gone = images(&container, "images").join("inventory.img");
    std::fs::remove_file(gone).expect("criu's inventory");
    let mut restore = container.bundle.runtime();
    restore.arg("restore").arg("--image-path").arg(images(&container, "images"));
    let failed = output(restore.arg("--bundle").arg(&container.bundle.dir).arg(&container.bundle.id));
    check_refused(&failed, 1, "restore.log");
    check_refused(&container.verb(&["state"]), 1, "container does not exist");
    // That no mount and no cgroup is left the World proves.
}
