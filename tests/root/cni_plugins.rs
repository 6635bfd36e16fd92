//! Our `bridge`, `host-local` and `loopback`, called as a runtime calls them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tests::{eventually, write};

use crate::cni::{GATEWAY, HOST, Node, OUTSIDE, address, ask, finish, network, serve, start};

#[test]
fn pods_reach_each_other_the_host_and_are_reached_from_it() {
    let node = Node::new();
    let (one, two) = (node.pod("one"), node.pod("two"));
    let config = network(json!({}));
    let (first, second) = (address(&node.add(&one, &config)), address(&node.add(&two, &config)));
    two.serve(80, 2);
    let server = format!("{second}:80");
    assert_eq!(one.run(|| ask(&server)), Some(("two".into(), first)));
    assert_eq!(ask(&server), Some(("two".into(), GATEWAY.into())));
    serve(std::net::TcpListener::bind("0.0.0.0:81").unwrap(), "host", 1);
    assert_eq!(one.run(|| ask(&format!("{GATEWAY}:81"))).unwrap().0, "host");
    for pod in [&one, &two] {
        node.del(pod, &config);
        node.end(pod);
    }
    assert!(node.reservations().is_empty());
}

#[test]
fn the_result_lists_bridge_host_end_and_pod_end() {
    let node = Node::new();
    let pod = node.pod("one");
    let config = network(json!({"mtu": 1400, "dns": {"nameservers": ["10.0.0.10"]}}));
    let result = node.add(&pod, &config);
    let interfaces = result["interfaces"].as_array().unwrap();
    let host_end = interfaces[1]["name"].as_str().unwrap();
    assert_eq!(interfaces.len(), 3);
    assert_eq!((&interfaces[0]["name"], &interfaces[2]["name"]), (&json!("cni0"), &json!("eth0")));
    assert_eq!(interfaces[2]["sandbox"], json!(pod.netns));
    assert_eq!(result["ips"], json!([{"address": "10.88.0.2/16", "gateway": GATEWAY, "interface": 2}]));
    assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": GATEWAY}]));
    assert_eq!(result["dns"], json!({"nameservers": ["10.0.0.10"]}));
    let link: Value = serde_json::from_str(&node.ip(&["-j", "-d", "link", "show", host_end])).unwrap();
    assert_eq!((&link[0]["master"], &link[0]["mtu"]), (&json!("cni0"), &json!(1400)));
    assert_eq!(link[0]["address"], interfaces[1]["mac"]);
    assert_eq!(link[0]["linkinfo"]["info_slave_data"]["hairpin"], json!(true));
    let inside: Value = serde_json::from_str(&node.ip(&["-n", "one", "-j", "link", "show", "eth0"])).unwrap();
    assert_eq!((&inside[0]["address"], &inside[0]["mtu"]), (&interfaces[2]["mac"], &json!(1400)));
    for name in ["cni0", host_end] {
        let accepts = std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/accept_ra"));
        assert_eq!(accepts.map_or("0".into(), |text| text.trim().to_owned()), "0", "{name} takes routers' word");
    }
    node.del(&pod, &config);
    node.end(&pod);
}

#[test]
fn del_succeeds_twice_without_namespace_and_after_its_end() {
    let node = Node::new();
    let config = network(json!({"ipMasq": true}));
    let never_added = node.pod("never");
    node.del(&never_added, &config);
    let pod = node.pod("one");
    node.add(&pod, &config);
    node.del(&pod, &config);
    assert!(node.veths().is_empty() && node.reservations().is_empty());
    node.del(&pod, &config);
    node.add(&pod, &config);
    node.end(&pod);
    node.del(&pod, &config);
    assert!(node.reservations().is_empty());
    let mut without = node.command(&node.ours, "bridge", "DEL", &pod);
    finish(start(without.env_remove("CNI_NETNS"), &config)).unwrap();
    node.end(&never_added);
}

/// The pod of a configuration that another bridge plugin took, or that was edited since.
#[test]
fn del_succeeds_with_a_configuration_that_add_refuses() {
    let node = Node::new();
    let pod = node.pod("one");
    node.add(&pod, &network(json!({})));
    let refused = network(json!({"vlan": 5, "mtu": -1, "ipam": {"type": "host-local", "subnet": "10.88.0.0"}}));
    assert!(node.call("bridge", "ADD", &pod, &refused).is_err());
    node.del(&pod, &refused);
    assert!(node.veths().is_empty() && node.reservations().is_empty());
    node.end(&pod);
}

