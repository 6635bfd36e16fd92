//! What hurts people in other runtimes, and what they get here instead, each through the CRI alone: a dead volume that
//! holds nobody's name, a network that says why it is not ready, programs that say why they can't run.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use proto::{ContainerState, PodSandboxConfig};
use sys::mount::{Fs, MountFlags};
use tests::{Cri, CriDaemon, Registry, World, eventually, images, output, pods, write, write_program};
use tonic::{Code, Request, Status};

const IMAGE: &str = "registry.example/base:1";

/// How long an impatient client waits. The daemon answers a tenth of it earlier, and a second at most: if it stood still for
/// longer, the client would speak for itself.
const IMPATIENT: Duration = Duration::from_secs(10);

fn conflist(daemon: &CriDaemon<'_>) -> PathBuf {
    daemon.dir().join("cni-conf/10-bridge.conflist")
}

/// An executable script among the plugins.
fn plugin(daemon: &CriDaemon<'_>, name: &str, script: &str) {
    let path = daemon.dir().join("cni-bin").join(name);
    write_program(&path, script);
}

fn pod_config(world: &World, daemon: &CriDaemon<'_>, name: &str) -> PodSandboxConfig {
    pods::pod(name, &daemon.logs().join(name), &world.cgroup(name))
}

/// A daemon with the base image.
fn node(world: &World) -> (Registry, CriDaemon<'_>, Cri) {
    let registry = Registry::start(world);
    registry.add("base", "1", &images::busybox());
    let daemon = CriDaemon::start(world);
    daemon.mirror("registry.example", &registry.host());
    let client = daemon.client();
    client.pull(IMAGE).expect("pull the base image");
    (registry, daemon, client)
}

/// Checks that a deadline's error says where the time went: in a stage that is called like this, for about as long as the
/// client waited.
#[track_caller]
fn assert_tells_stages(refusal: &Status, stage: &str) {
    let message = refusal.message();
    assert_eq!(refusal.code(), Code::DeadlineExceeded, "{message}");
    assert!(message.contains(&format!("in stage \"{stage}")), "{message}");
    let (_, stages) = message.split_once("(stages: ").unwrap_or_else(|| panic!("no stages: {message}"));
    let stages: Vec<(&str, u64)> = stages
        .trim_end_matches(')')
        .split(", ")
        .map(|told| {
            let (name, ms) = told.trim_end_matches(" ms").rsplit_once(' ').expect("a name and a number");
            (name, ms.parse().unwrap_or_else(|_| panic!("{told:?}")))
        })
        .collect();
    let total: u64 = stages.iter().map(|(_, ms)| ms).sum();
    let (last, longest) = stages.last().expect("a stage");
    assert!(last.starts_with(stage) && *longest > 1000 && total >= *longest, "{message}");
}

/// A file system whose server never answers.
struct DeadFileSystem {
    path: PathBuf,
    server: Option<File>,
}

impl DeadFileSystem {
    fn mount(path: PathBuf) -> DeadFileSystem {
        let server = File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
        let fs = Fs::open("fuse").expect("fuse");
        fs.set_string("source", "dead").expect("its source");
        if fs.set_fd("fd", &server).is_err() {
            // Kernels before 6.x take the number as text.
            fs.set_string("fd", &sys::fd::number(&server).to_string()).expect("its server");
        }
        for (key, value) in [("rootmode", "40000"), ("user_id", "0"), ("group_id", "0")] {
            fs.set_string(key, value).expect(key);
        }
        sys::mount::attach(&fs.mount(MountFlags::empty()).expect("mount it"), &path).expect("attach it");
        DeadFileSystem { path, server: Some(server) }
    }

    /// Everyone who waits gets an error, and what was below is there again.
    fn end(&mut self) {
        self.server = None;
        let _already = sys::mount::umount_detach(&self.path);
    }
}

impl Drop for DeadFileSystem {
    fn drop(&mut self) {
        self.end();
    }
}

/// A process that is stopped until the end of its scope.
struct Frozen(String);

