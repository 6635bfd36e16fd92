//! `portmap`: what reaches a pod through a port of the host, and what must not.

use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use tests::slow;

use crate::cni::{GATEWAY, HOST, Node, OUTSIDE, Pod, address, ask, network, port_config, serve};

/// A node with one pod whose port 80 is the host's port 8080, for TCP as containerd spells it.
fn node_with_pod() -> (Node, Pod, Value) {
    let node = Node::new();
    let pod = node.pod("web");
    let result = node.add(&pod, &network(json!({"ipMasq": true})));
    node.map(&pod, &result, json!([{"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP"}]));
    (node, pod, result)
}

fn end(node: &Node, pods: &[&Pod]) {
    for pod in pods {
        node.unmap(pod);
        node.del(pod, &network(json!({"ipMasq": true})));
        node.end(pod);
    }
    assert_eq!(elements(node), Vec::<String>::new(), "elements of no pod");
}

/// The elements that belong to pods: all but those of subnets.
fn elements(node: &Node) -> Vec<String> {
    let ruleset = node.nft(&["-j", "list", "ruleset"]);
    let ruleset: Value = serde_json::from_str(&ruleset).unwrap();
    let maps = ruleset["nftables"].as_array().unwrap().iter().filter_map(|object| object.get("map"));
    let of_pods = maps.filter(|map| map["name"] != "masquerade-subnets");
    of_pods.flat_map(|map| map["elem"].as_array().into_iter().flatten().map(Value::to_string)).collect()
}

#[test]
fn a_host_port_is_reached_from_outside_the_host_itself_and_the_pods() {
    let (node, pod, result) = node_with_pod();
    let (outside, other) = (node.outside(), node.pod("other"));
    node.add(&other, &network(json!({"ipMasq": true})));
    pod.serve(80, 6);
    let web = |answer: Option<(String, String)>| answer.map(|(name, from)| (name == "web", from));
    assert_eq!(web(outside.run(|| ask(&format!("{HOST}:8080")))), Some((true, OUTSIDE.into())), "from outside");
    assert_eq!(web(ask("127.0.0.1:8080")), Some((true, GATEWAY.into())), "from the host at 127.0.0.1");
    assert_eq!(web(ask(&format!("{HOST}:8080"))).map(|(is_web, _)| is_web), Some(true), "from the host");
    assert_eq!(web(pod.run(|| ask(&format!("{GATEWAY}:8080")))), Some((true, GATEWAY.into())), "from the pod itself");
    assert_eq!(web(pod.run(|| ask(&format!("{HOST}:8080")))), Some((true, GATEWAY.into())), "by the other address");
    assert_eq!(web(other.run(|| ask(&format!("{HOST}:8080")))), Some((true, GATEWAY.into())), "from its neighbour");
    node.call("portmap", "CHECK", &pod, &port_config(&result, json!([{"hostPort": 8080, "containerPort": 80}])))
        .unwrap();
    end(&node, &[&pod, &other]);
    node.end(&outside);
}

/// A datagram. A wait with a timeout is not restarted by the kernel when something else interrupts it.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> std::io::Result<(usize, std::net::SocketAddr)> {
    loop {
        match socket.recv_from(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[test]
fn udp_is_mapped_beside_tcp_of_the_same_number() {
    let (node, pod, result) = node_with_pod();
    node.unmap(&pod);
    let both = json!([
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8080, "containerPort": 53, "protocol": "udp"},
        {"hostPort": 8081, "containerPort": 81, "protocol": "sctp"},
    ]);
    node.map(&pod, &result, both);
    let server = pod.run(|| UdpSocket::bind("0.0.0.0:53").unwrap());
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(5) * slow())).unwrap();
    }
    client.send_to(b"ping", "127.0.0.1:8080").unwrap();
    let mut buffer = [0; 16];
    let (length, from) = receive(&server, &mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"ping");
    server.send_to(b"pong", from).unwrap();
    assert_eq!(receive(&client, &mut buffer).unwrap().0, 4);
    pod.serve(80, 1);
    assert!(ask("127.0.0.1:8080").is_some());
    end(&node, &[&pod]);
}

