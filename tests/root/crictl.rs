//! What a person does with `crictl`, the upstream command line client, against `orlop cri`.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tests::{CriDaemon, Output, Registry, World, eventually, images, output, tool, write};

/// `crictl` with its endpoint, as a person would have it in /etc/crictl.yaml.
struct Crictl<'w> {
    world: &'w World,
    endpoint: String,
    dir: PathBuf,
}

impl<'w> Crictl<'w> {
    fn new(world: &'w World, daemon: &CriDaemon<'_>) -> Crictl<'w> {
        Crictl { world, endpoint: daemon.endpoint(), dir: world.new_dir("crictl") }
    }

    /// Runs one command. `crictl` gives an RPC 2 s by default; here that grows with SLOW like every deadline.
    fn run(&self, arguments: &str) -> Output {
        let mut crictl = self.world.command(tool("crictl"));
        let timeout = format!("{}s", 10 * tests::slow());
        crictl.args(["--runtime-endpoint", &self.endpoint, "--timeout", &timeout]).args(arguments.split(' '));
        output(&mut crictl)
    }

    #[track_caller]
    fn ok(&self, arguments: &str) -> String {
        self.run(arguments).success().trim().to_owned()
    }

    #[track_caller]
    fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.ok(arguments)).unwrap_or_else(|error| panic!("crictl {arguments}: {error}"))
    }

    /// A file that `runp`, `create` or `run` reads.
    fn config(&self, name: &str, config: &Value) -> String {
        let path = self.dir.join(name);
        write(&path, config.to_string());
        path.display().to_string()
    }
}

/// The daemon, the registry and the client that each test begins with.
fn node(world: &World) -> (Registry, CriDaemon<'_>, Crictl<'_>, String) {
    let registry = Registry::start(world);
    registry.add("base", "1", &images::busybox());
    let daemon = CriDaemon::start(world);
    daemon.mirror("_default", &registry.host());
    let crictl = Crictl::new(world, &daemon);
    (registry, daemon, crictl, "registry.example/base:1".to_owned())
}

fn pod(daemon: &CriDaemon<'_>, name: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}"), "attempt": 0 },
        "hostname": name,
        "log_directory": daemon.logs().join(name),
        "labels": { "app": name },
        "linux": {},
    })
}

fn container(name: &str, image: &str, script: &str) -> Value {
    json!({
        "metadata": { "name": name, "attempt": 0 },
        "image": { "image": image },
        "command": ["sh", "-c", script],
        "log_path": format!("{name}.log"),
        "linux": {},
    })
}

#[test]
fn version_info_and_runtime_config_answer_before_any_pod() {
    let world = World::enter();
    let (_registry, _daemon, crictl, _) = node(&world);
    let version = crictl.ok("version");
    for expected in ["RuntimeName:  orlop", "RuntimeApiVersion:  v1"] {
        assert!(version.contains(expected), "{version}");
    }
    let conditions = crictl.json("info")["status"]["conditions"].clone();
    for condition in ["RuntimeReady", "NetworkReady"] {
        let found = conditions.as_array().into_iter().flatten().find(|found| found["type"] == condition);
        assert_eq!(found.map(|found| found["status"].clone()), Some(json!(true)), "{condition} in {conditions}");
    }
    assert!(crictl.ok("runtime-config").contains("CGROUPFS"));
}

#[test]
fn an_image_is_pulled_listed_inspected_and_removed() {
    let world = World::enter();
    let (_registry, _daemon, crictl, image) = node(&world);
    assert!(crictl.ok(&format!("pull {image}")).contains("Image is up to date"));
    let listed = crictl.json("images -o json");
    assert_eq!(listed["images"][0]["repoTags"], json!([image]), "{listed}");
    let inspected = crictl.json(&format!("inspecti {image}"));
    assert_eq!(inspected["status"]["id"], json!(images::busybox().id()), "{inspected}");
    assert!(crictl.json("imagefsinfo")["status"]["imageFilesystems"][0]["usedBytes"]["value"].is_string());
    crictl.ok(&format!("rmi {image}"));
    assert_eq!(crictl.json("images -o json")["images"], json!([]));
    assert_ne!(crictl.run(&format!("inspecti {image}")).code, 0);
}