#[test]
fn a_del_before_the_namespaces_end_frees_the_address_and_leaves_the_pair_to_the_kernel() {
    let node = Node::new();
    let config = network(json!({}));
    let pod = node.pod("one");
    node.add(&pod, &config);
    let mut command = node.command(&node.ours, "bridge", "DEL", &pod);
    finish(start(command.env("ORLOP_CNI_NETNS_ENDS", "1"), &config)).unwrap();
    assert!(node.reservations().is_empty());
    assert!(!node.ip(&["-n", "one", "-4", "addr", "show", "eth0"]).contains("inet"), "the pod can't answer any more");
    node.end(&pod);
    eventually("the pair is gone", Duration::from_secs(10), || node.veths().is_empty());
}

#[test]
fn twenty_adds_at_once_give_twenty_addresses_and_one_bridge() {
    let node = Node::new();
    let config = network(json!({"ipMasq": true}));
    let pods: Vec<_> = (0..20).map(|number| node.pod(&format!("pod{number}"))).collect();
    let calls = |verb: &str| {
        let running: Vec<_> =
            pods.iter().map(|pod| start(&mut node.command(&node.ours, "bridge", verb, pod), &config)).collect();
        running.into_iter().map(|child| finish(child).unwrap()).collect::<Vec<_>>()
    };
    let addresses: BTreeSet<_> = calls("ADD").iter().map(address).collect();
    assert_eq!(addresses.len(), 20);
    assert_eq!(node.reservations().len(), 20);
    let nobody = node.pod("nobody");
    pods[7].serve(80, 1);
    let server = format!("{}:80", address(&check_result(&node, &pods[7])));
    assert_eq!(ask(&server).unwrap().0, "pod7");
    calls("DEL");
    assert!(node.reservations().is_empty() && node.veths().is_empty());
    for pod in pods.iter().chain([&nobody]) {
        node.end(pod);
    }
}

/// The pod's address as the kernel has it, in the form of a result.
fn check_result(node: &Node, pod: &crate::cni::Pod) -> Value {
    let shown: Value = serde_json::from_str(&node.ip(&["-n", &pod.id, "-j", "-4", "addr", "show", "eth0"])).unwrap();
    json!({"ips": [{"address": shown[0]["addr_info"][0]["local"]}]})
}

/// A runtime whose ADD was cut short calls DEL; that must be enough, wherever the plugin was.
#[test]
fn an_add_that_is_killed_at_any_point_is_cleaned_up_by_del() {
    let node = Node::new();
    let config = network(json!({"ipMasq": true}));
    let pod = node.pod("one");
    let mut kills = 0;
    for call in ["openat", "write", "renameat2", "unlink", "sendto", "recvfrom", "setns"] {
        for number in 1.. {
            let mut command = node.command(&node.ours, "bridge", "ADD", &pod);
            let program = command.get_program().to_owned();
            let environment: Vec<_> =
                command.get_envs().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))).collect();
            command = node.world.command("strace");
            let inject = format!("inject={call}:signal=KILL:when={number}");
            command.envs(environment).args(["-qq", "-o", "/dev/null", "-e", &inject]).arg(program);
            let done = start(&mut command, &config).wait_with_output().unwrap();
            kills += usize::from(!done.status.success());
            node.del(&pod, &config);
            assert!(node.veths().is_empty() && node.reservations().is_empty(), "killed at {call} {number}");
            if done.status.success() {
                break;
            }
        }
    }
    assert!(kills > 30, "only {kills} kills");
    let result = node.add(&pod, &config);
    pod.serve(80, 1);
    assert_eq!(ask(&format!("{}:80", address(&result))).unwrap().0, "one");
    node.del(&pod, &config);
    node.end(&pod);
}

/// A runtime kills a plugin's process group at its deadline. An IPAM plugin that lived on could reserve an address
/// after the DEL.
#[test]
fn the_end_of_the_bridges_process_group_is_the_end_of_its_ipam() {
    use std::os::unix::process::CommandExt as _;

    let node = Node::new();
    let (pod, started) = (node.pod("one"), node.world.dir().join("started"));
    let script = node.ours.join("slow-ipam");
    write(&script, format!("#!/bin/sh\necho $$ > {0}.new; mv {0}.new {0}; exec sleep 1000\n", started.display()));
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = network(json!({"ipam": {"type": "slow-ipam"}}));
    let mut bridge = start(node.command(&node.ours, "bridge", "ADD", &pod).process_group(0), &config);
    eventually("IPAM runs", Duration::from_secs(10), || started.exists());
    let ipam = std::fs::read_to_string(&started).unwrap();
    let group = nix::unistd::Pid::from_raw(i32::try_from(bridge.id()).unwrap());
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).unwrap();
    bridge.wait().unwrap();
    eventually("IPAM is gone", Duration::from_secs(10), || {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", ipam.trim())).unwrap_or_default();
        state.is_empty() || state.contains(" Z ")
    });
    node.end(&pod);
}

