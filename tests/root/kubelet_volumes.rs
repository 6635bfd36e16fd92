//! A kubelet's volumes on a real kernel: mounts that come and go with the pod, and pods that mean harm. The node stands
//! alone; what needs an API server is a step of the cluster scenario.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use tests::{World, eventually, images, rounds, write};

use crate::lone_node::{DEADLINE, Node};

const IMAGE: &str = "registry.example/base:1";

fn start(world: &World) -> Node<'_> {
    Node::start(world, &[("base", images::busybox())], &json!({}))
}

impl Node<'_> {
    /// Runs a pod whose containers are scripts: `(name, script, volumeMounts)`. All of them see `/out`.
    fn run(&self, name: &str, containers: &[(&str, &str, Value)], volumes: &Value) {
        self.run_with(name, containers, volumes, &json!({}));
    }

    /// The same, with more fields of the spec.
    fn run_with(&self, name: &str, containers: &[(&str, &str, Value)], volumes: &Value, more: &Value) {
        let containers: Vec<Value> = containers
            .iter()
            .map(|(container, script, mounts)| {
                let mut mounts = mounts.clone();
                mounts.as_array_mut().expect("mounts").push(json!({ "name": "out", "mountPath": "/out" }));
                json!({ "name": container, "image": IMAGE, "imagePullPolicy": "IfNotPresent",
                    "command": ["sh", "-c", script], "volumeMounts": mounts })
            })
            .collect();
        let mut volumes = volumes.clone();
        volumes.as_array_mut().expect("volumes").push(self.out());
        let mut spec = json!({ "hostNetwork": true, "terminationGracePeriodSeconds": 0, "containers": containers, "volumes": volumes });
        spec.as_object_mut().expect("a spec").extend(more.as_object().cloned().expect("fields"));
        self.run_pod(name, &spec);
    }

    /// The pods' folders.
    fn folders(&self) -> Vec<PathBuf> {
        let listing = fs::read_dir(self.dir.join("root/pods")).into_iter().flatten();
        listing.map(|entry| entry.expect("a pod's folder").path()).collect()
    }

    #[track_caller]
    fn wait_until_nothing_is_left(&self) {
        eventually("no folder and no mount of a pod is left", DEADLINE, || {
            let (folders, mounts) = (self.folders(), self.mounts());
            if folders.is_empty() && mounts.is_empty() {
                Ok(())
            } else {
                Err(format!("{folders:?}\n{mounts:?}\n{}", self.tail()))
            }
        });
    }
}

fn empty_dir(name: &str) -> Value {
    json!([{ "name": name, "emptyDir": {} }])
}

/// The one volume of this name, below the only pod's folder.
#[track_caller]
fn volume(node: &Node<'_>, name: &str) -> PathBuf {
    let [folder] = node.folders().try_into().expect("one pod");
    let folder: PathBuf = folder;
    folder.join("volumes/kubernetes.io~empty-dir").join(name)
}