#[test]
fn a_udp_client_follows_the_port_to_the_next_pod() {
    let (node, old, result) = node_with_pod();
    let udp = json!([{"hostPort": 8053, "containerPort": 53, "protocol": "udp"}]);
    node.unmap(&old);
    node.map(&old, &result, udp.clone());
    let patience = Some(Duration::from_secs(5) * slow());
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let expect = |pod: &Pod| {
        let server = pod.run(|| UdpSocket::bind("0.0.0.0:53").unwrap());
        server.set_read_timeout(patience).unwrap();
        client.send_to(b"ping", "127.0.0.1:8053").unwrap();
        let mut buffer = [0; 16];
        receive(&server, &mut buffer).unwrap_or_else(|error| panic!("nothing reached {}: {error}", pod.id));
    };
    expect(&old);
    node.unmap(&old);
    let next = node.pod("next");
    let result = node.add(&next, &network(json!({"ipMasq": true})));
    node.map(&next, &result, udp);
    // From the same source port as before.
    expect(&next);
    end(&node, &[&old, &next]);
}

#[test]
fn traffic_that_passes_through_the_host_is_never_captured() {
    let (node, pod, _) = node_with_pod();
    let outside = node.outside();
    // Another machine has a service on the same port; a pod calls it.
    outside.serve(8080, 1);
    let client = node.pod("client");
    node.add(&client, &network(json!({"ipMasq": true})));
    assert_eq!(client.run(|| ask(&format!("{OUTSIDE}:8080"))).unwrap().0, "outside");
    end(&node, &[&pod, &client]);
    node.end(&outside);
}

#[test]
fn a_service_on_the_hosts_loopback_stays_out_of_reach() {
    let (node, pod, _) = node_with_pod();
    let outside = node.outside();
    serve(TcpListener::bind("127.0.0.1:9000").unwrap(), "secret", 4);
    let localnet = std::fs::read_to_string("/proc/sys/net/ipv4/conf/cni0/route_localnet").unwrap();
    assert_eq!(localnet.trim(), "1", "without it there would be nothing to guard");
    // A pod that sends packets for 127.0.0.1 to its gateway instead of to itself.
    for (name, hop) in [("web", GATEWAY), ("outside", HOST)] {
        node.ip(&["-n", name, "link", "set", "lo", "down"]);
        node.ip(&["-n", name, "route", "flush", "table", "local", "to", "127.0.0.0/8"]);
        node.ip(&["-n", name, "route", "add", "127.0.0.1", "via", hop, "dev", "eth0"]);
        for key in ["all", "eth0"] {
            let path = format!("net.ipv4.conf.{key}.route_localnet=1");
            let set = node.world.command("ip").args(["netns", "exec", name, "sysctl", "-q", "-w", &path]).status();
            assert!(set.unwrap().success());
        }
    }
    assert_eq!(pod.run(|| ask("127.0.0.1:9000")), None, "the pod reached the host's loopback");
    assert_eq!(outside.run(|| ask("127.0.0.1:9000")), None, "a neighbour reached the host's loopback");
    // The attack is a real one: without our rule it succeeds.
    node.nft(&["flush", "chain", "ip", "orlop_cni", "prerouting-guard"]);
    assert_eq!(pod.run(|| ask("127.0.0.1:9000")).map(|(name, _)| name), Some("secret".into()));
    end(&node, &[&pod]);
    node.end(&outside);
}

#[test]
fn a_mapping_of_one_host_address_is_only_reached_there() {
    let (node, pod, result) = node_with_pod();
    let outside = node.outside();
    node.unmap(&pod);
    node.map(&pod, &result, json!([{"hostPort": 8080, "containerPort": 80, "hostIP": "127.0.0.1"}]));
    pod.serve(80, 2);
    assert!(ask("127.0.0.1:8080").is_some());
    assert_eq!(outside.run(|| ask(&format!("{HOST}:8080"))), None);
    end(&node, &[&pod]);
    node.end(&outside);
}

