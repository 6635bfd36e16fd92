//! The folders and files of a pod.

use super::*;
use crate::config::flags::Flags;
use crate::pod::Source;
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;

/// Settings with their folders below `root`.
pub(in crate::spec) fn config(root: &Path) -> Config {
    let given = [
        ("hostname-override", "node"),
        ("node-ip", "192.0.2.1"),
        ("fail-cgroupv1", "false"),
        ("fail-swap-on", "false"),
    ];
    let given = given.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let flags = Flags { given, ..Flags::default() };
    let mut config = crate::config::load(&flags).expect("a configuration");
    config.root = root.to_owned();
    config.pod_logs = root.join("logs");
    config.dns.domain = "cluster.local".to_owned();
    config
}

struct Node {
    temp: tempfile::TempDir,
    config: Config,
}

impl Node {
    fn new() -> Node {
        let temp = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir_all(temp.path().join("logs")).expect("a folder");
        std::fs::create_dir_all(temp.path().join("seccomp")).expect("a folder");
        let config = config(temp.path());
        Node { temp, config }
    }

    fn put(&self, path: &str, content: &str) {
        let path = self.temp.path().join(path);
        sys::fs::atomic_write(path, content.as_bytes(), sys::fs::Durability::Rename, 0o644).expect("a file");
    }

    fn prepare(&self, pod: &Pod, ips: &[&str]) -> Result<ContainerFiles, SpecError> {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
        prepare_container(&self.config, pod, &pod.spec().containers[0], &ips)
    }
}

fn pod(container: &Value, spec: &Value) -> Pod {
    let mut object = json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u-1" },
        "spec": { "containers": [{ "name": "c" }] },
    });
    let fields = |value: &Value| value.as_object().expect("an object").clone();
    object["spec"].as_object_mut().expect("an object").extend(fields(spec));
    object["spec"]["containers"][0].as_object_mut().expect("an object").extend(fields(container));
    Pod::new(Arc::new(serde_json::from_value(object).expect("a pod")), Source::Api).expect("a pod")
}

fn plain() -> Pod {
    pod(&json!({}), &json!({}))
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("a file").permissions().mode() & 0o7777
}

#[test]
fn a_pod_has_its_folders_and_loses_them_all() {
    let node = Node::new();
    prepare_sandbox(&node.config, &plain()).expect("folders");
    prepare_sandbox(&node.config, &plain()).expect("the same folders");
    let folder = node.temp.path().join("pods/u-1");
    for name in ["", "volumes", "plugins", "containers"] {
        assert_eq!(mode(&folder.join(name)), 0o750, "{name}");
    }
    assert_eq!(mode(&node.temp.path().join("logs/ns_p_u-1")), 0o755);
    remove_pod(&node.config, plain().uid()).expect("removed");
    remove_pod(&node.config, plain().uid()).expect("nothing to remove");
    assert!(!folder.exists());
}

#[test]
fn each_start_has_a_termination_log_of_its_own_that_anybody_may_write() {
    let node = Node::new();
    let first = node.prepare(&plain(), &[]).expect("files").termination_log.expect("a file");
    let second = node.prepare(&plain(), &[]).expect("files").termination_log.expect("a file");
    assert_ne!(first, second);
    assert_eq!((mode(&first), std::fs::metadata(&first).expect("a file").len()), (0o666, 0));
    assert_eq!(first.parent(), Some(node.temp.path().join("pods/u-1/containers/c").as_path()));
    assert_eq!(first.file_name().expect("a name").len(), 8);
    let without = pod(&json!({ "terminationMessagePath": "" }), &json!({}));
    assert_eq!(node.prepare(&without, &[]).expect("files").termination_log, None);
}

