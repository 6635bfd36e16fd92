//! `orlop up` and `orlop ps`: a node of one machine, as the first page of the README has it.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::{CriDaemon, Output, Registry, World, binary, eventually, images, output, pods, write};

const SOON: Duration = Duration::from_secs(20);

/// An `orlop up` with everything below one folder. It ends with its pods.
struct Node<'w> {
    world: &'w World,
    dir: PathBuf,
    cgroup: String,
    process: Option<Child>,
}

impl<'w> Node<'w> {
    fn prepare(world: &'w World) -> Node<'w> {
        let dir = world.new_dir("up");
        for folder in ["manifests", "cni", "netns"] {
            fs::create_dir(dir.join(folder)).expect("its folders");
        }
        let at = dir.display();
        let cni = format!("conf_dir = \"{at}/cni\"\nbin_dirs = []\ncache_dir = \"{at}/cni-cache\"");
        write(&dir.join("config.toml"), format!("[cri]\nnetns_dir = \"{at}/netns\"\n[cni]\n{cni}\n"));
        let cgroup = world.cgroup("node");
        for kept in ["kubepods", "kubepods/burstable", "kubepods/besteffort"] {
            world.adopt_cgroup(&format!("{cgroup}/{kept}"));
        }
        // A bridge plugin never removes its bridge, and the table stays.
        for stays in ["link orlop", "nft "] {
            world.tolerate(stays);
        }
        Node { world, dir, cgroup, process: None }
    }

    fn orlop(&self) -> Command {
        let mut command = self.world.command(binary("orlop"));
        for (flag, name) in [("--config", "config.toml"), ("--root", "root"), ("--state", "state")] {
            command.arg(flag).arg(self.dir.join(name));
        }
        command
    }

    /// Starts it alone, over its folder of manifests.
    fn start(&mut self) {
        let manifests = self.dir.join("manifests");
        self.start_with(&["--manifests", manifests.to_str().expect("a path")]);
    }

    fn start_with(&mut self, arguments: &[&str]) {
        let log = File::options().create(true).append(true).open(self.dir.join("log")).expect("its log");
        let mut command = self.orlop();
        command.arg("up").args(arguments).arg("--cgroup-root").arg(&self.cgroup);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("its log")).stderr(log);
        self.process = Some(command.spawn().expect("start orlop up"));
    }

    fn manifest(&self, name: &str, text: &str) {
        write(&self.dir.join("manifests").join(name), text);
    }

    fn ps(&self) -> Output {
        output(self.orlop().args(["ps", "-o", "json"]))
    }

    /// The pods that `orlop ps` lists; none while nobody answers.
    fn pods(&self) -> Vec<Value> {
        let listed = serde_json::from_str::<Value>(&self.ps().stdout).unwrap_or_default();
        listed["pods"].as_array().cloned().unwrap_or_default()
    }

    fn all_ready(&self, count: usize) -> Option<Vec<Value>> {
        let pods = self.pods();
        (pods.len() == count && pods.iter().all(|pod| pod["ready"] == true)).then_some(pods)
    }

    fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().expect("kill -9");
        process.wait().expect("its end");
    }

    /// Ends it with SIGTERM; it has to end well and soon.
    fn terminate(&mut self) {
        let mut process = self.process.take().expect("it runs");
        kill(Pid::from_raw(i32::try_from(process.id()).expect("a process id")), Signal::SIGTERM).expect("SIGTERM");
        let ended = eventually("orlop up ends on SIGTERM", SOON, || process.try_wait().ok().flatten());
        assert_eq!((ended.code(), ended.signal()), (Some(0), None), "{}", self.log());
    }

    /// Takes the manifests away and waits until their pods are gone.
    fn empty(&self) {
        for entry in fs::read_dir(self.dir.join("manifests")).expect("the manifests") {
            fs::remove_file(entry.expect("a manifest").path()).expect("take a manifest away");
        }
        eventually("pods without manifests are removed", SOON, || self.ps().code == 0 && self.pods().is_empty());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            eprintln!("the log of orlop up:\n{}", self.log());
            let _gone = process.kill();
            let _reaped = process.wait();
        }
    }
}

fn ids(pods: &[Value]) -> Vec<String> {
    let containers = pods.iter().filter_map(|pod| pod["containers"].as_array()).flatten();
    containers.map(|container| container["id"].as_str().unwrap_or_default().to_owned()).collect()
}

