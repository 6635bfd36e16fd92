//! containerd on our runtime: `ctr run --runc-binary`, and a pod through its CRI.
//!
//! Each test has a containerd of its own, with its shim for runc, an image made in code, and one container at most.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tests::{Containerd, Output, Registry, World, binary, eventually, images, output, pods, write};

const IMAGE: &str = "docker.io/library/busybox:test";

/// A containerd that has the image, and how its containers are run.
struct Node<'a> {
    world: &'a World,
    containerd: Containerd,
    cgroup: String,
    runtime_root: PathBuf,
}

impl<'a> Node<'a> {
    fn start(world: &'a World) -> Node<'a> {
        let containerd = Containerd::start_on(world, &binary("orlop-runtime"));
        let archive = world.dir().join("busybox.tar");
        write(&archive, images::archive(&images::busybox(), IMAGE));
        let node = Node { world, containerd, cgroup: world.cgroup("ctr"), runtime_root: world.new_dir("runtime") };
        output(node.containerd.ctr().args(["image", "import"]).arg(&archive)).success();
        node
    }

    fn ctr(&self, arguments: &[&str]) -> Output {
        output(self.containerd.ctr().args(arguments))
    }

    /// `ctr run` of the container `it`; the command follows the flags after its id.
    fn run(&self, flags: &[&str], command: &[&str]) -> Output {
        let mut ctr = self.containerd.ctr();
        ctr.args(self.run_arguments(flags, command));
        output(&mut ctr)
    }

    fn run_arguments(&self, flags: &[&str], command: &[&str]) -> Vec<String> {
        let runtime = binary("orlop-runtime");
        let cgroup = format!("{}/it", self.cgroup);
        let (runtime, root) = (runtime.to_string_lossy(), self.runtime_root.to_string_lossy());
        let own = ["run", "--runc-binary", &runtime, "--runc-root", &root, "--cgroup", &cgroup];
        [&own, flags, &[IMAGE, "it"], command].concat().into_iter().map(str::to_owned).collect()
    }

    /// A container that runs until it is killed.
    fn started(&self, flags: &[&str]) {
        self.run(&[&["--detach"], flags].concat(), &["sleep", "100000"]).success();
        self.has_status("RUNNING");
    }

    fn has_status(&self, status: &str) {
        eventually(&format!("the task is {status}"), Duration::from_secs(10), || {
            let told = self.ctr(&["task", "list"]).stdout;
            if told.lines().any(|line| line.starts_with("it ") && line.trim_end().ends_with(status)) {
                Ok(())
            } else {
                Err(told)
            }
        });
    }

    fn remove(&self) {
        self.ctr(&["task", "delete", "--force", "it"]);
        self.ctr(&["container", "delete", "it"]).success();
    }

    /// Runs `ctr` on a terminal; what appeared on it.
    fn on_terminal(&self, arguments: &[String]) -> Output {
        let ctr = self.containerd.ctr();
        let words = ctr.get_args().map(|word| word.to_string_lossy().into_owned()).chain(arguments.iter().cloned());
        let quoted: Vec<String> = words.map(|word| format!("'{word}'")).collect();
        let line = format!("{} {}", ctr.get_program().to_string_lossy(), quoted.join(" "));
        output(self.world.command("script").args(["--quiet", "--return", "--command", &line, "/dev/null"]))
    }
}

#[test]
fn a_container_runs_and_its_exit_code_is_told() {
    let world = World::enter();
    let node = Node::start(&world);
    let told = node.run(&["--rm", "--seccomp"], &["sh", "-c", "echo out; exit 3"]);
    assert_eq!((told.code, told.stdout.as_str()), (3, "out\n"), "{}", told.stderr);
    assert_eq!(std::fs::read_dir(node.runtime_root.join("default")).expect("the namespace's containers").count(), 0);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let world = World::enter();
    let node = Node::start(&world);
    let told = node.run(&["--rm"], &["/not/there"]);
    assert_ne!(told.code, 0);
    // What the shim finds in the runtime's JSON log.
    assert!(told.stderr.contains("OCI runtime create failed"), "{}", told.stderr);
    assert!(told.stderr.contains("\"/not/there\": stat /not/there: no such file or directory"), "{}", told.stderr);
}

#[test]
fn a_process_joins_a_container() {
    let world = World::enter();
    let node = Node::start(&world);
    node.started(&[]);
    // A container runs from the moment of its start; its program is executed a moment later.
    let script = "i=0; until grep -q '^sleep$' /proc/1/comm || [ $i = 600 ]; do i=$((i + 1)); sleep 0.1; done; cat /proc/1/comm; exit 4";
    let told = node.ctr(&["task", "exec", "--exec-id", "one", "it", "sh", "-c", script]);
    assert_eq!((told.code, told.stdout.as_str()), (4, "sleep\n"), "{}", told.stderr);
    node.remove();
}

#[test]
fn a_terminal_is_handed_over_at_run_and_at_exec() {
    let world = World::enter();
    let node = Node::start(&world);
    let told = node.on_terminal(&node.run_arguments(&["--rm", "--tty"], &["sh", "-c", "tty; exit 5"]));
    assert_eq!(told.code, 5, "{told:?}");
    assert!(told.stdout.contains("/dev/pts/0"), "{told:?}");
    node.started(&[]);
    let exec = ["task", "exec", "--tty", "--exec-id", "one", "it", "sh", "-c", "tty; exit 6"].map(str::to_owned);
    let told = node.on_terminal(&exec);
    assert_eq!(told.code, 6, "{told:?}");
    assert!(told.stdout.contains("/dev/pts/0"), "{told:?}");
    node.remove();
}

#[test]
fn a_container_is_paused_and_resumed() {
    let world = World::enter();
    let node = Node::start(&world);
    node.started(&[]);
    node.ctr(&["task", "pause", "it"]).success();
    node.has_status("PAUSED");
    node.ctr(&["task", "resume", "it"]).success();
    node.has_status("RUNNING");
    node.remove();
}

#[test]
fn a_container_is_killed_by_a_signal() {
    let world = World::enter();
    let node = Node::start(&world);
    node.run(&["--detach"], &["sh", "-c", "trap 'exit 7' TERM; touch /ready; while :; do sleep 0.1; done"]).success();
    eventually("the trap is set", Duration::from_secs(10), || {
        node.ctr(&["task", "exec", "--exec-id", "look", "it", "ls", "/ready"]).code == 0
    });
    node.ctr(&["task", "kill", "--signal", "TERM", "it"]).success();
    node.has_status("STOPPED");
    let told = node.ctr(&["task", "delete", "it"]);
    assert!(told.stderr.contains("exit code 7"), "{told:?}");
    node.remove();
}

#[test]
fn what_a_container_uses_is_told() {
    let world = World::enter();
    let node = Node::start(&world);
    node.started(&["--memory-limit", "67108864"]);
    let metrics: Value =
        serde_json::from_str(&node.ctr(&["task", "metrics", "--format", "json", "it"]).success()).expect("JSON");
    assert_eq!(metrics["pids"]["current"], 1, "{metrics}");
    let limit = metrics.pointer("/memory/usage/limit").or_else(|| metrics.pointer("/memory/usage_limit"));
    assert_eq!(limit, Some(&Value::from(67_108_864)), "{metrics}");
    let processes = node.ctr(&["task", "ps", "it"]).success();
    assert_eq!(processes.lines().count(), 2, "{processes}");
    node.remove();
}

#[test]
fn a_container_has_users_of_its_own() {
    let world = World::enter();
    let node = Node::start(&world);
    let flags = ["--rm", "--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"];
    let map = node.run(&flags, &["cat", "/proc/self/uid_map"]).success();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
}

#[test]
fn a_pod_of_the_cri_runs_and_its_limits_change() {
    let world = World::enter();
    let registry = Registry::start(&world);
    let containerd = Containerd::start_on(&world, &binary("orlop-runtime"));
    images::upstream::serve(&registry, &containerd.hosts_dir());
    let client = containerd.client();
    for image in [images::upstream::BUSYBOX, "registry.k8s.io/pause:3.9"] {
        client.pull(image).expect("the image");
    }
    let config = pods::as_kubelet(pods::pod("pod", &containerd.logs(), &world.cgroup("pods")), None);
    let pod = client.run_pod(&config).expect("a pod");
    let container = pods::container("it", images::upstream::BUSYBOX, &["sleep", "100000"]);
    let container = client.create(&pod, &config, &pods::container_as_kubelet(container)).expect("a container");
    client.start(&container).expect("the start");
    let resources =
        proto::LinuxContainerResources { memory_limit_in_bytes: 50_331_648, cpu_shares: 512, ..Default::default() };
    let request = proto::UpdateContainerResourcesRequest {
        container_id: container.clone(),
        linux: Some(resources),
        ..Default::default()
    };
    client.runtime(async |mut client| client.update_container_resources(request).await).expect("the update");
    let look = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null || \
                cat /sys/fs/cgroup/memory.max";
    let told = client.exec(&container, &["sh", "-c", look], Duration::from_secs(10)).expect("an exec");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.starts_with("50331648\n"), "{told}");
    assert!(!told.contains("cpu") && (told.lines().count() == 1 || told.ends_with("512\n")), "{told}");
    containerd.remove_pods();
}
