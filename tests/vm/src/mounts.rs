//! The machine's file systems, its loopback interface, its serial line.

use crate::Result;
use nix::mount::{MsFlags, mount};
use std::fs::{self, File};
use std::path::Path;

const NONE: Option<&str> = None;

/// What loading modules and finding disks needs.
pub(crate) fn early() -> Result<()> {
    at("devtmpfs", "/dev", "devtmpfs", MsFlags::MS_NOSUID, NONE)?;
    at("proc", "/proc", "proc", MsFlags::empty(), NONE)
}

/// Mounts the root file system and goes into it. What is written is thrown away by qemu, so that every boot starts from the
/// same; an overlay here would take one of the two levels that the kernel allows from those who test overlays.
pub(crate) fn root() -> Result<()> {
    at("/dev/vda", "/root", "ext4", MsFlags::empty(), NONE)?;
    // switch_root(8): a root that is an initramfs can't be pivoted away, only mounted over.
    let failed = |step: &str, error: nix::Error| format!("{step}: {error}");
    std::env::set_current_dir("/root").map_err(|error| format!("enter the root file system: {error}"))?;
    mount(Some("."), "/", NONE, MsFlags::MS_MOVE, NONE).map_err(|error| failed("move the root file system", error))?;
    nix::unistd::chroot(".").map_err(|error| failed("change the root", error))?;
    std::env::set_current_dir("/").map_err(|error| format!("enter the root: {error}"))
}

/// What a running system has mounted; cgroup v2 alone, as most nodes have it.
pub(crate) fn system() -> Result<()> {
    let hidden = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    at("proc", "/proc", "proc", hidden, NONE)?;
    at("sysfs", "/sys", "sysfs", hidden, NONE)?;
    at("cgroup2", "/sys/fs/cgroup", "cgroup2", hidden, Some("nsdelegate"))?;
    at("bpf", "/sys/fs/bpf", "bpf", hidden, NONE)?;
    at("securityfs", "/sys/kernel/security", "securityfs", hidden, NONE)?;
    at("devtmpfs", "/dev", "devtmpfs", MsFlags::MS_NOSUID, NONE)?;
    at("devpts", "/dev/pts", "devpts", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, Some("gid=5,mode=620,ptmxmode=666"))?;
    at("mqueue", "/dev/mqueue", "mqueue", hidden, NONE)?;
    at("tmpfs", "/dev/shm", "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=1777"))?;
    at("tmpfs", "/run", "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))?;
    at("/dev/vdb", "/job", "ext4", MsFlags::MS_RDONLY, Some("noload"))?;
    // A thread that zeroes what a sparse file has as zeros already would keep a processor busy through the first minutes.
    at("/dev/vdc", "/scratch", "ext4", MsFlags::empty(), Some("noinit_itable"))?;
    for (dir, target) in [("/scratch/tmp", "/tmp"), ("/scratch/var-tmp", "/var/tmp"), ("/scratch/lib", "/var/lib")] {
        make(dir)?;
        at(dir, target, "", MsFlags::MS_BIND, NONE)?;
    }
    // As systemd leaves it: mounts made on the host are seen in mount namespaces made later.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE).map_err(|error| format!("share mounts: {error}"))
}

/// Makes the mount point and mounts.
fn at(source: &str, target: &str, kind: &str, flags: MsFlags, data: Option<&str>) -> Result<()> {
    make(target)?;
    mount(Some(source), target, Some(kind), flags, data).map_err(|error| format!("mount {source} at {target}: {error}"))
}

fn make(dir: &str) -> Result<()> {
    if Path::new(dir).is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(|error| format!("make {dir}: {error}"))
}

/// Turns an interface on, with the program that the root file system has.
pub(crate) fn link_up(name: &str) -> Result<()> {
    let status = std::process::Command::new("/sbin/ip").args(["link", "set", name, "up"]).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("ip link set {name} up: {other:?}")),
    }
}

/// Bytes pass a serial line as they are: no echo, no carriage returns.
pub(crate) fn raw(line: &File) -> Result<()> {
    use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
    let failed = |error: nix::Error| format!("set up ttyS1: {error}");
    let mut settings = tcgetattr(line).map_err(failed)?;
    cfmakeraw(&mut settings);
    tcsetattr(line, SetArg::TCSANOW, &settings).map_err(failed)
}
