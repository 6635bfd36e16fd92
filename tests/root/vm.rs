//! The test VM's runner: what a job says comes out as it is said, and whatever becomes of the guest is told and leaves no
//! process. That none is left the World proves: qemu carries its mark.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::{Output, World, eventually, output, write};

/// Enough seconds for a guest that boots in 4.
const ENOUGH: u32 = 120;
/// For a guest that does not end by itself: enough to come to its job on a busy machine, and what its test takes.
const TO_ITS_DEADLINE: u32 = 60;
const DEADLINE: Duration = Duration::from_secs(20);

/// The command that runs `script` in a guest, for at most so many seconds, times `SLOW`.
fn vm(world: &World, script: &str, seconds: u32) -> Command {
    let image = std::env::var_os("ORLOP_VM_IMAGE").expect("ORLOP_VM_IMAGE: what scripts/vm-image prints");
    let job = world.new_dir("job");
    let run = job.join("run");
    write(&run, format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(run, PermissionsExt::from_mode(0o755)).expect("make the job executable");
    let mut command = world.command(env!("CARGO_BIN_EXE_vm"));
    command.arg(PathBuf::from(image)).arg(job).arg((seconds * tests::slow()).to_string());
    command
}

/// A guest whose job has said a word and goes on.
fn running(world: &World, seconds: u32) -> Child {
    let mut command = vm(world, "echo running; while :; do sleep 1; done", seconds);
    let mut runner =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start vm");
    let mut line = String::new();
    BufReader::new(runner.stdout.as_mut().expect("its output")).read_line(&mut line).expect("a line");
    assert_eq!(line, "running\n");
    runner
}

fn send(process: i32, signal: Signal) {
    kill(Pid::from_raw(process), signal).unwrap_or_else(|error| panic!("send {signal} to {process}: {error}"));
}

/// What the runner's child, which is qemu, is called by the kernel.
fn qemu_of(runner: &Child) -> i32 {
    let children = format!("/proc/{0}/task/{0}/children", runner.id());
    let children = std::fs::read_to_string(children).expect("the runner's children");
    children.trim().parse().unwrap_or_else(|_| panic!("one child: {children}"))
}

fn is_gone(process: i32) -> bool {
    !PathBuf::from(format!("/proc/{process}")).exists()
}

/// Asserts that a guest failed with the code, one line with the reason, and the end of the console below it.
#[track_caller]
fn check_failed(done: &Output, code: i32, reason: &str, console: &str) {
    assert_eq!(done.code, code, "{done:?}");
    let (line, rest) = done.stderr.split_once('\n').expect("a line and a console");
    assert_eq!(line, format!("vm: {reason}; its console ends:"), "{done:?}");
    assert!(rest.contains(console), "{console:?} is not in the console:\n{rest}");
    assert!(rest.lines().count() <= 50, "{rest}");
}

#[test]
fn a_job_s_output_and_exit_code_are_its_runner_s() {
    let world = World::enter();
    let script = "printf 'one\\ntwo \\001'; cat /proc/1/comm; stat -fc %T /sys/fs/cgroup; exit 7";
    let done = output(&mut vm(&world, script, ENOUGH));
    assert_eq!((done.code, done.stderr.as_str()), (7, ""));
    assert_eq!(done.stdout, "one\ntwo \u{1}init\ncgroup2fs\n");
}

#[test]
fn a_guest_whose_kernel_panics_is_one_line_and_its_console() {
    let world = World::enter();
    // stty waits until all that was written has left the line (TCSADRAIN): a panic takes the rest along.
    let script = "echo before; stty -echo; echo c > /proc/sysrq-trigger; sleep 1000";
    let done = output(&mut vm(&world, script, ENOUGH));
    assert_eq!(done.stdout, "before\n");
    check_failed(&done, 125, "the guest's kernel panicked: sysrq triggered crash", "Call Trace:");
}

#[test]
fn a_guest_that_ends_without_a_word_is_one_line_and_its_console() {
    let world = World::enter();
    let done = output(&mut vm(&world, "echo about to go > /dev/console; poweroff -f; sleep 1000", ENOUGH));
    check_failed(&done, 125, "the guest ended without a word of the job", "about to go");
}

#[test]
fn a_guest_that_never_ends_is_ended_at_its_deadline() {
    let world = World::enter();
    let done = output(&mut vm(&world, "echo still here > /dev/console; while :; do sleep 1; done", TO_ITS_DEADLINE));
    let seconds = TO_ITS_DEADLINE * tests::slow();
    check_failed(&done, 124, &format!("the guest did not end in {seconds} s"), "still here");
}

#[test]
fn a_guest_that_hangs_is_ended_at_its_deadline() {
    let world = World::enter();
    let mut runner = running(&world, TO_ITS_DEADLINE);
    let qemu = qemu_of(&runner);
    send(qemu, Signal::SIGSTOP);
    let code = runner.wait().expect("the runner").code();
    assert_eq!(code, Some(124));
    assert!(is_gone(qemu));
}

#[test]
fn a_runner_that_is_told_to_end_takes_its_guest_along() {
    let world = World::enter();
    let mut runner = running(&world, ENOUGH);
    let qemu = qemu_of(&runner);
    send(runner.id().cast_signed(), Signal::SIGTERM);
    assert_eq!(runner.wait().expect("the runner").code(), Some(128 + 15));
    assert!(is_gone(qemu));
    let mut told = String::new();
    runner.stderr.take().expect("its errors").read_to_string(&mut told).expect("text");
    assert_eq!(told, "vm: ended by SIGTERM, and the guest with it\n");
}

#[test]
fn a_runner_that_is_killed_leaves_no_guest_and_no_disk() {
    let world = World::enter();
    let mut runner = running(&world, ENOUGH);
    let qemu = qemu_of(&runner);
    let disks = std::fs::read_dir(format!("/proc/{qemu}/fd")).expect("qemu's files").flatten();
    let disks: Vec<PathBuf> = disks.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
    let made: Vec<&PathBuf> = disks.iter().filter(|path| path.starts_with("/var/tmp")).collect();
    assert!(made.len() >= 3 && made.iter().all(|path| path.to_string_lossy().ends_with(" (deleted)")), "{disks:?}");
    runner.kill().expect("kill the runner");
    runner.wait().expect("the runner");
    eventually("qemu is gone", DEADLINE, || is_gone(qemu));
}
