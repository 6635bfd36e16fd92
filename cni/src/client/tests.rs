//! The client against scripted plugins: what they are told, and what is made of what they say.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Instant;

use serde_json::json;

use super::*;

/// Directories with a configuration and plugins that are shell scripts.
struct Node {
    base: tempfile::TempDir,
}

impl Node {
    fn new(conflist: &str) -> Node {
        let node = Node { base: tempfile::tempdir().unwrap() };
        for directory in ["net.d", "bin", "log"] {
            std::fs::create_dir(node.path(directory)).unwrap();
        }
        node.configure(conflist);
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    fn configure(&self, conflist: &str) {
        put(&self.path("net.d/10-test.conflist"), 0o644, conflist);
    }

    /// A plugin that notes verb and configuration in `log/<name>.<verb>` and then runs `script`.
    fn plugin(&self, name: &str, script: &str) {
        let log = self.path("log").display().to_string();
        let text = format!(
            "#!/bin/sh\necho \"{name} $CNI_COMMAND\" >> {log}/order\nenv | grep CNI_ > {log}/{name}.$CNI_COMMAND.env\n\
             cat > {log}/{name}.$CNI_COMMAND\n{script}\n"
        );
        put(&self.path("bin").join(name), 0o755, &text);
    }

    fn networks(&self) -> Networks {
        let seconds = Duration::from_secs;
        let deadlines = Deadlines { add: seconds(20), del: seconds(20), status: seconds(20) };
        Networks::with_deadlines(&self.path("net.d"), &[self.path("bin")], &self.path("cache"), deadlines)
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.path("log").join(name)).unwrap_or_default()
    }

    fn config_of(&self, call: &str) -> Value {
        serde_json::from_str(&self.log(call)).unwrap()
    }

    fn cached(&self) -> usize {
        std::fs::read_dir(self.path("cache/results")).map_or(0, Iterator::count)
    }
}

fn put(path: &Path, mode: u32, text: &str) {
    let mut options = std::fs::File::options();
    // A new file each time: a script that is being executed must not be written to.
    let _ = std::fs::remove_file(path);
    let mut file = options.write(true).create_new(true).mode(mode).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

const TWO_PLUGINS: &str = r#"{"cniVersion": "1.0.0", "name": "net", "plugins": [
    {"type": "first", "mtu": 9000},
    {"type": "second", "capabilities": {"portMappings": true}}]}"#;

const RESULT: &str = r#"echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/n"}],
    "ips":[{"address":"10.0.0.5/24","interface":0}]}'"#;

fn attachment() -> Attachment {
    Attachment {
        container_id: "pod1".into(),
        netns: "/run/netns/x".into(),
        ifname: "eth0".into(),
        args: vec![("IgnoreUnknown".into(), "1".into()), ("K8S_POD_NAME".into(), "web".into())],
        capabilities: json!({"portMappings": [{"hostPort": 80}], "bandwidth": {}}).as_object().unwrap().clone(),
    }
}

/// The whole chain of an error.
fn text(error: &Error) -> String {
    chain::chain_of(error)
}

#[test]
fn plugins_are_told_what_libcni_tells_them() {
    let node = Node::new(TWO_PLUGINS);
    node.plugin("first", RESULT);
    node.plugin("second", RESULT);
    let networks = node.networks();
    let result = networks.add(&attachment()).unwrap();
    assert_eq!(result.pod_addresses("eth0"), ["10.0.0.5".parse::<std::net::IpAddr>().unwrap()]);
    let first = json!({"name": "net", "cniVersion": "1.0.0", "type": "first", "mtu": 9000});
    assert_eq!(node.config_of("first.ADD"), first);
    let second = node.config_of("second.ADD");
    assert_eq!(second["runtimeConfig"], json!({"portMappings": [{"hostPort": 80}]}));
    assert_eq!(second["prevResult"]["ips"][0]["address"], "10.0.0.5/24");
    let environment = node.log("second.ADD.env");
    for expected in [
        "CNI_CONTAINERID=pod1",
        "CNI_NETNS=/run/netns/x",
        "CNI_IFNAME=eth0",
        "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=web",
    ] {
        assert!(environment.contains(expected), "{environment}");
    }
    assert!(environment.contains(&format!("CNI_PATH={}", node.path("bin").display())), "{environment}");
}

