//! What the CNI tests share: plugins in a directory, pods that are bare network namespaces, a host outside.
//!
//! A plugin is called as any runtime calls it: by exec, with environment and standard input. Servers and clients are
//! threads that entered a namespace.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};
use tests::{World, binary, output, slow, tool, write};

/// The subnet of the tests' network.
pub(crate) const SUBNET: &str = "10.88.0.0/16";
/// Its gateway: the bridge.
pub(crate) const GATEWAY: &str = "10.88.0.1";
/// The host's address towards [`Node::outside`].
pub(crate) const HOST: &str = "192.0.2.1";
/// The address of [`Node::outside`].
pub(crate) const OUTSIDE: &str = "192.0.2.2";

/// A World that is a node: with plugins.
pub(crate) struct Node {
    pub(crate) world: World,
    /// `CNI_PATH`: our plugins.
    pub(crate) ours: PathBuf,
}

/// A pod: a network namespace with a name.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) netns: PathBuf,
}

/// A call's failure: what the plugin printed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refused {
    pub(crate) code: u64,
    pub(crate) msg: String,
    pub(crate) details: String,
}

impl Node {
    pub(crate) fn new() -> Node {
        let world = World::enter();
        // As the reference's, our bridge and the rules of its network stay when the last pod is gone.
        // `ip netns` mounts the folder of its namespaces once.
        for stays in ["link cni0", "nft", "mount /run/netns "] {
            world.tolerate(stays);
        }
        let ours = world.new_dir("ours");
        let binary = binary("orlop-cni");
        for plugin in ["bridge", "host-local", "loopback", "portmap"] {
            std::os::unix::fs::symlink(&binary, ours.join(plugin)).expect("link a plugin");
        }
        Node { world, ours }
    }

    /// A directory with the reference's plugins.
    pub(crate) fn reference(&self) -> PathBuf {
        tool("cni")
    }

    pub(crate) fn pod(&self, id: &str) -> Pod {
        self.ip(&["netns", "add", id]);
        Pod { id: id.to_owned(), netns: Path::new("/run/netns").join(id) }
    }

    /// Ends a pod's namespace.
    pub(crate) fn end(&self, pod: &Pod) {
        self.ip(&["netns", "del", &pod.id]);
    }

    /// A machine beyond the host, which routes to the pods' network through it.
    pub(crate) fn outside(&self) -> Pod {
        let outside = self.pod("outside");
        self.ip(&["link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", "outside"]);
        self.ip(&["addr", "add", &format!("{HOST}/24"), "dev", "uplink"]);
        self.ip(&["link", "set", "uplink", "up"]);
        self.ip(&["-n", "outside", "addr", "add", &format!("{OUTSIDE}/24"), "dev", "eth0"]);
        self.ip(&["-n", "outside", "link", "set", "eth0", "up"]);
        self.ip(&["-n", "outside", "link", "set", "lo", "up"]);
        self.ip(&["-n", "outside", "route", "add", "default", "via", HOST]);
        outside
    }

    pub(crate) fn ip(&self, arguments: &[&str]) -> String {
        output(self.world.command("ip").args(arguments)).success()
    }

    pub(crate) fn nft(&self, arguments: &[&str]) -> String {
        output(self.world.command("nft").args(arguments)).success()
    }

    /// Calls a plugin of ours.
    pub(crate) fn call(&self, plugin: &str, verb: &str, pod: &Pod, config: &Value) -> Result<Value, Refused> {
        finish(start(&mut self.command(&self.ours, plugin, verb, pod), config))
    }

    /// The command of a call, with the plugins of `directory`.
    pub(crate) fn command(&self, directory: &Path, plugin: &str, verb: &str, pod: &Pod) -> Command {
        let mut command = self.world.command(directory.join(plugin));
        command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", &pod.id).env("CNI_NETNS", &pod.netns);
        command.env("CNI_IFNAME", "eth0").env("CNI_PATH", directory);
        command
    }

    /// Adds a pod to the network of `config` and returns the result.
    #[track_caller]
    pub(crate) fn add(&self, pod: &Pod, config: &Value) -> Value {
        self.call("bridge", "ADD", pod, config).unwrap_or_else(|refused| panic!("ADD {}: {refused:?}", pod.id))
    }

    #[track_caller]
    pub(crate) fn del(&self, pod: &Pod, config: &Value) {
        self.call("bridge", "DEL", pod, config).unwrap_or_else(|refused| panic!("DEL {}: {refused:?}", pod.id));
    }

    /// Maps ports of the host to a pod, after its [`Node::add`].
    #[track_caller]
    pub(crate) fn map(&self, pod: &Pod, result: &Value, mappings: Value) {
        let config = port_config(result, mappings);
        self.call("portmap", "ADD", pod, &config).unwrap_or_else(|refused| panic!("map {}: {refused:?}", pod.id));
    }