#[test]
fn the_bridges_hardware_address_does_not_change_with_its_pods() {
    let node = Node::new();
    let config = network(json!({}));
    let pods: Vec<_> = (0..6).map(|number| node.pod(&format!("pod{number}"))).collect();
    let macs: BTreeSet<_> = pods.iter().map(|pod| node.add(pod, &config)["interfaces"][0]["mac"].to_string()).collect();
    assert_eq!(macs.len(), 1);
    let link: Value = serde_json::from_str(&node.ip(&["-j", "link", "show", "cni0"])).unwrap();
    assert_eq!(Some(&link[0]["address"].to_string()), macs.first());
    for pod in &pods {
        node.del(pod, &config);
        node.end(pod);
    }
}

#[test]
fn masquerading_hides_the_pod_from_outside_until_it_is_turned_off() {
    let node = Node::new();
    let (outside, pod) = (node.outside(), node.pod("one"));
    outside.serve(80, 2);
    let server = format!("{OUTSIDE}:80");
    let masqueraded = network(json!({"ipMasq": true}));
    node.add(&pod, &masqueraded);
    assert_eq!(pod.run(|| ask(&server)), Some(("outside".into(), HOST.into())));
    node.del(&pod, &masqueraded);
    let bare = network(json!({"ipMasq": false}));
    let own = address(&node.add(&pod, &bare));
    assert_eq!(pod.run(|| ask(&server)), Some(("outside".into(), own)));
    node.del(&pod, &bare);
    node.end(&pod);
    node.end(&outside);
}

#[test]
fn a_refused_add_leaves_nothing_behind() {
    let node = Node::new();
    let pod = node.pod("one");
    let check = |config: Value, code: u64, expected: &str| {
        let refused = node.call("bridge", "ADD", &pod, &config).unwrap_err();
        assert_eq!(refused.code, code, "{refused:?}");
        assert!(refused.msg.contains(expected), "{refused:?}");
        assert!(node.veths().is_empty() && node.reservations().is_empty(), "{config}");
    };
    check(network(json!({"portIsolation": true})), 2, "bridge: portIsolation is not built yet in Orlop");
    check(network(json!({"vlan": 100})), 2, "vlan is not built");
    check(network(json!({"cniVersion": "9.0.0"})), 1, "incompatible CNI versions");
    check(network(json!({"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/31"}]]}})), 999, "too small");
    check(network(json!({"ipam": {"type": "../../bin/sh"}})), 7, "invalid plugin name");
    check(network(json!({"ipam": {"type": "missing"}})), 999, "failed to find plugin \"missing\" in path");
    node.ip(&["link", "add", "notabridge", "type", "veth", "peer", "name", "other"]);
    check(network(json!({"bridge": "notabridge"})), 999, "\"notabridge\" already exists but is not a bridge");
    node.ip(&["link", "del", "notabridge"]);
    node.ip(&["-n", "one", "link", "add", "eth0", "type", "bridge"]);
    check(network(json!({})), 999, "container veth name provided (eth0) already exists");
    node.end(&pod);
}

#[test]
fn an_address_conflict_on_the_bridge_says_what_is_there_and_what_to_do() {
    let node = Node::new();
    let (one, two) = (node.pod("one"), node.pod("two"));
    let config = network(json!({}));
    node.add(&one, &config);
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/24"}]]});
    let refused = node.call("bridge", "ADD", &two, &network(json!({"name": "net2", "ipam": ipam}))).unwrap_err();
    assert_eq!(
        refused.msg,
        "failed to set bridge addr: \"cni0\" already has an IP address different from 10.99.0.1/24"
    );
    assert!(refused.details.contains("`ip address del 10.88.0.1/16 dev cni0`"), "{}", refused.details);
    let forced = network(json!({"name": "net2", "ipam": ipam, "forceAddress": true}));
    assert_eq!(address(&node.add(&two, &forced)), "10.99.0.3", "the refused ADD's address had its turn");
    node.del(&two, &forced);
    node.del(&one, &config);
    node.end(&one);
    node.end(&two);
}