#[test]
fn the_hosts_file_stays_the_same_file_and_is_brought_up_to_date() {
    let node = Node::new();
    let path = node.prepare(&plain(), &["10.1.0.2"]).expect("files").hosts.expect("a file");
    assert_eq!((path.as_path(), mode(&path)), (node.temp.path().join("pods/u-1/etc-hosts").as_path(), 0o644));
    let inode = std::fs::metadata(&path).expect("a file").ino();
    // A container fills it up: what it wrote is gone with the next start.
    let grown = std::fs::OpenOptions::new().append(true).open(&path).expect("a file");
    (&grown).write_all(&[b'x'; 100_000]).expect("content");
    node.prepare(&plain(), &["10.1.0.3"]).expect("files");
    let text = std::fs::read_to_string(&path).expect("a file");
    assert!(text.ends_with("\n10.1.0.3\tp\n"), "{text}");
    assert_eq!(std::fs::metadata(&path).expect("a file").ino(), inode);
}

#[test]
fn no_hosts_file_is_mounted_over_a_volume_or_without_an_address() {
    let node = Node::new();
    assert_eq!(node.prepare(&plain(), &[]).expect("files").hosts, None);
    let own = pod(&json!({ "volumeMounts": [{ "name": "v", "mountPath": "/etc/hosts" }] }), &json!({}));
    assert_eq!(node.prepare(&own, &["10.1.0.2"]).expect("files").hosts, None);
    let host = pod(&json!({}), &json!({ "hostNetwork": true }));
    let path = node.prepare(&host, &[]).expect("files").hosts.expect("a file");
    let text = std::fs::read_to_string(path).expect("a file");
    assert!(text.starts_with("# Kubernetes-managed hosts file (host network).\n"), "{text}");
}

/// What a pod that mounts the host's /var/log, or ours, may have left there.
#[test]
fn nothing_is_written_through_a_link() {
    let node = Node::new();
    let outside = tempfile::tempdir().expect("a temporary directory");
    symlink(outside.path(), node.temp.path().join("logs/ns_p_u-1")).expect("a link");
    node.prepare(&plain(), &[]).expect_err("the log folder leads out");
    assert_eq!(std::fs::read_dir(outside.path()).expect("a folder").count(), 0);

    let node = Node::new();
    prepare_sandbox(&node.config, &plain()).expect("folders");
    let victim = outside.path().join("victim");
    sys::fs::atomic_write(&victim, b"kept", sys::fs::Durability::Rename, 0o644).expect("a file");
    symlink(&victim, node.temp.path().join("pods/u-1/etc-hosts")).expect("a link");
    node.prepare(&plain(), &["10.1.0.2"]).expect_err("the hosts file is a link");
    assert_eq!(std::fs::read_to_string(&victim).expect("a file"), "kept");
}

#[track_caller]
fn check_profile(node: &Node, name: &str, expected: bool) {
    let own = json!({ "securityContext": { "seccompProfile": { "type": "Localhost", "localhostProfile": name } } });
    let found = node.prepare(&pod(&own, &json!({})), &[]);
    let path = found.as_ref().ok().and_then(|files| files.seccomp_profile.clone());
    assert_eq!(path, expected.then(|| node.temp.path().join("seccomp").join(name)), "{found:?}");
    assert_eq!(found.is_ok(), expected, "{name}");
}

/// CVE-2023-2431: no profile at all is what a container gets whose profile is not there. Mutant: the file not looked at.
#[test]
fn a_localhost_profile_is_a_file_with_something_in_it() {
    let node = Node::new();
    node.put("seccomp/good.json", "{}");
    node.put("seccomp/empty.json", "");
    node.put("outside.json", "{}");
    std::fs::create_dir(node.temp.path().join("seccomp/folder")).expect("a folder");
    symlink("good.json", node.temp.path().join("seccomp/link.json")).expect("a link");
    symlink("../outside.json", node.temp.path().join("seccomp/sly.json")).expect("a link");
    check_profile(&node, "good.json", true);
    check_profile(&node, "link.json", true);
    for name in ["", "absent.json", "empty.json", "folder", "sly.json", "../outside.json"] {
        check_profile(&node, name, false);
    }
}

#[test]
fn a_container_s_name_is_one_component() {
    let node = Node::new();
    let sly = pod(&json!({ "name": "../../x" }), &json!({}));
    let error = node.prepare(&sly, &[]).expect_err("no name");
    assert_eq!(error.reason, "CreateContainerConfigError");
}
