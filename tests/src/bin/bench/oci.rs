//! `bench oci [ROUNDS] [JSON_FILE]`: `orlop-runtime` beside runc and crun, by their command lines.
//!
//! All get the same bundles; every round does each thing once on each side, in turn, so that whatever else the machine does
//! meets all of them. crun refuses a host on which the v2 hierarchy beside v1 has a controller, so it runs in a mount namespace in which
//! that one is unmounted; what enters the namespace does so before the clock starts.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};
use sys::process::{Pid, PidFd};
use tests::{Containerd, World, binary, output, peer, write};

use crate::measure::{Report, Samples};

/// Rounds before the first that counts: caches, first use of everything.
const WARM_UP: u32 = 3;
/// Runs whose memory and system calls are looked at.
const LOOKS: u32 = 5;
/// Containers that are started at the same time.
const CROWD: u32 = 100;
/// The memory limit of a container that has to start with next to nothing.
const SMALL: i64 = 512 * 1024;

/// One runtime under measurement.
struct Side {
    name: &'static str,
    program: PathBuf,
    /// The mount namespace that its processes are started in.
    mounts: File,
    dir: PathBuf,
    cgroup: String,
    samples: Samples,
    next: u32,
}

/// A kind of container: what its rows in the table are called.
struct Kind {
    run: &'static str,
    steps: &'static str,
    exec: &'static str,
    seccomp: Option<Value>,
}

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let rounds: u32 = arguments.first().map_or(Ok(50), |rounds| rounds.parse()).context("ROUNDS is a number")?;
    let world = World::enter();
    // What create leaves behind is ours to reap.
    sys::process::set_child_subreaper(true)?;
    let kinds = [
        Kind { run: "run true, ms", steps: "create, start, delete, ms", exec: "exec true, ms", seccomp: None },
        Kind {
            run: "run true, seccomp, ms",
            steps: "create, start, delete, seccomp, ms",
            exec: "exec true, seccomp, ms",
            seccomp: Some(runtime_default(&world)?),
        },
    ];
    let shown = File::open("/proc/thread-self/ns/mnt")?;
    let hidden = without_unified()?;
    let mut sides = [
        Side::new(&world, "orlop", binary("orlop-runtime"), shown.try_clone()?)?,
        Side::new(&world, "runc", peer("runc"), shown.try_clone()?)?,
        Side::new(&world, "crun", PathBuf::from("/usr/bin/crun"), hidden)?,
    ];
    for kind in &kinds {
        measure_times(&mut sides, kind, rounds)?;
    }
    for side in &mut sides {
        side.look_closer()?;
        side.small()?;
        side.crowd()?;
    }
    let report = Report { rounds, sides: sides.into_iter().map(|side| (side.name, side.samples)).collect() };
    report.print();
    if let Some(file) = arguments.get(1) {
        report.write(file.as_ref())?;
    }
    // The threads that follow have to be in the World too.
    setns(&shown, CloneFlags::CLONE_NEWNS).context("back to the World's mounts")
}

fn measure_times(sides: &mut [Side], kind: &Kind, rounds: u32) -> anyhow::Result<()> {
    for side in sides.iter() {
        side.write_config(&["sleep", "100000"], kind.seccomp.as_ref(), None)?;
        side.enter()?;
        side.create("stays")?;
        side.verb(&["start", "stays"])?;
        side.write_config(&["/bin/true"], kind.seccomp.as_ref(), None)?;
    }
    for round in 0..rounds + WARM_UP {
        for side in sides.iter_mut() {
            side.enter()?;
            let run = side.run()?;
            let steps = side.create_start_delete()?;
            let exec = side.timed(&["exec", "stays", "/bin/true"])?;
            if round >= WARM_UP {
                for (what, took) in [(kind.run, run), (kind.steps, steps), (kind.exec, exec)] {
                    side.samples.add(what, milliseconds(took));
                }
            }
        }
    }
    for side in sides.iter() {
        side.enter()?;
        side.verb(&["delete", "--force", "stays"])?;
    }
    Ok(())
}