#[test]
fn del_uses_the_configuration_and_result_of_the_add_in_reverse_order() {
    let node = Node::new(TWO_PLUGINS);
    node.plugin("first", RESULT);
    node.plugin("second", RESULT);
    let networks = node.networks();
    networks.add(&attachment()).unwrap();
    node.configure("{ broken");
    networks.check(&attachment()).unwrap();
    // The runtime that asks for the DEL may have forgotten the arguments.
    let bare = Attachment { args: vec![], capabilities: Map::new(), ..attachment() };
    networks.del(&bare, Namespace::Ends).unwrap();
    assert_eq!(
        node.log("order").lines().collect::<Vec<_>>(),
        ["first ADD", "second ADD", "first CHECK", "second CHECK", "second DEL", "first DEL"]
    );
    let second = node.config_of("second.DEL");
    assert_eq!(second["runtimeConfig"], json!({"portMappings": [{"hostPort": 80}]}));
    assert_eq!(second["prevResult"]["ips"][0]["address"], "10.0.0.5/24");
    assert!(node.log("first.DEL.env").contains("ORLOP_CNI_NETNS_ENDS=1"));
    assert!(node.log("first.DEL.env").contains("K8S_POD_NAME=web"));
    assert_eq!(node.cached(), 0);
    networks.del(&bare, Namespace::Stays).unwrap();
}

#[test]
fn a_failed_add_is_undone_and_names_plugin_file_and_text() {
    let node = Node::new(TWO_PLUGINS);
    node.plugin("first", RESULT);
    let fail =
        r#"if [ $CNI_COMMAND = ADD ]; then echo '{"code": 11, "msg": "no room", "details": "full"}'; exit 1; fi"#;
    node.plugin("second", fail);
    let error = node.networks().add(&attachment()).unwrap_err();
    let file = node.path("net.d/10-test.conflist").display().to_string();
    assert_eq!(text(&error), format!("CNI ADD by plugin \"second\" of network \"net\" ({file}): no room; full"));
    assert_eq!(node.log("order").lines().collect::<Vec<_>>(), ["first ADD", "second ADD", "second DEL", "first DEL"]);
    assert_eq!(node.cached(), 0);
}

#[test]
fn del_stops_at_the_first_failure_and_the_next_one_completes_it() {
    let node = Node::new(TWO_PLUGINS);
    node.plugin("first", RESULT);
    node.plugin("second", RESULT);
    let networks = node.networks();
    networks.add(&attachment()).unwrap();
    node.plugin("second", "exit 3");
    let error = networks.del(&attachment(), Namespace::Stays).unwrap_err();
    assert!(text(&error).contains("second ended with exit status: 3 and no error message"), "{}", text(&error));
    assert!(node.log("order").ends_with("first ADD\nsecond ADD\nsecond DEL\n"), "the address stays taken");
    assert_eq!(node.cached(), 1, "kept, so that the next DEL has it");
    node.plugin("second", "");
    networks.del(&attachment(), Namespace::Stays).unwrap();
    assert!(node.log("order").ends_with("second DEL\nsecond DEL\nfirst DEL\n"));
    assert_eq!(node.cached(), 0);
}

/// What a kill in the middle of an ADD leaves is what the cache has while the plugin runs.
#[test]
fn del_after_an_add_that_was_killed_uses_its_configuration() {
    let node = Node::new(TWO_PLUGINS);
    let saved = node.path("saved").display().to_string();
    let results = node.path("cache/results").display().to_string();
    node.plugin("first", &format!("[ $CNI_COMMAND = DEL ] || cp -r {results} {saved}; {RESULT}"));
    node.plugin("second", RESULT);
    let networks = node.networks();
    networks.add(&attachment()).unwrap();
    std::fs::remove_dir_all(&results).unwrap();
    std::fs::rename(&saved, &results).unwrap();
    node.configure("{ broken");
    networks.del(&attachment(), Namespace::Stays).unwrap();
    assert!(node.log("order").ends_with("second DEL\nfirst DEL\n"));
    assert_eq!(node.config_of("first.DEL")["mtu"], 9000, "the configuration of the ADD");
    assert_eq!(node.config_of("first.DEL").get("prevResult"), None);
    assert_eq!(node.cached(), 0);
}

#[test]
fn an_add_that_could_not_be_undone_stays_in_the_cache() {
    let node = Node::new(TWO_PLUGINS);
    node.plugin("first", &format!("[ $CNI_COMMAND = ADD ] || exit 7; {RESULT}"));
    node.plugin("second", "[ $CNI_COMMAND = DEL ]");
    let networks = node.networks();
    let error = text(&networks.add(&attachment()).unwrap_err());
    assert!(error.contains("plugin \"second\"") && error.contains("; and undoing it failed: CNI DEL"), "{error}");
    assert_eq!(node.cached(), 1);
    node.configure("{ broken");
    node.plugin("first", "");
    networks.del(&attachment(), Namespace::Stays).unwrap();
    assert_eq!(node.cached(), 0);
}

