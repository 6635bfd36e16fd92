//! What the machine says about itself: its name, its addresses, its swap, its cgroups, its sysctls.
//!
//! Reading is thin; what is made of what was read are pure functions.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};
use std::path::Path;

/// An address of an interface that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) interface: String,
    pub(super) ip: IpAddr,
}

/// Which address families may name the node, as `--node-ip` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    PreferIpv4,
    PreferIpv6,
}

/// What is known about the node's addresses before one is chosen.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    pub(super) local: Vec<Address>,
    /// What DNS, or /etc/hosts, says about the node's name.
    pub(super) of_name: Vec<IpAddr>,
    /// Interfaces with a default route, best first.
    pub(super) default_routes: Vec<String>,
}

/// The host's name, trimmed and in lower case as upstream has it.
pub(super) fn hostname() -> io::Result<String> {
    let name = nix::unistd::gethostname()?;
    Ok(name.to_string_lossy().trim().to_lowercase())
}

impl Addresses {
    /// Asks the interfaces, the routing tables and the resolver.
    pub(super) fn read(node_name: &str) -> Addresses {
        let local = nix::ifaddrs::getifaddrs().map(|all| all.filter_map(|one| address(&one)).collect());
        let of_name = (node_name, 0).to_socket_addrs().map(|all| all.map(|address| address.ip()).collect());
        let table = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let mut default_routes = default_routes_ipv4(&table("/proc/net/route"));
        default_routes.extend(default_routes_ipv6(&table("/proc/net/ipv6_route")));
        Addresses { local: local.unwrap_or_default(), of_name: of_name.unwrap_or_default(), default_routes }
    }

    /// Upstream's choice: the name if it is an address, what DNS says about it, the interface with the default route.
    pub(super) fn choose(&self, node_name: &str, family: Family) -> Option<IpAddr> {
        if let Ok(ip) = node_name.parse() {
            return Some(ip);
        }
        let preferred = |ip: &IpAddr| ip.is_ipv4() == (family == Family::PreferIpv4);
        let mut named: Vec<IpAddr> = self.of_name.iter().copied().filter(|ip| self.is_ours(*ip)).collect();
        named.sort_by_key(|ip| !preferred(ip));
        let mut routed: Vec<IpAddr> = self
            .default_routes
            .iter()
            .flat_map(|interface| self.local.iter().filter(move |address| address.interface == *interface))
            .map(|address| address.ip)
            .filter(|ip| refusal(*ip).is_none())
            .collect();
        routed.sort_by_key(|ip| !preferred(ip));
        named.into_iter().chain(routed).next()
    }

    /// Any address at all, for a node that nobody else looks for.
    pub(super) fn any(&self) -> IpAddr {
        let usable = self.local.iter().map(|address| address.ip).find(|ip| refusal(*ip).is_none());
        usable.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    fn is_ours(&self, ip: IpAddr) -> bool {
        refusal(ip).is_none() && self.local.iter().any(|address| address.ip == ip)
    }
}

/// Why an address can't be a node's, in upstream's words.
pub(super) fn refusal(ip: IpAddr) -> Option<&'static str> {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if ip.is_loopback() {
        Some("nodeIP can't be loopback address")
    } else if ip.is_multicast() {
        Some("nodeIP can't be a multicast address")
    } else if link_local {
        Some("nodeIP can't be a link-local unicast address")
    } else if ip.is_unspecified() {
        Some("nodeIP can't be an all zeros address")
    } else {
        None
    }
}

fn address(one: &nix::ifaddrs::InterfaceAddress) -> Option<Address> {
    if !one.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP) {
        return None;
    }
    let socket = one.address.as_ref()?;
    let ipv4 = socket.as_sockaddr_in().map(|ip| IpAddr::V4(ip.ip()));
    let ipv6 = || socket.as_sockaddr_in6().map(|ip| IpAddr::V6(ip.ip()));
    Some(Address { interface: one.interface_name.clone(), ip: ipv4.or_else(ipv6)? })
}

/// The interfaces of `/proc/net/route`'s default routes that are up, lowest metric first.
fn default_routes_ipv4(table: &str) -> Vec<String> {
    let route = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [interface, "00000000", _, flags, _, _, metric, "00000000", ..] = columns[..] else { return None };
        let up = u32::from_str_radix(flags, 16).ok()? & 1 == 1;
        up.then(|| Some((metric.parse::<u32>().ok()?, interface.to_owned())))?
    };
    by_metric(table.lines().filter_map(route).collect())
}

