//! `hot-functions ORLOP_RUNTIME`: prints the functions that containers execute in it, for `scripts/hot-functions`.
//!
//! The program, which must have its symbols, runs a container, takes one through create, start and delete, and has an exec in
//! another, all of it one instruction at a time under ptrace(2); its children are stepped as well until they become another
//! program. A name is what `nm --demangle` prints, without the hash that changes with the compiler and the code. All functions of
//! that name count; with `-C symbol-mangling-version=v0` the instances of a generic one have names of their own.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, ensure};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::{World, output, write};

fn main() -> ExitCode {
    // Told before the World ends, which has its own complaint about a container that is left.
    let world = World::enter();
    let listed = list(&world);
    match &listed {
        Ok(names) => print!("{names}"),
        Err(error) => eprintln!("hot-functions: {error:#}"),
    }
    ExitCode::from(u8::from(listed.is_err()))
}

fn list(world: &World) -> anyhow::Result<String> {
    let program = std::env::args_os().nth(1).context("usage: hot-functions ORLOP_RUNTIME")?;
    // What `create` leaves behind is ours to wait for.
    sys::process::set_child_subreaper(true)?;
    let program = fs::canonicalize(program)?;
    let mut stepper = Stepper::new(program.clone(), bundle(world, &program)?, world.new_dir("state"))?;

    stepper.configure(&world.cgroup("true"), &["/bin/true"])?;
    stepper.verb(&["run", "runs"])?;
    stepper.verb(&["create", "--pid-file", "pid", "starts"])?;
    stepper.verb(&["start", "starts"])?;
    let first = fs::read_to_string(stepper.bundle.join("pid"))?.trim().parse().context("a pid file")?;
    stepper.follow(Pid::from_raw(first))?;
    stepper.verb(&["delete", "starts"])?;

    stepper.configure(&world.cgroup("sleep"), &["/bin/sleep", "100000"])?;
    stepper.verb(&["create", "stays"])?;
    stepper.verb(&["start", "stays"])?;
    stepper.verb(&["exec", "stays", "/bin/true"])?;
    stepper.verb(&["delete", "--force", "stays"])?;

    let names = functions(&program)?;
    Ok(names.executed(&stepper.seen).into_iter().map(|name| format!("{name}\n")).collect())
}

/// Steps through a program and remembers where it was.
struct Stepper {
    program: PathBuf,
    bundle: PathBuf,
    state: PathBuf,
    /// Device and inode of the program: it executes itself by another path.
    identity: (u64, u64),
    seen: HashSet<u64>,
    /// The exit codes of our children, by when they are asked for.
    ended: HashMap<Pid, i32>,
}

impl Stepper {
    fn new(program: PathBuf, bundle: PathBuf, state: PathBuf) -> anyhow::Result<Stepper> {
        let file = fs::metadata(&program).with_context(|| format!("look at {}", program.display()))?;
        let identity = (file.dev(), file.ino());
        Ok(Stepper { program, bundle, state, identity, seen: HashSet::new(), ended: HashMap::new() })
    }

