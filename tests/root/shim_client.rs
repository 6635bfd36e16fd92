//! A pod of one `orlop-shim`, driven over its socket as the daemon does it, in the messages' own JSON.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sys::poll::{Interest, poll};
use tests::{World, binary, copy_program, eventually, slow};

/// Longer than anything that a test waits for takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A daemon's connection to a shim.
pub(crate) struct Connection {
    socket: OwnedFd,
    last_id: u64,
    replies: BTreeMap<u64, (Value, Vec<OwnedFd>)>,
    events: Vec<Value>,
}

/// A verb's success with the fds beside it, or its failure.
pub(crate) type Answer = Result<(Value, Vec<OwnedFd>), Value>;

impl Connection {
    pub(crate) fn open(path: &Path) -> Self {
        let socket = eventually("the shim listens", LONG, || sys::socket::connect(path));
        Self { socket, last_id: 0, replies: BTreeMap::new(), events: Vec::new() }
    }

    /// Asks without waiting for the answer; the request's id.
    pub(crate) fn ask(&mut self, verb: &Value, fds: &[BorrowedFd<'_>], deadline: Duration) -> u64 {
        self.last_id += 1;
        let request = json!({"id": self.last_id, "deadline_ms": deadline.as_millis() as u64, "verb": verb});
        self.send_raw(request.to_string().as_bytes(), fds);
        self.last_id
    }

    pub(crate) fn send_raw(&mut self, datagram: &[u8], fds: &[BorrowedFd<'_>]) {
        sys::socket::send(&self.socket, datagram, fds).unwrap();
    }

    pub(crate) fn call(&mut self, verb: &Value, fds: &[BorrowedFd<'_>]) -> Answer {
        let id = self.ask(verb, fds, LONG * slow());
        self.answer(id)
    }

    #[track_caller]
    pub(crate) fn answer(&mut self, id: u64) -> Answer {
        let until = Instant::now() + LONG * slow();
        loop {
            if let Some((result, fds)) = self.replies.remove(&id) {
                return match result.get("Ok") {
                    Some(answer) => Ok((answer.clone(), fds)),
                    None => Err(result["Err"].clone()),
                };
            }
            assert!(self.receive(until), "no answer to request {id}; events so far: {:?}", self.events);
        }
    }

    /// Waits for an event of this kind that `fits`, and takes it.
    #[track_caller]
    pub(crate) fn event(&mut self, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + LONG * slow();
        loop {
            let found = self.events.iter().position(|event| {
                event.get(kind).is_some_and(&fits) || (event.as_str() == Some(kind) && fits(&Value::Null))
            });
            if let Some(index) = found {
                return self.events.remove(index).get_mut(kind).map_or(Value::Null, Value::take);
            }
            assert!(self.receive(until), "no event {kind}; events so far: {:?}", self.events);
        }
    }

    /// Everything that has arrived, without waiting.
    pub(crate) fn pending_events(&mut self) -> &[Value] {
        while self.receive(Instant::now()) {}
        &self.events
    }

    /// Whether the shim closes the connection.
    #[track_caller]
    pub(crate) fn is_hung_up(&mut self) -> bool {
        let happened = poll(&[(self.socket.as_fd(), Interest::READ)], Some(LONG * slow())).unwrap();
        assert!(!happened[0].is_empty(), "nothing happens");
        matches!(sys::socket::recv(&self.socket, &mut [0; 1 << 16]), Ok((0, _)) | Err(_))
    }

    /// Takes one message; false if none comes in time.
    #[track_caller]
    fn receive(&mut self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        if poll(&[(self.socket.as_fd(), Interest::READ)], Some(left)).unwrap()[0].is_empty() {
            return false;
        }
        let mut buffer = vec![0; 1 << 16];
        let (length, fds) = sys::socket::recv(&self.socket, &mut buffer).unwrap();
        assert!(length > 0, "the shim hung up; events so far: {:?}", self.events);
        let mut message: Value = serde_json::from_slice(&buffer[..length]).unwrap();
        match message.get_mut("reply") {
            Some(reply) => {
                let id = reply["id"].as_u64().unwrap();
                self.replies.insert(id, (reply["result"].take(), fds));
            }
            None => self.events.push(message["event"].take()),
        }
        true
    }
}

/// A shim with its sandbox and a subscribed connection.
pub(crate) struct Pod {
    pub(crate) dir: PathBuf,
    pub(crate) connection: Connection,
    shim: Child,
    rootfs: PathBuf,
    cgroup: String,
}

/// What a pod is when a test says nothing else.
pub(crate) fn sandbox() -> Value {
    json!({"id": "pod", "network": true, "ipc": true, "hostname": "pod", "shm_bytes": 1 << 20, "reaper": null})
}

impl Pod {
    pub(crate) fn start(world: &World) -> Self {
        Self::start_with(world, |_, _| {})
    }

    /// A pod whose sandbox `change` has made different; it is given the pod's cgroup too.
    pub(crate) fn start_with(world: &World, change: impl FnOnce(&mut Value, &str)) -> Self {
        let mut pod = Self::bare(world);
        pod.connection.call(&json!({"hello": {"version": 1, "subscribe": true}}), &[]).unwrap();
        let mut sandbox = sandbox();
        change(&mut sandbox, &pod.cgroup);
        pod.connection.call(&json!({"start_sandbox": sandbox}), &[]).unwrap();
        pod
    }

    /// A shim that was told nothing yet.
    pub(crate) fn bare(world: &World) -> Self {
        let dir = world.new_dir("shim");
        let log = File::create(dir.join("shim.log")).unwrap();
        let mut command = world.command(binary("orlop-shim"));
        command.arg("--dir").arg(&dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let shim = command.spawn().unwrap();
        let connection = Connection::open(&dir.join("shim.sock"));
        let cgroup = world.cgroup(&format!("pod-{}", world.count()));
        Self { rootfs: rootfs(world), dir, connection, shim, cgroup }
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(&self.dir.join("shim.sock"))
    }

    pub(crate) fn pid(&self) -> i32 {
        self.shim.id().cast_signed()
    }

    pub(crate) fn cgroup_of(&self, container: &str) -> String {
        format!("{}/{container}", self.cgroup)
    }

    pub(crate) fn log_path(&self, container: &str) -> PathBuf {
        self.dir.join("logs").join(container).join("0.log")
    }

    /// Where containers' root file system is on the host.
    pub(crate) fn rootfs(&self) -> &Path {
        &self.rootfs
    }

    /// A container that runs `script`, to be changed and created.
    pub(crate) fn container(&self, id: &str, script: &str) -> Container {
        let create = json!({
            "container": id, "log_path": self.log_path(id), "stdin": false, "stdin_once": false, "seccomp": false,
            "shm": "/dev/shm", "best_effort_oom_score": true,
        });
        Container { create, spec: spec(&self.cgroup_of(id), script) }
    }

    pub(crate) fn create(&mut self, container: &Container) -> Answer {
        let (verb, fds) = container.message(&self.rootfs);
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        self.connection.call(&verb, &fds)
    }

    /// Creates and starts; the pid.
    #[track_caller]
    pub(crate) fn run(&mut self, container: &Container) -> i32 {
        let (answer, _) = self.create(container).unwrap();
        self.start_container(container.create["container"].as_str().unwrap()).unwrap();
        answer["process"]["pid"].as_i64().unwrap() as i32
    }

    pub(crate) fn start_container(&mut self, id: &str) -> Answer {
        self.connection.call(&json!({"start": {"container": id}}), &[])
    }

    pub(crate) fn kill(&mut self, id: &str, signal: i32) -> Answer {
        self.connection.call(&json!({"kill": {"container": id, "signal": signal, "all": false}}), &[])
    }

    pub(crate) fn delete(&mut self, id: &str) -> Answer {
        self.connection.call(&json!({"delete": {"container": id, "force": false}}), &[])
    }

    /// Waits for the container's end.
    #[track_caller]
    pub(crate) fn exit(&mut self, id: &str) -> Value {
        self.connection.event("exited", |event| event["container"] == id)["exit"].take()
    }

    /// Runs a shell script in a container; its output once it has closed it, and its exit.
    #[track_caller]
    pub(crate) fn exec(&mut self, container: &str, exec: &str, script: &str) -> (String, Value) {
        let (read, write) = sys::fd::pipe().unwrap();
        let process = memfd(&process(&["/bin/sh", "-c", script]));
        let verb = exec_verb(container, exec, &json!({"stdin": false, "stdout": true, "stderr": true}), false);
        self.connection.call(&verb, &[process.as_fd(), write.as_fd(), write.as_fd()]).unwrap();
        drop(write);
        let output = std::io::read_to_string(File::from(read)).unwrap();
        let exit = self.connection.event("exec_exited", |event| event["exec"] == exec)["exit"].take();
        (output, exit)
    }

    pub(crate) fn hello(&mut self) -> Value {
        self.connection.call(&json!({"hello": {"version": 1, "subscribe": true}}), &[]).unwrap().0["hello"].take()
    }

    /// How many fds the shim has, with nothing under way.
    pub(crate) fn open_fds(&mut self) -> usize {
        // The answer to one request comes after the work of the one before is done, its fds closed.
        self.hello();
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// The whole lines of the log: a reader may come while the kernel is about to append the end of one.
    pub(crate) fn log(&self, container: &str) -> String {
        let mut log = fs::read_to_string(self.log_path(container)).unwrap();
        log.truncate(log.rfind('\n').map_or(0, |end| end + 1));
        log
    }

    /// What the log holds, without times.
    pub(crate) fn log_lines(&self, container: &str) -> Vec<String> {
        self.log(container).lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    /// What the shim has noted about itself.
    pub(crate) fn notes(&self) -> String {
        fs::read_to_string(self.dir.join("shim.log")).unwrap()
    }

    /// Stops the sandbox, and waits for the shim's end.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.connection.call(&json!("stop_sandbox"), &[]).unwrap();
        self.expect_end();
    }

    /// Waits for the shim to end by itself.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let status = eventually("the shim ends", LONG, || self.shim.try_wait().unwrap());
        assert!(status.success(), "{status}: {}", self.notes());
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.shim.try_wait().unwrap().is_none()
    }
}

/// The request for an exec; its fds go beside it.
pub(crate) fn exec_verb(container: &str, exec: &str, stdio: &Value, terminal: bool) -> Value {
    let seccomp = false;
    json!({"exec": {
        "container": container, "exec": exec, "stdio": stdio, "terminal": terminal, "seccomp": seccomp,
    }})
}

/// A container that is to be.
pub(crate) struct Container {
    /// The `create` message.
    pub(crate) create: Value,
    /// The OCI spec.
    pub(crate) spec: Value,
}

impl Container {
    /// Sets a field of the `create` message.
    pub(crate) fn with(mut self, field: &str, value: Value) -> Self {
        self.create[field] = value;
        self
    }

    /// Sets a place of the spec.
    pub(crate) fn spec(mut self, pointer: &str, value: Value) -> Self {
        *self.spec.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer} in the spec")) = value;
        self
    }

    pub(crate) fn with_terminal(mut self) -> Self {
        self.spec["process"]["terminal"] = true.into();
        self
    }

    /// Gives it the host's PID namespace, or joins another.
    pub(crate) fn with_pid_namespace(mut self, path: Option<String>) -> Self {
        let namespaces = self.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
        namespaces.extend(path.map(|path| json!({"type": "pid", "path": path})));
        self
    }

    pub(crate) fn with_mount(mut self, mount: Value) -> Self {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
        self
    }

    /// The request and its fds.
    pub(crate) fn message(&self, rootfs: &Path) -> (Value, Vec<OwnedFd>) {
        let rootfs = sys::mount::clone_tree(rootfs, false).unwrap();
        (json!({"create": self.create}), vec![memfd(&self.spec), rootfs])
    }
}

/// A sealed memfd with a document.
pub(crate) fn memfd(document: &Value) -> OwnedFd {
    sys::fd::sealed_memfd(c"document", document.to_string().as_bytes(), false).unwrap()
}

/// The OCI process object for a program that runs as root with Docker's default capabilities.
pub(crate) fn process(arguments: &[&str]) -> Value {
    let capabilities = [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
    .map(|name| format!("CAP_{name}"));
    json!({
        "terminal": false, "user": {"uid": 0, "gid": 0}, "args": arguments, "env": ["PATH=/bin"], "cwd": "/",
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        "noNewPrivileges": false,
    })
}

fn spec(cgroup: &str, script: &str) -> Value {
    let tmpfs = |path: &str, options: &[&str]| json!({"destination": path, "type": "tmpfs", "source": "tmpfs", "options": options});
    json!({
        "ociVersion": "1.2.0",
        "process": process(&["/bin/sh", "-c", script]),
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            tmpfs("/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            tmpfs("/tmp", &["nosuid", "nodev"]),
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "cgroup"}],
            "resources": {},
        },
    })
}

/// A root file system with busybox only, one for each World.
fn rootfs(world: &World) -> PathBuf {
    let root = world.dir().join("rootfs");
    if root.exists() {
        return root;
    }
    for directory in ["bin", "dev", "proc", "tmp", "mnt"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    copy_program("/bin/busybox", root.join("bin/busybox"));
    let applets = "cat chmod dd echo false grep head id ls mkdir od printf ps readlink seq sh sleep stty tail tee touch \
                   true tty wc yes hostname ip ipcs kill stat env usleep";
    for applet in applets.split_whitespace() {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    root
}
