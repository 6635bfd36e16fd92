//! run and exec: streams, terminals, signals, exit codes, inherited fds.

use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use sys::poll::Interest;
use sys::process::{Pid, PidFd};
use tests::{World, eventually, output};

use super::{Container, STAY, check_refused, is_ours};

/// run, with the config written.
fn run(container: &Container<'_>, flags: &[&str]) -> Command {
    container.bundle.write_config();
    let mut command = container.command(&[&["run"], flags].concat());
    command.current_dir(&container.bundle.dir);
    command
}

#[test]
fn run_gives_the_exit_code_and_removes_the_container() {
    let world = World::enter();
    let container = Container::new(&world, "echo out; echo err >&2; exit 7");
    let done = output(&mut run(&container, &[]));
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (7, "out\n", "err\n"));
    check_refused(&container.verb(&["state"]), 1, "container does not exist");
}

#[test]
fn run_keeps_the_container_if_told_to() {
    let world = World::enter();
    let container = Container::new(&world, "true");
    output(&mut run(&container, &["--keep"])).success();
    assert_eq!(container.status(), "stopped");
    container.verb(&["delete"]).success();
}

#[test]
fn a_container_ended_by_a_signal_is_128_and_the_signal() {
    let world = World::enter();
    let container = Container::new(&world, STAY);
    let mut child = run(&container, &[]).spawn().expect("start the runtime");
    container.is_ready();
    output(container.command(&["kill"]).arg("KILL")).success();
    assert_eq!(child.wait().expect("the runtime's end").code(), Some(137));
}

#[test]
fn a_signal_to_run_reaches_the_container() {
    let world = World::enter();
    let container = Container::new(&world, "trap 'exit 42' TERM; touch /ready; while :; do sleep 0.1; done");
    let mut child = run(&container, &[]).spawn().expect("start the runtime");
    container.is_ready();
    output(Command::new("kill").arg(child.id().to_string())).success();
    assert_eq!(child.wait().expect("the runtime's end").code(), Some(42));
}

