//! The tree of kubepods on fixtures of both hierarchies.

use super::*;
use crate::pod::Source;
use cgroup::Kind;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// Plain files in place of the kernel's.
struct Tree {
    temp: tempfile::TempDir,
    cgroups: Cgroups,
}

const V1: [&str; 4] = ["cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "memory.limit_in_bytes"];
const V2: [&str; 7] =
    ["cgroup.controllers", "cgroup.subtree_control", "cpu.weight", "cpu.max", "memory.max", "memory.low", "pids.max"];
const POD: &str = "cd1e";

fn settings() -> Limits {
    Limits {
        max_pods: 110,
        pods_per_core: 0,
        pod_pids: Some(100),
        kube_reserved: BTreeMap::from([("memory".to_owned(), "1Gi".to_owned()), ("pid".to_owned(), "1000".to_owned())]),
        system_reserved: BTreeMap::from([("cpu".to_owned(), "500m".to_owned())]),
        eviction_hard: BTreeMap::new(),
        eviction_soft: BTreeMap::new(),
        eviction_soft_grace: BTreeMap::new(),
        pressure_transition: Duration::from_secs(300),
        cgroup_root: "/node".to_owned(),
        enforce_allocatable: true,
        cpu_quota: true,
        cpu_quota_period: Duration::from_millis(100),
        cgroups_per_qos: true,
    }
}

fn capacity() -> BTreeMap<String, Quantity> {
    BTreeMap::from(
        [("cpu", "4"), ("memory", "8Gi")].map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))),
    )
}

impl Tree {
    fn open(kind: Kind, files: &[&str]) -> Tree {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let classes = ["", "node", "node/kubepods", "node/kubepods/burstable", "node/kubepods/besteffort"];
        let pods = classes[2..].iter().map(|class| format!("{class}/pod{POD}"));
        for folder in classes.iter().map(|&class| class.to_owned()).chain(pods) {
            let folder = temp.path().join(folder);
            std::fs::create_dir_all(&folder).expect("a folder");
            files.iter().for_each(|file| put(&folder.join(file), "cpu memory pids"));
        }
        let layout = Layout::fixture(vec![(kind, temp.path().to_owned())]).expect("a layout");
        let cgroups = Cgroups::in_layout(layout, &settings(), &capacity(), Some(32_768)).expect("a tree");
        Tree { temp, cgroups }
    }

    fn v1() -> Tree {
        let controllers = ["cpu", "memory"].map(str::to_owned).to_vec();
        Tree::open(Kind::V1 { controllers }, &V1)
    }

    fn v2() -> Tree {
        Tree::open(Kind::V2, &V2)
    }

    #[track_caller]
    fn check(&self, folder: &str, expected: &[(&str, &str)]) {
        for (file, content) in expected {
            let path = self.temp.path().join("node/kubepods").join(folder).join(file);
            assert_eq!(std::fs::read_to_string(&path).expect("a file"), *content, "{folder}/{file}");
        }
    }
}

fn put(path: &Path, content: &str) {
    std::io::Write::write_all(&mut std::fs::File::create(path).expect("a file"), content.as_bytes()).expect("content");
}

fn pod(resources: &Value) -> Pod {
    let object = json!({
        "metadata": { "name": "p", "namespace": "n", "uid": POD },
        "spec": { "containers": [{ "name": "c", "resources": resources }] },
    });
    Pod::new(Arc::new(serde_json::from_value(object).expect("a pod")), Source::Api).expect("a pod")
}

const UNTOUCHED: &str = "cpu memory pids";

#[test]
fn all_pods_have_what_the_machine_has_less_what_is_set_aside() {
    let tree = Tree::v1();
    tree.check("", &[("cpu.shares", "3584"), ("memory.limit_in_bytes", UNTOUCHED)]);
    tree.check("besteffort", &[("cpu.shares", "2"), ("memory.limit_in_bytes", UNTOUCHED)]);
    tree.check("burstable", &[("cpu.shares", "2")]);
    tree.cgroups.enforce().expect("the limits");
    tree.check("", &[("cpu.shares", "3584"), ("memory.limit_in_bytes", "7516192768")]);

    let tree = Tree::v2();
    tree.cgroups.enforce().expect("the limits");
    tree.check("", &[("cpu.weight", "137"), ("memory.max", "7516192768"), ("pids.max", "31768")]);
}

