//! Verbs that hang: on a volume, on a program, inside the container. Nothing else in the pod may notice.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sys::mount::{Attr, Fs, MountFlags, Propagation};
use tests::{World, cgroup, eventually, slow, write_program};

use crate::shim_client::{Container, LONG, Pod, exec_verb, memfd, process};

/// A file system whose server never answers: every access to what is inside waits until its process is killed.
struct DeadFileSystem {
    path: PathBuf,
    /// The server's side; requests lie in it unread.
    server: Option<File>,
}

impl DeadFileSystem {
    fn mount(path: &Path) -> Self {
        let server = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let fs = Fs::open("fuse").unwrap();
        fs.set_string("source", "dead").unwrap();
        fs.set_fd("fd", &server).unwrap_or_else(|_| {
            // Kernels before 6.x take the number as text.
            fs.set_string("fd", &sys::fd::number(&server).to_string()).unwrap()
        });
        for (key, value) in [("rootmode", "40000"), ("user_id", "0"), ("group_id", "0")] {
            fs.set_string(key, value).unwrap();
        }
        sys::mount::attach(&fs.mount(MountFlags::empty()).unwrap(), path).unwrap();
        Self { path: path.to_owned(), server: Some(server) }
    }

    /// Takes the next requests and never answers: whoever made one can't even be killed before the server has gone.
    fn swallow_requests(&self) -> std::thread::JoinHandle<()> {
        let mut server = self.server.as_ref().unwrap().try_clone().unwrap();
        std::thread::spawn(move || {
            let mut request = [0; 1 << 16];
            assert!(server.read(&mut request).unwrap() > 40);
            // fuse(4), `fuse_out_header` and `fuse_init_out` of protocol 7.31: without an answer to FUSE_INIT no other
            // request is sent.
            let mut answer = [0; 16 + 64];
            answer[..4].copy_from_slice(&80u32.to_ne_bytes());
            answer[8..16].copy_from_slice(&request[8..16]);
            answer[16..20].copy_from_slice(&7u32.to_ne_bytes());
            answer[20..24].copy_from_slice(&31u32.to_ne_bytes());
            server.write_all(&answer).unwrap();
            let _ = server.read(&mut request);
        })
    }
}

impl Drop for DeadFileSystem {
    fn drop(&mut self) {
        // Without a server all waits end with ENOTCONN.
        self.server = None;
        let _ = sys::mount::umount_detach(&self.path);
    }
}

/// A container that logs a thousand numbers a second.
fn busy(pod: &Pod) -> Container {
    let script =
        "i=0; while :; do n=0; while [ $n -lt 10 ]; do echo $i; i=$((i+1)); n=$((n+1)); done; usleep 10000; done";
    pod.container("busy", script)
}

/// A pod with such a container.
fn pod_with_a_busy_log(world: &World) -> Pod {
    let mut pod = Pod::start(world);
    let container = busy(&pod);
    pod.run(&container);
    pod
}

/// A directory of the host that containers have at `/mnt`, and into which file systems can be mounted later.
struct Shared(PathBuf);

impl Shared {
    fn mount(world: &World) -> Self {
        let path = world.new_dir("shared");
        let tmpfs = Fs::open("tmpfs").unwrap().mount(MountFlags::empty()).unwrap();
        sys::mount::attach(&tmpfs, &path).unwrap();
        let shared = Attr { propagation: Some(Propagation::Shared), ..Attr::default() };
        sys::mount::mount_setattr(&fs::File::open(&path).unwrap(), false, &shared).unwrap();
        fs::create_dir(path.join("dead")).unwrap();
        // A program whose interpreter is on the file system that will hang.
        write_program(&path.join("program"), "#!/mnt/dead/interpreter\n");
        Self(path)
    }

    fn add_to(&self, container: Container) -> Container {
        container.with_mount(json!({
            "destination": "/mnt", "type": "bind", "source": self.0, "options": ["rbind", "rslave"],
        }))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = sys::mount::umount_detach(&self.0);
    }
}

