//! `vm IMAGE JOB_DIR [SECONDS]`: boots the test VM, runs `JOB_DIR/run` in it as root, and ends with its exit code.
//!
//! `IMAGE` is the folder that `scripts/vm` has built: `kernel`, `initrd`, `root.img`. `JOB_DIR` becomes a read-only disk at
//! `/job`. What the job prints goes to standard output as it comes. A guest that panics, hangs or never ends is one line
//! and the last fifty of its console on standard error, and exit code 124 or 125; no process is left in any case.
//!
//! `vm --shell IMAGE` gives its console to the terminal instead.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

/// With this and `exit N` the guest says that the job has ended.
const END: &str = "\u{1e}exit ";
/// How long a guest may take to end its job unless it is told.
const DEADLINE: Duration = Duration::from_mins(30);
/// How long KVM may take to boot a guest that turns itself off at once; where it works it takes a second.
const PROBE: Duration = Duration::from_secs(5);
/// As `timeout` does.
const TOO_LONG: u8 = 124;
/// The guest ended, and said nothing of the job.
const NO_WORD: u8 = 125;
/// The disk for what the job writes, in bytes; sparse.
const SCRATCH: u64 = 16 << 30;
/// The guest's memory, in MiB.
const MEMORY: &str = "4096";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--shell", image] => shell(Path::new(image)),
        [image, job] => run(Path::new(image), Path::new(job), DEADLINE),
        [image, job, seconds] => seconds
            .parse()
            .context("SECONDS is a number")
            .and_then(|seconds| run(Path::new(image), Path::new(job), Duration::from_secs(seconds))),
        _ => Err(anyhow::anyhow!("usage: vm IMAGE JOB_DIR [SECONDS] | vm --shell IMAGE")),
    };
    done.unwrap_or_else(|error| {
        eprintln!("vm: {error:#}");
        ExitCode::from(NO_WORD)
    })
}

/// The files of one boot.
struct Disks {
    dir: tempfile::TempDir,
    image: PathBuf,
}

impl Disks {
    /// Makes the job's disk and the scratch disk.
    fn make(image: &Path, job: &Path) -> anyhow::Result<Disks> {
        let dir = tempfile::Builder::new().prefix("orlop-vm-").tempdir_in("/var/tmp").context("make a folder")?;
        let size = bytes_below(job)? / 1024 * 5 / 4 + 16 * 1024;
        let job_disk = dir.path().join("job.img");
        mke2fs(&["-O", "^has_journal", "-d"], &[job.as_os_str(), job_disk.as_os_str()], Some(&format!("{size}K")))?;
        let scratch = dir.path().join("scratch.img");
        File::create(&scratch).and_then(|file| file.set_len(SCRATCH)).context("make the scratch disk")?;
        mke2fs(&["-E", "lazy_itable_init=1,lazy_journal_init=1"], &[scratch.as_os_str()], None)?;
        Ok(Disks { dir, image: image.to_owned() })
    }

    fn console(&self) -> PathBuf {
        self.dir.path().join("console")
    }

    /// qemu with these disks, its console still to be said.
    fn qemu(&self, accelerator: &str, console: &str) -> Command {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(4));
        let disk = |file: PathBuf, options: &str| format!("file={},if=virtio,format=raw,{options}", file.display());
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-M", &format!("pc,accel={accelerator}"), "-cpu", "max", "-m", MEMORY, "-smp", &cpus.to_string()]);
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        qemu.arg("-kernel").arg(self.image.join("kernel")).arg("-initrd").arg(self.image.join("initrd"));
        qemu.args(["-append", &format!("console=ttyS0 {console} panic=-1 mitigations=off cgroup_no_v1=all psi=1")]);
        qemu.args(["-drive", &disk(self.image.join("root.img"), "readonly=on")]);
        qemu.args(["-drive", &disk(self.dir.path().join("job.img"), "readonly=on")]);
        // The scratch disk does not outlive the guest: nothing has to reach ours.
        qemu.args(["-drive", &disk(self.dir.path().join("scratch.img"), "cache=unsafe")]);
        qemu
    }
}

