//! NOTIFY_SOCKET: a service manager hears that a container is ready, and nothing else from it.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;
use tests::{World, eventually, output, slow};

use super::{Container, STAY};

const PATIENCE: Duration = Duration::from_secs(10);

/// A service manager, and a container that it waits for.
struct Service<'a> {
    container: Container<'a>,
    manager: UnixDatagram,
    address: PathBuf,
}

impl<'a> Service<'a> {
    fn new(world: &'a World) -> Service<'a> {
        let script = format!("test -S $NOTIFY_SOCKET && echo $NOTIFY_SOCKET >/address; {STAY}");
        let container = Container::new(world, &script);
        let address = container.bundle.dir.join("manager.sock");
        let manager = UnixDatagram::bind(&address).expect("the manager's socket");
        manager.set_read_timeout(Some(PATIENCE * slow())).expect("a timeout");
        container.bundle.write_config();
        Service { container, manager, address }
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = self.container.command(flags);
        command.current_dir(&self.container.bundle.dir).env("NOTIFY_SOCKET", &self.address);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn spawn(&self, flags: &[&str]) -> Child {
        self.command(flags).spawn().expect("start the runtime")
    }

    /// What the program in the container would say.
    fn say(&self, message: &str) {
        let bundle = &self.container.bundle;
        let socket = bundle.dir.join("state").join(&bundle.id).join("notify/notify.sock");
        eventually("the container's socket is there", PATIENCE, || socket.exists());
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.send_to(message.as_bytes(), socket).expect("somebody listens");
    }

    /// Has a hook run after the start until `service.go()`.
    fn with_a_slow_hook(mut self) -> Service<'a> {
        let dir = self.container.bundle.dir.display().to_string();
        mkfifo(&self.container.bundle.dir.join("go"), Mode::S_IRWXU).expect("a FIFO");
        let script = format!("touch {dir}/hook; read -r word <{dir}/go");
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
        self.container.bundle.set("/hooks", json!({"poststart": [hook]}));
        self.container.bundle.write_config();
        self
    }

    /// The container says that it is ready, after something else, and ends, all while the hook runs; its process's number.
    fn is_ready_and_ends_during_the_hook(&self) -> String {
        let dir = &self.container.bundle.dir;
        eventually("the hook runs", PATIENCE, || dir.join("hook").exists());
        self.container.is_ready();
        let pid = self.container.state()["pid"].to_string();
        self.say("STATUS=not yet");
        self.say("READY=1");
        output(self.container.command(&["kill"]).arg("KILL")).success();
        self.container.has_stopped();
        pid
    }

    fn go(&self) {
        tests::write(&self.container.bundle.dir.join("go"), "go\n");
    }

    fn hears(&self) -> String {
        let mut buffer = [0; 256];
        let length = self.manager.recv(&mut buffer).expect("a message in time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// READY, and whose word it was; then the barrier, which ends with our end of its pipe.
    fn hears_that_it_is_ready(&self) {
        assert_eq!(self.hears(), "READY=1\n");
        let pid = self.container.state()["pid"].to_string();
        assert_eq!(self.hears(), format!("MAINPID={pid}\n"));
        // recv without room for fds closes them, as a manager does that has come so far.
        assert_eq!(self.hears(), "BARRIER=1");
    }
}

#[test]
fn run_detached_returns_once_the_container_is_ready() {
    let world = World::enter();
    let service = Service::new(&world);
    let mut run = service.spawn(&["run", "--detach"]);
    service.container.is_ready();
    service.say("STATUS=not yet");
    service.say("READY=1\nSTATUS=up");
    service.hears_that_it_is_ready();
    assert!(run.wait().expect("the runtime's end").success());
    let address = std::fs::read_to_string(service.container.bundle.rootfs("address"));
    assert_eq!(address.expect("the container knows its socket"), "/run/notify/notify.sock\n");
}

#[test]
fn start_waits_for_the_word_of_a_container_that_was_created() {
    let world = World::enter();
    let service = Service::new(&world);
    assert!(service.command(&["create"]).status().expect("start the runtime").success());
    let mut start = service.spawn(&["start"]);
    service.container.is_ready();
    service.say("READY=1");
    service.hears_that_it_is_ready();
    assert!(start.wait().expect("the runtime's end").success());
}

#[test]
fn start_does_not_wait_for_a_container_that_has_ended() {
    let world = World::enter();
    let service = Service::new(&world);
    assert!(service.command(&["create"]).status().expect("start the runtime").success());
    let mut start = service.spawn(&["start"]);
    service.container.is_ready();
    output(service.container.command(&["kill"]).arg("KILL")).success();
    eventually("start has ended", PATIENCE, || start.try_wait().expect("wait").is_some());
}

#[test]
fn start_passes_on_the_word_of_a_container_that_has_ended_and_was_reaped() {
    let world = World::enter();
    let service = Service::new(&world).with_a_slow_hook();
    assert!(service.command(&["create"]).status().expect("start the runtime").success());
    let mut start = service.spawn(&["start"]);
    let pid = service.is_ready_and_ends_during_the_hook();
    eventually("it was reaped", PATIENCE, || !Path::new("/proc").join(&pid).exists());
    service.go();
    assert_eq!(service.hears(), "READY=1\n");
    assert_eq!(service.hears(), format!("MAINPID={pid}\n"));
    assert_eq!(service.hears(), "BARRIER=1");
    assert!(start.wait().expect("the runtime's end").success());
}

#[test]
fn run_in_the_foreground_passes_on_the_word_of_a_container_that_has_ended() {
    let world = World::enter();
    let service = Service::new(&world).with_a_slow_hook();
    let mut run = service.spawn(&["run"]);
    service.is_ready_and_ends_during_the_hook();
    service.go();
    assert_eq!(service.hears(), "READY=1\n");
    assert_eq!(service.hears(), format!("MAINPID={}\n", run.id()));
    assert_eq!(run.wait().expect("the runtime's end").code(), Some(137));
}

#[test]
fn run_in_the_foreground_passes_the_word_on_while_it_stands_in() {
    let world = World::enter();
    let service = Service::new(&world);
    let mut run = service.spawn(&["run"]);
    service.container.is_ready();
    service.say("READY=1");
    assert_eq!(service.hears(), "READY=1\n");
    // The one that the manager sees end.
    assert_eq!(service.hears(), format!("MAINPID={}\n", run.id()));
    output(service.container.command(&["kill"]).arg("KILL")).success();
    assert_eq!(run.wait().expect("the runtime's end").code(), Some(137));
}