#[test]
fn all_of_stdin_goes_through_and_all_of_it_comes_back() {
    let world = World::enter();
    let container = Container::new(&world, "cat");
    let mut child =
        run(&container, &[]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start the runtime");
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let (mut stdin, mut stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    let received = std::thread::scope(|scope| {
        let sent = &sent;
        scope.spawn(move || stdin.write_all(sent).expect("stdin is read"));
        let mut received = Vec::new();
        stdout.read_to_end(&mut received).expect("stdout");
        received
    });
    assert_eq!(child.wait().expect("the runtime's end").code(), Some(0));
    assert!(received == sent, "{} bytes came back of {}", received.len(), sent.len());
}

#[test]
fn a_program_that_nobody_listens_to_gets_sigpipe() {
    let world = World::enter();
    let container = Container::new(&world, "while echo line; do :; done; exit 3");
    let mut child = run(&container, &[]).stdout(Stdio::piped()).spawn().expect("start the runtime");
    drop(child.stdout.take());
    child.wait().expect("the runtime's end");
}

#[test]
fn run_detached_returns_at_once_and_leaves_the_container_running() {
    let world = World::enter();
    let container = Container::new(&world, STAY);
    container.detached(&["run", "--detach", "--pid-file", "pid"]).success();
    container.is_ready();
    let pid = std::fs::read_to_string(container.bundle.dir.join("pid")).expect("the pid file");
    assert_eq!(container.state()["pid"].to_string(), pid);
    assert_eq!(container.status(), "running");
}

#[test]
fn a_program_that_cannot_run_is_a_failure_of_run_and_leaves_nothing() {
    let world = World::enter();
    let mut container = Container::new(&world, STAY);
    container.bundle.set("/process/args", json!(["/nonesuch"]));
    check_refused(&output(&mut run(&container, &[])), 1, "no such file or directory");
    check_refused(&container.verb(&["state"]), 1, "container does not exist");
}

#[test]
fn exec_gives_the_exit_code_of_the_process_and_255_for_its_own_failures() {
    let world = World::enter();
    let container = Container::started(&world);
    for (script, code) in [("exit 7", 7), ("kill -KILL $$", 137)] {
        let done = container.exec(&[], &["sh", "-c", script]);
        assert_eq!(done.code, code, "{done:?}");
    }
    check_refused(&container.exec(&[], &["nonesuch"]), 255, "executable file not found in $PATH");
    check_refused(&container.exec(&["--teleport"], &["true"]), 1, "flag provided but not defined");
    output(container.command(&["kill"]).arg("KILL")).success();
    container.has_stopped();
    check_refused(&container.exec(&[], &["true"]), 255, "cannot exec in a stopped container");
}

#[test]
fn exec_takes_user_groups_environment_and_directory_from_its_flags() {
    let world = World::enter();
    let container = Container::started(&world);
    let flags = ["--user", "1000:100", "-g", "7", "-e", "A=1", "-e", "B=2", "--cwd", "/tmp"];
    let done = container.exec(&flags, &["sh", "-c", "id -u; id -g; echo $A $B; pwd; id -G"]).success();
    let groups = done.strip_prefix("1000\n100\n1 2\n/tmp\n").expect("user, group, environment and directory");
    // runc gives an additional group twice.
    assert!(groups.split_whitespace().any(|group| group == "7"), "{done}");
}

#[test]
fn a_user_with_something_behind_the_number_is_refused() {
    let world = World::enter();
    let container = Container::started(&world);
    // runc takes a number beyond 32 bits for root.
    let ours = if is_ours() { &["4294967296"][..] } else { &[] };
    for user in ["1000x", "root", "1:2:3"].iter().chain(ours) {
        check_refused(&container.exec(&["--user", user], &["id"]), 255, "bad ");
    }
}

#[test]
fn what_follows_the_id_belongs_to_the_program() {
    let world = World::enter();
    let container = Container::started(&world);
    assert_eq!(container.exec(&[], &["echo", "-d", "--tty", "--"]).success(), "-d --tty --\n");
}

#[test]
fn exec_detached_leaves_the_process_running() {
    let world = World::enter();
    let container = Container::started(&world);
    let done = container.detached_exec(&["--detach", "--pid-file", "exec.pid"], "touch /detached; sleep 100");
    done.success();
    eventually("the process runs", Duration::from_secs(10), || container.bundle.rootfs("detached").exists());
    let pid = std::fs::read_to_string(container.bundle.dir.join("exec.pid")).expect("the pid file");
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
}

impl Container<'_> {
    fn detached_exec(&self, flags: &[&str], script: &str) -> tests::Output {
        let mut command = self.command(&[&["exec"], flags].concat());
        let null = || Stdio::null();
        let command = command.args(["sh", "-c", script]).current_dir(&self.bundle.dir);
        let status = command.stdin(null()).stdout(null()).stderr(null()).status().expect("start the runtime");
        tests::Output { code: status.code().unwrap_or(-1), stdout: String::new(), stderr: String::new() }
    }
}

#[test]
fn a_terminal_is_handed_over_by_the_console_socket() {
    let world = World::enter();
    let mut container = Container::new(&world, "tty; echo hello from $(stty size)");
    container.bundle.set("/process/terminal", json!(true));
    container.bundle.set("/process/consoleSize", json!({"height": 33, "width": 111}));
    std::os::unix::fs::symlink("busybox", container.bundle.rootfs("bin/stty")).expect("an applet");
    check_refused(&container.create(&[]), 1, "cannot allocate tty");
    let listener = UnixListener::bind(container.bundle.dir.join("console.sock")).expect("a console socket");
    container.create(&["--console-socket", "console.sock"]).success();
    let (socket, _) = listener.accept().expect("the runtime's connection");
    let (_, mut fds) = sys::socket::recv(&socket, &mut [0; 4096]).expect("a message");
    let mut master = std::fs::File::from(fds.pop().expect("the terminal's master"));
    container.verb(&["start"]).success();
    let mut shown = Vec::new();
    // The end of a terminal is an error, EIO.
    let _ = master.read_to_end(&mut shown);
    let shown = String::from_utf8_lossy(&shown);
    assert_eq!(shown, "/dev/pts/0\r\nhello from 33 111\r\n");
}

#[test]
fn a_console_socket_without_a_terminal_is_refused() {
    let world = World::enter();
    let container = Container::new(&world, STAY);
    let refused = container.create(&["--console-socket", "/nonesuch"]);
    check_refused(&refused, 1, "cannot use console socket");
}

#[test]
fn exec_with_a_terminal_shows_it_on_ours() {
    let world = World::enter();
    let container = Container::started(&world);
    if is_ours() {
        assert_eq!(container.exec(&["--tty"], &["tty"]).success(), "/dev/pts/0\r\n");
    }
}

#[test]
fn declared_fds_are_passed_on_and_a_missing_one_is_refused() {
    let world = World::enter();
    let container = Container::new(&world, "cat <&3; ls /proc/self/fd");
    container.bundle.write_config();
    let run = |redirect: &str| {
        let mut command = world.command("sh");
        let runtime = container.command(&["run", "--preserve-fds", "1", "--bundle", "."]);
        let line = std::iter::once(runtime.get_program()).chain(runtime.get_args());
        command.args(["-c", &format!("exec \"$@\" {redirect}"), "sh"]).args(line).current_dir(&container.bundle.dir);
        output(&mut command)
    };
    tests::write(&container.bundle.dir.join("three"), "three\n");
    // 4 is left open by the caller too, but was not declared; ls itself opens one.
    assert_eq!(run("3<three 4<three").success(), "three\n0\n1\n2\n3\n4\n");
    if is_ours() {
        // runc may have opened something of its own under that number by the time it looks.
        check_refused(&run("4<three"), 1, "unable to stat preserved-fd 0 (of 1)");
    }
}

#[test]
fn sockets_of_socket_activation_are_passed_on() {
    let world = World::enter();
    let container = Container::new(&world, "echo $LISTEN_FDS $LISTEN_PID; cat <&3");
    container.bundle.write_config();
    tests::write(&container.bundle.dir.join("three"), "three\n");
    let mut command = world.command("sh");
    let runtime = container.command(&["run", "--bundle", "."]);
    let line = std::iter::once(runtime.get_program()).chain(runtime.get_args());
    let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\" 3<three";
    command.args(["-c", script, "sh"]).args(line).current_dir(&container.bundle.dir);
    assert_eq!(output(&mut command).success(), "1 1\nthree\n");
}

/// A runtime that is gone when this is dropped: one that hangs would keep the test's threads.
struct Running(Child);

impl Running {
    fn code(&mut self) -> Option<i32> {
        let end = || self.0.try_wait().expect("the runtime's end");
        eventually("the runtime ends", Duration::from_secs(20), end).code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until no more input is taken, after more than one read of it: the kernel takes 11 KiB for a terminal at least, and more
/// if it comes in many pieces.
fn stalls(mut taken: impl FnMut() -> usize) {
    let (mut last, mut looks) = (0, 0);
    eventually("no more input is taken", Duration::from_secs(20), || {
        let now = taken();
        looks = if now == last && now >= 8 << 10 { looks + 1 } else { 0 };
        last = now;
        looks > 20
    });
}

/// A container with a terminal in raw mode, which says so and goes on with the script.
fn with_raw_terminal<'a>(world: &'a World, script: &str) -> Container<'a> {
    let mut container = Container::new(world, &format!("stty raw -echo; echo ready; {script}"));
    container.bundle.set("/process/terminal", json!(true));
    std::os::unix::fs::symlink("busybox", container.bundle.rootfs("bin/stty")).expect("an applet");
    container
}

#[test]
fn a_terminal_takes_more_input_than_is_read_at_once_while_its_output_is_full() {
    let world = World::enter();
    let sent: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
    let container = with_raw_terminal(&world, &format!("head -c {}", sent.len()));
    let mut child =
        run(&container, &[]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start the runtime");
    let (mut stdin, mut stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    let mut running = Running(child);
    stdout.read_exact(&mut [0; b"ready\n".len()]).expect("the terminal is raw");
    let taken = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        // Both threads end with the runtime.
        scope.spawn(|| {
            for piece in sent.chunks(1000) {
                if stdin.write_all(piece).is_ok() {
                    taken.fetch_add(piece.len(), Ordering::Relaxed);
                }
            }
        });
        stalls(|| taken.load(Ordering::Relaxed));
        let back = scope.spawn(|| {
            let mut back = Vec::new();
            stdout.read_to_end(&mut back).map(|_| back)
        });
        assert_eq!(running.code(), Some(0));
        drop(running);
        let back = back.join().expect("the reader").expect("stdout");
        assert!(back == sent, "{} bytes came back of {}", back.len(), sent.len());
    });
}

#[test]
fn a_signal_reaches_a_container_that_does_not_read_its_terminal() {
    let world = World::enter();
    let container = with_raw_terminal(&world, "trap 'exit 42' TERM; touch /ready; while :; do sleep 0.1; done");
    let path = container.bundle.dir.join("input");
    tests::write(&path, vec![b'x'; 300_000]);
    let mut input = std::fs::File::open(&path).expect("the input");
    let stdin = input.try_clone().expect("the input");
    let mut running =
        Running(run(&container, &[]).stdin(stdin).stdout(Stdio::null()).spawn().expect("start the runtime"));
    container.is_ready();
    // It is one file description, with one offset.
    stalls(|| input.stream_position().expect("the offset") as usize);
    output(Command::new("kill").arg(running.0.id().to_string())).success();
    assert_eq!(running.code(), Some(42));
}

#[test]
fn output_waits_for_a_slow_reader_also_after_the_end_of_the_program() {
    let world = World::enter();
    // More than our pipe and the program's hold together would keep the program.
    let container = Container::new(&world, "head -c 100000 /dev/zero; touch /ready");
    let mut child = run(&container, &[]).stdout(Stdio::piped()).spawn().expect("start the runtime");
    let mut stdout = child.stdout.take().expect("a pipe");
    let running = Running(child);
    container.is_ready();
    container.has_stopped();
    let process = PidFd::open(Pid::from_raw(running.0.id().cast_signed())).expect("the runtime's pidfd");
    let ends = sys::poll::poll(&[(process.as_fd(), Interest::READ)], Some(Duration::from_secs(1))).expect("a wait");
    assert_eq!(ends, [Interest::empty()], "the runtime has not waited");
    let mut back = Vec::new();
    stdout.read_to_end(&mut back).expect("stdout");
    assert_eq!(back.len(), 100_000);
}

#[test]
fn a_missing_fd_is_told_in_the_log_too() {
    let world = World::enter();
    let container = Container::started(&world);
    let log = container.bundle.dir.join("log.json");
    let mut command = container.bundle.runtime();
    command.arg("--log").arg(&log).args(["--log-format", "json", "exec", "--preserve-fds", "900"]);
    check_refused(&output(command.args([&container.bundle.id, "true"])), 255, "preserved-fd");
    let log = std::fs::read_to_string(log).expect("the log");
    assert!(!is_ours() || log.contains("unable to stat preserved-fd"), "{log}");
}