/// The longest time between two lines of the busy log since line `from`, after a check that no number is missing.
fn longest_gap(pod: &Pod, from: usize) -> Duration {
    let nanoseconds = |line: &str| -> u128 {
        let clock: Vec<u128> = line[11..29].split([':', '.']).map(|digits| digits.parse().unwrap()).collect();
        ((clock[0] * 60 + clock[1]) * 60 + clock[2]) * 1_000_000_000 + clock[3]
    };
    let log = pod.log("busy");
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines.iter().enumerate().all(|(number, line)| line[40..] == number.to_string()), "a number is missing");
    let times: Vec<u128> = lines[from..].iter().map(|line| nanoseconds(line)).collect();
    let gap = times.windows(2).map(|pair| (pair[1] + 86_400_000_000_000 - pair[0]) % 86_400_000_000_000).max();
    Duration::from_nanos(gap.expect("lines were logged") as u64)
}

/// Checks that the failure is a deadline in this stage, after about `deadline`.
#[track_caller]
fn check_deadline(failure: &Value, stage: &str, deadline: Duration) {
    assert_eq!(failure["kind"], "deadline", "{failure}");
    let last = failure["stages"].as_array().unwrap().last().unwrap();
    assert!(last["name"].as_str().unwrap().contains(stage), "{failure}");
    let ms: u64 = failure["stages"].as_array().unwrap().iter().map(|stage| stage["ms"].as_u64().unwrap()).sum();
    assert!(
        Duration::from_millis(ms + 50) >= deadline && Duration::from_millis(ms) < deadline + LONG * slow(),
        "{failure}"
    );
    assert!(failure["message"].as_str().unwrap().contains(stage), "{failure}");
}

/// Enough for a verb to come to the stage in which it hangs, though somebody stands still for a second on the way.
fn deadline() -> Duration {
    Duration::from_secs(3) * slow()
}

/// A log that pauses longer than this has noticed the verb that hangs, which takes twice as long.
fn standstill() -> Duration {
    deadline() / 2
}

#[test]
fn a_volume_that_hangs_delays_nothing_else_in_the_pod() {
    let world = World::enter();
    let dead = DeadFileSystem::mount(&world.new_dir("dead"));
    let mut pod = pod_with_a_busy_log(&world);
    let volume = dead.path.join("data");
    let container = pod.container("stuck", "true").with(
        "sources",
        json!([{
            "path": volume, "create_missing": false, "require": null,
        }]),
    );
    let (verb, fds) = container.message(pod.rootfs());
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let from = pod.log_lines("busy").len();
    let asked = pod.connection.ask(&verb, &fds, deadline());

    let mut answered = 0;
    let start = Instant::now();
    while start.elapsed() < deadline() - Duration::from_millis(300) {
        let (output, exit) = pod.exec("busy", &format!("e{answered}"), "echo alive");
        assert_eq!((output.as_str(), &exit["code"]), ("alive\n", &json!(0)));
        answered += 1;
    }
    assert!(answered > 0, "no exec was answered while a volume hangs");
    let failure = pod.connection.answer(asked).unwrap_err();
    check_deadline(&failure, &format!("open volume {}", volume.display()), deadline());
    let gap = longest_gap(&pod, from);
    assert!(gap < standstill(), "the other container's log stood still for {gap:?}");
    assert_eq!(pod.hello()["containers"].as_object().unwrap().len(), 1);
    drop(dead);
    pod.stop();
}

#[test]
fn a_verb_that_not_even_sigkill_ends_is_given_up_in_time() {
    let world = World::enter();
    let dead = DeadFileSystem::mount(&world.new_dir("dead"));
    let server = dead.swallow_requests();
    let mut pod = pod_with_a_busy_log(&world);
    let volume = dead.path.join("data");
    let sources = json!([{"path": volume, "create_missing": false, "require": null}]);
    let container = pod.container("stuck", "true").with("sources", sources);
    let (verb, fds) = container.message(pod.rootfs());
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let asked = pod.connection.ask(&verb, &fds, deadline());
    let failure = pod.connection.answer(asked).unwrap_err();
    check_deadline(&failure, &format!("open volume {}", volume.display()), deadline());
    server.join().unwrap();
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", pod.pid())).unwrap();
    let is_stage =
        |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "orlop-stage\n");
    assert!(children.split_whitespace().any(is_stage), "the stage child could be killed after all");
    let (output, _) = pod.exec("busy", "e", "echo alive");
    assert_eq!(output, "alive\n");
    drop(dead);
    pod.stop();
}

