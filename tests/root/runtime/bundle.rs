//! A bundle: a root file system of busybox, a config.json that a test changes, and the runtime's verbs on it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tests::{Output, World, binary, copy_program, eventually, output, write};

/// A bundle in a World, for one container.
pub(crate) struct Bundle<'a> {
    world: &'a World,
    pub(crate) dir: PathBuf,
    pub(crate) config: Value,
    pub(crate) id: String,
}

impl<'a> Bundle<'a> {
    /// A bundle whose container runs `script` in busybox's shell, as Docker would run it.
    pub(crate) fn new(world: &'a World, script: &str) -> Bundle<'a> {
        Bundle::new_in(world, world.new_dir("bundle"), script)
    }

    /// The same in an empty directory `dir`.
    pub(crate) fn new_in(world: &'a World, dir: PathBuf, script: &str) -> Bundle<'a> {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        make_rootfs(&dir.join("rootfs"));
        let id = format!("{}-{}", world.name(), world.count());
        let cgroup = format!("{}/{id}", world.cgroup("runtime"));
        Bundle { world, config: tests::oci::config(&["sh", "-c", script], &cgroup), dir, id }
    }

    /// The root file system on the host.
    pub(crate) fn rootfs(&self, path: &str) -> PathBuf {
        self.dir.join("rootfs").join(path)
    }

    /// Replaces the value at a JSON pointer of the config; in an object it may be new.
    pub(crate) fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer");
        match self.config.pointer_mut(parent).unwrap_or_else(|| panic!("{parent} in the config")) {
            Value::Array(list) => list[key.parse::<usize>().expect("an index")] = value,
            object => object[key] = value,
        }
        self
    }

    /// Adds a mount at the end.
    pub(crate) fn mount(&mut self, mount: Value) -> &mut Self {
        self.config["mounts"].as_array_mut().expect("mounts").push(mount);
        self
    }

    /// Runs the container to its end.
    pub(crate) fn run(&self) -> Output {
        output(&mut self.run_command())
    }

    /// What the verb `state` says.
    pub(crate) fn state(&self) -> Value {
        let text = output(self.runtime().args(["state", &self.id])).success();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Starts the container, whose script has to make `/ready` appear in its root file system, and waits for that.
    pub(crate) fn start(&self) -> Running<'_> {
        let child = self.run_command().stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("start the runtime");
        let running = Running { bundle: self, child };
        eventually("the container is ready", std::time::Duration::from_secs(30), || self.rootfs("ready").exists());
        running
    }

    /// Creates the container, which waits for its start until it is dropped.
    pub(crate) fn create(&self) -> Waiting<'_> {
        self.write_config();
        let pid_file = self.dir.join("pid");
        let mut create = self.runtime();
        create.arg("create").arg("--bundle").arg(&self.dir).arg("--pid-file").arg(&pid_file).arg(&self.id);
        let error = self.dir.join("stderr");
        create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&error).expect("a file for stderr"));
        let status = create.status().expect("start the runtime");
        assert!(status.success(), "{}", fs::read_to_string(error).unwrap_or_default());
        let pid = fs::read_to_string(&pid_file).expect("the pid file").parse().expect("a pid");
        Waiting { bundle: self, pid }
    }

    /// Writes config.json as the test left it.
    pub(crate) fn write_config(&self) {
        write(&self.dir.join("config.json"), self.config.to_string());
    }

    fn run_command(&self) -> Command {
        self.write_config();
        let mut command = self.runtime();
        command.arg("run").arg("--bundle").arg(&self.dir).arg(&self.id);
        command
    }

    /// The runtime under test, with a root directory of its own; the verb is missing.
    pub(crate) fn runtime(&self) -> Command {
        let program = std::env::var_os("ORLOP_RUNTIME").map_or_else(|| binary("orlop-runtime"), PathBuf::from);
        let mut command = self.world.command(program);
        command.arg("--root").arg(self.dir.join("state"));
        command
    }
}

/// A container that runs until this is dropped.
pub(crate) struct Running<'a> {
    bundle: &'a Bundle<'a>,
    child: Child,
}

/// A container that was created and waits for its start; it is gone when this is dropped.
pub(crate) struct Waiting<'a> {
    bundle: &'a Bundle<'a>,
    /// Of its first process.
    pub(crate) pid: i32,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        output(self.bundle.runtime().args(["delete", "--force", &self.bundle.id]));
    }
}

impl Running<'_> {
    /// The container's first process.
    pub(crate) fn pid(&self) -> i32 {
        self.bundle.state()["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a pid")
    }

    /// Runs another process in it: a process object without the fields that every one has.
    pub(crate) fn exec(&self, script: &str, fields: Value) -> Output {
        let mut process =
            json!({"args": ["sh", "-c", script], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]});
        process.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let file = self.bundle.dir.join("process.json");
        write(&file, process.to_string());
        output(self.bundle.runtime().arg("exec").arg("--process").arg(&file).arg(&self.bundle.id))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        output(self.bundle.runtime().args(["kill", &self.bundle.id, "KILL"]));
        if std::thread::panicking() {
            // A container that never came to run was not there to be killed; what is left of it the World removes.
            let _already_gone = self.child.kill();
        }
        let _reaped = self.child.wait();
    }
}

/// What the runtime said on its standard error, which quotes as logfmt does.
pub(crate) fn message(output: &Output) -> String {
    output.stderr.replace("\\\"", "\"").replace("\\\\", "\\")
}

fn make_rootfs(rootfs: &Path) {
    for dir in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        fs::create_dir_all(rootfs.join(dir)).unwrap();
    }
    copy_program("/bin/busybox", rootfs.join("bin/busybox"));
    for applet in [
        "sh", "cat", "chmod", "echo", "env", "grep", "head", "hostname", "id", "ip", "ln", "ls", "mkdir", "mknod",
        "mount", "ps", "pwd", "readlink", "sleep", "stat", "test", "touch", "true", "tty", "ulimit", "umask", "wc",
    ] {
        symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    write(&rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n");
}