    /// Limits and a filter, as every pod has them.
    fn configure(&self, cgroup: &str, command: &[&str]) -> anyhow::Result<()> {
        let file = self.bundle.join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(command);
        config["linux"]["cgroupsPath"] = json!(format!("{cgroup}/one"));
        config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
        config["linux"]["resources"]["cpu"] = json!({"shares": 512, "quota": 50_000, "period": 100_000});
        config["linux"]["resources"]["pids"] = json!({"limit": 100});
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [
                {"names": ["mount", "umount2", "reboot"], "action": "SCMP_ACT_ERRNO"},
                {"names": ["personality"], "action": "SCMP_ACT_ERRNO",
                 "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
            ],
        });
        write(&file, config.to_string());
        Ok(())
    }

    /// Runs the program to its end.
    fn verb(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        // The shell waits until it is traced, which it must not be before it is a shell.
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "echo here && read go && exec \"$@\" </dev/null >/dev/null", "sh"])
            .arg(&self.program)
            .arg("--root")
            .arg(&self.state);
        command.args(arguments).current_dir(&self.bundle).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start the shell")?;
        child
            .stdout
            .take()
            .context("the shell's standard output")?
            .read_exact(&mut [0; 5])
            .context("the shell's word")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let options = Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE;
        ptrace::seize(pid, options).context("trace the shell")?;
        child.stdin.take().context("the shell's standard input")?.write_all(b"go\n")?;
        self.follow(pid).with_context(|| format!("{arguments:?}"))
    }

    /// Steps everything that is traced until the child `wanted` has ended well.
    fn follow(&mut self, wanted: Pid) -> anyhow::Result<()> {
        loop {
            if let Some(code) = self.ended.remove(&wanted) {
                ensure!(code == 0, "exit code {code}");
                return Ok(());
            }
            match waitpid(None, Some(WaitPidFlag::__WALL)).context("wait for a child")? {
                WaitStatus::Exited(pid, code) => drop(self.ended.insert(pid, code)),
                WaitStatus::PtraceEvent(pid, ..) if !self.is_in(pid) => gone(ptrace::detach(pid, None))?,
                WaitStatus::PtraceEvent(pid, ..) | WaitStatus::Stopped(pid, Signal::SIGTRAP) => self.step(pid, None)?,
                WaitStatus::Stopped(pid, signal) => self.step(pid, Some(signal))?,
                _ => {}
            }
        }
    }

    fn step(&mut self, pid: Pid, signal: Option<Signal>) -> anyhow::Result<()> {
        match ptrace::getregs(pid) {
            Ok(registers) => drop(self.seen.insert(registers.rip)),
            error => gone(error.map(drop))?,
        }
        gone(ptrace::step(pid, signal))
    }

    /// Whether the process executes the program.
    fn is_in(&self, pid: Pid) -> bool {
        fs::metadata(format!("/proc/{pid}/exe")).is_ok_and(|file| (file.dev(), file.ino()) == self.identity)
    }
}

/// A process that was killed meanwhile can't be stepped, which is no failure.
fn gone(result: nix::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(Errno::ESRCH) => Ok(()),
        result => Ok(result.context("step")?),
    }
}

/// The names of functions, several for some, by their address.
struct Functions {
    by_address: BTreeMap<u64, Vec<String>>,
}

/// What the symbol table calls code: `nm` prints the address, the type and the name.
fn functions(program: &Path) -> anyhow::Result<Functions> {
    let told = output(Command::new("nm").args(["--defined-only", "--demangle"]).arg(program));
    ensure!(told.code == 0, "nm: {}", told.stderr);
    let mut by_address: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for line in told.stdout.lines() {
        let mut fields = line.splitn(3, ' ');
        let (Some(address), Some(kind), Some(name)) = (fields.next(), fields.next(), fields.next()) else { continue };
        if ["t", "T", "w", "W", "i"].contains(&kind) {
            by_address.entry(u64::from_str_radix(address, 16)?).or_default().push(name.to_owned());
        }
    }
    ensure!(!by_address.is_empty(), "{} has no symbols", program.display());
    Ok(Functions { by_address })
}

impl Functions {
    /// Sorted, so that a list that is made again differs only in what has changed.
    fn executed(&self, addresses: &HashSet<u64>) -> BTreeSet<&str> {
        let end = self.by_address.keys().next_back().copied().unwrap_or_default();
        // Beyond it is the kernel's vdso.
        let inside = addresses.iter().filter(|address| **address <= end);
        let found = inside.filter_map(|address| self.by_address.range(..=*address).next_back());
        found.flat_map(|(_, names)| names).map(String::as_str).collect()
    }
}

/// A root file system with busybox, and what the runtime's own `spec` writes.
fn bundle(world: &World, program: &Path) -> anyhow::Result<PathBuf> {
    let dir = world.new_dir("bundle");
    fs::create_dir_all(dir.join("rootfs/bin"))?;
    fs::copy("/bin/busybox", dir.join("rootfs/bin/busybox")).context("busybox-static")?;
    for applet in ["sleep", "true"] {
        symlink("busybox", dir.join("rootfs/bin").join(applet))?;
    }
    output(Command::new(program).arg("spec").current_dir(&dir)).success();
    Ok(dir)
}
