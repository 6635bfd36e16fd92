//! KVM or TCG: KVM where a guest boots with it, which a `/dev/kvm` alone does not mean inside a virtual machine.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use crate::{END, guest};
use anyhow::Context as _;

/// How long KVM may take to boot a guest that turns itself off at once; where it works it takes a second.
const PROBE: Duration = Duration::from_secs(5);

/// `kvm` if a guest that has nothing to do turns itself off in time, else `tcg`. Asked once for each boot of the host.
pub(crate) fn choose(image: &Path) -> anyhow::Result<&'static str> {
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
    let mut qemu = guest::bare("q35,accel=kvm");
    qemu.args(["-cpu", "host", "-m", "512"])
        .arg("-kernel")
        .arg(image.join("kernel"))
        .arg("-initrd")
        .arg(image.join("initrd"));
    // Without disks the guest's init can only say that it failed and turn the machine off.
    qemu.args(["-append", "quiet panic=-1", "-serial", "null", "-serial", "stdio"]);
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = qemu.spawn().context("start qemu-system-x86_64 by setpriv")?;
    let mut output = process.stdout.take().context("the guest's output")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = output.read_to_end(&mut text);
        let _too_late = sender.send(read.is_ok() && String::from_utf8_lossy(&text).contains(END));
    });
    let booted = receiver.recv_timeout(PROBE).unwrap_or(false);
    let _already_gone = process.kill();
    process.wait().context("wait for qemu-system-x86_64")?;
    Ok(booted)
}