fn web(image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n\
         \x20 - name: server\n    image: {image}\n    command: [workload, httpd, '80']\n\
         \x20   ports: [{{containerPort: 80, hostPort: 8080}}]\n\
         \x20   readinessProbe: {{httpGet: {{path: /, port: 80}}, periodSeconds: 1}}\n"
    )
}

fn client(image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: client}}\nspec:\n  terminationGracePeriodSeconds: 1\n\
         \x20 hostNetwork: true\n  volumes: [{{name: page, emptyDir: {{}}}}]\n  initContainers:\n  - name: fetch\n\
         \x20   image: {image}\n    volumeMounts: [{{name: page, mountPath: /page}}]\n\
         \x20   command: [sh, -c, 'until wget -q -O /page/index.html http://127.0.0.1:8080/; do usleep 10000; done']\n\
         \x20 containers:\n  - name: reader\n    image: {image}\n    command: [sleep, '100000']\n\
         \x20   volumeMounts: [{{name: page, mountPath: /page}}]\n"
    )
}

#[test]
fn two_manifests_become_two_ready_pods_that_outlive_the_node() {
    let world = World::enter();
    let registry = Registry::start(&world);
    registry.add("base", "1", &images::busybox());
    let image = format!("{}/base:1", registry.host());
    let mut node = Node::prepare(&world);
    node.manifest("web.yaml", &web(&image));
    node.manifest("client.yaml", &client(&image));
    node.start();
    let before = eventually("both pods are ready", SOON, || node.all_ready(2));
    let states: Vec<_> = before.iter().flat_map(|pod| pod["containers"].as_array().expect("a list")).collect();
    let states: Vec<_> = states.iter().map(|container| (&container["name"], &container["state"])).collect();
    assert_eq!(
        format!("{states:?}"),
        r#"[(String("fetch"), String("Completed")), (String("reader"), String("Running")), (String("server"), String("Running"))]"#
    );

    node.kill();
    assert_eq!(node.ps().code, 1, "nobody answers");
    node.start();
    let after = eventually("both pods are ready again", SOON, || node.all_ready(2));
    assert_eq!(ids(&before), ids(&after), "nothing was started again");
    assert!(after.iter().all(|pod| pod["restarts"] == 0), "{after:?}");

    node.empty();
    node.terminate();
}

#[test]
fn a_network_is_made_only_where_none_is_and_goes_when_another_comes() {
    let world = World::enter();
    let mut node = Node::prepare(&world);
    let ours = node.dir.join("cni/99-orlop.conflist");
    node.start();
    eventually("our network is configured", SOON, || ours.exists());
    eventually("the node answers", SOON, || node.ps().code == 0);
    write(&node.dir.join("cni/10-other.conflist"), r#"{"cniVersion": "1.0.0", "name": "other", "plugins": []}"#);
    eventually("ours goes when another comes", SOON, || !ours.exists());
    node.terminate();
    node.start();
    eventually("the node answers", SOON, || node.ps().code == 0);
    assert!(!ours.exists(), "ours is not made where another is");
    node.terminate();
}

#[test]
fn two_nodes_live_side_by_side() {
    let world = World::enter();
    let (mut one, mut other) = (Node::prepare(&world), Node::prepare(&world));
    one.start();
    other.start();
    for node in [&one, &other] {
        eventually("it answers", SOON, || node.ps().code == 0);
    }
    one.terminate();
    other.terminate();
}

#[test]
fn a_broken_manifest_is_told_once_and_harms_no_other() {
    let world = World::enter();
    let registry = Registry::start(&world);
    registry.add("base", "1", &images::busybox());
    let mut node = Node::prepare(&world);
    node.manifest("broken.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: broken}\nspec: {containers: 7}\n");
    node.manifest("web.yaml", &web(&format!("{}/base:1", registry.host())));
    node.start();
    eventually("the good one is ready", SOON, || node.all_ready(1));
    let told = node.log().lines().filter(|line| line.contains("broken.yaml")).count();
    assert_eq!(told, 1, "{}", node.log());
    node.empty();
    node.terminate();
}

#[test]
fn ps_lists_the_pods_of_a_runtime_without_a_kubelet() {
    let world = World::enter();
    let registry = Registry::start(&world);
    registry.add("base", "1", &images::busybox());
    let daemon = CriDaemon::start(&world);
    daemon.mirror("registry.example", &registry.host());
    let client = daemon.client();
    client.pull("registry.example/base:1").expect("pull");
    let config = pods::pod("alone", &daemon.logs(), &world.cgroup("pod"));
    let pod = client.run_pod(&config).expect("run a pod");
    let container = client.create(&pod, &config, &pods::container("c", "registry.example/base:1", &["sleep", "1000"]));
    client.start(&container.expect("create")).expect("start");
    let ps = |arguments: &[&str]| {
        let mut command = world.command(binary("orlop"));
        command.arg("--state").arg(daemon.dir().join("state")).arg("--socket").arg(daemon.socket());
        output(command.arg("ps").args(arguments))
    };
    let listed: Value = serde_json::from_str(&ps(&["-o", "json"]).success()).expect("JSON");
    let pod = &listed["pods"][0];
    assert_eq!((&pod["name"], &pod["ready"], &pod["state"]), (&"alone".into(), &Value::Null, &"Up".into()));
    assert_eq!((&pod["containers"][0]["name"], &pod["containers"][0]["state"]), (&"c".into(), &"Running".into()));
    let shown = ps(&[]);
    assert!(shown.stdout.contains("alone") && shown.stdout.contains('?'), "{}", shown.stdout);
    assert!(shown.stderr.contains("readiness is the kubelet's to say"), "{}", shown.stderr);
}

#[test]
fn a_manifest_folder_that_is_not_there_is_refused_by_name() {
    let world = World::enter();
    let node = Node::prepare(&world);
    let ended = output(node.orlop().args(["up", "--manifests"]).arg(Path::new("/nowhere/at/all")));
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("there are no manifests at /nowhere/at/all"), "{}", ended.stderr);
}

