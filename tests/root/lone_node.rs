//! A node without an API server: `orlop kubelet` over a folder of manifests, on `orlop cri`.
//!
//! Pods talk back through `/out`, a folder of the host that each of them mounts.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use sys::mountinfo::{self, MountInfo};
use tests::images::Image;
use tests::{CriDaemon, Registry, World, binary, eventually, write};

/// No pod takes longer to do anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A kubelet that runs the pods of a folder, and the CRI below it. Dropping it kills both; the World looks for the rest.
pub(crate) struct Node<'w> {
    pub(crate) world: &'w World,
    /// The kubelet's folders: `root`, `pods` (logs), `manifests`, `out`.
    pub(crate) dir: PathBuf,
    /// Its `cgroupRoot`.
    pub(crate) cgroup: String,
    daemon: CriDaemon<'w>,
    kubelet: Option<Child>,
    _registry: Registry,
}

impl<'w> Node<'w> {
    /// Starts a node that can pull `images` from `registry.example`, with fields of the configuration beyond the usual.
    pub(crate) fn start(world: &'w World, images: &[(&str, Image)], more: &Value) -> Node<'w> {
        let registry = Registry::start(world);
        for (repository, image) in images {
            registry.add(repository, "1", image);
        }
        let daemon = CriDaemon::start(world);
        daemon.mirror("registry.example", &registry.host());
        let dir = world.new_dir("kubelet");
        for folder in ["root", "pods", "manifests", "out"] {
            fs::create_dir(dir.join(folder)).expect("the kubelet's directories");
        }
        let cgroup = world.cgroup("node");
        for kept in ["kubepods", "kubepods/besteffort", "kubepods/burstable"] {
            world.adopt_cgroup(&format!("{cgroup}/{kept}"));
        }
        let mut config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "healthzPort": 0, "cgroupDriver": "cgroupfs", "cgroupRoot": cgroup, "failCgroupV1": false, "failSwapOn": false,
            "authentication": { "webhook": { "enabled": false } }, "authorization": { "mode": "AlwaysAllow" },
            "staticPodPath": dir.join("manifests"), "fileCheckFrequency": "1s", "podLogsDir": dir.join("pods"),
            "evictionHard": { "memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
        });
        config.as_object_mut().expect("fields").extend(more.as_object().cloned().expect("fields"));
        write(&dir.join("config.yaml"), format!("{config:#}\n"));
        let mut node = Node { world, dir, cgroup, daemon, kubelet: None, _registry: registry };
        node.spawn();
        node
    }

    /// Starts the kubelet, again if it was killed.
    pub(crate) fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.dir.join("log")).expect("the kubelet's log");
        let mut command = self.world.command(binary("orlop"));
        command.args(["--log-level", "debug", "kubelet", "--hostname-override=alone"]);
        command.arg("--config").arg(self.dir.join("config.yaml"));
        command.arg(format!("--container-runtime-endpoint={}", self.daemon.endpoint()));
        command.arg(format!("--root-dir={}", self.dir.join("root").display()));
        command.arg(format!("--cert-dir={}", self.dir.join("pki").display()));
        let errors = log.try_clone().expect("the kubelet's log");
        self.kubelet =
            Some(command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("start the kubelet"));
    }

    /// Kills the kubelet as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut kubelet) = self.kubelet.take() {
            let _already_gone = kubelet.kill();
            let _reaped = kubelet.wait();
        }
    }

    /// Runs a pod: writes its manifest.
    pub(crate) fn run_pod(&self, name: &str, spec: &Value) {
        let metadata = json!({ "name": name, "namespace": "default" });
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec });
        write(&self.manifest(name), pod.to_string());
    }

    /// Ends it: removes the manifest.
    #[track_caller]
    pub(crate) fn delete(&self, name: &str) {
        fs::remove_file(self.manifest(name)).expect("remove the manifest");
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.dir.join("manifests").join(format!("{name}.json"))
    }

    /// The volume through which pods talk back.
    pub(crate) fn out(&self) -> Value {
        json!({ "name": "out", "hostPath": { "path": self.dir.join("out"), "type": "Directory" } })
    }

    /// What a pod wrote to `/out/<file>`, once it has.
    #[track_caller]
    pub(crate) fn said(&self, file: &str) -> String {
        let path = self.dir.join("out").join(file);
        eventually(&format!("a pod writes {file}"), DEADLINE, || fs::read_to_string(&path).map_err(|_| self.tail()))
    }

    /// What the kubelet has logged, over all its lives.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The end of the log, for a failure.
    pub(crate) fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// The mounts below the kubelet's root.
    pub(crate) fn mounts(&self) -> Vec<MountInfo> {
        let mut mounts = mountinfo::read().expect("the mount table");
        mounts.retain(|mount| mount.is_under(self.dir.join("root")));
        mounts
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the end of the kubelet's log:\n{}", self.tail());
        }
        self.kill();
        for mount in self.mounts().iter().rev() {
            let _gone_with_the_world = sys::mount::umount_detach(&mount.mount_point);
        }
    }
}
