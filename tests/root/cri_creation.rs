//! Creations that take long: whoever asks again joins them, and a crash in their middle leaves nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::time::Duration;

use tests::{Cri, CriDaemon, World, binary, eventually, pods, write};
use tonic::{Code, Request};

/// A `bridge` plugin that waits in ADD for as long as its gate is closed.
struct Gate(PathBuf);

impl Gate {
    fn close(daemon: &CriDaemon<'_>) -> Gate {
        let dir = daemon.dir();
        let (gate, plugin) = (dir.join("gate"), dir.join("cni-bin/bridge"));
        fs::create_dir(dir.join("real")).expect("a directory");
        symlink(binary("orlop-cni"), dir.join("real/bridge")).expect("the real plugin");
        fs::remove_file(&plugin).expect("the plugin's link");
        let script = format!(
            "#!/bin/sh\nif [ \"$CNI_COMMAND\" = ADD ]; then\n\t: >{0}.waiting\n\twhile [ -e {0} ]; do sleep 0.02; done\nfi\nexec {1}\n",
            gate.display(),
            dir.join("real/bridge").display()
        );
        write(&gate, "");
        write(&plugin, script);
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).expect("an executable plugin");
        Gate(gate)
    }

    fn wait_for_visitor(&self) {
        eventually("a plugin waits at the gate", Duration::from_secs(20), || self.0.with_extension("waiting").exists());
    }

    fn open(&self) {
        fs::remove_file(&self.0).expect("open the gate");
    }
}

fn run_within(client: &Cri, config: &proto::PodSandboxConfig, patience: Duration) -> Result<String, tonic::Status> {
    let message = proto::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
    let mut request = Request::new(message);
    request.set_timeout(patience);
    client.runtime(async |mut client| client.run_pod_sandbox(request).await).map(|answer| answer.pod_sandbox_id)
}

#[test]
fn a_retry_of_a_pod_that_takes_long_joins_it_and_a_late_one_gets_the_same_pod() {
    let world = World::enter();
    let daemon = CriDaemon::start(&world);
    let gate = Gate::close(&daemon);
    let client = daemon.client();
    let config = pods::pod("slow", &daemon.logs(), &world.cgroup("slow"));

    // The daemon gives up a tenth of it before the client does, and a second at most.
    let patience = Duration::from_secs(10).max(Duration::from_secs(2) * tests::slow());
    let refusal = run_within(&client, &config, patience).expect_err("a deadline");
    assert_eq!(refusal.code(), Code::DeadlineExceeded, "{}", refusal.message());
    for word in ["slow_default_uid-slow_0", "in stage \"cni add\"", "start the shim ", " ms"] {
        assert!(refusal.message().contains(word), "{word:?} is missing in {:?}", refusal.message());
    }
    let joined = std::thread::scope(|scope| {
        let retries: Vec<_> = (0..3)
            .map(|_| {
                let (client, config) = (daemon.client(), &config);
                scope.spawn(move || client.run_pod(config))
            })
            .collect();
        gate.open();
        retries.into_iter().map(|retry| retry.join().expect("a retry").expect("its pod")).collect::<Vec<_>>()
    });
    assert!(joined.iter().all(|id| *id == joined[0]), "{joined:?}");
    assert_eq!(client.run_pod(&config).expect("a retry after the end"), joined[0]);
    let listed: Vec<String> = client.list_pods().expect("list").into_iter().map(|pod| pod.id).collect();
    assert_eq!(listed, joined[..1]);

    let mut other = config.clone();
    other.hostname = "other".to_owned();
    let refusal = client.run_pod(&other).expect_err("the name is in use");
    assert_eq!(refusal.code(), Code::AlreadyExists);
    assert!(refusal.message().contains(&joined[0]), "{}", refusal.message());
}

#[test]
fn a_crash_in_the_middle_of_a_pod_s_creation_is_rolled_back_by_the_next_start() {
    let world = World::enter();
    let mut daemon = CriDaemon::start(&world);
    let gate = Gate::close(&daemon);
    let client = daemon.client();
    let config = pods::pod("half", &daemon.logs(), &world.cgroup("half"));
    std::thread::scope(|scope| {
        let (asker, config) = (daemon.client(), &config);
        let asked = scope.spawn(move || asker.run_pod(config));
        gate.wait_for_visitor();
        daemon.kill();
        asked.join().expect("a client").expect_err("the daemon died");
    });
    gate.open();
    daemon.restart();
    assert_eq!(client.list_pods().expect("list").len(), 0);
    for (what, dir) in [("shims", "state/shim"), ("records", "root/cri/sandboxes")] {
        let left: Vec<_> = fs::read_dir(daemon.dir().join(dir)).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{what}: {left:?}");
    }
    assert_eq!(fs::read_dir("/run/netns").expect("/run/netns").count(), 0);
    client.run_pod(&config).expect("the name is free");
}

#[test]
fn a_sandbox_whose_record_is_torn_is_taken_apart_by_its_id() {
    let world = World::enter();
    let mut daemon = CriDaemon::start(&world);
    let client = daemon.client();
    let torn = client.run_pod(&pods::pod("torn", &daemon.logs(), &world.cgroup("torn"))).expect("a pod");
    let whole = client.run_pod(&pods::pod("whole", &daemon.logs(), &world.cgroup("whole"))).expect("a pod");
    daemon.kill();
    let record = daemon.dir().join("root/cri/sandboxes").join(format!("{torn}.json"));
    let bytes = fs::read(&record).expect("its record");
    write(&record, &bytes[..bytes.len() / 2]);
    daemon.restart();
    let listed: Vec<String> = client.list_pods().expect("list").into_iter().map(|pod| pod.id).collect();
    assert_eq!(listed, [whole]);
    assert!(!daemon.dir().join("state/shim").join(&torn).exists());
    assert!(record.with_extension("unreadable").exists());
    assert_eq!(fs::read_dir("/run/netns").expect("/run/netns").count(), 1);
}