#[test]
fn del_removes_the_pods_own_mappings_and_no_others() {
    let (node, pod, _) = node_with_pod();
    let other = node.pod("other");
    let result = node.add(&other, &network(json!({"ipMasq": true})));
    node.map(
        &other,
        &result,
        json!([{"hostPort": 8090, "containerPort": 80}, {"hostPort": 8091, "containerPort": 81}]),
    );
    node.unmap(&pod);
    other.serve(80, 1);
    assert_eq!(ask("127.0.0.1:8090").unwrap().0, "other");
    assert!(ask("127.0.0.1:8080").is_none(), "unmapped");
    assert_eq!(elements(&node).len(), 3);
    node.unmap(&pod);
    end(&node, &[&pod, &other]);
}

#[test]
fn a_late_del_leaves_the_next_pod_with_the_same_address_and_port_alone() {
    let (node, old, result) = node_with_pod();
    // The old pod's address was freed and given away before its portmap DEL came.
    let new = node.pod("new");
    node.del(&old, &network(json!({"ipMasq": true})));
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]]});
    let same = network(json!({"ipMasq": true, "ipam": ipam, "runtimeConfig": {"ips": [address(&result)]}}));
    let reused = node.add(&new, &same);
    assert_eq!(address(&reused), address(&result));
    node.map(&new, &reused, json!([{"hostPort": 8080, "containerPort": 80}]));
    node.unmap(&old);
    new.serve(80, 2);
    assert_eq!(ask("127.0.0.1:8080").unwrap().0, "new");
    assert_eq!(new.run(|| ask(&format!("{GATEWAY}:8080"))).unwrap().0, "new");
    end(&node, &[&new, &old]);
}

#[test]
fn the_last_writer_of_a_port_wins_so_that_a_leak_blocks_nobody() {
    let (node, leaked, _) = node_with_pod();
    let next = node.pod("next");
    let result = node.add(&next, &network(json!({"ipMasq": true})));
    node.map(&next, &result, json!([{"hostPort": 8080, "containerPort": 80}]));
    next.serve(80, 1);
    assert_eq!(ask("127.0.0.1:8080").unwrap().0, "next");
    end(&node, &[&leaked, &next]);
}

#[test]
fn many_pods_come_and_go_at_once() {
    let node = Node::new();
    let config = network(json!({"ipMasq": true}));
    let pods: Vec<_> = (0..12).map(|number| node.pod(&format!("pod{number}"))).collect();
    let results: Vec<_> = pods.iter().map(|pod| node.add(pod, &config)).collect();
    let mapping = |number: usize| json!([{"hostPort": 9000 + number, "containerPort": 80}]);
    let calls = |verb: &str| {
        let running: Vec<_> = pods
            .iter()
            .enumerate()
            .map(|(number, pod)| {
                let config = port_config(&results[number], mapping(number));
                crate::cni::start(&mut node.command(&node.ours, "portmap", verb, pod), &config)
            })
            .collect();
        for child in running {
            crate::cni::finish(child).unwrap();
        }
    };
    calls("ADD");
    calls("CHECK");
    assert_eq!(elements(&node).len(), 24);
    calls("DEL");
    end(&node, &pods.iter().collect::<Vec<_>>());
}

#[test]
fn impossible_mappings_are_refused_before_anything_is_mapped() {
    let (node, pod, result) = node_with_pod();
    node.unmap(&pod);
    let check = |mappings: Value, more: Value, code: u64, expected: &str| {
        let mut config = port_config(&result, mappings);
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let refused = node.call("portmap", "ADD", &pod, &config).unwrap_err();
        assert!(refused.code == code && refused.msg.contains(expected), "{refused:?}");
        assert!(elements(&node).is_empty());
    };
    let good = json!([{"hostPort": 1, "containerPort": 1}]);
    check(json!([{"hostPort": 70000, "containerPort": 1}]), json!({}), 7, "Invalid host port number: 70000");
    check(json!([{"hostPort": 1, "containerPort": 0}]), json!({}), 7, "Invalid container port number: 0");
    check(json!([{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}]), json!({}), 7, "none of tcp, udp, sctp");
    check(json!([{"hostPort": 1, "containerPort": 1, "hostIP": "::1"}]), json!({}), 2, "IPv6 hostIP ::1 is not built");
    check(
        json!([{"hostPort": 1, "containerPort": 1}, {"hostPort": 1, "containerPort": 2}]),
        json!({}),
        7,
        "host port 1 twice",
    );
    check(good.clone(), json!({"backend": "iptables"}), 2, "backend \"iptables\" is not built");
    check(good.clone(), json!({"conditionsV4": ["-d", "1.2.3.4"]}), 2, "conditionsV4 is not built");
    check(good.clone(), json!({"prevResult": null}), 7, "must be called as chained plugin");
    check(good, json!({"prevResult": {"cniVersion": "1.0.0", "ips": []}}), 7, "no IPv4 address of eth0");
    end(&node, &[&pod]);
}

