//! A node: a container runtime and a kubelet, either of them ours or a peer's, with an address of its own in the World.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::kubelet::Start;
use super::{ControlPlane, Implementation, Kubelet, a_minute};
use crate::{Containerd, Cri, CriDaemon, Registry, World, eventually, images, mirror_host, output};

/// The taint that keeps other tests' pods off a node that has [`Settings::reserved`].
const RESERVED: &str = "orlop.test/reserved";

/// A node under test.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    /// Its name in the cluster.
    pub name: &'a str,
    /// Whose kubelet.
    pub kubelet: Implementation,
    /// Whose container runtime.
    pub runtime: Implementation,
    /// Only pods that tolerate everything come here.
    pub reserved: bool,
    /// Fields of the KubeletConfiguration, beside the harness's own.
    pub config: Value,
    /// The kubelet logs as people have it, for measurements. The runtime always does.
    pub quiet: bool,
}

/// A running container runtime.
pub enum Runtime<'w> {
    /// `orlop cri`.
    Orlop(CriDaemon<'w>),
    /// containerd 2.4, with runc and the reference CNI plugins.
    Upstream(Containerd),
}

/// A node that has joined. Dropping it ends its programs; [`Node::retire`] also proves that it leaves nothing.
pub struct Node<'w> {
    world: &'w World,
    kubelet: Kubelet<'w>,
    runtime: Runtime<'w>,
    link: String,
}

impl<'w> Runtime<'w> {
    fn start(world: &'w World, implementation: Implementation) -> Runtime<'w> {
        match implementation {
            Implementation::Orlop => Runtime::Orlop(CriDaemon::start_quiet(world)),
            Implementation::Upstream => Runtime::Upstream(Containerd::start(world)),
        }
    }

    /// A client of its CRI.
    pub fn client(&self) -> Cri {
        match self {
            Runtime::Orlop(daemon) => daemon.client(),
            Runtime::Upstream(containerd) => containerd.client(),
        }
    }

    /// `unix://` and its socket.
    pub fn endpoint(&self) -> String {
        match self {
            Runtime::Orlop(daemon) => daemon.endpoint(),
            Runtime::Upstream(containerd) => containerd.endpoint(),
        }
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        match self {
            Runtime::Orlop(daemon) => daemon.pid(),
            Runtime::Upstream(containerd) => containerd.pid(),
        }
    }

    fn hosts_dir(&self) -> PathBuf {
        match self {
            Runtime::Orlop(daemon) => daemon.hosts_dir(),
            Runtime::Upstream(containerd) => containerd.hosts_dir(),
        }
    }
}

impl<'w> Node<'w> {
    /// Starts a runtime that pulls from `registry` and a kubelet on it, and waits until the node is Ready.
    ///
    /// # Panics
    /// If it does not become Ready in time.
    pub fn start(
        world: &'w World,
        cluster: &ControlPlane<'w>,
        registry: &Registry,
        settings: &Settings<'_>,
    ) -> Node<'w> {
        let runtime = Runtime::start(world, settings.runtime);
        for host in images::upstream::HOSTS {
            mirror_host(&runtime.hosts_dir(), host, &registry.host());
        }
        let number = world.count();
        let (link, ip) =
            (format!("node{number}"), Ipv4Addr::new(192, 168, 77, u8::try_from(number % 250).unwrap_or(1)));
        // A kubelet refuses a loopback address; a bridge without ports has one that the whole World reaches.
        for arguments in [
            format!("link add {link} type bridge"),
            format!("address add {ip}/32 dev {link}"),
            format!("link set {link} up"),
        ] {
            output(world.command("ip").args(arguments.split(' '))).success();
        }
        let mut config = settings.config.clone();
        if settings.reserved {
            config["registerWithTaints"] = json!([{ "key": RESERVED, "effect": "NoSchedule" }]);
        }
        let start = Start {
            implementation: settings.kubelet,
            name: settings.name,
            ip,
            endpoint: runtime.endpoint(),
            config,
            quiet: settings.quiet,
        };
        let kubelet = Kubelet::start(world, cluster, start);
        let node = Node { world, kubelet, runtime, link };
        node.wait_until_ready(cluster);
        node
    }

    /// Its name in the cluster.
    pub fn name(&self) -> &str {
        self.kubelet.name()
    }

    /// Its kubelet.
    pub fn kubelet(&self) -> &Kubelet<'w> {
        &self.kubelet
    }

    /// Its container runtime.
    pub fn runtime(&self) -> &Runtime<'w> {
        &self.runtime
    }

    /// Its container runtime, to be killed and started.
    pub fn runtime_mut(&mut self) -> &mut Runtime<'w> {
        &mut self.runtime
    }

    /// The object that the API server has of it.
    ///
    /// # Errors
    /// The server's message.
    pub fn object(&self, cluster: &ControlPlane<'_>) -> Result<Value, String> {
        cluster.api().get(&format!("/api/v1/nodes/{}", self.name()))
    }

    /// Waits until the API server has the condition Ready, true.
    ///
    /// # Panics
    /// If that takes more than half a minute.
    #[track_caller]
    pub fn wait_until_ready(&self, cluster: &ControlPlane<'_>) {
        eventually("the node is Ready", Duration::from_secs(30), || {
            let node = self.object(cluster)?;
            let conditions = node["status"]["conditions"].clone();
            let ready = conditions.as_array().into_iter().flatten().find(|condition| condition["type"] == "Ready");
            if ready.is_some_and(|ready| ready["status"] == "True") { Ok(()) } else { Err(conditions.to_string()) }
        });
    }

    /// The names of `<root>/pods` and of the pods' cgroups: what the kubelet still has of pods.
    pub fn remains(&self) -> Vec<String> {
        let mut remains: Vec<String> = names(&self.kubelet.root().join("pods"));
        for class in ["", "besteffort", "burstable"] {
            let hierarchy = self.world.cgroup_dirs(&format!("{}/kubepods/{class}", self.kubelet.cgroup()));
            let pods = hierarchy.iter().flat_map(|dir| names(dir)).filter(|name| name.starts_with("pod"));
            remains.extend(pods.map(|pod| format!("cgroup {pod}")));
        }
        remains.sort();
        remains.dedup();
        remains
    }

    /// Takes the node out of the cluster as an administrator would, and proves that no pod left a directory, a cgroup or
    /// a sandbox.
    ///
    /// # Panics
    /// With what is left.
    pub fn retire(self, cluster: &ControlPlane<'_>) {
        let of_node = format!("--field-selector=spec.nodeName={}", self.name());
        cluster.kubectl().ok(&["cordon", self.name()]);
        eventually("a node without pods keeps nothing of them", Duration::from_secs(90), || {
            // Again: the scheduler may give it one more before it hears of the cordon.
            let delete = ["delete", "pods", "-A", &of_node, "--grace-period=1", &a_minute()];
            let told = cluster.kubectl().run(&delete);
            if told.code != 0 {
                return Err(told.stderr);
            }
            let remains = self.remains();
            if remains.is_empty() { Ok(()) } else { Err(remains.join(", ")) }
        });
        self.kubelet.terminate();
        cluster.kubectl().ok(&["delete", "node", self.name()]);
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        self.kubelet.kill();
        let _best_effort = output(self.world.command("ip").args(["link", "delete", &self.link]));
    }
}

fn names(dir: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
