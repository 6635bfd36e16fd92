//! Output into CRI logs, input, terminals and attached clients of `orlop-shim`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tests::{World, eventually, output, rounds};

use crate::shim_client::{LONG, Pod, exec_verb, memfd, process};

fn attach(container: &str, stdin: bool, stdout: bool, stderr: bool) -> Value {
    json!({"attach": {"container": container, "stdio": {"stdin": stdin, "stdout": stdout, "stderr": stderr}}})
}

/// A pipe whose end for the test is a file.
fn pipe() -> (File, File) {
    let (read, write) = sys::fd::pipe().unwrap();
    (File::from(read), File::from(write))
}

/// Reads until `text` has come.
#[track_caller]
fn read_until(file: &mut File, text: &str) -> String {
    sys::fd::set_nonblocking(file, true).unwrap();
    let mut all = Vec::new();
    eventually(&format!("{text:?} is read"), LONG, || {
        let _ = file.read_to_end(&mut all);
        let read = String::from_utf8_lossy(&all).into_owned();
        read.contains(text).then_some(read)
    })
}

#[test]
fn the_log_has_the_format_of_the_cri() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let script = r"printf 'plain\n'; printf 'windows\r\n'; printf '\n'; printf '\377\n' >&2; printf 'no newline'";
    let container = pod.container("c", script);
    pod.run(&container);
    pod.exit("c");
    let bytes = fs::read(pod.log_path("c")).unwrap();
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    assert_eq!(lines.last(), Some(&&b""[..]), "the last line has no newline");
    let mut contents: Vec<&[u8]> = Vec::new();
    for line in &lines[..lines.len() - 1] {
        let (time, content) = line.split_at(30);
        let time = std::str::from_utf8(time).unwrap();
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000000000Z");
        contents.push(content);
    }
    let (stderr, stdout): (Vec<&[u8]>, Vec<&[u8]>) = contents.iter().partition(|line| line.starts_with(b" stderr"));
    assert_eq!(stdout, [&b" stdout F plain"[..], b" stdout F windows", b" stdout F ", b" stdout P no newline"]);
    assert_eq!(stderr, [&b" stderr F \xff"[..]]);
    pod.stop();
}

#[test]
fn long_lines_are_cut_at_16_kib_and_nothing_is_lost() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("c", "printf '%050000d\\n' 7; echo end");
    pod.run(&container);
    pod.exit("c");
    let lines = pod.log_lines("c");
    let lengths: Vec<(char, usize)> =
        lines.iter().map(|line| (line.as_bytes()[7] as char, line.len() - "stdout F ".len())).collect();
    let full = ('P', 16 * 1024);
    assert_eq!(lengths, [full, full, full, ('F', 50_000 - 3 * 16 * 1024), ('F', 3)]);
    pod.stop();
}

#[test]
fn all_output_is_in_the_log_before_the_exit_is_told() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    for round in 0..rounds(10) {
        let id = format!("c{round}");
        let container = pod.container(&id, "seq 1 20000");
        pod.run(&container);
        pod.exit(&id);
        let lines = pod.log_lines(&id);
        assert_eq!(lines.len(), 20_000);
        assert!(lines.iter().zip(1..).all(|(line, number)| *line == format!("stdout F {number}")));
        pod.delete(&id).unwrap();
    }
    pod.stop();
}

#[test]
fn a_process_that_keeps_the_output_open_elsewhere_does_not_keep_the_container_from_ending() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("c", "echo last; exec sleep 1000");
    let pid = pod.run(&container);
    // From outside of the container, as a debugger would.
    let held = fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/fd/1")).unwrap();
    eventually("the line is there", LONG, || pod.log_lines("c") == ["stdout F last"]);
    pod.kill("c", 9).unwrap();
    assert_eq!(pod.exit("c")["code"], 137);
    drop(held);
    pod.stop();
}