#[test]
fn an_entry_that_cannot_be_read_is_removed_by_del() {
    let node = Node::new(TWO_PLUGINS);
    node.plugin("first", RESULT);
    node.plugin("second", RESULT);
    let networks = node.networks();
    networks.add(&attachment()).unwrap();
    put(&node.path("cache/results/net-pod1-eth0"), 0o600, "");
    networks.del(&attachment(), Namespace::Stays).unwrap();
    assert!(node.log("order").ends_with("second DEL\nfirst DEL\n"));
    assert_eq!(node.cached(), 0);
}

#[test]
fn an_argument_in_a_pods_name_is_refused_by_add_and_left_out_by_del() {
    let node = Node::new(ONE_PLUGIN);
    node.plugin("only", RESULT);
    let smuggled = vec![("K8S_POD_NAME".into(), "x;IP=10.0.0.9".into()), ("K8S_POD_UID".into(), "1".into())];
    let bad = Attachment { args: smuggled, ..attachment() };
    assert!(matches!(node.networks().add(&bad), Err(Error::Attachment(_))));
    assert_eq!(node.log("order"), "");
    node.networks().del(&bad, Namespace::Stays).unwrap();
    let environment = node.log("only.DEL.env");
    assert!(environment.contains("CNI_ARGS=K8S_POD_UID=1\n"), "{environment}");
}

#[test]
fn a_plugin_that_could_not_be_started_is_not_asked_to_undo() {
    let node = Node::new(TWO_PLUGINS);
    node.plugin("first", RESULT);
    put(&node.path("bin/second"), 0o755, "#!/nowhere/interpreter\n");
    let error = text(&node.networks().add(&attachment()).unwrap_err());
    assert!(error.contains("plugin \"second\"") && !error.contains("undoing"), "{error}");
    assert_eq!(node.log("order"), "first ADD\nfirst DEL\n");
}

const ONE_PLUGIN: &str = r#"{"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "only"}]}"#;

fn check_add_fails(script: &str, expected: &str) {
    let node = Node::new(ONE_PLUGIN);
    node.plugin("only", &format!("[ $CNI_COMMAND = ADD ] || exit 0\n{script}"));
    let error = text(&node.networks().add(&attachment()).unwrap_err());
    assert!(error.contains(expected), "{error}");
    assert_eq!(node.cached(), 0);
}

#[test]
fn garbage_is_an_error_that_shows_it() {
    check_add_fails("echo nonsense; exit 1", "printed \"nonsense\", not a CNI error");
    check_add_fails("echo why >&2; exit 2", "exit status: 2 and no error message; stderr: \"why\"");
    check_add_fails("echo nonsense", "its result is no JSON");
    check_add_fails("kill -9 $$", "signal: 9");
    check_add_fails("echo '{\"ips\": 1}'", "parse the result");
    check_add_fails("echo '{\"cniVersion\": \"7.0.0\"}'", "unsupported CNI result version");
    check_add_fails("exec 1>&-", "its result is no JSON");
}

#[test]
fn output_without_end_is_cut_off() {
    check_add_fails("exec yes", "printed more than 1024 KiB and was killed");
    check_add_fails("yes >&2 & yes | head -c 100000 >&2; kill $!; exit 1", "stderr: ");
}

#[test]
fn a_plugin_that_hangs_is_killed_with_its_children() {
    let node = Node::new(ONE_PLUGIN);
    let child = node.path("log/child").display().to_string();
    // Short: it has to get to the wait before the deadline, however slowly the machine starts processes.
    let script = format!("[ $CNI_COMMAND = ADD ] || exit 0\nsleep 1000 & echo $! > {child}\necho started >&2; wait\n");
    put(&node.path("bin/only"), 0o755, &format!("#!/bin/sh\n{script}"));
    let limit = Duration::from_secs(6);
    let deadlines = Deadlines { add: limit, ..Deadlines::default() };
    let networks = Networks::with_deadlines(&node.path("net.d"), &[node.path("bin")], &node.path("cache"), deadlines);
    let before = Instant::now();
    let error = text(&networks.add(&attachment()).unwrap_err());
    assert!(error.contains("did not end within 6s and was killed; stderr: \"started\""), "{error}");
    assert!(before.elapsed() < Duration::from_secs(30));
    let child = node.log("child");
    // The signal was sent to all; each dies when the kernel lets it run.
    loop {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        if state.is_empty() || state.contains(" Z ") {
            break;
        }
        assert!(before.elapsed() < Duration::from_secs(30), "the child survived: {state}");
        let _ = nix::poll::poll(&mut [], 10_u16);
    }
}

