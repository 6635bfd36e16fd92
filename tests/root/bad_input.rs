//! What cannot be done is refused with one clear error: the right code, the thing's name, and nothing left behind.

use std::fmt::Debug;
use std::fs;
use std::process::Command;
use std::time::Duration;

use tests::{Cri, CriDaemon, Registry, Snapshot, World, eventually, images, output, pods, write};
use tonic::{Code, Status};

/// Whether a process runs that does a shim's work, or did. What it makes has its name too, in a mount namespace of its own.
fn runs_a_stage() -> bool {
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/mnt")).ok();
    let ours = namespace("thread-self");
    let is_stage =
        |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "orlop-stage\n");
    let mut pids =
        fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| entry.file_name().into_string().ok());
    pids.any(|pid| is_stage(&pid) && namespace(&pid) == ours)
}

/// A node that has already run one pod, so that what a first pod leaves for the next ones (a bridge, lock files) is there.
struct Node<'w> {
    daemon: CriDaemon<'w>,
    registry: Registry,
    client: Cri,
    world: &'w World,
}

const IMAGE: &str = "registry.example/base:1";

impl<'w> Node<'w> {
    fn start(world: &'w World) -> Node<'w> {
        let registry = Registry::start(world);
        registry.add("base", "1", &images::busybox());
        let daemon = CriDaemon::start(world);
        daemon.mirror("registry.example", &registry.host());
        let client = daemon.client();
        let node = Node { daemon, registry, client, world };
        node.client.pull(IMAGE).expect("pull the base image");
        let (pod, config) = node.pod("first");
        let container = node.client.create(&pod, &config, &pods::container("first", IMAGE, &["true"]));
        node.client.start(&container.expect("create a container")).expect("start it");
        node.client.stop_pod(&pod).expect("stop the first pod");
        node.client.remove_pod(&pod).expect("remove the first pod");
        // The kernel takes its time to remove the last network namespace's half of the pair.
        eventually("the first pod's link is gone", Duration::from_secs(10), || !world.snapshot(&[]).names("(veth)"));
        node
    }

    fn pod_config(&self, name: &str) -> proto::PodSandboxConfig {
        pods::pod(name, &self.daemon.logs().join(name), &self.world.cgroup(name))
    }

    fn pod(&self, name: &str) -> (String, proto::PodSandboxConfig) {
        let config = self.pod_config(name);
        (self.client.run_pod(&config).expect("run a pod"), config)
    }

    /// Makes `request`, which must be refused with `code` and all of `words`, and leave the World as it was.
    #[track_caller]
    fn refuses<T: Debug>(&self, code: Code, words: &[&str], request: impl FnOnce(&Cri) -> Result<T, Status>) {
        let trees = ["root", "state", "cni-cache"].map(|tree| self.daemon.dir().join(tree));
        let snapshot = || {
            let trees: Vec<&std::path::Path> = trees.iter().map(std::path::PathBuf::as_path).collect();
            self.world.snapshot(&trees)
        };
        // A shim answers before the process that did the work has ended.
        eventually("no verb's process is left", Duration::from_secs(10), || !runs_a_stage());
        let before = snapshot();
        let status = request(&self.client).expect_err("a refusal");
        assert_eq!(status.code(), code, "{}", status.message());
        for word in words {
            assert!(status.message().contains(word), "{word:?} is missing in {:?}", status.message());
        }
        Snapshot::assert_restored(&before, snapshot);
    }
}

#[test]
fn a_missing_image_is_named_by_pull_and_by_create() {
    let world = World::enter();
    let node = Node::start(&world);
    node.refuses(Code::NotFound, &["registry.example/absent:1"], |client| client.pull("registry.example/absent:1"));
    let (pod, config) = node.pod("pod");
    let container = pods::container("c", "registry.example/absent:1", &["true"]);
    node.refuses(Code::NotFound, &["registry.example/absent:1"], |client| client.create(&pod, &config, &container));
}

#[test]
fn a_malformed_reference_is_refused_before_anything_is_asked() {
    let world = World::enter();
    let node = Node::start(&world);
    node.refuses(Code::InvalidArgument, &["registry.example/UPPER"], |client| client.pull("registry.example/UPPER:1"));
}

#[test]
fn a_layer_with_a_wrong_digest_is_never_visible() {
    let world = World::enter();
    let node = Node::start(&world);
    let layer = images::Layer::new().file("mark", 0o644, "x").finish(images::Compression::None);
    let image = images::Image::new(vec![layer.clone()], &["sh"]);
    node.registry.add("damaged", "1", &image);
    let path = images::blob_path(node.registry.dir(), &layer.digest);
    let mut bytes = layer.bytes.clone();
    bytes[600] ^= 1;
    write(&path, bytes);
    node.refuses(Code::DataLoss, &[&layer.digest], |client| client.pull("registry.example/damaged:1"));
    assert_eq!(node.client.list_images().expect("list images").len(), 1);
}

#[test]
fn a_manifest_that_lies_about_a_length_is_refused() {
    let world = World::enter();
    let node = Node::start(&world);
    let image =
        images::Image::new(vec![images::Layer::new().file("a", 0o644, "x").finish(images::Compression::Gzip)], &["sh"]);
    node.registry.add("liar", "honest", &image);
    let size = format!("\"size\":{}", image.layers[0].bytes.len());
    let manifest = String::from_utf8(image.manifest()).expect("JSON").replace(&size, "\"size\":7");
    images::store_manifest(node.registry.dir(), "liar", "1", manifest.as_bytes());
    node.refuses(Code::DataLoss, &[&image.layers[0].digest], |client| client.pull("registry.example/liar:1"));
}

#[test]
fn a_registry_that_is_down_is_named() {
    let world = World::enter();
    let node = Node::start(&world);
    node.daemon.mirror("gone.example", "127.0.0.1:1");
    node.refuses(Code::Unavailable, &["RegistryUnavailable", "127.0.0.1:1"], |client| {
        client.pull("gone.example/base:1")
    });
}

#[test]
fn a_full_disk_fails_the_pull_and_not_the_daemon() {
    let world = World::enter();
    let mut node = Node::start(&world);
    let noise: Vec<u8> = (0..12_u32 << 20).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let layer = images::Layer::new().file("noise", 0o644, noise).finish(images::Compression::None);
    node.registry.add("large", "1", &images::Image::new(vec![layer], &["sh"]));
    let root = node.daemon.dir().join("root");
    node.daemon.terminate();
    let mut mount = Command::new("mount");
    output(mount.args(["-t", "tmpfs", "-o", "size=8m", "small"]).arg(&root)).success();
    node.daemon.restart();
    node.refuses(Code::ResourceExhausted, &["No space left on device"], |client| {
        client.pull("registry.example/large:1")
    });
    assert_eq!(node.client.list_images().expect("the daemon still answers").len(), 0);
    node.daemon.terminate();
    output(Command::new("umount").arg(&root)).success();
}

#[test]
fn a_broken_conflist_and_a_missing_plugin_are_named() {
    let world = World::enter();
    let node = Node::start(&world);
    let conflist = node.daemon.dir().join("cni-conf/10-bridge.conflist");
    let config = node.pod_config("pod");
    write(&conflist, "{\"cniVersion\": \"1.0.0\", \"name\": ");
    node.refuses(Code::Unavailable, &["10-bridge.conflist"], |client| client.run_pod(&config));
    write(&conflist, r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "nosuch"}]}"#);
    node.refuses(Code::Unavailable, &["nosuch"], |client| client.run_pod(&config));
}