impl Side {
    fn new(world: &World, name: &'static str, program: PathBuf, mounts: File) -> anyhow::Result<Side> {
        let dir = world.new_dir(name);
        for folder in ["rootfs/bin", "rootfs/dev", "rootfs/proc", "rootfs/sys", "state"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        fs::copy("/bin/busybox", dir.join("rootfs/bin/busybox")).context("busybox-static")?;
        for applet in ["sh", "sleep", "true"] {
            symlink("busybox", dir.join("rootfs/bin").join(applet))?;
        }
        let cgroup = world.cgroup(name);
        Ok(Side { name, program, mounts, dir, cgroup, samples: Samples::default(), next: 0 })
    }

    /// Moves the caller into the side's mount namespace.
    fn enter(&self) -> anyhow::Result<()> {
        setns(&self.mounts, CloneFlags::CLONE_NEWNS).with_context(|| format!("enter the mounts of {}", self.name))
    }

    fn write_config(&self, command: &[&str], seccomp: Option<&Value>, memory: Option<i64>) -> anyhow::Result<()> {
        let mut config = config(command, &format!("{}/one", self.cgroup));
        if let Some(seccomp) = seccomp {
            config["linux"]["seccomp"] = seccomp.clone();
        }
        if let Some(limit) = memory {
            config["linux"]["resources"]["memory"] = json!({"limit": limit});
        }
        config["linux"]["cgroupsPath"] = json!(format!("{}/{}", self.cgroup, command[0].replace('/', "-")));
        write(&self.dir.join("config.json"), config.to_string());
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.dir.join("state")).args(arguments).current_dir(&self.dir);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Runs a verb to its end; what it says on stderr is the reason if it fails.
    fn verb(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let errors = self.dir.join("stderr");
        let status = self.command(arguments).stderr(File::create(&errors)?).status()?;
        match status.success() {
            true => Ok(()),
            false => bail!("{} {arguments:?}: {status}: {}", self.name, fs::read_to_string(errors)?),
        }
    }

    fn timed(&self, arguments: &[&str]) -> anyhow::Result<Duration> {
        let start = Instant::now();
        self.verb(arguments)?;
        Ok(start.elapsed())
    }

    fn run(&mut self) -> anyhow::Result<Duration> {
        self.next += 1;
        self.timed(&["run", &format!("run-{}", self.next)])
    }

    /// Creates a container and leaves its process to us.
    fn create(&self, id: &str) -> anyhow::Result<PidFd> {
        self.verb(&["create", "--pid-file", "pid", id])?;
        let pid = fs::read_to_string(self.dir.join("pid"))?.trim().parse()?;
        Ok(PidFd::open(Pid::from_raw(pid))?)
    }

    /// The three calls; the time that the program takes in between is not theirs.
    fn create_start_delete(&mut self) -> anyhow::Result<Duration> {
        self.next += 1;
        let id = format!("steps-{}", self.next);
        let start = Instant::now();
        let process = self.create(&id)?;
        self.verb(&["start", &id])?;
        let started = start.elapsed();
        let ended = process.wait()?;
        ensure!(ended.is_success(), "{}: true ended with {ended:?}", self.name);
        Ok(started + self.timed(&["delete", &id])?)
    }

    /// What one `run` needs beyond time.
    fn look_closer(&mut self) -> anyhow::Result<()> {
        self.enter()?;
        self.write_config(&["/bin/true"], None, None)?;
        for look in 0..LOOKS {
            let memory = self.peak_memory(&format!("memory-{look}"))?;
            self.samples.add("peak memory of run, MB", memory);
            let calls = self.system_calls(&format!("calls-{look}"))?;
            self.samples.add("system calls of run", calls);
        }
        Ok(())
    }

    /// The highest resident set of any process of a run, in megabytes, as `wait4` tells it to a parent that is small itself.
    fn peak_memory(&self, id: &str) -> anyhow::Result<f64> {
        let inner = self.command(&["run", id]);
        let mut command = Command::new("/bin/busybox");
        command.args(["time", "-f", "%M"]).arg(inner.get_program()).args(inner.get_args()).current_dir(&self.dir);
        let told = output(&mut command);
        ensure!(told.code == 0, "{}: {}", self.name, told.stderr);
        let kilobytes: f64 = told.stderr.trim().parse().with_context(|| told.stderr.clone())?;
        // busybox takes the kernel's number for pages of 4 KB.
        Ok(kilobytes / 4.0 / 1024.0)
    }

    /// Those of the container's first process before it became the program included, and those of `true` as well.
    fn system_calls(&self, id: &str) -> anyhow::Result<f64> {
        let table = self.dir.join("strace");
        let inner = self.command(&["run", id]);
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-o"]).arg(&table).arg(inner.get_program()).args(inner.get_args());
        let told = output(command.current_dir(&self.dir));
        ensure!(told.code == 0, "{}: {}", self.name, told.stderr);
        let table = fs::read_to_string(table)?;
        // "100.00    0.012345           6       760        21 total"
        let total = table.lines().find(|line| line.ends_with(" total")).context("no total from strace")?;
        Ok(total.split_whitespace().nth(3).context("no number of calls from strace")?.parse()?)
    }

    /// Whether a container starts that may use 512 KB.
    fn small(&mut self) -> anyhow::Result<()> {
        self.enter()?;
        self.write_config(&["/bin/true"], None, Some(SMALL))?;
        let started = self.run();
        self.samples.add("starts with 512 KB, 1 = yes", if started.is_ok() { 1.0 } else { 0.0 });
        if started.is_err() {
            self.verb(&["delete", "--force", &format!("run-{}", self.next)]).ok();
        }
        Ok(())
    }

    /// Many at once: how long until the last one has ended, and how many failed.
    fn crowd(&mut self) -> anyhow::Result<()> {
        self.enter()?;
        let bundles = (0..CROWD).map(|number| self.crowd_bundle(number)).collect::<anyhow::Result<Vec<PathBuf>>>()?;
        let start = Instant::now();
        let mut children = Vec::new();
        for (number, bundle) in bundles.iter().enumerate() {
            let mut command = self.command(&["run", "--bundle"]);
            command.arg(bundle).arg(format!("crowd-{number}")).stderr(Stdio::null());
            children.push(command.spawn()?);
        }
        let failed =
            children.iter_mut().map(Child::wait).filter(|ended| !ended.as_ref().is_ok_and(|status| status.success()));
        let failed = u32::try_from(failed.count())?;
        self.samples.add("100 runs at once, ms", milliseconds(start.elapsed()));
        self.samples.add("100 runs at once, failed", f64::from(failed));
        Ok(())
    }

    fn crowd_bundle(&self, number: u32) -> anyhow::Result<PathBuf> {
        let bundle = self.dir.join(format!("crowd-{number}"));
        fs::create_dir(&bundle)?;
        let mut config = config(&["/bin/true"], &format!("{}/crowd-{number}", self.cgroup));
        config["root"]["path"] = json!(self.dir.join("rootfs"));
        write(&bundle.join("config.json"), config.to_string());
        Ok(bundle)
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// A mount namespace like ours without the v2 hierarchy that lies beside v1.
fn without_unified() -> anyhow::Result<File> {
    let make = || -> anyhow::Result<File> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let unified = Path::new("/sys/fs/cgroup/unified");
        if unified.join("cgroup.controllers").exists() {
            umount2(unified, MntFlags::MNT_DETACH).context("hide the v2 hierarchy")?;
        }
        Ok(File::open("/proc/thread-self/ns/mnt")?)
    };
    std::thread::scope(|scope| scope.spawn(make).join()).map_err(|_| anyhow::anyhow!("the thread panicked"))?
}

/// RuntimeDefault as containerd writes it into a config.json for the capabilities of [`config`].
fn runtime_default(world: &World) -> anyhow::Result<Value> {
    let containerd = Containerd::start(world);
    let rootfs = world.new_dir("rootfs");
    fs::create_dir(rootfs.join("bin"))?;
    fs::copy("/bin/busybox", rootfs.join("bin/busybox"))?;
    let mut ctr = containerd.ctr();
    ctr.args(["run", "--detach", "--seccomp", "--runc-binary"])
        .arg(peer("runc"))
        .args(["--cgroup", &world.cgroup("profile")]);
    output(ctr.arg("--rootfs").arg(&rootfs).args(["profile", "/bin/busybox", "sleep", "1000"])).success();
    let config = containerd.task_dir("profile").join("config.json");
    let config: Value =
        serde_json::from_slice(&fs::read(&config).with_context(|| format!("read {}", config.display()))?)?;
    output(containerd.ctr().args(["task", "delete", "--force", "profile"])).success();
    output(containerd.ctr().args(["container", "delete", "profile"])).success();
    Ok(config["linux"]["seccomp"].clone())
}

/// What `runc spec` writes, without a terminal, in a version that crun 1.8 knows too.
fn config(command: &[&str], cgroup: &str) -> Value {
    let mut config = tests::oci::config(command, cgroup);
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    config["ociVersion"] = json!("1.0.2");
    config["root"]["readonly"] = json!(true);
    config["process"]["env"] =
        json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"]);
    config["process"]["capabilities"] =
        json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities});
    config["mounts"][0] = json!({"destination": "/proc", "type": "proc", "source": "proc"});
    let newer = [json!({"type": "cgroup"}), json!("/proc/interrupts"), json!("/sys/devices/virtual/powercap")];
    for list in ["namespaces", "maskedPaths"] {
        config["linux"][list].as_array_mut().expect("a list").retain(|entry| !newer.contains(entry));
    }
    config
}
