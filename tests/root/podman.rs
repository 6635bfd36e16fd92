//! podman on our runtime, by its `--runtime`: what a user does with a container.
//!
//! Everything of podman's is below the World, and its locks are files: in shared memory they would be the machine's. The two limits are for
//! machines on which nobody may raise them; `scripts/vm` runs with podman's own.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Output, World, binary, eventually, images, output, write};

const IMAGE: &str = "localhost/busybox:test";

/// A podman with the image; its containers are called `it`.
struct Podman<'a> {
    world: &'a World,
    cgroup: String,
}

impl<'a> Podman<'a> {
    fn with_image(world: &'a World) -> Podman<'a> {
        let cgroup = world.cgroup("podman");
        // Its monitor's, which stays.
        world.adopt_cgroup(&format!("{cgroup}/conmon"));
        let podman = Podman { world, cgroup };
        write(&world.dir().join("containers.conf"), "[engine]\nlock_type = \"file\"\n");
        let archive = world.dir().join("busybox.tar");
        write(&archive, images::archive(&images::busybox(), IMAGE));
        podman.verb(&["load", "--input", &archive.to_string_lossy()]).success();
        podman
    }

    fn command(&self) -> Command {
        let dir = self.world.dir().join("podman");
        let mut command = self.world.command("podman");
        for (flag, folder) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(flag).arg(dir.join(folder));
        }
        command.arg("--runtime").arg(binary("orlop-runtime"));
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file", "--storage-driver", "vfs"]);
        command.env("CONTAINERS_CONF", self.world.dir().join("containers.conf"));
        command
    }

    fn verb(&self, arguments: &[&str]) -> Output {
        output(self.command().args(arguments))
    }

    fn run_arguments<'s>(&'s self, flags: &[&'s str], command: &[&'s str]) -> Vec<&'s str> {
        let mut own = vec!["run", "--name", "it", "--network", "none", "--cgroup-parent", &self.cgroup];
        if !may_raise_limits() {
            own.extend(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]);
        }
        [&own, flags, &[IMAGE], command].concat()
    }

    fn run(&self, flags: &[&str], command: &[&str]) -> Output {
        self.verb(&self.run_arguments(flags, command))
    }

    fn started(&self, flags: &[&str]) {
        self.run(&[&["--detach"], flags].concat(), &["sleep", "100000"]).success();
    }

    fn inspect(&self, format: &str) -> String {
        self.verb(&["inspect", "--format", format, "it"]).success().trim().to_owned()
    }

    fn remove(&self) {
        self.verb(&["rm", "--force", "--time", "0", "it"]).success();
    }

    /// Runs a verb on a terminal; what appeared on it.
    fn on_terminal(&self, arguments: &[&str]) -> Output {
        let podman = self.command();
        let words =
            podman.get_args().map(|word| word.to_string_lossy()).chain(arguments.iter().map(|word| (*word).into()));
        let quoted: Vec<String> = words.map(|word| format!("'{word}'")).collect();
        let mut script = self.world.command("script");
        script.args(["--quiet", "--return", "--command", &format!("podman {}", quoted.join(" ")), "/dev/null"]);
        output(script.env("CONTAINERS_CONF", self.world.dir().join("containers.conf")))
    }
}

/// Whether this process has CAP_SYS_RESOURCE (capability 24): podman's own limits are higher than a daemon's usual ones.
fn may_raise_limits() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("own status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).expect("effective capabilities");
    u64::from_str_radix(effective, 16).is_ok_and(|set| set & 1 << 24 != 0)
}