    #[track_caller]
    pub(crate) fn unmap(&self, pod: &Pod) {
        let config = json!({"cniVersion": "1.0.0", "name": "net"});
        self.call("portmap", "DEL", pod, &config).unwrap_or_else(|refused| panic!("unmap {}: {refused:?}", pod.id));
    }

    /// The reservations of the network.
    pub(crate) fn reservations(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir("/var/lib/cni/networks/net") else { return Vec::new() };
        let names = entries.map(|entry| entry.expect("reservation").file_name().into_string().expect("name"));
        let mut found: Vec<_> = names.filter(|name| name.starts_with("10.")).collect();
        found.sort();
        found
    }

    /// The names of the veths on the host's side.
    pub(crate) fn veths(&self) -> Vec<String> {
        let links: Value = serde_json::from_str(&self.ip(&["-j", "link", "show", "type", "veth"])).unwrap_or_default();
        let names = links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str());
        names.filter(|name| name.starts_with("veth")).map(str::to_owned).collect()
    }
}

/// The network of the tests, with more keys. Where br_netfilter rewrites addresses on the bridge itself, a pod reaches
/// itself through a host port only in hairpin mode, as everybody's configuration has it.
pub(crate) fn network(more: Value) -> Value {
    let mut config = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "cni0", "isDefaultGateway": true,
        "hairpinMode": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": SUBNET}]]},
    });
    let Value::Object(more) = more else { panic!("{more}") };
    config.as_object_mut().expect("object").extend(more);
    config
}

/// The configuration that portmap gets after a result.
pub(crate) fn port_config(result: &Value, mappings: Value) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "net", "type": "portmap", "prevResult": result,
        "runtimeConfig": {"portMappings": mappings},
    })
}

/// The pod's address in a result.
pub(crate) fn address(result: &Value) -> String {
    let cidr = result["ips"][0]["address"].as_str().unwrap_or_else(|| panic!("no address in {result}"));
    cidr.split('/').next().expect("address").to_owned()
}

/// A call that runs.
pub(crate) fn start(command: &mut Command, config: &Value) -> std::process::Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    // A plugin may refuse before it reads.
    let _closed = child.stdin.take().expect("stdin").write_all(config.to_string().as_bytes());
    child
}

/// Its end.
pub(crate) fn finish(child: std::process::Child) -> Result<Value, Refused> {
    let done = child.wait_with_output().expect("wait for a plugin");
    let printed: Value = serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
    if done.status.success() {
        return Ok(printed);
    }
    let text = |key: &str| printed[key].as_str().unwrap_or_default().to_owned();
    assert!(printed["code"].is_u64(), "no CNI error: {:?} {:?}", done.status, String::from_utf8_lossy(&done.stderr));
    Err(Refused { code: printed["code"].as_u64().unwrap_or(0), msg: text("msg"), details: text("details") })
}

impl Pod {
    /// Runs `work` in the pod's namespace, on a thread of its own.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                own_directory();
                let netns = std::fs::File::open(&self.netns).expect("open the pod's namespace");
                setns(netns, CloneFlags::CLONE_NEWNET).expect("enter the pod's namespace");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a TCP server in the pod that tells each client its name and the client's address as it sees it. It ends
    /// after `clients` of them.
    pub(crate) fn serve(&self, port: u16, clients: usize) {
        let listener = self.run(|| {
            // A closed socket whose last words nobody acknowledges, because their way was removed, would hold the namespace
            // for a minute and a half (ip-sysctl.rst).
            write(Path::new("/proc/sys/net/ipv4/tcp_orphan_retries"), "1");
            TcpListener::bind(("0.0.0.0", port)).expect("listen in the pod")
        });
        serve(listener, &self.id, clients);
    }
}

/// Serves `clients` connections on a thread of its own.
pub(crate) fn serve(listener: TcpListener, name: &str, clients: usize) {
    let name = name.to_owned();
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        own_directory();
        let _ = ready.send(());
        for _ in 0..clients {
            let Ok((mut client, from)) = listener.accept() else { return };
            let _gone = write!(client, "{name} {}", from.ip());
        }
    });
    is_ready.recv().expect("the server's thread");
}

/// A thread shares root and working directory with the one that started it, which keeps that one from leaving the
/// World's mount namespace for as long as it lives.
fn own_directory() {
    unshare(CloneFlags::CLONE_FS).expect("unshare(CLONE_FS)");
}

/// What a server of [`serve`] says: its name and our address; `None` if it can't be reached.
pub(crate) fn ask(server: &str) -> Option<(String, String)> {
    let server: SocketAddr = server.parse().expect("an address with a port");
    let patience = Duration::from_secs(2) * slow();
    let mut stream = TcpStream::connect_timeout(&server, patience).ok()?;
    stream.set_read_timeout(Some(patience)).expect("read timeout");
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    let (name, address) = said.split_once(' ')?;
    Some((name.to_owned(), address.to_owned()))
}