#[test]
fn a_pod_is_in_the_cgroup_of_its_class_with_its_own_limits() {
    let tree = Tree::v1();
    let guaranteed = pod(&json!({ "limits": { "cpu": "200m", "memory": "64Mi" } }));
    assert_eq!(tree.cgroups.ensure_pod(&guaranteed).expect("a cgroup"), "/node/kubepods/podcd1e");
    let limits = [("cpu.shares", "204"), ("cpu.cfs_quota_us", "20000"), ("memory.limit_in_bytes", "67108864")];
    tree.check("podcd1e", &limits);

    let burstable = pod(&json!({ "requests": { "cpu": "100m" }, "limits": { "memory": "64Mi" } }));
    assert_eq!(tree.cgroups.ensure_pod(&burstable).expect("a cgroup"), "/node/kubepods/burstable/podcd1e");
    let limits = [("cpu.shares", "102"), ("cpu.cfs_quota_us", UNTOUCHED), ("memory.limit_in_bytes", "67108864")];
    tree.check("burstable/podcd1e", &limits);

    let best_effort = pod(&json!({}));
    assert_eq!(tree.cgroups.ensure_pod(&best_effort).expect("a cgroup"), "/node/kubepods/besteffort/podcd1e");
    tree.check("besteffort/podcd1e", &[("cpu.shares", "2"), ("memory.limit_in_bytes", UNTOUCHED)]);
}

#[test]
fn on_v2_a_pod_has_a_linear_weight_and_a_limit_of_processes() {
    let tree = Tree::v2();
    assert!(tree.cgroups.is_v2());
    tree.cgroups.ensure_pod(&pod(&json!({ "limits": { "cpu": "1", "memory": "64Mi" } }))).expect("a cgroup");
    let limits = [("cpu.weight", "39"), ("cpu.max", "100000 100000"), ("memory.max", "67108864"), ("pids.max", "100")];
    tree.check("podcd1e", &limits);
}

#[test]
fn burstable_pods_share_what_they_request_together() {
    let tree = Tree::v1();
    let pods = [
        pod(&json!({ "requests": { "cpu": "250m" } })),
        pod(&json!({ "requests": { "cpu": "500m" } })),
        pod(&json!({})),
        pod(&json!({ "limits": { "cpu": "2", "memory": "1Gi" } })),
    ];
    tree.cgroups.update_burstable(&pods).expect("shares");
    tree.check("burstable", &[("cpu.shares", "768")]);
    tree.cgroups.update_burstable(&[]).expect("shares");
    tree.check("burstable", &[("cpu.shares", "2")]);
}

#[test]
fn pods_are_found_by_their_cgroups_in_every_class() {
    let tree = Tree::v1();
    for folder in ["burstable/podab12", "besteffort/pod34cd", "pod.hidden", "other"] {
        std::fs::create_dir(tree.temp.path().join("node/kubepods").join(folder)).expect("a folder");
    }
    let pods = tree.cgroups.pods().expect("pods");
    assert_eq!(pods.iter().map(PodUid::as_str).collect::<Vec<_>>(), ["34cd", "ab12", POD]);
}

#[test]
fn what_the_quota_of_a_container_did_is_read_below_its_pod() {
    let tree = Tree::v2();
    let folder = tree.temp.path().join("node/kubepods/burstable").join(format!("pod{POD}")).join("id1");
    std::fs::create_dir(&folder).expect("a folder");
    let stat = "usage_usec 5\nnr_periods 9\nnr_throttled 2\nthrottled_usec 3\n";
    put(&folder.join("cpu.stat"), stat);
    let uid = PodUid::parse(POD).expect("a uid");
    let expected = cgroup::Throttling { periods: 9, throttled: 2, throttled_ns: 3000 };
    assert_eq!(tree.cgroups.throttling(&uid, "id1"), Some(expected));
    assert_eq!(tree.cgroups.throttling(&uid, "id2"), None);
}

#[test]
fn a_host_without_memory_controller_is_refused_by_name() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let kind = Kind::V1 { controllers: vec!["cpu".to_owned()] };
    let layout = Layout::fixture(vec![(kind, temp.path().to_owned())]).expect("a layout");
    let error = Cgroups::in_layout(layout, &settings(), &capacity(), None).expect_err("no memory controller");
    assert_eq!(error.to_string(), "these cgroup controllers are not mounted: memory");
}

/// Mutant: a plain sum; it wraps, and all Burstable pods together get the share of one that asks for nothing.
#[test]
fn requests_beyond_all_numbers_are_the_most_and_not_the_least() {
    let huge = json!({ "requests": { "cpu": "9E" } });
    let spec = json!({ "containers": [{ "name": "c", "resources": huge }, { "name": "d", "resources": huge }] });
    let object = json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u" }, "spec": spec });
    let pod = Pod::new(Arc::new(serde_json::from_value(object).expect("a pod")), Source::Api).expect("a pod");
    assert_eq!(limits::burstable_shares(&[pod.clone(), pod.clone(), pod]), 262_144);
}