#[test]
fn a_log_that_was_moved_away_goes_on_in_a_new_file_without_losing_a_line() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("c", "i=0; while :; do echo $i; i=$((i+1)); done");
    pod.run(&container);
    let path = pod.log_path("c");
    let mut logs = Vec::new();
    for number in 0..rounds(20) {
        eventually("the log has a line", LONG, || fs::metadata(&path).is_ok_and(|log| log.len() > 0));
        let old = path.with_extension(format!("log.{number}"));
        fs::rename(&path, &old).unwrap();
        pod.connection.call(&json!({"reopen_log": {"container": "c"}}), &[]).unwrap();
        logs.push(old);
    }
    pod.kill("c", 9).unwrap();
    pod.exit("c");
    logs.push(path);
    let numbers = logs.iter().flat_map(|path| {
        let log = fs::read_to_string(path).unwrap();
        log.lines().map(|line| line[40..].parse::<usize>().unwrap()).collect::<Vec<_>>()
    });
    let (numbers, expected): (Vec<usize>, Vec<usize>) = numbers.zip(0..).unzip();
    assert_eq!(numbers, expected);
    pod.stop();
}

#[test]
fn a_log_that_can_not_be_reopened_goes_on_where_it_was() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("c", "while :; do echo tick; sleep 0.01; done");
    pod.run(&container);
    let path = pod.log_path("c");
    let moved = path.with_extension("moved");
    fs::rename(&path, &moved).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    let failure = pod.connection.call(&json!({"reopen_log": {"container": "c"}}), &[]).unwrap_err();
    assert_eq!(failure["kind"], "invalid");
    let length = fs::metadata(&moved).unwrap().len();
    eventually("the old file grows", LONG, || fs::metadata(&moved).unwrap().len() > length);
    assert!(!fs::read_to_string("/etc/passwd").unwrap().contains("tick"));
    pod.stop();
}

#[test]
fn a_full_disk_never_stops_the_container_and_the_log_goes_on_with_whole_lines() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let disk = world.new_dir("disk");
    let tmpfs = sys::mount::Fs::open("tmpfs").unwrap();
    tmpfs.set_string("size", "64k").unwrap();
    sys::mount::attach(&tmpfs.mount(sys::mount::MountFlags::empty()).unwrap(), &disk).unwrap();
    let path = disk.join("0.log");
    let script = "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; echo full > /tmp/full; \
                  while [ ! -e /tmp/go ]; do sleep 0.01; done; echo after; exec sleep 1000";
    let container = pod.container("c", script).with("log_path", json!(path));
    pod.run(&container);
    eventually("the container went on", LONG, || pod.exec("c", "look", "cat /tmp/full").0 == "full\n");
    assert!(pod.notes().contains("No space left on device"), "{}", pod.notes());
    // What lies in the pipe is lost too: an exec takes the shim more turns than that has chunks.
    pod.exec("c", "settle", "true");
    File::create(&path).unwrap();
    pod.exec("c", "go", "touch /tmp/go");
    eventually("the log goes on", LONG, || fs::read_to_string(&path).unwrap().ends_with(" stdout F after\n"));
    let log = fs::read_to_string(&path).unwrap();
    assert!(log.lines().all(|line| line.get(30..40) == Some(" stdout F ")), "{log}");
    eventually("the loss is noted", LONG, || pod.notes().contains("lines are lost"));
    pod.stop();
    sys::mount::umount_detach(&disk).unwrap();
}

#[test]
fn without_a_log_path_output_is_thrown_away() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("c", "seq 1 100000").with("log_path", Value::Null);
    pod.run(&container);
    assert_eq!(pod.exit("c")["code"], 0);
    pod.stop();
}

#[test]
fn an_attached_client_feeds_the_container_and_sees_what_it_says() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("c", "cat; echo done; sleep 1000").with("stdin", json!(true));
    pod.run(&container);
    let (stdin, mut input) = pipe();
    let (mut output, stdout) = pipe();
    let (mut errors, stderr) = pipe();
    let fds = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    pod.connection.call(&attach("c", true, true, true), &fds).unwrap();
    drop((stdin, stdout, stderr));
    input.write_all(b"hello\n").unwrap();
    read_until(&mut output, "hello\n");
    drop(input);
    // Not stdin_once: another client goes on where this one left.
    let (stdin, mut input) = pipe();
    pod.connection.call(&attach("c", true, false, false), &[stdin.as_fd()]).unwrap();
    input.write_all(b"again\n").unwrap();
    read_until(&mut output, "again\n");
    pod.kill("c", 9).unwrap();
    pod.exit("c");
    sys::fd::set_nonblocking(&errors, false).unwrap();
    assert_eq!(errors.read(&mut [0]).unwrap(), 0, "a client's streams end with the container");
    assert_eq!(pod.log_lines("c"), ["stdout F hello", "stdout F again"]);
    let failure = pod.connection.call(&attach("c", true, false, false), &[input.as_fd()]).unwrap_err();
    assert_eq!(failure["kind"], "not_running");
    pod.stop();
}