#[test]
fn a_container_name_in_use_is_refused_with_its_owner() {
    let world = World::enter();
    let node = Node::start(&world);
    let (pod, config) = node.pod("pod");
    let mut container = pods::container("taken", IMAGE, &["true"]);
    let owner = node.client.create(&pod, &config, &container).expect("create a container");
    // The same request again is a retry; the same name for something else is a mistake.
    container.command = vec!["false".to_owned()];
    node.refuses(Code::AlreadyExists, &["taken", &owner], |client| client.create(&pod, &config, &container));
}

#[test]
fn an_unknown_id_is_not_found() {
    let world = World::enter();
    let node = Node::start(&world);
    node.refuses(Code::NotFound, &["0123abc"], |client| client.status("0123abc"));
    node.refuses(Code::NotFound, &["0123abc"], |client| client.pod_status("0123abc"));
    node.refuses(Code::NotFound, &["0123abc"], |client| client.start("0123abc"));
    node.refuses(Code::NotFound, &["0123abc"], |client| client.exec("0123abc", &["true"], Duration::ZERO));
    let (_, config) = node.pod("pod");
    let container = pods::container("c", IMAGE, &["true"]);
    node.refuses(Code::NotFound, &["0123abc"], |client| client.create("0123abc", &config, &container));
}

#[test]
fn an_unknown_runtime_handler_is_refused_by_name() {
    let world = World::enter();
    let node = Node::start(&world);
    let config = Some(node.pod_config("pod"));
    let request = proto::RunPodSandboxRequest { config, runtime_handler: "kata".to_owned() };
    node.refuses(Code::InvalidArgument, &["kata"], |client| {
        client.runtime(async |mut client| client.run_pod_sandbox(request).await)
    });
}

#[test]
fn an_impossible_limit_is_refused_with_its_value() {
    let world = World::enter();
    let node = Node::start(&world);
    let (pod, config) = node.pod("pod");
    let mut container = pods::container("c", IMAGE, &["true"]);
    container.linux.get_or_insert_default().resources =
        Some(proto::LinuxContainerResources { cpuset_cpus: "4095".to_owned(), ..Default::default() });
    let created = node.client.create(&pod, &config, &container);
    let refusal = created.and_then(|id| node.client.start(&id)).expect_err("a refusal");
    assert!(refusal.message().contains("4095") && refusal.message().contains("cpuset"), "{}", refusal.message());
}

#[test]
fn what_is_not_built_yet_says_so_by_name() {
    let world = World::enter();
    let node = Node::start(&world);
    let request = proto::CheckpointContainerRequest::default();
    node.refuses(Code::Unimplemented, &["CheckpointContainer"], |client| {
        client.runtime(async |mut client| client.checkpoint_container(request).await)
    });
}