#[test]
fn mounts_come_with_a_pod_and_go_with_it() {
    let world = World::enter();
    let node = start(&world);
    let mounts = json!([
        { "name": "memory", "mountPath": "/memory" },
        { "name": "about", "mountPath": "/about" },
        { "name": "disk", "mountPath": "/part", "subPath": "a/b" },
        { "name": "about", "mountPath": "/name", "subPath": "name", "readOnly": true },
    ]);
    let volumes = json!([
        { "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": "8Mi" } },
        { "name": "disk", "emptyDir": {} },
        { "name": "about", "downwardAPI": { "items": [{ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } }] } },
    ]);
    let script = "echo hello > /part/file; dd if=/dev/zero of=/memory/x bs=1M count=9 2>/dev/null || echo full; \
                  { cat /name /about/name; stat -c %a /memory /part; } > /out/.seen; mv /out/.seen /out/seen; sleep 1000";
    node.run("holder", &[("main", script, mounts)], &volumes);
    assert_eq!(node.said("seen"), "holder-aloneholder-alone1777\n777\n");

    let [folder] = node.folders().try_into().expect("one pod");
    let folder: PathBuf = folder;
    assert_eq!(
        fs::read_to_string(folder.join("volumes/kubernetes.io~empty-dir/disk/a/b/file")).expect("the file"),
        "hello\n"
    );
    let mounted = node.mounts();
    let at = |path: &str| mounted.iter().find(|mount| mount.mount_point == folder.join(path)).expect("a mount");
    let memory = at("volumes/kubernetes.io~empty-dir/memory");
    assert_eq!(memory.fstype, "tmpfs");
    let has_noswap = sys::kernel::is_at_least(sys::kernel::Version { major: 6, minor: 4 });
    assert!(memory.has_super_option("size=8192k"), "{memory:?}");
    assert_eq!(memory.has_super_option("noswap"), has_noswap, "{memory:?}");
    assert_eq!(at("volumes/kubernetes.io~downward-api/about").fstype, "tmpfs");
    at("volume-subpaths/disk/main/2");
    at("volume-subpaths/about/main/3");
    assert_eq!(mounted.len(), 4, "{mounted:?}");

    // What is mounted inside of a volume is not entered: only unmounted.
    let canary = world.new_dir("canary");
    write(&canary.join("file"), "still here");
    let inner = folder.join("volumes/kubernetes.io~empty-dir/disk/inner");
    fs::create_dir(&inner).expect("a mount point");
    sys::mount::bind_file(&File::open(&canary).expect("the canary"), &inner).expect("a bind mount in the volume");
    symlink(&canary, folder.join("volumes/kubernetes.io~empty-dir/disk/link")).expect("a link in the volume");
    node.delete("holder");
    node.wait_until_nothing_is_left();
    assert_eq!(fs::read_to_string(canary.join("file")).expect("the canary"), "still here");
}

#[test]
fn a_container_that_starts_again_finds_its_sub_path_bound_once() {
    let world = World::enter();
    let node = start(&world);
    let script =
        "echo start >> /part/starts; [ $(wc -l < /part/starts) -ge 2 ] || exit 1; touch /out/twice; sleep 1000";
    let mounts = json!([{ "name": "disk", "mountPath": "/part", "subPath": "part" }]);
    node.run("twice", &[("main", script, mounts)], &empty_dir("disk"));
    node.said("twice");
    assert_eq!(node.mounts().len(), 1, "{:?}", node.mounts());
    node.delete("twice");
    node.wait_until_nothing_is_left();
}

#[test]
fn volumes_belong_to_the_pods_group() {
    let world = World::enter();
    let node = start(&world);
    fs::set_permissions(node.dir.join("out"), fs::Permissions::from_mode(0o777)).expect("a folder for all");
    let volumes = json!([
        { "name": "disk", "emptyDir": {} },
        { "name": "memory", "emptyDir": { "medium": "Memory" } },
        { "name": "about", "downwardAPI": { "defaultMode": 0o600, "items": [{ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } }] } },
    ]);
    let mounts = json!([
        { "name": "disk", "mountPath": "/disk" },
        { "name": "memory", "mountPath": "/memory" },
        { "name": "about", "mountPath": "/about" },
        { "name": "disk", "mountPath": "/part", "subPath": "part" },
    ]);
    let script = "umask 077; touch /disk/file /memory/file /part/file; \
                  { stat -c '%a %u %g' /disk /memory /part /disk/file; stat -Lc '%a %u %g' /about/name; cat /about/name; } > /out/.seen 2>&1; \
                  mv /out/.seen /out/seen; sleep 1000";
    let security = json!({ "securityContext": { "runAsUser": 1234, "runAsGroup": 1234, "fsGroup": 4711 } });
    node.run_with("grouped", &[("main", script, mounts)], &volumes, &security);
    let expected = "2777 0 4711\n3777 0 4711\n2777 0 4711\n600 1234 4711\n640 0 4711\ngrouped-alone";
    assert_eq!(node.said("seen"), expected);
    node.delete("grouped");
    node.wait_until_nothing_is_left();
}