impl Frozen {
    fn stop(pid: &str) -> Frozen {
        output(Command::new("kill").args(["-STOP", pid])).success();
        Frozen(pid.to_owned())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        output(Command::new("kill").args(["-CONT", &self.0])).success();
    }
}

#[test]
fn a_deadline_of_any_request_names_the_stage_that_it_spent_itself_in() {
    let world = World::enter();
    let (_registry, daemon, client) = node(&world);
    let pod_config = pod_config(&world, &daemon, "pod");
    let pod = client.run_pod(&pod_config).expect("run a pod");
    let create = |name, command: &[&str]| {
        client.create(&pod, &pod_config, &pods::container(name, IMAGE, command)).expect("create a container")
    };
    let (waiting, running) = (create("waiting", &["true"]), create("running", &["sleep", "1000"]));
    client.start(&running).expect("start it");
    let pid = client.info(&running).expect("its info")["pid"].as_u64().expect("its pid");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("its parent").trim();

    let frozen = Frozen::stop(shim);
    let mut start = Request::new(proto::StartContainerRequest { container_id: waiting });
    start.set_timeout(IMPATIENT);
    let refusal = client.runtime(async |mut client| client.start_container(start).await).expect_err("no answer");
    assert_tells_stages(&refusal, "start in the shim");
    let (cmd, container_id) = (vec!["true".to_owned()], running.clone());
    let mut exec = Request::new(proto::ExecSyncRequest { container_id, cmd, timeout: 0 });
    exec.set_timeout(IMPATIENT);
    let refusal = client.runtime(async |mut client| client.exec_sync(exec).await).expect_err("no answer");
    assert_tells_stages(&refusal, "exec in the shim");
    let mut stop = Request::new(proto::StopPodSandboxRequest { pod_sandbox_id: pod.clone() });
    stop.set_timeout(IMPATIENT);
    let refusal = client.runtime(async |mut client| client.stop_pod_sandbox(stop).await).expect_err("no answer");
    assert_tells_stages(&refusal, "");
    drop(frozen);

    client.stop_pod(&pod).expect("stop the pod");
    client.remove_pod(&pod).expect("remove it");
}

#[test]
fn a_container_on_a_dead_volume_is_joined_by_its_retry_and_holds_its_name_no_longer_than_it_hangs() {
    let world = World::enter();
    let (_registry, daemon, client) = node(&world);
    let pod_config = pod_config(&world, &daemon, "pod");
    let pod = client.run_pod(&pod_config).expect("run a pod");
    let volume = world.new_dir("volume");
    fs::create_dir(volume.join("data")).expect("what the dead file system covers");
    let mut dead = DeadFileSystem::mount(volume.clone());
    let mut config = pods::container("c", IMAGE, &["true"]);
    config.mounts = vec![proto::Mount {
        container_path: "/data".to_owned(),
        host_path: volume.join("data").display().to_string(),
        ..Default::default()
    }];
    let create = |timeout: Option<Duration>| {
        let mut request = Request::new(proto::CreateContainerRequest {
            pod_sandbox_id: pod.clone(),
            config: Some(config.clone()),
            sandbox_config: Some(pod_config.clone()),
        });
        timeout.into_iter().for_each(|timeout| request.set_timeout(timeout));
        let answer = client.runtime(async |mut client| client.create_container(request).await);
        answer.map(|answer| answer.container_id)
    };
    for _retry in 0..2 {
        let refusal = create(Some(IMPATIENT)).expect_err("the volume hangs");
        assert_tells_stages(&refusal, "");
    }
    // Nothing else waits for it.
    let other =
        client.create(&pod, &pod_config, &pods::container("other", IMAGE, &["true"])).expect("another container");
    client.start(&other).expect("start it");

    let (patient, pod_of_retry, config_of_retry, sandbox) = (daemon.client(), &pod, &config, &pod_config);
    let refusal = std::thread::scope(|scope| {
        let retry = scope.spawn(move || patient.create(pod_of_retry, sandbox, config_of_retry));
        dead.end();
        retry.join().expect("the retry's thread")
    });
    // It joined the one that hung, or came after its end: never is it told that its name is taken.
    if let Err(refusal) = refusal {
        assert!(refusal.message().contains(&format!("open volume {}", volume.display())), "{}", refusal.message());
    }
    let id = create(None).expect("the volume is back");
    client.start(&id).expect("start it");
}

