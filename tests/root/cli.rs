//! The runtime's command line as engines use it: verbs, texts, exit codes, streams.
//!
//! Like the suite in `runtime/`, it runs on another runtime too: `ORLOP_RUNTIME=runc`.

mod cgroup_v1;
mod cgroup_v2;
mod cgroups;
mod checkpoint;
mod criu;
mod foreground;
mod killed;
mod life;
mod limits;
mod notify;
mod verbs;

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tests::{Output, World, eventually, output};

use crate::runtime::bundle::Bundle;

/// The script of a container that says that it runs, and stays.
const STAY: &str = "touch /ready; while :; do sleep 1; done";

/// A bundle, and the verbs on its container, which is gone when this is dropped.
struct Container<'a> {
    bundle: Bundle<'a>,
}

impl<'a> Container<'a> {
    fn new(world: &'a World, script: &str) -> Container<'a> {
        Container { bundle: Bundle::new(world, script) }
    }

    /// A container that was created and started, and runs [`STAY`].
    fn started(world: &'a World) -> Container<'a> {
        let container = Container::new(world, STAY);
        container.start();
        container
    }

    /// Creates and starts it; its script makes `/ready`.
    fn start(&self) {
        self.create(&[]).success();
        self.verb(&["start"]).success();
        self.is_ready();
    }

    /// Runs it to its end.
    fn run(&self) -> Output {
        self.bundle.write_config();
        output(self.command(&["run"]).current_dir(&self.bundle.dir))
    }

    /// It stays in the host's.
    fn without_namespace(&mut self, kind: &str) {
        let namespaces = self.bundle.config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != kind);
    }

    fn is_ready(&self) {
        eventually("the program runs", Duration::from_secs(10), || self.bundle.rootfs("ready").exists());
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = self.bundle.runtime();
        command.args(flags).arg(&self.bundle.id);
        command
    }

    /// Runs a verb that leaves nothing behind which holds its streams.
    fn verb(&self, flags: &[&str]) -> Output {
        output(&mut self.command(flags))
    }

    /// Runs create, or another verb that leaves a process behind: that one has the streams too, so they are files.
    fn detached(&self, flags: &[&str]) -> Output {
        self.bundle.write_config();
        let [out, err] = ["stdout", "stderr"].map(|name| self.bundle.dir.join(name));
        let status = self
            .command(flags)
            .current_dir(&self.bundle.dir)
            .stdin(Stdio::null())
            .stdout(File::create(&out).expect("a file for stdout"))
            .stderr(File::create(&err).expect("a file for stderr"))
            .status()
            .expect("start the runtime");
        let [stdout, stderr] = [out, err].map(|path| std::fs::read_to_string(path).expect("what was written"));
        Output { code: status.code().unwrap_or(-1), stdout, stderr }
    }

    fn create(&self, flags: &[&str]) -> Output {
        self.detached(&[&["create"], flags].concat())
    }

    fn exec(&self, flags: &[&str], command: &[&str]) -> Output {
        output(self.command(&[&["exec"], flags].concat()).args(command))
    }

    /// Leaves another process behind in the container.
    fn leave_behind(&self, command: &[&str]) {
        let null = || Stdio::from(File::options().read(true).write(true).open("/dev/null").expect("the null device"));
        let mut exec = self.command(&["exec", "--detach"]);
        exec.args(command).stdin(null()).stdout(null()).stderr(null());
        assert!(exec.status().expect("start the runtime").success());
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.verb(&["state"]).success()).expect("JSON from state")
    }

    fn status(&self) -> String {
        self.state()["status"].as_str().expect("a status").to_owned()
    }

    fn has_stopped(&self) {
        eventually("the container has stopped", Duration::from_secs(10), || self.status() == "stopped");
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.verb(&["delete", "--force"]);
    }
}

/// What only our runtime does, or does in other words, is not asked of another one.
fn is_ours() -> bool {
    std::env::var_os("ORLOP_RUNTIME").is_none()
}

/// Asserts that a verb failed with the exit code, and that what it told holds the text.
#[track_caller]
fn check_refused(done: &Output, code: i32, text: &str) {
    assert_eq!(done.code, code, "{done:?}");
    assert!(done.stderr.contains(text), "{text:?} is not in {done:?}");
}

/// Where a container is counted.
fn cgroup_of(container: &Container<'_>) -> String {
    container.bundle.config["linux"]["cgroupsPath"].as_str().expect("a cgroup path").to_owned()
}