#[test]
fn a_plugin_whose_child_keeps_its_output_open_is_not_waited_for() {
    let node = Node::new(ONE_PLUGIN);
    node.plugin("only", &format!("[ $CNI_COMMAND = ADD ] || exit 0\nsleep 30 & {RESULT}"));
    let before = Instant::now();
    node.networks().add(&attachment()).unwrap();
    assert!(before.elapsed() < Duration::from_secs(25), "waited for the child");
}

#[test]
fn a_large_configuration_does_not_block_a_plugin_that_never_reads_it() {
    let padding = "x".repeat(500_000);
    let node = Node::new(&ONE_PLUGIN.replace(r#""type""#, &format!(r#""pad": "{padding}", "type""#)));
    put(&node.path("bin/only"), 0o755, &format!("#!/bin/sh\n{RESULT}\n"));
    node.networks().add(&attachment()).unwrap();
}

#[test]
fn a_binary_that_is_being_written_is_waited_for() {
    let node = Node::new(ONE_PLUGIN);
    let binary = node.path("bin/only");
    std::fs::copy("/bin/true", &binary).unwrap();
    let writer = std::fs::File::options().append(true).open(&binary).unwrap();
    let networks = node.networks();
    std::thread::scope(|scope| {
        let added = scope.spawn(|| networks.add(&attachment()));
        // Let go only after the first attempt was refused, which the test can't see: any time is right.
        let _ = nix::poll::poll(&mut [], 300_u16);
        drop(writer);
        let error = text(&added.join().unwrap().unwrap_err());
        assert!(error.contains("its result is no JSON"), "it ran: {error}");
    });
}

#[test]
fn impossible_names_never_reach_a_plugin() {
    let node = Node::new(ONE_PLUGIN);
    node.plugin("only", RESULT);
    for id in ["", "../../etc", "a/b"] {
        let bad = Attachment { container_id: id.into(), ..attachment() };
        assert!(matches!(node.networks().add(&bad), Err(Error::Attachment(_))), "{id}");
    }
    let bad = Attachment { ifname: "a/b".into(), ..attachment() };
    assert!(matches!(node.networks().del(&bad, Namespace::Stays), Err(Error::Attachment(_))));
    assert_eq!(node.log("order"), "");
}

#[test]
fn the_plugins_own_status_is_passed_on() {
    let node = Node::new(ONE_PLUGIN);
    node.plugin("only", r#"echo '{"code": 50, "msg": "no uplink"}'; exit 1"#);
    let reason = node.networks().status().unwrap_err().reason;
    assert!(reason.contains("CNI STATUS by plugin \"only\"") && reason.ends_with(": no uplink"), "{reason}");
    node.plugin("only", "");
    node.networks().status().unwrap();
    node.configure(&ONE_PLUGIN.replace("1.1.0", "1.0.0"));
    node.plugin("only", "exit 1");
    node.networks().status().unwrap();
}

#[test]
fn check_is_skipped_where_the_configuration_has_none() {
    let node = Node::new(&ONE_PLUGIN.replace(r#""name""#, r#""disableCheck": true, "name""#));
    node.plugin("only", RESULT);
    node.networks().add(&attachment()).unwrap();
    node.networks().check(&attachment()).unwrap();
    assert_eq!(node.log("order"), "only ADD\n");
}

#[test]
fn a_plugin_says_which_versions_it_speaks_in_the_form_of_its_age() {
    let node = Node::new(ONE_PLUGIN);
    let check = |script: &str, expected: Option<&[&str]>| {
        node.plugin("only", script);
        let versions = node.networks().versions("only").ok();
        assert_eq!(
            versions.as_ref().map(|all| all.iter().map(String::as_str).collect::<Vec<_>>()).as_deref(),
            expected
        );
    };
    check(r#"echo '{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.1.0"]}'"#, Some(&["0.4.0", "1.1.0"]));
    check(r#"echo '{"cniVersion":"0.2.0"}'"#, Some(&["0.1.0", "0.2.0"]));
    check(r#"echo '{"code":4,"msg":"unknown CNI_COMMAND: VERSION"}'; exit 1"#, Some(&["0.1.0"]));
    check(r#"echo '{"cniVersion":"1.0.0"}'"#, None);
    check("exit 1", None);
    assert!(matches!(node.networks().versions("../bin/only"), Err(PluginFailure::Missing(_))));
}