#[test]
fn with_stdin_once_the_input_ends_with_the_first_client_that_had_it() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    for (id, says_goodbye) in [("closes", true), ("vanishes", false)] {
        let script = pod.container(id, "cat; echo end of input");
        let container = script.with("stdin", json!(true)).with("stdin_once", json!(true));
        pod.run(&container);
        let (watcher, stdout) = pipe();
        pod.connection.call(&attach(id, false, true, false), &[stdout.as_fd()]).unwrap();
        drop((watcher, stdout));
        let (stdin, mut input) = pipe();
        let (mut output, stdout) = pipe();
        pod.connection.call(&attach(id, true, true, false), &[stdin.as_fd(), stdout.as_fd()]).unwrap();
        drop((stdin, stdout));
        input.write_all(b"some input\n").unwrap();
        read_until(&mut output, "some input\n");
        if says_goodbye {
            drop(input);
        } else {
            drop(output);
        }
        assert_eq!(pod.exit(id)["code"], 0);
        assert_eq!(pod.log_lines(id), ["stdout F some input", "stdout F end of input"]);
    }
    pod.stop();
}

#[test]
fn a_client_that_reads_nothing_never_slows_the_container_and_is_cut_off_1_mib_behind() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    // Each time less than anybody is cut off for: only who reads nothing of it all is too far behind.
    let script = "for part in 1 2 3; do read go; seq 1 100000; echo part $part; done; sleep 1000";
    let container = pod.container("c", script).with("stdin", json!(true));
    pod.run(&container);
    let (mut idle, stdout) = pipe();
    pod.connection.call(&attach("c", false, true, false), &[stdout.as_fd()]).unwrap();
    let (stdin, mut input) = pipe();
    let (mut keen, keen_stdout) = pipe();
    pod.connection.call(&attach("c", true, true, false), &[stdin.as_fd(), keen_stdout.as_fd()]).unwrap();
    drop((stdout, keen_stdout, stdin));
    let mut seen = String::new();
    for part in 1..=3 {
        input.write_all(b"go\n").unwrap();
        seen += &read_until(&mut keen, &format!("part {part}\n"));
    }
    assert_eq!(seen.lines().count(), 3 * 100_001);
    sys::fd::set_nonblocking(&idle, false).unwrap();
    let mut left = Vec::new();
    idle.read_to_end(&mut left).unwrap();
    assert!(seen.as_bytes().starts_with(&left) && left.len() < seen.len(), "{} of {}", left.len(), seen.len());
    pod.stop();
}

#[test]
fn a_terminal_is_logged_as_standard_output_can_be_resized_and_attached() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let script = "tty; read line; echo got $line; stty size; echo last words";
    let container = pod.container("c", script).with("stdin", json!(true)).with_terminal();
    pod.run(&container);
    pod.connection.call(&json!({"resize": {"container": "c", "width": 123, "height": 45}}), &[]).unwrap();
    let (stdin, mut input) = pipe();
    let (mut output, stdout) = pipe();
    let failure = pod.connection.call(&attach("c", false, true, true), &[stdout.as_fd(), stdout.as_fd()]);
    assert_eq!(failure.unwrap_err()["kind"], "invalid");
    pod.connection.call(&attach("c", true, true, false), &[stdin.as_fd(), stdout.as_fd()]).unwrap();
    drop((stdin, stdout));
    // A terminal echoes at once what is typed.
    eventually("the first line is there", LONG, || !pod.log_lines("c").is_empty());
    input.write_all(b"typed\n").unwrap();
    let seen = read_until(&mut output, "last words\r\n");
    assert!(seen.contains("typed\r\n") && seen.contains("got typed\r\n") && seen.contains("45 123\r\n"), "{seen:?}");
    assert_eq!(pod.exit("c")["code"], 0);
    let lines = pod.log_lines("c");
    assert_eq!(lines[0], "stdout F /dev/pts/0");
    assert_eq!(lines.last().unwrap(), "stdout F last words");
    pod.stop();
}