/// The NetworkReady condition: whether, and why not.
fn network_ready(client: &Cri) -> (bool, String) {
    let request = proto::StatusRequest { verbose: false };
    let answer = client.runtime(async |mut client| client.status(request).await).expect("Status");
    let conditions = answer.status.expect("a status").conditions;
    let network = conditions.into_iter().find(|condition| condition.r#type == "NetworkReady").expect("NetworkReady");
    (network.status, network.message)
}

#[test]
fn the_network_says_why_it_is_not_ready_and_becomes_ready_without_a_restart() {
    let world = World::enter();
    let daemon = CriDaemon::start(&world);
    let client = daemon.client();
    let network = fs::read_to_string(conflist(&daemon)).expect("the conflist");
    assert_eq!(network_ready(&client), (true, String::new()));
    let not_ready = |words: &[&str]| {
        let (ready, message) = network_ready(&client);
        assert!(!ready, "{words:?}");
        words.iter().for_each(|word| assert!(message.contains(word), "{word:?} is missing in {message:?}"));
        let refusal = client.run_pod(&pod_config(&world, &daemon, "refused")).expect_err("no network, no pod");
        assert_eq!(refusal.code(), Code::Unavailable, "{}", refusal.message());
        words.iter().for_each(|word| assert!(refusal.message().contains(word), "{}", refusal.message()));
    };
    fs::remove_file(conflist(&daemon)).expect("remove the conflist");
    let dir = daemon.dir().join("cni-conf");
    not_ready(&[&format!("no *.conflist in {} (dir empty since ", dir.display()), "UTC; want e.g. flannel)"]);
    write(&conflist(&daemon), "{\n  \"name\" 1}");
    not_ready(&["10-bridge.conflist: expected `:` at line 2 column 10"]);
    write(&conflist(&daemon), network.replace("portmap", "nosuch"));
    not_ready(&["plugin \"nosuch\"", "10-bridge.conflist", &daemon.dir().join("cni-bin").display().to_string()]);
    write(&conflist(&daemon), network);
    assert_eq!(network_ready(&client), (true, String::new()));
    client.run_pod(&pod_config(&world, &daemon, "pod")).expect("a pod as soon as there is a network");
}

#[test]
fn what_a_plugin_answers_to_status_is_passed_on() {
    let world = World::enter();
    let daemon = CriDaemon::start(&world);
    let client = daemon.client();
    plugin(
        &daemon,
        "unready",
        "#!/bin/sh\ncat >/dev/null\n\
         if [ \"$CNI_COMMAND\" = STATUS ]; then echo '{\"code\": 50, \"msg\": \"the agent on node a is not up\"}'; exit 1; fi\n",
    );
    write(&conflist(&daemon), r#"{"cniVersion": "1.1.0", "name": "n", "plugins": [{"type": "unready"}]}"#);
    let (ready, message) = network_ready(&client);
    assert!(!ready && message.contains("the agent on node a is not up") && message.contains("unready"), "{message}");
}

#[test]
fn a_bridge_with_another_address_names_both_the_file_and_the_remedy() {
    let world = World::enter();
    let daemon = CriDaemon::start(&world);
    let client = daemon.client();
    client.run_pod(&pod_config(&world, &daemon, "first")).expect("a pod");
    let network = fs::read_to_string(conflist(&daemon)).expect("the conflist");
    let (before, rest) = network.split_once("\"subnet\": \"").expect("a subnet");
    let (subnet, rest) = rest.split_once('"').expect("a subnet");
    write(&conflist(&daemon), format!("{before}\"subnet\": \"10.250.0.0/16\"{rest}"));
    let refusal = client.run_pod(&pod_config(&world, &daemon, "second")).expect_err("the bridge has an address");
    let have = subnet.replace(".0.0/16", ".0.1/16");
    let remedy = format!("ip address del {have} dev orlop");
    for word in ["already has an IP address", "10.250.0.1/16", have.as_str(), "10-bridge.conflist", remedy.as_str()] {
        assert!(refusal.message().contains(word), "{word:?} is missing in {}", refusal.message());
    }
}

#[test]
fn a_pod_needs_no_pause_image_and_kubeadm_is_still_told_one() {
    let world = World::enter();
    let daemon = CriDaemon::start(&world);
    let client = daemon.client();
    let pod = client.run_pod(&pod_config(&world, &daemon, "pod")).expect("a pod without any image");
    assert_eq!(client.pod_status(&pod).expect("its status").state, i32::from(proto::PodSandboxState::SandboxReady));
    assert!(client.list_images().expect("list images").is_empty());
    let request = proto::StatusRequest { verbose: true };
    let answer = client.runtime(async |mut client| client.status(request).await).expect("Status");
    let config: serde_json::Value = serde_json::from_str(&answer.info["config"]).expect("its configuration");
    assert!(config["sandboxImage"].as_str().is_some_and(|image| image.starts_with("registry.k8s.io/pause:")));
}

/// A registry that answers every request in the same way.
struct Stubborn {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stubborn {
    fn start(answer: &'static str) -> Stubborn {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if ends.load(Ordering::Acquire) {
                    return;
                }
                let Ok(mut connection) = connection else { continue };
                let mut request = [0; 4096];
                let _request = connection.read(&mut request);
                let _gone = connection.write_all(answer.as_bytes());
            }
        });
        Stubborn { address, over, thread: Some(thread) }
    }
}

