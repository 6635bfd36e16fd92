//! What a kubelet puts a pod into: its cgroups, and what its processes find around them. The node stands alone.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tests::cgroup::{CPU_QUOTA, CPU_SHARE, Knob, MEMORY_LIMIT, PIDS_LIMIT, by_version};
use tests::{World, eventually, images};

use crate::lone_node::{DEADLINE, Node};

fn start(world: &World) -> Node<'_> {
    let images = [("base", images::busybox()), ("app", images::busybox().with("User", "1234:1235"))];
    Node::start(
        world,
        &images,
        &json!({ "podPidsLimit": 77, "clusterDNS": ["10.96.0.10"], "clusterDomain": "cluster.local" }),
    )
}

impl Node<'_> {
    /// Runs a pod with one container, which sees `/out`.
    fn run_container(&self, name: &str, container: &Value, spec: &Value) {
        let mut all = json!({
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "imagePullPolicy": "IfNotPresent",
                "volumeMounts": [{ "name": "out", "mountPath": "/out" }],
            }],
            "volumes": [self.out()],
        });
        let add = |into: &mut Value, from: &Value| {
            into.as_object_mut().expect("an object").extend(from.as_object().expect("an object").clone());
        };
        add(&mut all, spec);
        add(&mut all["containers"][0], container);
        self.run_pod(name, &all);
    }

    /// Removes the pods' manifests, and waits until nothing of any pod is left.
    #[track_caller]
    fn delete_all(&self, names: &[&str]) {
        names.iter().for_each(|name| self.delete(name));
        eventually("no cgroup of a pod is left", DEADLINE, || {
            let pods = self.pods();
            if pods.is_empty() { Ok(()) } else { Err(format!("{pods:?}\n{}", self.tail())) }
        });
    }

    /// A file of a cgroup below kubepods.
    fn limit(&self, knob: Knob, below: &str) -> String {
        knob.read(&format!("{}/kubepods/{below}", self.cgroup))
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

/// The cgroups of the shell whose script writes that file. Read on the host: on v2 a container sees its own as the root.
fn cgroup_of_who_writes(file: &str) -> String {
    let processes = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
    let is_it = |dir: &PathBuf| fs::read_to_string(dir.join("cmdline")).is_ok_and(|line| line.contains(file));
    let shell = processes.into_iter().find(is_it).unwrap_or_else(|| panic!("nobody writes {file}"));
    fs::read_to_string(shell.join("cgroup")).expect("its cgroups")
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
    let node = start(&world);
    for (name, resources) in [
        ("guaranteed", json!({ "limits": { "cpu": "200m", "memory": "64Mi" } })),
        ("burstable", json!({ "requests": { "cpu": "100m", "memory": "32Mi" } })),
        ("besteffort", json!({})),
    ] {
        // With something left to do, or the shell would become the last command and be found no more.
        let script = format!("cat /proc/self/oom_score_adj > /out/.{name}; mv /out/.{name} /out/{name}; sleep 1000; :");
        let container = json!({
            "image": "registry.example/base:1", "command": ["sh", "-c", script], "resources": resources,
        });
        node.run_container(name, &container, &json!({ "hostNetwork": true }));
    }
    let scores = ["guaranteed", "burstable", "besteffort"].map(|name| {
        let score = node.said(name);
        let class = if name == "guaranteed" { String::new() } else { format!("{name}/") };
        let cgroup = cgroup_of_who_writes(&format!("/out/.{name};"));
        assert!(cgroup.contains(&format!("{}/kubepods/{class}pod", node.cgroup)), "{cgroup}");
        score.trim().parse::<i64>().expect("a number")
    });
    // Without CAP_SYS_RESOURCE nobody makes a process safer than it was.
    let least = if may_lower_oom_scores() { -997 } else { 0 };
    assert_eq!((scores[0], scores[2]), (least, 1000));
    assert!((900..1000).contains(&scores[1]), "{scores:?}");

    let pods = node.pods();
    let [best_effort, burstable, guaranteed] = <[String; 3]>::try_from(pods).expect("three pods");
    assert_eq!(node.limit(CPU_SHARE, &guaranteed), by_version("204", "8"));
    assert_eq!(node.limit(CPU_QUOTA, &guaranteed), by_version("20000", "20000 100000"));
    assert_eq!(node.limit(MEMORY_LIMIT, &guaranteed), "67108864");
    assert_eq!(node.limit(CPU_SHARE, &burstable), by_version("102", "4"));
    assert_eq!(node.limit(CPU_QUOTA, &burstable), by_version("-1", "max 100000"));
    assert_eq!(node.limit(CPU_SHARE, &best_effort), by_version("2", "1"));
    for pod in [&guaranteed, &burstable, &best_effort] {
        assert_eq!(node.limit(PIDS_LIMIT, pod), "77");
    }
    assert_eq!(node.limit(CPU_SHARE, "besteffort"), by_version("2", "1"));
    eventually("burstable pods have the shares of their requests", DEADLINE, || {
        let shares = node.limit(CPU_SHARE, "burstable");
        if shares == by_version("102", "4") { Ok(()) } else { Err(shares) }
    });
    let memory: u64 = node.limit(MEMORY_LIMIT, "").parse().expect("bytes");
    assert!(memory < 1 << 50, "all pods together have no limit of memory");

    node.delete_all(&["guaranteed", "burstable", "besteffort"]);
}

/// CVE-2019-11245: a kubelet asked for the image's user at the first start only, and ran the second one as root.
#[test]
fn the_image_s_user_is_the_same_at_every_start() {
    let world = World::enter();
    let node = start(&world);
    fs::set_permissions(node.dir.join("out"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("for all");
    let script = "n=0; while [ -e /out/start$n ]; do n=$((n+1)); done; id -u > /out/.x; mv /out/.x /out/start$n; \
                  [ $n -lt 2 ] || sleep 1000";
    let container = json!({ "image": "registry.example/app:1", "command": ["sh", "-c", script] });
    let spec = json!({ "hostNetwork": true, "securityContext": { "runAsNonRoot": true } });
    node.run_container("user", &container, &spec);
    for start in ["start0", "start1", "start2"] {
        assert_eq!(node.said(start), "1234\n", "{start}");
    }
    node.delete_all(&["user"]);
}

#[test]
fn a_pod_finds_its_name_its_network_and_its_variables() {
    let world = World::enter();
    let node = start(&world);
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
    node.run_container("inside", &container, &spec);
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
    node.delete_all(&["inside"]);
}
