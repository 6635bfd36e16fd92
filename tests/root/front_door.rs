//! `orlop` as a person, a service manager and a script meet it: starting, stopping, refusing, `orlop image`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::ContainerState;
use serde_json::Value;
use tests::{CriDaemon, Output, Registry, World, binary, eventually, images, output, pods, write};

const IMAGE: &str = "registry.example/base:1";

/// `orlop` on the directories of `daemon`.
fn orlop(world: &World, daemon: &CriDaemon<'_>) -> Command {
    let mut command = world.command(binary("orlop"));
    for (flag, name) in
        [("--config", "config.toml"), ("--root", "root"), ("--state", "state"), ("--socket", "orlop.sock")]
    {
        command.arg(flag).arg(daemon.dir().join(name));
    }
    command
}

fn image(world: &World, daemon: &CriDaemon<'_>, arguments: &[&str]) -> Output {
    output(orlop(world, daemon).arg("image").args(arguments))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

#[test]
fn a_service_manager_is_told_of_start_and_stop_and_a_stop_leaves_pods_alone() {
    let world = World::enter();
    let registry = Registry::start(&world);
    registry.add("base", "1", &images::busybox());
    let mut daemon = CriDaemon::start(&world);
    daemon.mirror("registry.example", &registry.host());
    let client = daemon.client();
    client.pull(IMAGE).expect("pull");
    let config = pods::pod("pod", &daemon.logs(), &world.cgroup("pod"));
    let pod = client.run_pod(&config).expect("run a pod");
    let container = client.create(&pod, &config, &pods::container("c", IMAGE, &["sleep", "1000"])).expect("create");
    client.start(&container).expect("start");
    let pid = client.info(&container).expect("its info")["pid"].as_u64().expect("its pid");
    daemon.terminate();

    let manager = UnixDatagram::bind(daemon.dir().join("notify")).expect("a service manager's socket");
    manager.set_read_timeout(Some(Duration::from_secs(20) * tests::slow())).expect("its timeout");
    let told = || {
        let mut message = [0; 4096];
        let length = manager.recv(&mut message).expect("a message for the service manager");
        String::from_utf8_lossy(&message[..length]).trim().to_owned()
    };
    let log = fs::File::create(daemon.dir().join("supervised.log")).expect("its log");
    let mut command = orlop(&world, &daemon);
    command.arg("cri").env("NOTIFY_SOCKET", daemon.dir().join("notify")).stdin(Stdio::null()).stderr(log);
    let mut supervised = command.spawn().expect("start orlop");
    assert_eq!(told(), "READY=1");
    // Ready is no promise: it answers, and only root may ask.
    assert_eq!(daemon.client().status(&container).expect("its status").state(), ContainerState::ContainerRunning);
    assert_eq!(mode(&daemon.socket()), 0o600);
    assert_eq!((mode(&daemon.dir().join("root")), mode(&daemon.dir().join("state"))), (0o700, 0o700));
    // An event stream has no end of its own and must not keep the daemon.
    let follower = daemon.client();
    let stream = follower.runtime(async |mut client| client.get_container_events(proto::GetEventsRequest {}).await);
    let _stream = stream.expect("an event stream");
    kill(Pid::from_raw(i32::try_from(supervised.id()).expect("a pid")), Signal::SIGTERM).expect("SIGTERM");
    assert_eq!(told(), "STOPPING=1");
    let status = eventually("orlop ends", Duration::from_secs(20), || supervised.try_wait().ok().flatten());
    assert!(status.success(), "{status}");
    assert!(!daemon.socket().exists(), "the socket stays");
    assert!(Path::new(&format!("/proc/{pid}")).exists(), "the container is gone");
    daemon.restart();
    let info = daemon.client().info(&container).expect("its info");
    assert_eq!(info["pid"].as_u64(), Some(pid));
}

#[test]
fn a_second_daemon_on_the_same_directories_is_refused() {
    let world = World::enter();
    let daemon = CriDaemon::start(&world);
    let second = output(orlop(&world, &daemon).arg("cri"));
    assert_eq!(second.code, 1, "{}", second.stderr);
    assert!(second.stderr.contains("another daemon"), "{}", second.stderr);
    // With a socket of its own it still may not touch the same records.
    let other = daemon.dir().join("other.sock").display().to_string();
    let second = output(orlop(&world, &daemon).args(["--socket", &other, "cri"]));
    assert_eq!(second.code, 2, "a flag that is given twice: {}", second.stderr);
    let mut command = world.command(binary("orlop"));
    for (flag, name) in
        [("--config", "config.toml"), ("--root", "root"), ("--state", "state2"), ("--socket", "other.sock")]
    {
        command.arg(flag).arg(daemon.dir().join(name));
    }
    let second = output(command.arg("cri"));
    assert_eq!(second.code, 1, "{}", second.stderr);
    assert!(second.stderr.contains("another daemon holds it"), "{}", second.stderr);
    let version = daemon.client().runtime(async |mut client| client.version(proto::VersionRequest::default()).await);
    assert_eq!(version.expect("the first one still serves").runtime_api_version, "v1");
}

#[test]
fn a_configuration_with_a_mistake_is_refused_with_its_place_and_the_key_that_was_meant() {
    let world = World::enter();
    let file = world.dir().join("config.toml");
    let run = || output(world.command(binary("orlop")).arg("--config").arg(&file).args(["config", "show"]));
    write(&file, "[cni]\nconf_dirs = \"/x\"\n");
    let refused = run();
    assert_eq!(refused.code, 78, "{}", refused.stderr);
    for word in ["cni.conf_dirs", "conf_dir", "config.toml", "2"] {
        assert!(refused.stderr.contains(word), "{word:?} is missing in {}", refused.stderr);
    }
    write(&file, "[cni]\nconf_dir = \"/x\"\n");
    let shown = output(world.command(binary("orlop")).arg("--config").arg(&file).args(["config", "show", "--origin"]));
    let shown = shown.success();
    let line = shown.lines().find(|line| line.contains("/x")).expect("the setting");
    assert!(line.contains(&format!("{}:2", file.display())), "{line}");
}

#[test]
fn images_are_pulled_listed_and_removed_through_the_daemon_and_without_one() {
    let world = World::enter();
    let registry = Registry::start(&world);
    let base = images::busybox();
    registry.add("base", "1", &base);
    let mut daemon = CriDaemon::start(&world);
    daemon.mirror("registry.example", &registry.host());
    for served in [true, false] {
        if !served {
            daemon.terminate();
        }
        let pulled = image(&world, &daemon, &["pull", IMAGE]);
        assert_eq!(pulled.stdout.trim(), base.id(), "the id alone is the output: {}", pulled.stderr);
        assert!(!pulled.stderr.contains('\u{1b}'), "a log is no terminal: {}", pulled.stderr);
        if served {
            assert_eq!(daemon.client().list_images().expect("list images")[0].id, base.id());
        }
        let table = image(&world, &daemon, &["ls"]).success();
        assert!(table.contains("registry.example/base") && table.lines().count() == 2, "{table}");
        let json: Value = serde_json::from_str(&image(&world, &daemon, &["ls", "-o", "json"]).success()).expect("JSON");
        assert_eq!(json["images"][0]["id"], base.id());
        image(&world, &daemon, &["rm", IMAGE]).success();
        let again = image(&world, &daemon, &["rm", IMAGE]);
        assert_eq!(again.code, 1);
        assert!(again.stderr.contains(IMAGE), "{}", again.stderr);
        let missing = image(&world, &daemon, &["pull", "registry.example/absent:1"]);
        assert_eq!(missing.code, 1);
        assert!(missing.stderr.contains("registry.example/absent:1"), "{}", missing.stderr);
    }
}

#[test]
fn a_pull_shows_its_progress_on_a_terminal() {
    let world = World::enter();
    let registry = Registry::start(&world);
    registry.add("base", "1", &images::busybox());
    let daemon = CriDaemon::start(&world);
    daemon.mirror("registry.example", &registry.host());
    let mut command = orlop(&world, &daemon);
    command.args(["image", "pull", IMAGE]);
    let words = [command.get_program()].into_iter().chain(command.get_args()).map(|word| word.to_string_lossy());
    let line = words.collect::<Vec<_>>().join(" ");
    // script(1) gives it a terminal.
    let seen = output(world.command("script").args(["-qec", &line, "/dev/null"]).env("TERM", "xterm")).success();
    let layer = &images::busybox_layer().digest["sha256:".len()..][..12];
    for word in [layer, "done", "\u{1b}["] {
        assert!(seen.contains(word), "{word:?} is missing in {seen:?}");
    }
}