/// A running qemu, killed when it is dropped.
struct Guest {
    process: Child,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _already_gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn run(image: &Path, job: &Path, deadline: Duration) -> anyhow::Result<ExitCode> {
    ensure!(job.join("run").exists(), "{} is missing", job.join("run").display());
    let disks = Disks::make(image, job)?;
    let mut qemu = disks.qemu(accelerator(image)?, "quiet");
    qemu.arg("-serial").arg(format!("file:{}", disks.console().display())).args(["-serial", "stdio"]);
    // A terminal's ^C is for us; the guest is killed when we end.
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut guest = Guest { process: qemu.spawn().context("start qemu-system-x86_64")? };
    let output = guest.process.stdout.take().context("the guest's output")?;
    let lines = read_lines(output);
    let end = Instant::now() + deadline;
    loop {
        let (code, reason) = match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => match line.split_once(END) {
                Some((rest, code)) => {
                    print(rest)?;
                    let code: u8 = code.trim().parse().context("the guest's last line")?;
                    return Ok(ExitCode::from(code));
                }
                None => {
                    print(&line)?;
                    continue;
                }
            },
            Err(RecvTimeoutError::Timeout) => (TOO_LONG, format!("the guest did not end in {} s", deadline.as_secs())),
            Err(RecvTimeoutError::Disconnected) => (NO_WORD, "the guest ended without a word of the job".to_owned()),
        };
        eprintln!("vm: {reason}; its console ends:\n{}", last_lines(&disks.console(), 50));
        return Ok(ExitCode::from(code));
    }
}

fn shell(image: &Path) -> anyhow::Result<ExitCode> {
    let job = tempfile::tempdir().context("make a folder")?;
    let script = "#!/bin/sh\nexec setsid sh -c 'exec bash -i </dev/ttyS0 >/dev/ttyS0 2>&1'\n";
    tests::write(&job.path().join("run"), script);
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(job.path().join("run"), executable).context("make the job executable")?;
    let disks = Disks::make(image, job.path())?;
    let mut qemu = disks.qemu(accelerator(image)?, "loglevel=4");
    let status = qemu.args(["-serial", "mon:stdio", "-serial", "null"]).status().context("start qemu-system-x86_64")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `kvm` if a guest that has nothing to do turns itself off in time, else `tcg`. Asked once for each boot of the host.
fn accelerator(image: &Path) -> anyhow::Result<&'static str> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the host's boot id")?;
    let answer = image.join(format!("accelerator-{}", boot.trim()));
    let known = fs::read_to_string(&answer).unwrap_or_default();
    if !known.is_empty() {
        return Ok(if known == "kvm" { "kvm" } else { "tcg" });
    }
    let works = Path::new("/dev/kvm").exists() && boots_with_kvm(image)?;
    let word = if works { "kvm" } else { "tcg" };
    tests::write(&answer, word);
    Ok(word)
}

fn boots_with_kvm(image: &Path) -> anyhow::Result<bool> {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-M",
        "pc,accel=kvm",
        "-cpu",
        "host",
        "-m",
        "512",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
    ]);
    qemu.arg("-no-reboot").arg("-kernel").arg(image.join("kernel")).arg("-initrd").arg(image.join("initrd"));
    // Without disks the guest's init can only say so and turn the machine off.
    qemu.args(["-append", "quiet panic=-1"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut guest = Guest { process: qemu.spawn().context("start qemu-system-x86_64")? };
    let start = Instant::now();
    let (sender, receiver) = mpsc::channel();
    let pid = nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(i32::try_from(guest.process.id())?));
    std::thread::spawn(move || {
        let flags = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
        let _told = sender.send(nix::sys::wait::waitid(pid, flags).is_ok());
    });
    let ended = receiver.recv_timeout(PROBE.saturating_sub(start.elapsed())).unwrap_or(false);
    Ok(ended && guest.process.try_wait()?.is_some_and(|status| status.success()))
}

/// The lines of the guest's output as they come, read by a thread of their own so that waiting has a deadline.
fn read_lines(output: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while matches!(output.read_until(b'\n', &mut line), Ok(read) if read > 0) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("write the job's output")
}

fn last_lines(file: &Path, count: usize) -> String {
    let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn mke2fs(options: &[&str], files: &[&std::ffi::OsStr], size: Option<&str>) -> anyhow::Result<()> {
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-t", "ext4"]).args(options).args(files).args(size);
    let done = command.stdin(Stdio::null()).output().context("start mke2fs")?;
    if !done.status.success() {
        bail!("mke2fs: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

/// The sizes of all files below `dir`, with a block for each.
fn bytes_below(dir: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let entry = entry?;
        let metadata = fs::metadata(entry.path()).or_else(|_| entry.metadata())?;
        total += 4096 + if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.len() };
    }
    Ok(total)
}
