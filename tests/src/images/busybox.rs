//! A base image from Debian's `busybox-static` and our own `workload` program.
//!
//! `busybox` lacks some programs that upstream suites call, and its shell runs applets without looking at `PATH`; the
//! multi-call `workload` program fills both gaps.

use std::path::Path;

use super::{Blob, Compression, Image, Layer};
use crate::{binary, output};

/// What `workload` is called as, in place of busybox's applet or where busybox has none.
const OURS: [&str; 4] = ["sh", "pgrep", "ipcs", "workload"];

/// The image most tests run: a shell, the usual commands, `/tmp`, the users `root`, `daemon` and `nobody`.
pub fn busybox() -> Image {
    Image::new(vec![busybox_layer(), workload_layer()], &["sh"])
}

/// The base system: directories, accounts, busybox and a hard link per applet.
pub fn busybox_layer() -> Blob {
    let mut layer = Layer::new();
    for (dir, mode) in [
        ("bin", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("root", 0o700),
        ("tmp", 0o1777),
        ("usr", 0o755),
        ("usr/sbin", 0o755),
        ("var", 0o755),
        ("var/run", 0o755),
    ] {
        layer = layer.dir(dir, mode);
    }
    layer = layer
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n")
        .file("etc/group", 0o644, "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n")
        .file("bin/busybox", 0o755, read(Path::new("/bin/busybox")));
    for applet in applets() {
        layer = layer.hard_link(&format!("bin/{applet}"), "bin/busybox");
    }
    layer.finish(Compression::Gzip)
}

/// `workload` under the names that a test image needs beyond busybox.
pub fn workload_layer() -> Blob {
    let mut layer = Layer::new().dir("bin", 0o755).file("bin/workload", 0o755, read(&binary("workload")));
    for name in OURS.iter().filter(|name| **name != "workload") {
        layer = layer.hard_link(&format!("bin/{name}"), "bin/workload");
    }
    layer.finish(Compression::Gzip)
}

fn applets() -> Vec<String> {
    let list = output(std::process::Command::new("/bin/busybox").arg("--list")).success();
    list.lines().filter(|name| *name != "busybox" && !OURS.contains(name)).map(str::to_owned).collect()
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}
