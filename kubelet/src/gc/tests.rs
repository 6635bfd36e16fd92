//! Collecting, with a runtime in memory and folders on disk.

use super::*;
use crate::config::{self, flags::Flags};
use crate::fakes::api::FakeApi;
use crate::fakes::runtime::{self as fake, FakeRuntime};
use crate::metrics::Metrics;
use crate::pod::{Pod, Source};
use crate::runtime::{Container, ContainerState, Exit, Sandbox};
use crate::table::Entry;
use cgroup::{Kind, Layout};
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A machine on which a pod `u` has left something.
struct Stage {
    root: tempfile::TempDir,
    runtime: FakeRuntime,
    table: PodTable,
    heard: watch::Sender<bool>,
    changes: watch::Sender<u64>,
}

/// The machine, and who collects there.
fn stage() -> (Stage, Collector) {
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path());
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let runtime = FakeRuntime::new(clock.clone());
    let (changes, heard) = (watch::Sender::new(0), watch::Sender::new(false));
    let table = PodTable::default();
    let collector = Collector {
        volumes: Volumes::new(&config, FakeApi::new().api(), clock.clone(), Metrics::new("node")),
        cgroups: Arc::new(cgroups(&root.path().join("cgroup"), &config)),
        config: Arc::new(config),
        runtime: Arc::new(runtime.clone()),
        table: table.clone(),
        heard: heard.subscribe(),
        changes: changes.subscribe(),
        clock,
    };
    let stage = Stage { root, runtime, table, heard, changes };
    for left in stage.left() {
        std::fs::create_dir_all(left).unwrap();
    }
    (stage, collector)
}

fn config(root: &Path) -> Config {
    let given = [("hostname-override", "node"), ("node-ip", "192.0.2.1")];
    let flags = Flags {
        given: given.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        defaults: vec![("failCgroupV1", "false".into()), ("failSwapOn", "false".into())],
        local_socket: None,
    };
    let config = config::load(&flags).expect("these flags make a configuration");
    Config { root: root.to_owned(), pod_logs: root.join("logs"), container_logs: root.join("links"), ..config }
}

/// Plain folders in place of the kernel's.
fn cgroups(root: &Path, config: &Config) -> Cgroups {
    for folder in ["", "kubepods", "kubepods/burstable", "kubepods/besteffort"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
        for file in ["cgroup.controllers", "cgroup.subtree_control", "cpu.weight", "cpu.max", "memory.max", "pids.max"]
        {
            let mut made = std::fs::File::create(root.join(folder).join(file)).unwrap();
            std::io::Write::write_all(&mut made, b"cpu memory pids").unwrap();
        }
    }
    let layout = Layout::fixture(vec![(Kind::V2, root.to_owned())]).unwrap();
    Cgroups::in_layout(layout, &config.limits, &BTreeMap::new(), None).unwrap()
}

impl Stage {
    /// The pod's folder, cgroup and logs.
    fn left(&self) -> [PathBuf; 3] {
        ["pods/u/volumes", "cgroup/kubepods/besteffort/podu", "logs/n_p_u/web"].map(|path| self.root.path().join(path))
    }

    fn is_left(&self) -> [bool; 3] {
        self.left().map(|path| path.exists())
    }

    fn pod(&self) -> Pod {
        let object = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": []}});
        Pod::new(Arc::new(serde_json::from_value(object).unwrap()), Source::Api).unwrap()
    }

    fn pod_comes(&self) {
        self.table.set(Entry { pod: self.pod(), observed: Arc::default(), status: Arc::default(), active: true });
    }

    /// A reboot left a dead sandbox with a dead container.
    fn pod_died(&self) {
        let exit = Exit {
            started_at: None,
            finished_at: Timestamp::UNIX_EPOCH,
            code: 137,
            reason: String::new(),
            message: String::new(),
        };
        let sandbox = Sandbox { ready: false, ..fake::sandbox("sandbox-1") };
        let state = ContainerState::Exited(exit);
        let container = Container { sandbox_id: "sandbox-1".into(), state, ..fake::container("web-1", "web") };
        self.runtime.put(self.pod().uid(), "p", sandbox, vec![container]);
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep_until(Instant::now() + Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_collected_before_every_source_was_heard() {
    let (stage, collector) = stage();
    stage.pod_died();
    let task = tokio::spawn(run(collector));
    // A static pod came; the API server is still away.
    stage.changes.send_replace(1);
    pass(120).await;
    assert!(stage.runtime.take_calls().is_empty());
    assert_eq!(stage.is_left(), [true; 3]);
    stage.heard.send_replace(true);
    pass(61).await;
    assert_eq!(stage.runtime.take_calls(), ["remove web-1", "stop sandbox", "remove sandbox"]);
    task.abort();
}

#[tokio::test]
async fn what_a_pod_that_nobody_knows_left_goes() {
    let (stage, collector) = stage();
    collector.collect_orphans(&[]).await;
    assert_eq!(stage.is_left(), [false; 3]);
}

#[tokio::test]
async fn what_a_pod_has_that_came_since_the_list_stays() {
    let (stage, collector) = stage();
    let (listed, _) = collector.look().await.unwrap();
    stage.pod_comes();
    collector.collect_orphans(&listed).await;
    assert_eq!(stage.is_left(), [true; 3]);
}
