//! What a kubelet puts a pod into: its cgroups, and what its processes find around them. The node stands alone.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tests::{CriDaemon, Registry, World, binary, eventually, images, write};

const DEADLINE: Duration = Duration::from_secs(60);

/// A kubelet that runs the pods of a folder, and the CRI below it.
struct Node<'w> {
    world: &'w World,
    _daemon: CriDaemon<'w>,
    _registry: Registry,
    dir: PathBuf,
    cgroup: String,
    kubelet: Child,
}

impl<'w> Node<'w> {
    fn start(world: &'w World) -> Node<'w> {
        let registry = Registry::start(world);
        registry.add("base", "1", &images::busybox());
        registry.add("app", "1", &images::busybox().with("User", "1234:1235"));
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
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "healthzPort": 0, "cgroupDriver": "cgroupfs", "cgroupRoot": cgroup, "podPidsLimit": 77,
            "failSwapOn": false, "failCgroupV1": false, "clusterDNS": ["10.96.0.10"], "clusterDomain": "cluster.local",
            "authentication": { "webhook": { "enabled": false } }, "authorization": { "mode": "AlwaysAllow" },
            "staticPodPath": dir.join("manifests"), "fileCheckFrequency": "1s", "podLogsDir": dir.join("pods"),
            "evictionHard": { "memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
        });
        write(&dir.join("config.yaml"), format!("{config:#}\n"));
        let log = File::create(dir.join("log")).expect("the kubelet's log");
        let mut command = world.command(binary("orlop"));
        command.args(["--log-level", "info", "kubelet", "--hostname-override=alone"]);
        command.arg("--config").arg(dir.join("config.yaml"));
        command.arg(format!("--container-runtime-endpoint={}", daemon.endpoint()));
        command.arg(format!("--root-dir={}", dir.join("root").display()));
        command.arg(format!("--cert-dir={}", dir.join("pki").display()));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the kubelet's log")).stderr(log);
        let kubelet = command.spawn().expect("start the kubelet");
        Node { world, _daemon: daemon, _registry: registry, dir, cgroup, kubelet }
    }

    /// Runs a pod with one container, which sees `/out`.
    fn run(&self, name: &str, container: &Value, spec: &Value) {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "main", "imagePullPolicy": "IfNotPresent",
                    "volumeMounts": [{ "name": "out", "mountPath": "/out" }],
                }],
                "volumes": [{ "name": "out", "hostPath": { "path": self.dir.join("out"), "type": "Directory" } }],
            },
        });
        let add = |into: &mut Value, from: &Value| {
            into.as_object_mut().expect("an object").extend(from.as_object().expect("an object").clone());
        };
        add(&mut pod["spec"], spec);
        add(&mut pod["spec"]["containers"][0], container);
        write(&self.manifest(name), pod.to_string());
    }

    /// Removes the pods' manifests, and waits until nothing of any pod is left.
    #[track_caller]
    fn delete(&self, names: &[&str]) {
        names.iter().for_each(|name| fs::remove_file(self.manifest(name)).expect("remove the manifest"));
        eventually("no cgroup of a pod is left", DEADLINE, || {
            let pods = self.pods();
            if pods.is_empty() { Ok(()) } else { Err(format!("{pods:?}\n{}", self.tail())) }
        });
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.dir.join("manifests").join(format!("{name}.json"))
    }

    /// What a pod wrote to `/out/<file>`, once it has.
    #[track_caller]
    fn said(&self, file: &str) -> String {
        let path = self.dir.join("out").join(file);
        eventually(&format!("a pod writes {file}"), DEADLINE, || fs::read_to_string(&path).map_err(|_| self.tail()))
    }

    fn tail(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// A file of a cgroup below kubepods, on v1.
    fn limit(&self, controller: &str, below: &str, file: &str) -> String {
        let path = format!("/sys/fs/cgroup/{controller}{}/kubepods/{below}/{file}", self.cgroup);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}")).trim().to_owned()
    }

    /// The cgroups of pods below kubepods, such as `burstable/pod…`.
    fn pods(&self) -> Vec<String> {
        let mut pods = Vec::new();
        for class in ["", "burstable/", "besteffort/"] {
            for dir in self.world.cgroup_dirs(&format!("{}/kubepods/{class}", self.cgroup)) {
                let names = fs::read_dir(dir).expect("a cgroup").flatten().map(|entry| entry.file_name());
                pods.extend(names.filter_map(|name| name.into_string().ok()).map(|name| format!("{class}{name}")));
            }
        }
        pods.retain(|name| name.rsplit('/').next().is_some_and(|name| name.starts_with("pod")));
        pods.sort();
        pods.dedup();
        pods
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the end of the kubelet's log:\n{}", self.tail());
        }
        let _already_gone = self.kubelet.kill();
        let _reaped = self.kubelet.wait();
    }
}

/// CAP_SYS_RESOURCE, bit 24 of `CapEff` (capabilities(7)).
fn may_lower_oom_scores() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("our own status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("capabilities").trim();
    u64::from_str_radix(effective, 16).expect("a bit set") >> 24 & 1 == 1
}