impl Drop for Stubborn {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let _wakes = TcpStream::connect(self.address);
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

#[test]
fn a_rate_limit_reaches_the_client_with_its_numbers_and_whether_the_pull_was_anonymous() {
    let world = World::enter();
    let daemon = CriDaemon::start(&world);
    let registry = Stubborn::start(
        "HTTP/1.1 429 Too Many Requests\r\nRateLimit-Limit: 100;w=21600\r\nRetry-After: 2460\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n",
    );
    let host = registry.address.to_string();
    daemon.mirror("limited.example", &host);
    let refusal = daemon.client().pull("limited.example/app:1").expect_err("a rate limit");
    let matched = format!("anonymous: no credentials matched {host}");
    for word in ["RegistryUnavailable", "limited.example/app:1", "limit 100 per 6 h", "resets in 41 min", &matched] {
        assert!(refusal.message().contains(word), "{word:?} is missing in {}", refusal.message());
    }
}

#[test]
fn a_program_that_cannot_run_says_why_to_the_client_of_start_and_in_the_status() {
    let world = World::enter();
    let (registry, daemon, client) = node(&world);
    let mut arm = fs::read("/bin/busybox").expect("busybox");
    arm[18] = 183;
    // A program of this machine: dynamically linked, which the image is not made for.
    let glibc = fs::read("/bin/ls").expect("ls");
    let programs = images::Layer::new()
        .file("entrypoint.sh", 0o755, "#!/bin/bash\r\necho hi\r\n")
        .file("script.py", 0o755, "#!/usr/bin/python3\n")
        .file("empty", 0o755, "")
        .file("text", 0o755, "just words\n")
        .file("arm", 0o755, arm)
        .file("glibc", 0o755, glibc)
        .dir("lib", 0o755)
        .file("lib/ld-musl-x86_64.so.1", 0o755, "")
        .finish(images::Compression::Gzip);
    registry.add("broken", "1", &images::Image::new(vec![images::busybox_layer(), programs], &["sh"]));
    let image = "registry.example/broken:1";
    client.pull(image).expect("pull");
    let pod_config = pod_config(&world, &daemon, "pod");
    let pod = client.run_pod(&pod_config).expect("run a pod");
    for (number, (program, why)) in [
        ("nope", "executable file not found in $PATH"),
        ("/entrypoint.sh", r#"interpreter "/bin/bash\r" not found (CRLF)"#),
        ("/script.py", r#"interpreter "/usr/bin/python3" not found"#),
        ("/empty", "exec format error: the file is empty"),
        ("/text", "exec format error: neither a program nor a script"),
        ("/arm", "image is arm64, host amd64"),
        ("/glibc", "needs /lib64/ld-linux-x86-64.so.2 (glibc) — image is musl"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("c{number}");
        let config = pods::container(&name, image, &[program]);
        let container = client.create(&pod, &pod_config, &config).expect("create");
        let refusal = client.start(&container).expect_err(program);
        assert!(refusal.message().contains(why) && refusal.message().contains(&name), "{}", refusal.message());
        let status = client.status(&container).expect("its status");
        assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 128), "{program}");
        assert_eq!(status.reason, "StartError", "{program}");
        assert!(status.message.contains(why), "{program}: {}", status.message);
    }
}

#[test]
fn limits_below_what_a_container_needs_are_refused_before_anything_is_made() {
    let world = World::enter();
    let (_registry, daemon, client) = node(&world);
    let pod_config = pod_config(&world, &daemon, "pod");
    let pod = client.run_pod(&pod_config).expect("run a pod");
    let mut config = pods::container("c", IMAGE, &["true"]);
    // What `memory: 3000m` comes to.
    config.linux.get_or_insert_default().resources =
        Some(proto::LinuxContainerResources { memory_limit_in_bytes: 3, ..Default::default() });
    let trees = ["root/cri", "state"].map(|tree| daemon.dir().join(tree));
    let trees: Vec<&Path> = trees.iter().map(PathBuf::as_path).collect();
    let before = world.snapshot(&trees);
    let refusal = client.create(&pod, &pod_config, &config).expect_err("three bytes");
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(refusal.message().contains("3 bytes is below the 512 KB needed to start"), "{}", refusal.message());
    tests::Snapshot::assert_restored(&before, || world.snapshot(&trees));
}

#[test]
fn messages_of_several_mib_pass_both_ways() {
    let world = World::enter();
    let daemon = CriDaemon::start(&world);
    let client = daemon.client();
    let mut config = pod_config(&world, &daemon, "pod");
    let long = "x".repeat(6 << 20);
    config.annotations.insert("long".to_owned(), long.clone());
    let pod = client.run_pod(&config).expect("a pod with a long annotation");
    assert!(client.pod_status(&pod).expect("its status").annotations["long"] == long);
    assert!(client.list_pods().expect("list pods")[0].annotations["long"] == long);
}

#[test]
fn a_container_may_open_as_many_files_as_with_containerd_whatever_the_daemon_has() {
    let world = World::enter();
    let (_registry, daemon, client) = node(&world);
    let pod_config = pod_config(&world, &daemon, "pod");
    let pod = client.run_pod(&pod_config).expect("run a pod");
    let container = client.create(&pod, &pod_config, &pods::container("c", IMAGE, &["sleep", "1000"])).expect("create");
    client.start(&container).expect("start");
    let pid = client.info(&container).expect("its info")["pid"].as_u64().expect("its pid");
    let open_files = |pid: u64| {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
        let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("open files").to_owned();
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        (numbers[0], numbers[1])
    };
    let allowed = open_files(u64::from(daemon.pid())).1;
    let expected = (1024.min(allowed), 524_288.min(allowed));
    assert_eq!(open_files(pid), expected);
    let told = client.exec(&container, &["sh", "-c", "ulimit -Sn; ulimit -Hn"], Duration::ZERO).expect("exec");
    assert_eq!(String::from_utf8_lossy(&told.stdout), format!("{}\n{}\n", expected.0, expected.1));
    eventually("the container is stopped", Duration::from_secs(10), || client.stop(&container, Duration::ZERO));
}