#[test]
fn volumes_of_a_pod_that_went_while_the_kubelet_was_dead_are_taken_down() {
    let world = World::enter();
    let mut node = start(&world);
    let mounts = json!([
        { "name": "memory", "mountPath": "/memory" },
        { "name": "memory", "mountPath": "/part", "subPath": "part" },
    ]);
    let volumes = json!([{ "name": "memory", "emptyDir": { "medium": "Memory" } }]);
    node.run("orphan", &[("main", "touch /out/up; sleep 1000", mounts)], &volumes);
    node.said("up");
    assert_eq!(node.mounts().len(), 2, "{:?}", node.mounts());
    node.kill();
    node.delete("orphan");
    node.spawn();
    node.wait_until_nothing_is_left();
}

#[test]
fn a_process_that_holds_a_volume_is_named_until_it_ends() {
    let world = World::enter();
    let node = start(&world);
    let volumes = json!([{ "name": "memory", "emptyDir": { "medium": "Memory" } }]);
    node.run(
        "held",
        &[("main", "touch /out/up; sleep 1000", json!([{ "name": "memory", "mountPath": "/memory" }]))],
        &volumes,
    );
    node.said("up");
    let mut holder = Holder::in_directory(&world, &volume(&node, "memory"));
    node.delete("held");
    let held = format!("held by process {} (\"sleep\")", holder.0.id());
    eventually("the log names the process", DEADLINE, || {
        if node.log().contains(&held) { Ok(()) } else { Err(node.tail()) }
    });
    assert_eq!(node.mounts().len(), 1);
    holder.end();
    node.wait_until_nothing_is_left();
}

/// A process that sits in a directory.
struct Holder(Child);

impl Holder {
    fn in_directory(world: &World, directory: &Path) -> Holder {
        let mut command: Command = world.command("sleep");
        Holder(command.arg("1000").current_dir(directory).spawn().expect("a process in the volume"))
    }

    fn end(&mut self) {
        let _already_gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.end();
    }
}

/// RACE, CVE-2021-25741: a folder and a link to the host change places while the kubelet mounts the folder's subPath.
/// Mutant: `RESOLVE_BENEATH` left out of `RootFd::open_path_beneath`.
#[test]
fn a_link_that_takes_a_sub_paths_place_never_shows_the_host() {
    const CONTAINERS: u32 = 5;
    let pods = rounds(6);
    let world = World::enter();
    let node = start(&world);
    let (shared, canary) = (world.new_dir("shared"), world.new_dir("canary"));
    fs::create_dir(shared.join("dir")).expect("the folder");
    write(&shared.join("dir/which"), "inside\n");
    write(&canary.join("which"), "the host\n");
    symlink(&canary, shared.join("link")).expect("the link");
    let volumes = json!([{ "name": "shared", "hostPath": { "path": shared, "type": "Directory" } }]);
    let done = AtomicBool::new(false);
    let said = std::thread::scope(|scope| {
        let swapper = scope.spawn(|| swap_until(&shared, &done));
        for pod in 0..pods {
            let scripts: Vec<String> =
                (0..CONTAINERS).map(|n| format!("cat /v/which > /out/{pod}-{n}; sleep 1000")).collect();
            let names: Vec<String> = (0..CONTAINERS).map(|n| format!("c{n}")).collect();
            let mounts = json!([{ "name": "shared", "mountPath": "/v", "subPath": "dir" }]);
            let containers: Vec<_> = names
                .iter()
                .zip(&scripts)
                .map(|(name, script)| (name.as_str(), script.as_str(), mounts.clone()))
                .collect();
            node.run(&format!("racer-{pod}"), &containers, &volumes);
        }
        // Each container is mounted the folder or is refused; it is tried again until the folder is what we find.
        let files: Vec<String> =
            (0..pods).flat_map(|pod| (0..CONTAINERS).map(move |number| format!("{pod}-{number}"))).collect();
        let said: Vec<String> = eventually("most containers got the folder", DEADLINE * 2, || {
            let text = |file: &String| fs::read_to_string(node.dir.join("out").join(file)).ok();
            let said: Vec<String> = files.iter().filter_map(text).filter(|text| !text.is_empty()).collect();
            if said.len() as u32 >= pods * CONTAINERS / 2 {
                Ok(said)
            } else {
                Err(format!("{}\n{}", said.len(), node.tail()))
            }
        });
        done.store(true, Ordering::Relaxed);
        let swaps = swapper.join().expect("the swapper");
        assert!(swaps >= rounds(1000), "only {swaps} exchanges");
        said
    });
    assert!(said.iter().all(|text| text == "inside\n"), "{said:?}");
    for pod in 0..pods {
        node.delete(&format!("racer-{pod}"));
    }
    node.wait_until_nothing_is_left();
    assert_eq!(fs::read_dir(&canary).expect("the canary").count(), 1);
}