#[test]
fn a_pod_s_cgroup_is_that_of_its_class_and_goes_with_it() {
    let world = World::enter();
    let node = Node::start(&world);
    for (name, resources) in [
        ("guaranteed", json!({ "limits": { "cpu": "200m", "memory": "64Mi" } })),
        ("burstable", json!({ "requests": { "cpu": "100m", "memory": "32Mi" } })),
        ("besteffort", json!({})),
    ] {
        let script = format!(
            "{{ cat /proc/self/oom_score_adj; grep :memory: /proc/self/cgroup; }} > /out/.{name}; \
             mv /out/.{name} /out/{name}; sleep 1000"
        );
        let container = json!({
            "image": "registry.example/base:1", "command": ["sh", "-c", script], "resources": resources,
        });
        node.run(name, &container, &json!({ "hostNetwork": true }));
    }
    let scores = ["guaranteed", "burstable", "besteffort"].map(|name| {
        let said = node.said(name);
        let (score, cgroup) = said.split_once('\n').expect("two lines");
        let class = if name == "guaranteed" { String::new() } else { format!("{name}/") };
        assert!(cgroup.contains(&format!("{}/kubepods/{class}pod", node.cgroup)), "{cgroup}");
        score.parse::<i64>().expect("a number")
    });
    // Without CAP_SYS_RESOURCE nobody makes a process safer than it was.
    let least = if may_lower_oom_scores() { -997 } else { 0 };
    assert_eq!((scores[0], scores[2]), (least, 1000));
    assert!((900..1000).contains(&scores[1]), "{scores:?}");

    let pods = node.pods();
    let [best_effort, burstable, guaranteed] = <[String; 3]>::try_from(pods).expect("three pods");
    assert_eq!(node.limit("cpu", &guaranteed, "cpu.shares"), "204");
    assert_eq!(node.limit("cpu", &guaranteed, "cpu.cfs_quota_us"), "20000");
    assert_eq!(node.limit("memory", &guaranteed, "memory.limit_in_bytes"), "67108864");
    assert_eq!(node.limit("cpu", &burstable, "cpu.shares"), "102");
    assert_eq!(node.limit("cpu", &burstable, "cpu.cfs_quota_us"), "-1");
    assert_eq!(node.limit("cpu", &best_effort, "cpu.shares"), "2");
    for pod in [&guaranteed, &burstable, &best_effort] {
        assert_eq!(node.limit("pids", pod, "pids.max"), "77");
    }
    assert_eq!(node.limit("cpu", "besteffort", "cpu.shares"), "2");
    eventually("burstable pods have the shares of their requests", DEADLINE, || {
        Some(node.limit("cpu", "burstable", "cpu.shares")).filter(|shares| shares == "102").ok_or("not yet")
    });
    let memory: u64 = node.limit("memory", "", "memory.limit_in_bytes").parse().expect("bytes");
    assert!(memory < 1 << 50, "all pods together have no limit of memory");

    node.delete(&["guaranteed", "burstable", "besteffort"]);
}

/// CVE-2019-11245: a kubelet asked for the image's user at the first start only, and ran the second one as root.
#[test]
fn the_image_s_user_is_the_same_at_every_start() {
    let world = World::enter();
    let node = Node::start(&world);
    fs::set_permissions(node.dir.join("out"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("for all");
    let script = "n=0; while [ -e /out/start$n ]; do n=$((n+1)); done; id -u > /out/.x; mv /out/.x /out/start$n; \
                  [ $n -lt 2 ] || sleep 1000";
    let container = json!({ "image": "registry.example/app:1", "command": ["sh", "-c", script] });
    let spec = json!({ "hostNetwork": true, "securityContext": { "runAsNonRoot": true } });
    node.run("user", &container, &spec);
    for start in ["start0", "start1", "start2"] {
        assert_eq!(node.said(start), "1234\n", "{start}");
    }
    node.delete(&["user"]);
}

#[test]
fn a_pod_finds_its_name_its_network_and_its_variables() {
    let world = World::enter();
    let node = Node::start(&world);
    let script = "{ hostname; echo \"$GREETING $IP\"; cat /etc/hosts; cat /etc/resolv.conf; stat -c %a /dev/termination-log; } \
                  > /out/.inside; mv /out/.inside /out/inside; sleep 1000";
    let container = json!({
        "image": "registry.example/base:1", "command": ["sh", "-c", script],
        "env": [
            { "name": "WHO", "value": "world" },
            { "name": "GREETING", "value": "hello $(WHO)" },
            { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
        ],
    });
    let spec =
        json!({ "hostname": "web", "subdomain": "sub", "hostAliases": [{ "ip": "1.2.3.4", "hostnames": ["far"] }] });
    node.run("inside", &container, &spec);
    let said = node.said("inside");
    let lines: Vec<&str> = said.lines().collect();
    let ip = lines[1].strip_prefix("hello world ").expect("a greeting");
    assert_eq!((lines[0], lines[2]), ("web", "# Kubernetes-managed hosts file."));
    for expected in [
        &format!("{ip}\tweb.sub.default.svc.cluster.local\tweb"),
        "1.2.3.4\tfar",
        "nameserver 10.96.0.10",
        "options ndots:5",
        "666",
    ] {
        assert!(lines.contains(&expected), "{expected}\n{said}");
    }
    let search = lines.iter().find(|line| line.starts_with("search ")).expect("a search list");
    assert!(search.starts_with("search default.svc.cluster.local svc.cluster.local cluster.local"), "{search}");
    node.delete(&["inside"]);
}