#[test]
fn a_mount_that_hangs_inside_the_container_is_ended_with_it() {
    let world = World::enter();
    let dead = DeadFileSystem::mount(&world.new_dir("dead"));
    let mut pod = pod_with_a_busy_log(&world);
    let source = dead.path.join("sub");
    let container = pod.container("stuck", "true").with_mount(json!({
        "destination": "/mnt", "type": "bind", "source": source, "options": ["rbind"],
    }));
    let (verb, fds) = container.message(pod.rootfs());
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let asked = pod.connection.ask(&verb, &fds, deadline());
    let failure = pod.connection.answer(asked).unwrap_err();
    assert_eq!(failure["kind"], "deadline", "{failure}");
    let cgroup = cgroup::dir(&pod.cgroup_of("stuck"));
    eventually("its cgroup is removed", LONG, || !cgroup.exists());
    // The id can be used again, once the shim has heard that nothing is left.
    let again = pod.container("stuck", "exit 0");
    eventually("its id is free", LONG, || pod.create(&again));
    pod.start_container("stuck").unwrap();
    assert_eq!(pod.exit("stuck")["code"], 0);
    pod.stop();
}

#[test]
fn a_program_that_hangs_in_execve_fails_the_exec_and_nothing_else() {
    let world = World::enter();
    let shared = Shared::mount(&world);
    let mut pod = Pod::start(&world);
    let container = shared.add_to(busy(&pod));
    pod.run(&container);
    let _dead = DeadFileSystem::mount(&shared.0.join("dead"));
    let from = pod.log_lines("busy").len();
    let none = json!({"stdin": false, "stdout": false, "stderr": false});
    for program in ["/mnt/program", "/mnt/dead/program"] {
        let document = memfd(&process(&[program]));
        let asked = pod.connection.ask(&exec_verb("busy", program, &none, false), &[document.as_fd()], deadline());
        let (output, _) = pod.exec("busy", "fine", "echo alive");
        assert_eq!(output, "alive\n");
        let failure = pod.connection.answer(asked).unwrap_err();
        assert_eq!(failure["kind"], "deadline", "{failure}");
    }
    let cgroup = pod.cgroup_of("busy");
    eventually("the hanging processes are gone", LONG, || {
        let processes = cgroup::processes(&cgroup);
        let mut comms: Vec<String> =
            processes.iter().filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok()).collect();
        comms.retain(|comm| comm != "sh\n" && comm != "usleep\n");
        if comms.is_empty() { Ok(()) } else { Err(comms) }
    });
    let gap = longest_gap(&pod, from);
    assert!(gap < standstill(), "the container's log stood still for {gap:?}");
    pod.stop();
}

#[test]
fn a_first_program_that_hangs_in_execve_is_killed_at_the_deadline() {
    let world = World::enter();
    let shared = Shared::mount(&world);
    let mut pod = pod_with_a_busy_log(&world);
    let container = shared.add_to(pod.container("stuck", "").spec("/process/args", json!(["/mnt/program"])));
    pod.create(&container).unwrap();
    let _dead = DeadFileSystem::mount(&shared.0.join("dead"));
    let started = pod.connection.ask(&json!({"start": {"container": "stuck"}}), &[], deadline());
    let failure = pod.connection.answer(started).unwrap_err();
    check_deadline(&failure, "execute the program", deadline());
    let exit = pod.exit("stuck");
    assert_eq!((&exit["code"], &exit["started_at"]), (&json!(128), &json!(0)));
    pod.delete("stuck").unwrap();
    pod.stop();
}

#[test]
fn stopping_the_pod_does_not_wait_for_a_verb_that_hangs() {
    let world = World::enter();
    let dead = DeadFileSystem::mount(&world.new_dir("dead"));
    let mut pod = pod_with_a_busy_log(&world);
    let container = pod.container("stuck", "true").with(
        "sources",
        json!([{
            "path": dead.path.join("data"), "create_missing": false, "require": null,
        }]),
    );
    let (verb, fds) = container.message(pod.rootfs());
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let asked = pod.connection.ask(&verb, &fds, LONG);
    let stopped = pod.connection.ask(&json!("stop_sandbox"), &[], LONG);
    pod.connection.answer(asked).unwrap_err();
    pod.connection.answer(stopped).unwrap();
    pod.expect_end();
}