#[test]
fn the_plugins_own_namespace_is_refused() {
    let node = Node::new();
    let pod = node.pod("one");
    let config = network(json!({}));
    let mut command = node.command(&node.ours, "bridge", "ADD", &pod);
    let refused = finish(start(command.env("CNI_NETNS", "/proc/self/ns/net"), &config)).unwrap_err();
    assert_eq!(refused.code, 8);
    assert_eq!(refused.msg, "plugin's netns and netns from CNI_NETNS should not be the same");
    assert!(node.reservations().is_empty() && node.veths().is_empty());
    let mut command = node.command(&node.ours, "bridge", "ADD", &pod);
    assert_eq!(finish(start(command.env("CNI_NETNS", "/run/netns/none"), &config)).unwrap_err().code, 8);
    node.end(&pod);
}

#[test]
fn exhaustion_tells_how_many_are_live_and_how_many_leaked() {
    let node = Node::new();
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/29"}]]});
    let config = network(json!({"ipam": ipam, "cniVersion": "1.1.0"}));
    let pods: Vec<_> = (0..5).map(|number| node.pod(&format!("pod{number}"))).collect();
    for pod in &pods {
        node.add(pod, &config);
    }
    std::fs::create_dir_all("/var/lib/cni/results").unwrap();
    write("/var/lib/cni/results/net-pod0-eth0".as_ref(), json!({"netns": pods[0].netns}).to_string());
    let late = node.pod("late");
    let refused = node.call("bridge", "ADD", &late, &config).unwrap_err();
    let expected = "no IP addresses available in range set: 10.88.0.1-10.88.0.6: 5 used: 1 live, 4 leaked";
    assert!(refused.msg.contains(expected), "{refused:?}");
    let status = node.call("bridge", "STATUS", &late, &config).unwrap_err();
    assert_eq!(status.code, 50);
    assert!(status.msg.contains(expected), "{status:?}");
    for pod in &pods {
        node.del(pod, &config);
        node.end(pod);
    }
    node.call("bridge", "STATUS", &late, &config).unwrap();
    node.end(&late);
}

#[test]
fn an_address_rests_until_all_others_had_their_turn() {
    let node = Node::new();
    let config = network(json!({}));
    let pod = node.pod("one");
    let mut seen = BTreeSet::new();
    for _ in 0..5 {
        assert!(seen.insert(address(&node.add(&pod, &config))), "given again at once");
        node.del(&pod, &config);
    }
    node.end(&pod);
}

#[test]
fn an_attachment_is_not_added_twice() {
    let node = Node::new();
    let config = network(json!({}));
    let pod = node.pod("one");
    node.add(&pod, &config);
    let refused = node.call("bridge", "ADD", &pod, &config).unwrap_err();
    assert!(refused.msg.contains("10.88.0.2 has been allocated to one, duplicate allocation is not allowed"));
    assert_eq!(node.reservations(), ["10.88.0.2"], "the first attachment keeps its address");
    node.del(&pod, &config);
    node.end(&pod);
}

#[test]
fn check_notices_what_drifted() {
    let node = Node::new();
    let config = network(json!({}));
    let pod = node.pod("one");
    let result = node.add(&pod, &config);
    let checked = || node.call("bridge", "CHECK", &pod, &network(json!({"prevResult": result})));
    checked().unwrap();
    node.ip(&["-n", "one", "route", "del", "default"]);
    assert_eq!(checked().unwrap_err().msg, "Expected Route 0.0.0.0/0 not found in routing table");
    node.ip(&["-n", "one", "route", "add", "default", "via", GATEWAY]);
    checked().unwrap();
    node.ip(&["-n", "one", "addr", "add", "10.88.9.9/16", "dev", "eth0"]);
    node.ip(&["-n", "one", "addr", "del", "10.88.0.2/16", "dev", "eth0"]);
    assert!(checked().unwrap_err().msg.contains("10.88.0.2/16"));
    let host_end = result["interfaces"][1]["name"].as_str().unwrap();
    node.ip(&["link", "set", host_end, "nomaster"]);
    assert!(checked().unwrap_err().msg.contains("CNI veth created for bridge cni0 was not found"));
    assert!(node.call("bridge", "CHECK", &pod, &config).unwrap_err().msg.contains("prevResult missing"));
    node.del(&pod, &config);
    assert!(checked().is_err());
    node.end(&pod);
}