#[test]
fn a_pod_of_two_containers_lives_from_runp_to_rmp() {
    let world = World::enter();
    let (_registry, daemon, crictl, image) = node(&world);
    crictl.ok(&format!("pull {image}"));
    let pod_config = crictl.config("pod.json", &pod(&daemon, "web"));
    let pod = crictl.ok(&format!("runp {pod_config}"));
    let ip = crictl.json(&format!("inspectp {pod}"))["status"]["network"]["ip"].as_str().unwrap_or_default().to_owned();
    assert!(ip.parse::<std::net::Ipv4Addr>().is_ok(), "{ip:?}");

    let start = |name: &str, script: &str| {
        let config = crictl.config(&format!("{name}.json"), &container(name, &image, script));
        let id = crictl.ok(&format!("create {pod} {config} {pod_config}"));
        crictl.ok(&format!("start {id}"));
        id
    };
    let server = start("server", "echo serving; exec workload httpd 8080");
    let client = start("client", "until wget -q -O - http://127.0.0.1:8080/; do sleep 0.1; done; sleep 1000");
    eventually("the client has fetched the page over localhost", Duration::from_secs(20), || {
        crictl.ok(&format!("logs {client}")).contains("It works!")
    });
    eventually("both streams of the server are in its log", Duration::from_secs(20), || {
        let log = crictl.run(&format!("logs {server}"));
        if log.stdout.contains("serving") && log.stderr.contains("httpd") { Ok(()) } else { Err(log) }
    });

    let running = crictl.json("ps -o json");
    let mut names: Vec<&str> = running["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|container| container["metadata"]["name"].as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["client", "server"]);
    assert_eq!(crictl.json("pods -o json --label app=web")["items"][0]["id"], json!(pod));
    assert_eq!(crictl.ok(&format!("exec -s {server} hostname")), "web");
    let failing = crictl.run(&format!("exec -s {server} false"));
    assert_ne!(failing.code, 0);
    let inspected = crictl.json(&format!("inspect {server}"));
    assert_eq!(inspected["status"]["state"], json!("CONTAINER_RUNNING"));
    assert!(inspected["info"]["pid"].as_u64().is_some_and(|pid| pid > 1), "{}", inspected["info"]);
    let short = &server[..12];
    assert_eq!(crictl.json(&format!("inspect {short}"))["status"]["id"], json!(server), "a unique prefix is enough");

    assert!(crictl.json("stats -o json")["stats"].as_array().is_some_and(|stats| stats.len() == 2));
    assert!(crictl.json("statsp -o json")["stats"].as_array().is_some_and(|stats| stats.len() == 1));

    crictl.ok(&format!("stop --timeout 1 {client}"));
    let stopped = crictl.json(&format!("inspect {client}"));
    assert_eq!(stopped["status"]["state"], json!("CONTAINER_EXITED"));
    crictl.ok(&format!("rm {client}"));
    assert_ne!(crictl.run(&format!("inspect {client}")).code, 0);
    crictl.ok(&format!("stopp {pod}"));
    crictl.ok(&format!("rmp {pod}"));
    assert_eq!(crictl.json("pods -o json")["items"], json!([]));
    assert_eq!(crictl.json("ps -a -o json")["containers"], json!([]));
}

#[test]
fn limits_are_updated_on_a_running_container() {
    let world = World::enter();
    let (_registry, daemon, crictl, image) = node(&world);
    crictl.ok(&format!("pull {image}"));
    let pod_config = crictl.config("pod.json", &pod(&daemon, "limits"));
    let config = crictl.config("sleeper.json", &container("sleeper", &image, "sleep 1000"));
    let id = crictl.ok(&format!("run --no-pull {config} {pod_config}"));
    crictl.ok(&format!("update --memory 67108864 --cpu-share 512 {id}"));
    let resources = crictl.json(&format!("inspect {id}"))["status"]["resources"]["linux"].clone();
    assert_eq!(resources["memoryLimitInBytes"], json!("67108864"), "{resources}");
    assert_eq!(resources["cpuShares"], json!("512"), "{resources}");
    crictl.ok("rmp -a -f");
}

#[test]
fn a_crash_loop_of_a_missing_program_is_named_by_start() {
    let world = World::enter();
    let (_registry, daemon, crictl, image) = node(&world);
    crictl.ok(&format!("pull {image}"));
    let pod_config = crictl.config("pod.json", &pod(&daemon, "broken"));
    let mut broken = container("broken", &image, "");
    broken["command"] = json!(["/no/such/program"]);
    let config = crictl.config("broken.json", &broken);
    let refused = crictl.run(&format!("run --no-pull {config} {pod_config}"));
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("/no/such/program"), "{}", refused.stderr);
    crictl.ok("rmp -a -f");
}
