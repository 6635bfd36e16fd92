//! The programs that tests start: ours, the pinned upstream clients and Debian's.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The path of one of our binaries (`orlop`, `orlop-shim`, `orlop-runtime`, `orlop-cni`), as `scripts/test` built it.
///
/// # Panics
/// Without `ORLOP_BIN_DIR`, or if the binary is not in it.
pub fn binary(name: &str) -> PathBuf {
    in_dir("ORLOP_BIN_DIR", name)
}

/// The path of an upstream client (`crictl`, `critest`, `ginkgo`, `cnitool`, `cni/bridge`, `containerd`, `ctr`, …) that `scripts/tools` built.
///
/// # Panics
/// Without `ORLOP_TOOLS_DIR`, or if the program is not in it.
pub fn tool(name: &str) -> PathBuf {
    in_dir("ORLOP_TOOLS_DIR", name)
}

/// The path of a peer (`runc`, `kubelet`) that `scripts/tools peers` built.
///
/// # Panics
/// Without `ORLOP_PEERS_DIR`, or if the program is not in it.
pub fn peer(name: &str) -> PathBuf {
    in_dir("ORLOP_PEERS_DIR", name)
}

/// The path of a control plane's program (`etcd`, `kube-apiserver`, `kubectl`, `agnhost`, …) that `scripts/tools cluster`
/// built.
///
/// # Panics
/// Without `ORLOP_CLUSTER_DIR`, or if the program is not in it.
pub fn cluster_program(name: &str) -> PathBuf {
    in_dir("ORLOP_CLUSTER_DIR", name)
}

fn in_dir(variable: &str, name: &str) -> PathBuf {
    let Some(dir) = std::env::var_os(variable) else {
        panic!("{variable} is not set: run the tests through scripts/test, or eval `scripts/test --env`")
    };
    let path = PathBuf::from(dir).join(name);
    assert!(path.exists(), "{} is missing: scripts/test builds it", path.display());
    path
}

/// What a finished program left.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code; 128 + signal if a signal ended it, as a shell counts.
    pub code: i32,
    /// Its standard output, read as UTF-8.
    pub stdout: String,
    /// Its standard error, read as UTF-8.
    pub stderr: String,
}

impl Output {
    /// The standard output of a program that must have succeeded.
    ///
    /// # Panics
    /// If it did not; the message carries both of its streams.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs `command` to its end without standard input.
///
/// # Panics
/// If it cannot be started.
#[track_caller]
pub fn output(command: &mut Command) -> Output {
    let done = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    Output {
        code: exit_code(done.status),
        stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}

/// Creates or replaces the file `path` with `text`; tests have no state that must survive a power cut.
///
/// # Panics
/// If that fails.
#[track_caller]
pub fn write(path: &Path, text: impl AsRef<[u8]>) {
    File::create(path)
        .and_then(|mut file| file.write_all(text.as_ref()))
        .unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}

/// Copies a program, to be executed where it is copied to.
///
/// A process that forks nobody does it: a child that another test makes meanwhile would hold our own copy open for writing
/// until it executes something, and the copy could not be executed (ETXTBSY).
///
/// # Panics
/// If that fails.
#[track_caller]
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let (from, to) = (from.as_ref(), to.as_ref());
    let copied = Command::new("cp").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "copy {} to {}", from.display(), to.display());
}

/// Writes a script, to be executed where it is written; for [`copy_program`]'s reason another process does it.
///
/// # Panics
/// If that fails.
#[track_caller]
pub fn write_program(path: &Path, script: impl AsRef<[u8]>) {
    let mut writer = Command::new("sh");
    writer.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut writer = writer.spawn().expect("start a shell");
    let given = writer.stdin.take().map(|mut stdin| stdin.write_all(script.as_ref()));
    let written = writer.wait().is_ok_and(|status| status.success());
    assert!(written && given.is_some_and(|given| given.is_ok()), "write {}", path.display());
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