#[test]
fn a_foreign_ipam_plugin_is_executed_even_under_our_own_name() {
    let node = Node::new();
    let pod = node.pod("one");
    let config = network(json!({}));
    let mixed = node.world.new_dir("mixed");
    std::os::unix::fs::symlink(node.ours.join("bridge"), mixed.join("bridge")).unwrap();
    let script = mixed.join("host-local");
    let log = node.world.dir().join("ipam.log");
    write(
        &script,
        format!(
            "#!/bin/sh\necho $CNI_COMMAND $CNI_CONTAINERID >> {}\n[ $CNI_COMMAND = DEL ] || \
             echo '{{\"ips\":[{{\"address\":\"10.88.7.7/16\"}}]}}'\n",
            log.display()
        ),
    );
    node.world.command("chmod").args(["755"]).arg(&script).status().unwrap();
    let added = finish(start(&mut node.command(&mixed, "bridge", "ADD", &pod), &config)).unwrap();
    assert_eq!(added["ips"][0], json!({"address": "10.88.7.7/16", "gateway": GATEWAY, "interface": 2}));
    finish(start(&mut node.command(&mixed, "bridge", "DEL", &pod), &config)).unwrap();
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "ADD one\nDEL one\n");
    assert!(node.reservations().is_empty());
    node.end(&pod);
}

#[test]
fn loopback_sets_lo_up_and_passes_a_previous_result_on() {
    let node = Node::new();
    let pod = node.pod("one");
    let config = json!({"cniVersion": "1.0.0", "name": "lo", "type": "loopback"});
    let result = node.call("loopback", "ADD", &pod, &config).unwrap();
    assert_eq!(result["interfaces"][0]["name"], "lo");
    assert_eq!(result["ips"][0]["address"], "127.0.0.1/8");
    node.call("loopback", "CHECK", &pod, &config).unwrap();
    let previous = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.9/24"}]});
    let chained = json!({"cniVersion": "1.0.0", "name": "lo", "type": "loopback", "prevResult": previous});
    assert_eq!(node.call("loopback", "ADD", &pod, &chained).unwrap(), previous);
    node.call("loopback", "DEL", &pod, &config).unwrap();
    assert_eq!(node.call("loopback", "CHECK", &pod, &config).unwrap_err().msg, "loopback interface is down");
    node.end(&pod);
    node.call("loopback", "DEL", &pod, &config).unwrap();
}

#[test]
fn every_verb_answers_by_the_protocol() {
    let node = Node::new();
    let pod = node.pod("one");
    for plugin in ["bridge", "host-local", "loopback", "portmap"] {
        let version = node.call(plugin, "VERSION", &pod, &json!({})).unwrap();
        assert_eq!(version["cniVersion"], "1.1.0", "{plugin}");
        let gc = node.call(plugin, "GC", &pod, &network(json!({"cniVersion": "1.1.0"}))).unwrap_err();
        assert_eq!((gc.code, gc.msg), (4, format!("CNI_COMMAND GC is not built yet in Orlop's {plugin}")));
        let old = node.call(plugin, "STATUS", &pod, &network(json!({"cniVersion": "1.0.0"}))).unwrap_err();
        assert_eq!((old.code, old.msg.as_str()), (1, "config version does not allow STATUS"));
        let unknown = node.call(plugin, "FLY", &pod, &network(json!({}))).unwrap_err();
        assert_eq!((unknown.code, unknown.msg.as_str()), (4, "unknown CNI_COMMAND: FLY"));
        let mut bare = node.world.command(node.ours.join(plugin));
        let about = bare.output().unwrap();
        assert!(about.status.success() && String::from_utf8_lossy(&about.stderr).contains("0.1.0, 0.2.0, 0.3.0"));
    }
    node.end(&pod);
}

#[test]
fn under_a_foreign_name_the_binary_says_what_it_can_be() {
    let node = Node::new();
    let pod = node.pod("one");
    let foreign = node.world.dir().join("flannel");
    std::os::unix::fs::symlink(node.ours.join("bridge"), &foreign).unwrap();
    let refused = finish(start(&mut node.command(node.world.dir(), "flannel", "ADD", &pod), &json!({}))).unwrap_err();
    assert!(refused.msg.contains("link it as bridge, host-local, loopback, portmap"), "{refused:?}");
    node.end(&pod);
}
