//! Network devices of the host that become a container's.

use serde_json::{Value, json};
use tests::{World, eventually, output};

use super::bundle::{Bundle, message};
use super::user_namespaces;

/// Runs `ip` in the World's network namespace, which is the host's for its containers.
fn ip(world: &World, arguments: &str) -> String {
    output(world.command("ip").args(arguments.split(' '))).success()
}

/// A veth pair; `name`, which is to be moved, has an MTU, a hardware address and addresses.
fn make_device(world: &World, name: &str) {
    ip(world, &format!("link add {name} mtu 1400 address 02:00:00:00:00:07 type veth peer name {name}-peer"));
    ip(world, &format!("address add 192.0.2.7/24 dev {name}"));
    ip(world, &format!("address add 198.51.100.1/30 dev {name} scope link"));
    ip(world, &format!("-6 address add 2001:db8::7/64 dev {name} nodad"));
    ip(world, &format!("link set {name}-peer up"));
    ip(world, &format!("link set {name} up"));
}

/// What `ip -json address` says of a device: MTU, hardware address, whether it is up, global addresses.
fn look(world: &World, name: &str) -> (u64, String, bool, Vec<String>) {
    let text = ip(world, &format!("-json address show dev {name}"));
    let device = &serde_json::from_str::<Value>(&text).unwrap()[0];
    let up = device["flags"].as_array().unwrap().contains(&json!("UP"));
    let addresses = device["addr_info"].as_array().unwrap().iter().filter(|address| address["scope"] == "global");
    let addresses = addresses.map(|address| format!("{}/{}", address["local"].as_str().unwrap(), address["prefixlen"]));
    (device["mtu"].as_u64().unwrap(), device["address"].as_str().unwrap().to_owned(), up, addresses.collect())
}

fn exists(world: &World, name: &str) -> bool {
    output(world.command("ip").args(["link", "show", name])).code == 0
}

#[test]
fn a_device_moves_with_its_mtu_and_addresses_and_is_up_under_its_new_name() {
    let world = World::enter();
    for user_namespace in [false, true] {
        make_device(&world, "dev0");
        let script = "ip address show dev net0; cat /proc/sys/net/ipv4/conf/net0/rp_filter";
        let mut bundle = match user_namespace {
            true => user_namespaces::bundle(&world, script),
            false => Bundle::new(&world, script),
        };
        bundle.set("/linux/netDevices", json!({"dev0": {"name": "net0"}}));
        bundle.set("/linux/sysctl", json!({"net.ipv4.conf.net0.rp_filter": "2"}));
        let text = bundle.run().success();
        for expected in ["mtu 1400", ",UP", "02:00:00:00:00:07", "inet 192.0.2.7/24", "inet6 2001:db8::7/64"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        assert!(!text.contains("198.51.100.1"), "{text}");
        assert!(text.ends_with("\n2\n"), "{text}");
        // As the kernel does it: a pair ends with the namespace that one end of it is in.
        eventually("the pair is gone", std::time::Duration::from_secs(10), || !exists(&world, "dev0-peer"));
    }
}

#[test]
fn devices_that_are_missing_or_meet_another_are_refused_by_their_name_and_stay() {
    let world = World::enter();
    make_device(&world, "dev0");
    let before = look(&world, "dev0");
    for (devices, expected) in [
        (json!({"dev0": {}, "dev9": {}}), "linux.netDevices[dev9]: there is no such network device"),
        (json!({"dev0": {"name": "lo"}}), "linux.netDevices[dev0]: the container has a network device lo already"),
    ] {
        let mut bundle = Bundle::new(&world, "true");
        bundle.set("/linux/netDevices", devices);
        let refused = bundle.run();
        assert!(refused.code != 0 && message(&refused).contains(expected), "{refused:?}");
        assert_eq!(look(&world, "dev0"), before);
    }
    ip(&world, "link delete dev0");
}

/// runc leaves that to the end of the namespace, with which the kernel deletes a pair.
#[test]
fn devices_are_back_if_the_container_does_not_come_to_be() {
    let world = World::enter();
    make_device(&world, "dev0");
    let before = look(&world, "dev0");
    assert_eq!(before.3, ["192.0.2.7/24", "2001:db8::7/64"]);
    let mut bundle = Bundle::new(&world, "true");
    bundle.set("/linux/netDevices", json!({"dev0": {"name": "net0"}}));
    bundle.set("/process/args", json!(["/nowhere"]));
    assert_ne!(bundle.run().code, 0);
    assert_eq!(look(&world, "dev0"), before);
    // The kernel moves no bridge: what was moved before it comes back.
    ip(&world, "link add zbridge type bridge");
    bundle.set("/linux/netDevices", json!({"dev0": {"name": "net0"}, "zbridge": {}}));
    let refused = bundle.run();
    assert!(refused.code != 0 && message(&refused).contains("move linux.netDevices[zbridge]"), "{refused:?}");
    assert_eq!(look(&world, "dev0"), before);
    assert!(exists(&world, "zbridge"));
    ip(&world, "link delete dev0");
    ip(&world, "link delete zbridge");
}

#[test]
fn a_device_needs_a_network_namespace_to_move_to() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "true");
    bundle.set("/linux/netDevices", json!({"lo": {}}));
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "network");
    let refused = bundle.run();
    assert!(refused.code != 0 && message(&refused).contains("netDevices"), "{refused:?}");
}