#[test]
fn the_ruleset_is_what_nft_would_have_made() {
    let (node, pod, _) = node_with_pod();
    let listed = node.nft(&["list", "table", "ip", "orlop_cni"]);
    for line in [
        "elements = { tcp . 8080 comment \"web/eth0\" : 10.88.0.2 . 80 }",
        "elements = { 10.88.0.2 comment \"web/eth0\" : goto hairpin-10.88.0.0/16 }",
        "elements = { 10.88.0.0/16 : goto masquerade-10.88.0.0/16 }",
        "type filter hook prerouting priority raw; policy accept;",
        "iifname != \"lo\" ip daddr 127.0.0.0/8 drop",
        "iifname != \"lo\" ip saddr 127.0.0.0/8 drop",
        "type nat hook prerouting priority dstnat + 1; policy accept;",
        "fib daddr type local jump hostports",
        "dnat ip to ip daddr . meta l4proto . th dport map @hostip-ports",
        "dnat ip to meta l4proto . th dport map @hostports",
        "type nat hook postrouting priority srcnat; policy accept;",
        "ct status dnat ip daddr vmap @hostport-pods",
        "ip saddr vmap @masquerade-subnets",
        "ip saddr 127.0.0.0/8 masquerade",
        "ip daddr != 10.88.0.0/16 ip daddr != 224.0.0.0/4 masquerade",
    ] {
        assert!(listed.contains(line), "no {line:?} in\n{listed}");
    }
    // What nft reads back is the same: we encode what it would.
    let saved = node.world.dir().join("saved.nft");
    tests::write(&saved, &listed);
    node.nft(&["flush", "ruleset"]);
    node.nft(&["-f", saved.to_str().unwrap()]);
    assert_eq!(node.nft(&["list", "table", "ip", "orlop_cni"]), listed);
    pod.serve(80, 1);
    assert!(ask("127.0.0.1:8080").is_some(), "and it works");
    end(&node, &[&pod]);
}

/// The maps outlive `nft flush chain`, and with them every sign that the layout was made.
#[test]
fn rules_that_someone_flushed_are_back_before_loopback_is_routed_to_a_pod() {
    let (node, pod, _) = node_with_pod();
    let before = node.nft(&["list", "table", "ip", "orlop_cni"]);
    for flushed in ["table ip orlop_cni", "chain ip orlop_cni prerouting-guard"] {
        let arguments: Vec<_> = ["flush"].into_iter().chain(flushed.split(' ')).collect();
        node.nft(&arguments);
        assert!(!node.nft(&["list", "table", "ip", "orlop_cni"]).contains("ip daddr 127.0.0.0/8 drop"));
        let other = node.pod("other");
        let result = node.add(&other, &network(json!({"ipMasq": true})));
        node.map(&other, &result, json!([{"hostPort": 8081, "containerPort": 80}]));
        node.unmap(&other);
        node.del(&other, &network(json!({"ipMasq": true})));
        node.end(&other);
        assert_eq!(node.nft(&["list", "table", "ip", "orlop_cni"]), before, "after flush {flushed}");
    }
    end(&node, &[&pod]);
}

#[test]
fn a_pod_without_host_ports_costs_no_rule() {
    let node = Node::new();
    let pod = node.pod("web");
    let result = node.add(&pod, &network(json!({})));
    let passed = node.call("portmap", "ADD", &pod, &port_config(&result, json!([]))).unwrap();
    assert_eq!(passed, result, "the previous result is passed on");
    assert!(!node.nft(&["list", "ruleset"]).contains("orlop_cni"));
    node.unmap(&pod);
    node.del(&pod, &network(json!({})));
    node.end(&pod);
}