/// Processor time that a process has used, in clock ticks of 10 ms.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Checks that the shim does nothing while it has nothing to do: at most a twentieth of the time.
#[track_caller]
fn check_idle(pod: &Pod) {
    let (from, start) = (ticks(pod.pid()), Instant::now());
    eventually("a second has passed", LONG, || start.elapsed() >= Duration::from_secs(1));
    let used = ticks(pod.pid()) - from;
    assert!(used <= 5, "{used} ticks of a hundred were used: {}", pod.notes());
}

/// Lowers or raises how many fds the shim may have; the old limit.
fn limit_files(pod: &Pod, soft: u64) -> u64 {
    let show = |field: &str| format!("prlimit --pid {} --nofile --noheadings --raw --output {field}", pod.pid());
    let read = |field| {
        let shown = std::process::Command::new("sh").args(["-c", &show(field)]).output().unwrap();
        String::from_utf8(shown.stdout).unwrap().trim().parse().unwrap()
    };
    let (old, hard): (u64, u64) = (read("SOFT"), read("HARD"));
    let limit = format!("--nofile={soft}:{hard}");
    let status = std::process::Command::new("prlimit").args(["--pid", &pod.pid().to_string(), &limit]).status();
    assert!(status.unwrap().success());
    old
}

#[test]
fn a_shim_without_a_free_fd_waits_and_goes_on_when_there_are_some() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let open = pod.open_fds() as u64;
    let old = limit_files(&pod, open);
    let mut waiting: Vec<_> = (0..20).map(|_| pod.connect()).collect();
    let notes = |pod: &Pod| pod.notes().matches("accept a connection").count();
    eventually("the shim has tried", LONG, || notes(&pod) > 0);
    check_idle(&pod);
    assert_eq!(notes(&pod), 1, "{}", pod.notes());
    limit_files(&pod, old);
    for connection in &mut waiting {
        connection.call(&json!({"hello": {"version": 1, "subscribe": false}}), &[]).unwrap();
    }
    drop(waiting);
    pod.stop();
}

#[test]
fn a_poll_that_the_kernel_refuses_does_not_end_the_pod() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    pod.run(&pod.container("c", "exec sleep 1000"));
    let old = limit_files(&pod, 3);
    eventually("poll has failed", LONG, || {
        let _ = pod.connect();
        pod.notes().contains("wait for something to happen")
    });
    check_idle(&pod);
    limit_files(&pod, old);
    let (output, _) = pod.exec("c", "e", "echo alive");
    assert_eq!(output, "alive\n");
    pod.stop();
}

#[test]
fn an_attached_client_that_has_gone_is_forgotten_whatever_it_was() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    pod.run(&pod.container("quiet", "exec sleep 1000"));
    let before = pod.open_fds();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let attach = json!({"attach": {
        "container": "quiet", "stdio": {"stdin": false, "stdout": true, "stderr": false},
    }});
    pod.connection.call(&attach, &[theirs.as_fd()]).unwrap();
    drop((ours, theirs));
    check_idle(&pod);
    assert_eq!(pod.open_fds(), before);
    pod.stop();
}

#[test]
fn an_id_stays_taken_until_all_of_a_container_that_was_never_finished_is_gone() {
    let world = World::enter();
    let dead = DeadFileSystem::mount(&world.new_dir("dead"));
    let mut pod = Pod::start(&world);
    let source = dead.path.join("sub");
    let cgroup = cgroup::dir(&pod.cgroup_of("stuck"));
    for round in 0..tests::rounds(10) {
        let container = pod.container("stuck", "true").with_mount(json!({
            "destination": "/mnt", "type": "bind", "source": source, "options": ["rbind"],
        }));
        let (verb, fds) = container.message(pod.rootfs());
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let asked = pod.connection.ask(&verb, &fds, LONG);
        eventually("its cgroup is made", LONG, || cgroup.exists());
        let delete = json!({"delete": {"container": "stuck", "force": true}});
        pod.connection.call(&delete, &[]).unwrap();
        assert!(!cgroup.exists(), "round {round}: deleted, and its cgroup is still there");
        pod.connection.answer(asked).unwrap_err();
        // The id belongs to another one now, which nobody cleans up after.
        pod.run(&pod.container("stuck", "exit 3"));
        assert_eq!(pod.exit("stuck")["code"], 3);
        pod.delete("stuck").unwrap();
    }
    pod.stop();
}