/// The same of `/proc/net/ipv6_route`; the kernel lists an unreachable default on `lo`.
fn default_routes_ipv6(table: &str) -> Vec<String> {
    let route = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [destination, "00", _, "00", _, metric, _, _, _, interface] = columns[..] else { return None };
        let default = u128::from_str_radix(destination, 16).ok()? == u128::from(Ipv6Addr::UNSPECIFIED);
        (default && interface != "lo").then_some((u32::from_str_radix(metric, 16).ok()?, interface.to_owned()))
    };
    by_metric(table.lines().filter_map(route).collect())
}

fn by_metric(mut routes: Vec<(u32, String)>) -> Vec<String> {
    routes.sort_by_key(|(metric, _)| *metric);
    routes.into_iter().map(|(_, interface)| interface).collect()
}

/// Whether `/proc/swaps` lists anything below its heading.
pub(super) fn swap_is_on(swaps: &str) -> bool {
    swaps.trim().lines().count() > 1
}

/// Whether the machine has cgroup v2's single hierarchy.
pub(super) fn cgroup_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The sysctls that upstream wants, with its values.
pub(super) const SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// What the machine has otherwise: name, wanted value, found value.
pub(super) fn other_sysctls(read: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, &'static str, String)> {
    let other = |(name, wanted): (&'static str, &'static str)| {
        let found = read(name)?.trim().to_owned();
        (found != wanted).then_some((name, wanted, found))
    };
    SYSCTLS.into_iter().filter_map(other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(local: &[(&str, &str)], of_name: &[&str], routes: &[&str]) -> Addresses {
        Addresses {
            local: local
                .iter()
                .map(|(interface, ip)| Address { interface: (*interface).into(), ip: ip.parse().unwrap() })
                .collect(),
            of_name: of_name.iter().map(|ip| ip.parse().unwrap()).collect(),
            default_routes: routes.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[track_caller]
    fn check(known: &Addresses, name: &str, family: Family, wants: Option<&str>) {
        assert_eq!(known.choose(name, family), wants.map(|ip| ip.parse().unwrap()));
    }

    const LOCAL: [(&str, &str); 5] =
        [("lo", "127.0.0.1"), ("eth0", "10.0.0.5"), ("eth0", "2001:db8::5"), ("eth0", "fe80::1"), ("eth1", "10.1.0.5")];

    #[test]
    fn a_name_that_is_an_address_is_the_nodes() {
        check(&addresses(&LOCAL, &["10.1.0.5"], &["eth0"]), "192.0.2.7", Family::PreferIpv4, Some("192.0.2.7"));
    }

    #[test]
    fn dns_stands_over_the_default_route_but_only_with_addresses_of_ours() {
        let known = addresses(&LOCAL, &["127.0.1.1", "203.0.113.9", "10.1.0.5"], &["eth0"]);
        check(&known, "node", Family::PreferIpv4, Some("10.1.0.5"));
        let elsewhere = addresses(&LOCAL, &["127.0.1.1", "203.0.113.9"], &["eth0"]);
        check(&elsewhere, "node", Family::PreferIpv4, Some("10.0.0.5"));
    }

    #[test]
    fn the_family_is_a_preference() {
        let known = addresses(&LOCAL, &[], &["eth0"]);
        check(&known, "node", Family::PreferIpv6, Some("2001:db8::5"));
        let only_ipv4 = addresses(&LOCAL[..2], &[], &["eth0"]);
        check(&only_ipv4, "node", Family::PreferIpv6, Some("10.0.0.5"));
    }

    #[test]
    fn without_a_route_there_is_no_address_for_a_cluster() {
        let known = addresses(&LOCAL, &[], &[]);
        check(&known, "node", Family::PreferIpv4, None);
        assert_eq!(known.any(), "10.0.0.5".parse::<IpAddr>().unwrap());
        assert_eq!(addresses(&LOCAL[..1], &[], &[]).any(), "127.0.0.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn default_routes_are_sorted_by_metric() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
            eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(default_routes_ipv4(table), ["eth0", "wlan0"]);
        let table = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00450003     eth0\n\
            00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";
        assert_eq!(default_routes_ipv6(table), ["eth0"]);
    }

    #[test]
    fn swap_is_on_when_there_is_a_line_below_the_heading() {
        assert!(!swap_is_on("Filename\tType\tSize\tUsed\tPriority\n"));
        assert!(swap_is_on("Filename\tType\tSize\tUsed\tPriority\n/dev/sda2 partition 100 0 -2\n"));
        assert!(!swap_is_on(""));
    }

    #[test]
    fn sysctls_that_differ_are_named() {
        let read = |name: &str| Some(if name == "kernel/panic" { "0\n" } else { "1\n" }.to_owned());
        let others = other_sysctls(read);
        assert!(others.contains(&("kernel/panic", "10", "0".to_owned())), "{others:?}");
        assert!(!others.iter().any(|(name, ..)| *name == "vm/overcommit_memory"));
    }
}
