//! A running qemu: how it is started, what it says, and that it does not outlive us.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Instant;

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal};

use crate::disks::Disks;

/// The guest's memory, in MiB.
const MEMORY: &str = "4096";
/// An oops or a processor that is stuck ends the guest, with the reason on its console: no test passes after one. An
/// emulated processor may stand still for a while because the host is busy: it has 2 × 30 s.
///
/// Without the tests of itself and of its clock it boots in three quarters of the time.
const KERNEL: &str = "panic=-1 oops=panic softlockup_panic=1 watchdog_thresh=30 mitigations=off \
                      cgroup_no_v1=all psi=1 cryptomgr.notests no_timer_check tsc=reliable";

/// What a guest does.
pub(crate) enum Event {
    /// A line of the job, with its end; the last one may have none.
    Line(String),
    /// The guest has ended.
    Silence,
    /// Nothing happened before the deadline.
    Deadline,
    /// We were told to end.
    Signal(Signal),
}

/// A running qemu, killed when this is dropped.
pub(crate) struct Guest {
    process: Child,
    events: Receiver<Event>,
    sender: Sender<Event>,
    console: Console,
    /// Removed as soon as qemu must have opened them all, so that not even a SIGKILL leaves 16 GiB behind.
    disks: Option<Disks>,
}

impl Guest {
    /// Starts the guest.
    pub(crate) fn power_on(disks: Disks, accelerator: &str) -> anyhow::Result<Guest> {
        let console = File::options().read(true).append(true).create_new(true).open(disks.console());
        let console = Console { file: console.context("make a file for the console")? };
        let mut qemu = qemu(&disks, accelerator, "quiet");
        // Appended to what is there: our own file, which is not truncated.
        qemu.arg("-chardev").arg(format!("file,id=console,append=on,path={}", disks.console().display()));
        qemu.args(["-serial", "chardev:console", "-serial", "stdio"]);
        // A terminal's ^C is for us, and we end the guest.
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut process = qemu.spawn().context("start qemu-system-x86_64 by setpriv")?;
        let output = process.stdout.take().context("the guest's output")?;
        let (sender, events) = mpsc::channel();
        read_lines(output, sender.clone());
        Ok(Guest { process, events, sender, console, disks: Some(disks) })
    }

    /// From now on the signals, which every thread has blocked, are events.
    pub(crate) fn hear_signals(&self, signals: SigSet) {
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            while let Ok(signal) = signals.wait() {
                if sender.send(Event::Signal(signal)).is_err() {
                    return;
                }
            }
        });
    }

    /// Waits for the next thing that happens.
    pub(crate) fn next_event(&mut self, end: Instant) -> Event {
        let event = match self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => Event::Deadline,
            Err(RecvTimeoutError::Disconnected) => Event::Silence,
        };
        if matches!(event, Event::Line(_)) {
            self.disks = None;
        }
        event
    }

    pub(crate) fn console(&self) -> &Console {
        &self.console
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _already_gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// What the guest's kernel and its first process have said.
pub(crate) struct Console {
    file: File,
}

impl Console {
    fn text(&self) -> String {
        let mut bytes = vec![0; self.file.metadata().map_or(0, |metadata| metadata.len()) as usize];
        let read = self.file.read_at(&mut bytes, 0).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }

    pub(crate) fn last_lines(&self, count: usize) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// What the kernel said when it gave up.
    pub(crate) fn panic(&self) -> Option<String> {
        let text = self.text();
        let (_, reason) = text.lines().find_map(|line| line.split_once("Kernel panic - not syncing: "))?;
        Some(format!("the guest's kernel panicked: {}", reason.trim()))
    }
}

/// Runs the guest with its console on our terminal.
pub(crate) fn on_the_terminal(disks: &Disks, accelerator: &str) -> anyhow::Result<ExitStatus> {
    let mut qemu = qemu(disks, accelerator, "loglevel=4");
    qemu.args(["-serial", "mon:stdio", "-serial", "null"]).status().context("start qemu-system-x86_64 by setpriv")
}

/// A qemu that ends with us, whatever ends us: the kernel kills it when the thread that started it is gone.
pub(crate) fn bare(machine: &str) -> Command {
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64", "-M", machine]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    qemu
}

/// qemu with these disks, its serial lines still to be said.
fn qemu(disks: &Disks, accelerator: &str, console: &str) -> Command {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(4));
    let disk =
        |file: std::path::PathBuf, options: &str| format!("file={},if=virtio,format=raw,{options}", file.display());
    let mut qemu = bare(&format!("q35,accel={accelerator}"));
    qemu.args(["-cpu", "max", "-m", MEMORY, "-smp", &cpus.to_string()]);
    qemu.arg("-kernel").arg(disks.image("kernel")).arg("-initrd").arg(disks.image("initrd"));
    qemu.args(["-append", &format!("console=ttyS0 {console} {KERNEL}")]);
    // What the guest writes there goes into a file without a name.
    qemu.args(["-drive", &disk(disks.image("root.img"), "snapshot=on")]).env("TMPDIR", "/var/tmp");
    qemu.args(["-drive", &disk(disks.job(), "readonly=on")]);
    // The scratch disk does not outlive the guest: nothing has to reach ours.
    qemu.args(["-drive", &disk(disks.scratch(), "cache=unsafe")]);
    qemu
}

/// Sends the lines of the job as they come, by a thread of its own so that waiting has a deadline.
fn read_lines(output: impl std::io::Read + Send + 'static, sender: Sender<Event>) {
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while matches!(output.read_until(b'\n', &mut line), Ok(read) if read > 0) {
            if sender.send(Event::Line(String::from_utf8_lossy(&line).into_owned())).is_err() {
                return;
            }
            line.clear();
        }
        let _nobody_listens = sender.send(Event::Silence);
    });
}
