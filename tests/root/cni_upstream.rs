//! Our plugins beside upstream's: driven by `cnitool`, giving the reference's results, sharing its files.

use std::path::Path;

use serde_json::{Value, json};
use tests::{Output, output, tool, write};

use crate::cni::{Node, Pod, address, ask, finish, network, port_config, start};

/// A change of a call's environment.
type Change = fn(&mut std::process::Command);

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Runs `cnitool VERB net` on a pod.
fn cnitool(node: &Node, plugins: &Path, verb: &str, pod: &Pod) -> Output {
    let mut command = node.world.command(tool("cnitool"));
    command.args([verb, "net"]).arg(&pod.netns).env("CNI_PATH", plugins).env("NETCONFPATH", "/etc/cni/net.d");
    let ports = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    output(command.env("CAP_ARGS", ports.to_string()))
}

/// Writes the network with `portmap` behind `bridge` as a configuration list.
fn configure(bridge: Value, portmap: Value) {
    let list = json!({"cniVersion": bridge["cniVersion"], "name": "net", "plugins": [bridge, portmap]});
    write(Path::new("/etc/cni/net.d/10-net.conflist"), list.to_string());
}

fn portmap(more: Value) -> Value {
    let mut config = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

/// A result without what is random in it.
fn without_chance(mut result: Value) -> Value {
    for interface in result["interfaces"].as_array_mut().into_iter().flatten() {
        let interface = interface.as_object_mut().unwrap();
        assert!(interface.remove("mac").is_some_and(|mac| mac.as_str().unwrap().len() == 17), "{interface:?}");
        if interface["name"].as_str().unwrap().starts_with("veth") {
            interface.insert("name".into(), json!("veth"));
        }
    }
    result
}

#[test]
fn our_chain_runs_under_cnitool() {
    let node = Node::new();
    let pod = node.pod("one");
    configure(network(json!({"ipMasq": true, "cniVersion": "1.1.0"})), portmap(json!({})));
    let added: Value = serde_json::from_str(&cnitool(&node, &node.ours, "add", &pod).success()).unwrap();
    assert_eq!(added["cniVersion"], "1.1.0");
    pod.serve(80, 1);
    assert_eq!(ask("127.0.0.1:8080").unwrap().0, "one");
    cnitool(&node, &node.ours, "check", &pod).success();
    cnitool(&node, &node.ours, "status", &pod).success();
    node.ip(&["-n", "one", "addr", "flush", "dev", "eth0"]);
    assert_ne!(cnitool(&node, &node.ours, "check", &pod).code, 0, "drift");
    for _ in 0..2 {
        cnitool(&node, &node.ours, "del", &pod).success();
    }
    assert!(node.reservations().is_empty() && node.veths().is_empty());
    node.end(&pod);
}

#[test]
fn results_are_the_references_in_every_version() {
    let node = Node::new();
    let reference = node.reference();
    for (number, version) in VERSIONS.into_iter().enumerate() {
        let results = [&node.ours, &reference].map(|plugins| {
            let pod = node.pod("one");
            let name = format!("net{number}");
            let data = node.world.new_dir("data");
            let ipam = json!({
                "type": "host-local", "dataDir": data, "ranges": [[{"subnet": "10.88.0.0/16"}]],
                "routes": [{"dst": "10.96.0.0/12"}, {"dst": "192.168.7.0/24", "gw": "10.88.0.9"}],
            });
            let dns = json!({"nameservers": ["10.0.0.10"], "search": ["a", "b"]});
            let config = network(json!({"cniVersion": version, "name": name, "ipam": ipam, "dns": dns}));
            let added = finish(start(&mut node.command(plugins, "bridge", "ADD", &pod), &config));
            let added = added.unwrap_or_else(|refused| panic!("{version} {}: {refused:?}", plugins.display()));
            let routes = node.ip(&["-n", "one", "route"]);
            finish(start(&mut node.command(plugins, "bridge", "DEL", &pod), &config)).unwrap();
            node.end(&pod);
            (without_chance(added), routes)
        });
        assert_eq!(results[0], results[1], "{version}");
    }
}

#[test]
fn refusals_have_the_references_codes() {
    let node = Node::new();
    let pod = node.pod("one");
    let reference = node.reference();
    let code_of = |plugins: &Path, plugin: &str, config: &str, change: Change| {
        let mut command = node.command(plugins, plugin, "ADD", &pod);
        change(&mut command);
        let config = serde_json::from_str(config).unwrap_or_else(|_| json!(config));
        finish(start(&mut command, &config)).map_err(|refused| refused.code)
    };
    let nothing: Change = |_| {};
    let cases: [(&str, Change); 8] = [
        ("not json", nothing),
        ("{}", nothing),
        (r#"{"name": "a b"}"#, nothing),
        (r#"{"name": "n", "cniVersion": "7.0.0"}"#, nothing),
        (r#"{"name": "n"}"#, |command| {
            command.env_remove("CNI_IFNAME");
        }),
        (r#"{"name": "n"}"#, |command| {
            command.env("CNI_IFNAME", "a/b");
        }),
        (r#"{"name": "n"}"#, |command| {
            command.env("CNI_CONTAINERID", "../x");
        }),
        (r#"{"name": "n"}"#, |command| {
            command.env("CNI_COMMAND", "NOPE");
        }),
    ];
    for plugin in ["bridge", "host-local", "portmap", "loopback"] {
        for (config, change) in cases {
            let theirs = code_of(&reference, plugin, config, change);
            assert_eq!(code_of(&node.ours, plugin, config, change), theirs, "{plugin} {config}");
            assert!(theirs.is_err());
        }
    }
    node.end(&pod);
}