#[test]
fn a_container_runs_and_its_exit_code_is_told() {
    let world = World::enter();
    let podman = Podman::with_image(&world);
    let told = podman.run(&["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((told.code, told.stdout.as_str(), told.stderr.as_str()), (3, "out\n", "err\n"));
}

#[test]
fn a_program_that_is_not_there_or_not_executable_has_the_shells_exit_code() {
    let world = World::enter();
    let podman = Podman::with_image(&world);
    let told = podman.run(&["--rm"], &["/not/there"]);
    assert_eq!(told.code, 127, "{told:?}");
    assert!(told.stderr.contains("/not/there: no such file or directory"), "{told:?}");
    let told = podman.run(&["--rm"], &["/etc/passwd"]);
    assert_eq!(told.code, 126, "{told:?}");
    assert!(told.stderr.contains("permission denied"), "{told:?}");
}

#[test]
fn a_process_joins_a_container() {
    let world = World::enter();
    let podman = Podman::with_image(&world);
    podman.started(&["--env", "NAME=value"]);
    let told = podman.verb(&["exec", "--user", "nobody", "it", "sh", "-c", "id -u; echo $NAME; exit 4"]);
    assert_eq!((told.code, told.stdout.as_str()), (4, "65534\nvalue\n"), "{}", told.stderr);
    podman.remove();
}

#[test]
fn a_terminal_is_handed_over_at_run_and_at_exec() {
    let world = World::enter();
    let podman = Podman::with_image(&world);
    let told = podman.on_terminal(&podman.run_arguments(&["--rm", "--tty"], &["sh", "-c", "tty; exit 5"]));
    assert_eq!(told.code, 5, "{told:?}");
    assert!(told.stdout.contains("/dev/pts/0"), "{told:?}");
    podman.started(&[]);
    let told = podman.on_terminal(&["exec", "--tty", "it", "sh", "-c", "tty; exit 6"]);
    assert_eq!(told.code, 6, "{told:?}");
    assert!(told.stdout.contains("/dev/pts/0"), "{told:?}");
    podman.remove();
}

#[test]
fn a_container_is_paused_and_resumed() {
    let world = World::enter();
    let podman = Podman::with_image(&world);
    podman.started(&[]);
    podman.verb(&["pause", "it"]).success();
    assert_eq!(podman.inspect("{{.State.Status}}"), "paused");
    podman.verb(&["unpause", "it"]).success();
    assert_eq!(podman.inspect("{{.State.Status}}"), "running");
    podman.remove();
}

#[test]
fn a_containers_limits_change_while_it_runs() {
    let world = World::enter();
    let podman = Podman::with_image(&world);
    podman.started(&["--memory", "64m", "--pids-limit", "100"]);
    podman.verb(&["update", "--memory", "48m", "--cpu-shares", "512", "it"]).success();
    let look = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null || \
                cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.weight";
    let told = podman.verb(&["exec", "it", "sh", "-c", look]).success();
    let (memory, cpu) = told.split_once('\n').expect("two files");
    assert_eq!(memory, "50331648", "{told}");
    assert!(["512", "59"].contains(&cpu.trim()), "{told}");
    podman.remove();
}

#[test]
fn what_a_container_uses_is_told() {
    let world = World::enter();
    let podman = Podman::with_image(&world);
    podman.started(&["--memory", "64m"]);
    let told = podman.verb(&["stats", "--no-stream", "--format", "json", "it"]).success();
    let stats: Value = serde_json::from_str(&told).expect("JSON of podman stats");
    assert_eq!(stats[0]["pids"], "1", "{stats}");
    assert!(stats[0]["mem_usage"].as_str().is_some_and(|usage| usage.ends_with(" / 67.11MB")), "{stats}");
    // A container runs from the moment of its start; its program is executed a moment later.
    eventually("its program is listed", Duration::from_secs(10), || {
        let processes = podman.verb(&["top", "it", "pid", "comm"]).success();
        if processes.contains("sleep") { Ok(()) } else { Err(processes) }
    });
    podman.remove();
}

#[test]
fn a_container_ends_by_a_signal_and_its_code_is_kept() {
    let world = World::enter();
    let podman = Podman::with_image(&world);
    podman.run(&["--detach"], &["sh", "-c", "trap 'exit 7' TERM; touch /ready; while :; do sleep 0.1; done"]).success();
    eventually("the trap is set", Duration::from_secs(10), || podman.verb(&["exec", "it", "ls", "/ready"]).code == 0);
    podman.verb(&["kill", "--signal", "TERM", "it"]).success();
    assert_eq!(podman.verb(&["wait", "it"]).success().trim(), "7");
    assert_eq!(podman.inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 7");
    podman.verb(&["start", "it"]).success();
    podman.verb(&["kill", "it"]).success();
    assert_eq!(podman.verb(&["wait", "it"]).success().trim(), "137");
    podman.remove();
}

#[test]
fn a_container_has_users_of_its_own() {
    let world = World::enter();
    let podman = Podman::with_image(&world);
    let map = podman.run(&["--rm", "--uidmap", "0:100000:65536"], &["cat", "/proc/self/uid_map"]).success();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
}