#[test]
fn a_terminals_last_words_are_never_lost() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    for round in 0..rounds(20) {
        let id = format!("c{round}");
        let container = pod.container(&id, "seq 1 500").with_terminal();
        pod.run(&container);
        pod.exit(&id);
        assert_eq!(pod.log_lines(&id).len(), 500, "round {round}");
        pod.delete(&id).unwrap();
    }
    pod.stop();
}

#[test]
fn an_exec_with_a_terminal_gives_its_master_to_the_daemon() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("c", "sleep 1000");
    pod.run(&container);
    let mut terminal = process(&["/bin/sh", "-c", "tty; read line; echo got $line"]);
    terminal["terminal"] = true.into();
    let document = memfd(&terminal);
    let none = json!({"stdin": false, "stdout": false, "stderr": false});
    let verb = exec_verb("c", "e", &none, true);
    let (_, fds) = pod.connection.call(&verb, &[document.as_fd()]).unwrap();
    let [master]: [OwnedFd; 1] = fds.try_into().unwrap();
    let mut master = File::from(master);
    read_until(&mut master, "/dev/pts/0\r\n");
    master.write_all(b"typed\n").unwrap();
    read_until(&mut master, "got typed\r\n");
    pod.connection.event("exec_exited", |event| event["exec"] == "e");
    pod.stop();
}

#[test]
fn output_is_drained_and_ends_are_recorded_while_no_daemon_is_connected() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    // More than a pipe holds: without a reader the container would stop.
    let container = pod.container("c", "seq 1 100000; exit 6");
    pod.create(&container).unwrap();
    pod.start_container("c").unwrap();
    let second = pod.connect();
    drop(std::mem::replace(&mut pod.connection, second));
    let record = pod.dir.join("exits/c.json");
    eventually("the record is written", LONG, || record.exists());
    let exit: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    assert_eq!(exit["code"], 6);
    assert_eq!(pod.log_lines("c").len(), 100_000);
    assert_eq!(pod.hello()["containers"]["c"]["exited"], exit);
    pod.stop();
}

#[test]
fn a_daemon_that_is_killed_takes_nothing_with_it() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done");
    let pid = pod.run(&container);
    // A second daemon, in a process of its own that is killed in the middle of reading events.
    let socket = pod.dir.join("shim.sock");
    let mut daemon = world.command("/bin/busybox").args(["sleep", "1000"]).spawn().unwrap();
    let second = pod.connect();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    drop(second);
    assert!(socket.exists() && pod.is_alive());
    let before = pod.log_lines("c").len();
    eventually("the log grows", LONG, || pod.log_lines("c").len() > before);
    assert!(Path::new("/proc").join(pid.to_string()).exists());
    pod.stop();
}

#[test]
fn an_idle_shim_never_wakes() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("c", "sleep 1000");
    let first = pod.run(&container);
    let wakes = |pod: &Pod| -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", pod.pid())).unwrap();
        let count = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        status.lines().filter(|line| line.contains("ctxt_switches")).map(count).sum()
    };
    // On a busy machine a stage child ends seconds after its work, which wakes the shim.
    let children = format!("/proc/{0}/task/{0}/children", pod.pid());
    let first = format!("{first} ");
    eventually("only the container is left", LONG, || fs::read_to_string(&children).unwrap() == first);
    eventually("three seconds pass without a wake-up", 2 * LONG, || {
        let before = wakes(&pod);
        // Another process's seconds are the clock: waiting for them wakes nobody here.
        output(world.command("/bin/busybox").args(["sleep", "3"])).success();
        wakes(&pod) == before
    });
    pod.stop();
}

#[test]
fn a_hundred_clients_that_come_and_go_leave_nothing_in_the_shim() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("c", "cat").with("stdin", json!(true));
    pod.run(&container);
    let before = pod.open_fds();
    for _ in 0..rounds(100) {
        let (stdin, input) = pipe();
        let (output, stdout) = pipe();
        pod.connection.call(&attach("c", true, true, false), &[stdin.as_fd(), stdout.as_fd()]).unwrap();
        drop((stdin, stdout, input, output));
        pod.connection.call(&json!({"resize": {"container": "c", "width": 1, "height": 1}}), &[]).unwrap_err();
        pod.connect();
    }
    eventually("all fds are closed", Duration::from_secs(5), || pod.open_fds() == before);
    pod.stop();
}