/// Exchanges `dir` and `link` until it is told to stop; how often.
fn swap_until(shared: &Path, done: &AtomicBool) -> u32 {
    let directory = File::open(shared).expect("the shared folder");
    let mut swaps = 0;
    while !done.load(Ordering::Relaxed) || swaps % 2 != 0 {
        let exchange = sys::at::RenameFlags::RENAME_EXCHANGE;
        sys::at::renameat(&directory, "dir", &directory, "link", exchange).expect("an exchange");
        swaps += 1;
        std::thread::yield_now();
    }
    swaps
}

#[test]
fn a_volume_that_can_not_be_made_keeps_its_pod_waiting_and_no_other() {
    let world = World::enter();
    let node = start(&world);
    let missing = json!([{ "name": "gone", "hostPath": { "path": node.dir.join("nowhere"), "type": "Directory" } }]);
    node.run(
        "waits",
        &[("main", "touch /out/waits; sleep 1000", json!([{ "name": "gone", "mountPath": "/gone" }]))],
        &missing,
    );
    let mounts = json!([{ "name": "disk", "mountPath": "/disk" }]);
    node.run("runs", &[("main", "touch /out/runs; sleep 1000", mounts)], &empty_dir("disk"));
    node.said("runs");
    let text = format!(
        "MountVolume.SetUp failed for volume \"gone\" : hostPath type check failed: {} is not a directory",
        node.dir.join("nowhere").display()
    );
    let escaped = text.replace('"', "\\\"");
    eventually("the log says why", DEADLINE, || {
        let log = node.log();
        if log.contains(&text) || log.contains(&escaped) { Ok(()) } else { Err(node.tail()) }
    });
    assert!(!node.dir.join("out/waits").exists());
    fs::create_dir(node.dir.join("nowhere")).expect("what was missing");
    node.said("waits");
    for pod in ["waits", "runs"] {
        node.delete(pod);
    }
    node.wait_until_nothing_is_left();
}

/// A file system whose server has died without a word, as NFS servers do: whoever looks at it waits.
struct DeadServer {
    path: PathBuf,
    connection: Option<File>,
}

impl DeadServer {
    fn mount(path: PathBuf) -> DeadServer {
        let connection = File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", connection.as_raw_fd());
        mount(Some("dead"), &path, Some("fuse"), MsFlags::empty(), Some(options.as_str())).expect("a FUSE mount");
        DeadServer { path, connection: Some(connection) }
    }
}

impl Drop for DeadServer {
    fn drop(&mut self) {
        drop(self.connection.take()); // whoever waits gets an error now
        let _gone_with_the_world = sys::mount::umount_detach(&self.path);
    }
}

#[test]
fn a_host_path_that_hangs_is_named_and_keeps_no_other_pod_waiting() {
    let world = World::enter();
    let node = start(&world);
    let dead = DeadServer::mount(world.new_dir("dead"));
    let volumes = json!([{ "name": "nfs", "hostPath": { "path": dead.path, "type": "Directory" } }]);
    node.run("stuck", &[("main", "sleep 1000", json!([{ "name": "nfs", "mountPath": "/nfs" }]))], &volumes);
    let named = format!("check hostPath {} has not returned for 1", dead.path.display());
    eventually("the log names stage and path", DEADLINE, || {
        if node.log().contains(&named) { Ok(()) } else { Err(node.tail()) }
    });
    let mounts = json!([{ "name": "disk", "mountPath": "/disk" }]);
    node.run("runs", &[("main", "touch /out/runs; sleep 1000", mounts)], &empty_dir("disk"));
    node.said("runs");
    for pod in ["stuck", "runs"] {
        node.delete(pod);
    }
    node.wait_until_nothing_is_left();
    drop(dead);
}