#[test]
fn either_implementation_gives_back_what_the_other_reserved() {
    let node = Node::new();
    let reference = node.reference();
    let pod = node.pod("one");
    let config = network(json!({}));
    for (adds, deletes) in [(&node.ours, &reference), (&reference, &node.ours)] {
        let added = finish(start(&mut node.command(adds, "host-local", "ADD", &pod), &config)).unwrap();
        assert_eq!(node.reservations(), [address(&added)]);
        let checked = finish(start(&mut node.command(deletes, "host-local", "CHECK", &pod), &config));
        checked.unwrap();
        let again = finish(start(&mut node.command(deletes, "host-local", "ADD", &pod), &config)).unwrap_err();
        assert!(again.msg.contains("duplicate allocation is not allowed"), "{again:?}");
        finish(start(&mut node.command(deletes, "host-local", "DEL", &pod), &config)).unwrap();
        assert!(node.reservations().is_empty());
    }
    // The turn goes on across implementations.
    let next = |plugins: &Path| {
        let added = finish(start(&mut node.command(plugins, "host-local", "ADD", &pod), &config)).unwrap();
        finish(start(&mut node.command(plugins, "host-local", "DEL", &pod), &config)).unwrap();
        address(&added)
    };
    assert_eq!([next(&node.ours), next(&reference), next(&node.ours)], ["10.88.0.4", "10.88.0.5", "10.88.0.6"]);
    node.end(&pod);
}

#[test]
fn both_implementations_allocate_side_by_side_under_one_lock() {
    let node = Node::new();
    let reference = node.reference();
    let config = network(json!({}));
    let pods: Vec<_> = (0..16).map(|number| node.pod(&format!("pod{number}"))).collect();
    let running: Vec<_> = pods
        .iter()
        .enumerate()
        .map(|(number, pod)| {
            let plugins = if number % 2 == 0 { &node.ours } else { &reference };
            start(&mut node.command(plugins, "host-local", "ADD", pod), &config)
        })
        .collect();
    let addresses: std::collections::BTreeSet<_> =
        running.into_iter().map(|child| address(&finish(child).unwrap())).collect();
    assert_eq!(addresses.len(), 16);
    for pod in &pods {
        finish(start(&mut node.command(&node.ours, "host-local", "DEL", pod), &config)).unwrap();
        node.end(pod);
    }
    assert!(node.reservations().is_empty());
}

#[test]
fn our_bridge_stands_before_the_references_portmap_and_behind_its_ipam() {
    let node = Node::new();
    let reference = node.reference();
    let pod = node.pod("one");
    let mixed = node.world.new_dir("mixed");
    std::os::unix::fs::symlink(node.ours.join("bridge"), mixed.join("bridge")).unwrap();
    for theirs in ["host-local", "portmap"] {
        std::os::unix::fs::symlink(reference.join(theirs), mixed.join(theirs)).unwrap();
    }
    configure(network(json!({})), portmap(json!({"backend": "nftables"})));
    cnitool(&node, &mixed, "add", &pod).success();
    pod.serve(80, 1);
    assert_eq!(ask("127.0.0.1:8080").unwrap().0, "one");
    cnitool(&node, &mixed, "check", &pod).success();
    cnitool(&node, &mixed, "del", &pod).success();
    assert!(node.reservations().is_empty() && node.veths().is_empty());
    node.end(&pod);
}

#[test]
fn our_portmap_stands_behind_the_references_bridge() {
    let node = Node::new();
    let reference = node.reference();
    let pod = node.pod("one");
    let bridge = network(json!({"ipMasq": true, "ipMasqBackend": "nftables"}));
    let result = finish(start(&mut node.command(&reference, "bridge", "ADD", &pod), &bridge)).unwrap();
    node.map(&pod, &result, json!([{"hostPort": 8080, "containerPort": 80}]));
    pod.serve(80, 2);
    assert_eq!(ask("127.0.0.1:8080").unwrap().0, "one");
    assert_eq!(pod.run(|| ask("10.88.0.1:8080")).unwrap().0, "one");
    let config = port_config(&result, json!([{"hostPort": 8080, "containerPort": 80}]));
    node.call("portmap", "CHECK", &pod, &config).unwrap();
    node.unmap(&pod);
    finish(start(&mut node.command(&reference, "bridge", "DEL", &pod), &bridge)).unwrap();
    node.end(&pod);
}
