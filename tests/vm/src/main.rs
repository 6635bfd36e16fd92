//! The first process of the test VM: makes a machine of a kernel, runs one program as root, says how it ended, and turns
//! the machine off.
//!
//! It is the initramfs's `/init`: it loads the modules that the disks need, mounts the root file system, and goes on inside
//! it. The machine has cgroup v2 only. Disks: `vda` the root file system, `vdb` what the host
//! hands in, at `/job`, `vdc` scratch space.
//!
//! Serial lines: `ttyS0` is the console. The job's output goes to `ttyS1` byte for byte, and then one line
//! `\u{1e}exit N`, by which the host knows that the job has ended.

mod modules;
mod mounts;

use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::{WaitStatus, waitpid};
use std::convert::Infallible;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// What the host's runner looks for.
const END: char = '\u{1e}';

/// A step that failed, and why.
type Result<T> = std::result::Result<T, String>;

fn main() {
    let code = match machine().and_then(|()| job()) {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("vm-init: {reason}");
            125
        }
    };
    if let Ok(mut line) = File::options().write(true).open("/dev/ttyS1") {
        // At once, so that nothing that the job left running writes in between. Nobody reads what can't be written; the
        // host then sees a machine that ended without a word.
        let _ = line.write_all(format!("{END}exit {code}\n").as_bytes());
        let _ = nix::sys::termios::tcdrain(&line);
    }
    nix::unistd::sync();
    // The kernel panics if its first process ends, so that there is nothing else to do with an error.
    let Err(error): std::result::Result<Infallible, _> = reboot(RebootMode::RB_POWER_OFF);
    panic!("power off: {error}");
}

/// Everything that an init system would have done before.
fn machine() -> Result<()> {
    mounts::early()?;
    modules::load_all("/modules")?;
    mounts::root()?;
    mounts::system()?;
    modules::load_named(&["overlay", "bridge", "veth", "nf_tables", "loop", "fuse", "virtio_console"])?;
    nix::unistd::sethostname("vm").map_err(|error| format!("set the host's name: {error}"))?;
    mounts::link_up("lo")
}

/// Runs `/job/run` on its serial line and reaps whatever ends until it has.
fn job() -> Result<i32> {
    let line =
        File::options().read(true).write(true).open("/dev/ttyS1").map_err(|error| format!("open ttyS1: {error}"))?;
    mounts::raw(&line)?;
    let copy = || line.try_clone().map_err(|error| format!("open ttyS1: {error}"));
    let mut command = Command::new("/job/run");
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root");
    command
        .env("TERM", "linux")
        .current_dir("/")
        .stdin(copy()?)
        .stdout(copy()?)
        .stderr(Stdio::from(copy()?))
        .process_group(0);
    let job = command.spawn().map_err(|error| format!("start /job/run: {error}"))?;
    let job = i32::try_from(job.id()).unwrap_or(0);
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == job => return Ok(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == job => return Ok(128 + signal as i32),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(format!("wait for the job: {error}")),
        }
    }
}