mod cluster {
    //! With a control plane: `scripts/test cluster` runs it.

    use super::*;
    use serde_json::json;
    use tests::cluster::ControlPlane;

    /// An address of the World that is not loopback, as a node's has to be.
    const IP: &str = "10.250.0.1";

    #[test]
    fn up_joins_a_cluster_and_runs_what_is_bound_to_it() {
        let world = World::enter();
        output(world.command("ip").args(["address", "add", &format!("{IP}/32"), "dev", "lo"])).success();
        let registry = Registry::start(&world);
        registry.add("base", "1", &images::busybox());
        let cluster = ControlPlane::start(&world);
        let mut node = Node::prepare(&world);
        // In a cluster the network is the cluster's: here, this.
        let network = json!({
            "cniVersion": "1.0.0", "name": "cluster",
            "plugins": [{
                "type": "bridge", "bridge": "orlop0", "isDefaultGateway": true,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]]},
            }],
        });
        write(&node.dir.join("cni/10-cluster.conflist"), network.to_string());
        let kubeconfig = cluster.node_kubeconfig("one");
        let kubeconfig = kubeconfig.to_str().expect("a path");
        // A disk that is nearly full is the machine's affair, not the test's.
        let eviction = "memory.available<50Mi,nodefs.available<1%,imagefs.available<1%";
        let flags = ["--hostname-override", "one", "--node-ip", IP, "--port", "11250", "--healthz-port", "0"];
        let flags = [&["--kubeconfig", kubeconfig, "--eviction-hard", eviction][..], &flags[..]].concat();
        node.start_with(&flags);
        let api = cluster.api();
        eventually("the node is ready", SOON, || {
            let object = api.get("/api/v1/nodes/one").ok()?;
            let conditions = object["status"]["conditions"].as_array()?;
            conditions.iter().find(|condition| condition["type"] == "Ready" && condition["status"] == "True").map(drop)
        });
        let container =
            json!({"name": "c", "image": format!("{}/base:1", registry.host()), "command": ["sleep", "1000"]});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bound"},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
        });
        api.post("/api/v1/namespaces/default/pods", &pod).expect("a pod");
        let before = eventually("the pod is ready", SOON, || node.all_ready(1));
        node.kill();
        node.start_with(&flags);
        let after = eventually("the pod is ready again", SOON, || node.all_ready(1));
        assert_eq!(ids(&before), ids(&after), "nothing was started again");
        api.delete("/api/v1/namespaces/default/pods/bound").expect("delete it");
        eventually("the pod is gone", SOON, || {
            api.get("/api/v1/namespaces/default/pods/bound").is_err() && node.pods().is_empty()
        });
        node.terminate();
    }
}
