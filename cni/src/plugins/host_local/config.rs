//! What an allocation is asked to be: the `ipam` part of the configuration, and addresses asked for by the runtime.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::super::conf::{argument, decode, refused};
use super::super::skel::Invocation;
use super::failed;
use super::range::{Range, RangeSet};
use crate::caseless;
use crate::error::{PluginError, code};
use crate::result::{Cidr, Dns, Route};
use crate::version::Version;

const DEFAULT_DIRECTORY: &str = "/var/lib/cni/networks";
/// A resolv.conf is some lines; a larger file is none.
const RESOLV_CONF_MAX: u64 = 64 * 1024;

/// The configuration as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Network {
    ipam: Option<IpamKeys>,
    runtime_config: RuntimeConfig,
    args: Args,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct IpamKeys {
    ranges: Vec<Vec<RangeKeys>>,
    subnet: Option<Cidr>,
    range_start: Option<IpAddr>,
    range_end: Option<IpAddr>,
    gateway: Option<IpAddr>,
    routes: Vec<Route>,
    data_dir: String,
    resolv_conf: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RangeKeys {
    subnet: Cidr,
    #[serde(default)]
    range_start: Option<IpAddr>,
    #[serde(default)]
    range_end: Option<IpAddr>,
    #[serde(default)]
    gateway: Option<IpAddr>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RuntimeConfig {
    ip_ranges: Vec<Vec<RangeKeys>>,
    ips: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Args {
    cni: CniArgs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CniArgs {
    ips: Vec<String>,
}

/// A validated request.
#[derive(Debug)]
pub(super) struct Allocation {
    /// Where the network's reservations are.
    pub(super) directory: PathBuf,
    /// One address is taken of each; at least one set.
    pub(super) ranges: Vec<RangeSet>,
    /// Addresses that the runtime wants.
    pub(super) requested: Vec<Ipv4Addr>,
    /// Passed on to the result.
    pub(super) routes: Vec<Route>,
    /// A file to take the result's DNS settings from.
    pub(super) resolv_conf: Option<PathBuf>,
}

/// The network's directory alone: nothing else of the configuration need be right to give addresses back.
pub(super) fn directory(call: &Invocation) -> Result<PathBuf, PluginError> {
    let ipam = caseless::get(&call.config, "ipam").and_then(Value::as_object).ok_or_else(missing_ipam)?;
    let data_dir = caseless::get(ipam, "dataDir").and_then(Value::as_str).unwrap_or_default();
    Ok(directory_of(data_dir, &call.network))
}

fn directory_of(data_dir: &str, network: &str) -> PathBuf {
    let parent = if data_dir.is_empty() { DEFAULT_DIRECTORY } else { data_dir };
    Path::new(parent).join(network)
}

fn missing_ipam() -> PluginError {
    failed("IPAM config missing 'ipam' key")
}

impl Allocation {
    /// Reads and validates all of it.
    pub(super) fn parse(call: &Invocation) -> Result<Allocation, PluginError> {
        let network: Network = decode(call)?;
        let ipam = network.ipam.ok_or_else(missing_ipam)?;
        let directory = directory_of(&ipam.data_dir, &call.network);
        let single = ipam.subnet.map(|subnet| {
            let (range_start, range_end, gateway) = (ipam.range_start, ipam.range_end, ipam.gateway);
            vec![RangeKeys { subnet, range_start, range_end, gateway }]
        });
        // The runtime's ranges come first, then the old single form, then the list.
        let sets = network.runtime_config.ip_ranges.into_iter().chain(single).chain(ipam.ranges);
        let ranges = sets.enumerate().map(|(index, set)| range_set(index, set)).collect::<Result<Vec<_>, _>>()?;
        check_ranges(&ranges, &call.version)?;
        if let Some(route) = ipam.routes.iter().find(|route| route.dst.address.is_ipv6()) {
            return Err(refused("host-local", &format!("the IPv6 route {} of ipam.routes", route.dst)));
        }
        let from_args = argument(&call.args, "IP").map(str::to_owned);
        let asked = from_args.into_iter().chain(network.args.cni.ips).chain(network.runtime_config.ips);
        Ok(Allocation {
            directory,
            ranges,
            requested: asked.map(|text| requested(&text)).collect::<Result<_, _>>()?,
            routes: ipam.routes,
            resolv_conf: (!ipam.resolv_conf.is_empty()).then(|| ipam.resolv_conf.into()),
        })
    }
}

fn range_set(index: usize, set: Vec<RangeKeys>) -> Result<RangeSet, PluginError> {
    let invalid = |error| failed(format!("invalid range set {index}: {error}"));
    let mut ranges = Vec::new();
    for keys in set {
        let v4 = |key: &str, address: IpAddr| match address {
            IpAddr::V4(address) => Ok(address),
            IpAddr::V6(address) => {
                Err(refused("host-local", &format!("the IPv6 {key} {address} of range set {index}")))
            }
        };
        let optional = |key: &str, address: Option<IpAddr>| address.map(|address| v4(key, address)).transpose();
        let subnet = v4("subnet", keys.subnet.address)?;
        let (start, end) = (optional("rangeStart", keys.range_start)?, optional("rangeEnd", keys.range_end)?);
        let gateway = optional("gateway", keys.gateway)?;
        ranges.push(Range::new(subnet, keys.subnet.prefix, start, end, gateway).map_err(invalid)?);
    }
    RangeSet::new(ranges).map_err(invalid)
}

fn check_ranges(ranges: &[RangeSet], version: &str) -> Result<(), PluginError> {
    if ranges.is_empty() {
        return Err(failed("no IP ranges specified"));
    }
    let parsed = version.parse::<Version>().map_err(|error| PluginError::new(code::DECODE, error.to_string()))?;
    if ranges.len() > 1 && parsed < Version::WITH_INTERFACES {
        return Err(failed(format!("CNI version {version} does not support more than 1 address per family")));
    }
    for (index, set) in ranges.iter().enumerate() {
        if let Some(offset) = ranges[index + 1..].iter().position(|other| set.overlaps(other)) {
            return Err(failed(format!("range set {index} overlaps with {}", index + 1 + offset)));
        }
    }
    Ok(())
}

/// An address that is asked for; a prefix length is allowed and ignored, the range's counts.
fn requested(text: &str) -> Result<Ipv4Addr, PluginError> {
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    match address.parse() {
        Ok(IpAddr::V4(address)) => Ok(address),
        Ok(IpAddr::V6(_)) => Err(refused("host-local", &format!("the requested IPv6 address {text}"))),
        Err(_) => Err(failed(format!("cannot understand ip: {text:?}"))),
    }
}

/// The DNS settings of a resolv.conf(5).
pub(super) fn read_resolv_conf(path: &Path) -> Result<Dns, PluginError> {
    let unreadable = |reason: String| failed(format!("read resolvConf {}: {reason}", path.display()));
    let size = path.metadata().map_err(|error| unreadable(error.to_string()))?.len();
    if size > RESOLV_CONF_MAX {
        return Err(unreadable(format!("{size} bytes are no resolv.conf")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    Ok(parse_resolv_conf(&text))
}

fn parse_resolv_conf(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next().unwrap_or_default(),
            Some("search") => dns.search.extend(words),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(config: Value) -> Invocation {
        let Value::Object(config) = config else { panic!("{config}") };
        Invocation {
            container_id: "c1".into(),
            netns: String::new(),
            ifname: "eth0".into(),
            args: String::new(),
            path: vec![],
            config,
            network: "net".into(),
            version: "1.0.0".into(),
            netns_ends: false,
        }
    }

    fn check_refused(ipam: Value, expected: &str) {
        let error = Allocation::parse(&call(json!({"ipam": ipam}))).unwrap_err();
        assert_eq!(error.msg, expected);
    }

    #[test]
    fn the_three_ways_to_write_ranges_are_all_read() {
        let config = json!({
            "ipam": {"subnet": "10.1.0.0/24", "ranges": [[{"subnet": "10.2.0.0/24", "gateway": "10.2.0.254"}]]},
            "runtimeConfig": {"ipRanges": [[{"subnet": "10.3.0.0/24", "RangeStart": "10.3.0.7"}]]},
        });
        let ranges: Vec<_> = Allocation::parse(&call(config)).unwrap().ranges.iter().map(RangeSet::to_string).collect();
        assert_eq!(ranges, ["10.3.0.7-10.3.0.254", "10.1.0.1-10.1.0.254", "10.2.0.1-10.2.0.254"]);
    }

    #[test]
    fn bad_ranges_are_refused_with_their_number() {
        check_refused(json!({}), "no IP ranges specified");
        check_refused(json!({"ranges": [[]]}), "invalid range set 0: empty range set");
        check_refused(
            json!({"subnet": "10.0.0.0/31"}),
            "invalid range set 0: Network 10.0.0.0/31 too small to allocate from",
        );
        let overlapping = json!({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.0.0.128/25"}]]});
        check_refused(overlapping, "range set 0 overlaps with 1");
        check_refused(
            json!({"ranges": [[{"subnet": "2001:db8::/64"}]]}),
            "host-local: the IPv6 subnet 2001:db8:: of range set 0 is not built yet in Orlop",
        );
    }

    #[test]
    fn the_directory_is_found_in_a_configuration_that_an_add_refuses() {
        let check = |config: Value, expected: &str| {
            let call = call(config);
            assert!(Allocation::parse(&call).is_err());
            assert_eq!(directory(&call).unwrap(), Path::new(expected));
        };
        check(json!({"ipam": {"subnet": "10.1.0.0", "DataDir": "/data"}}), "/data/net");
        check(json!({"ipam": {"ranges": 5, "routes": "none"}, "runtimeConfig": 1}), "/var/lib/cni/networks/net");
        assert!(directory(&call(json!({}))).is_err());
    }

    #[test]
    fn addresses_may_be_asked_for_in_three_places() {
        let config = json!({
            "ipam": {"subnet": "10.1.0.0/24"},
            "args": {"cni": {"ips": ["10.1.0.8"]}},
            "runtimeConfig": {"ips": ["10.1.0.9/24"]},
        });
        let wanted = Allocation::parse(&Invocation { args: "IgnoreUnknown=1;IP=10.1.0.7".into(), ..call(config) });
        let requested: Vec<_> = wanted.unwrap().requested.iter().map(Ipv4Addr::to_string).collect();
        assert_eq!(requested, ["10.1.0.7", "10.1.0.8", "10.1.0.9"]);
    }

    #[test]
    fn a_resolv_conf_gives_the_dns_settings() {
        let dns = parse_resolv_conf("# c\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch a.b  c\noptions ndots:5\n");
        assert_eq!(dns.nameservers, ["10.0.0.1", "10.0.0.2"]);
        assert_eq!((dns.search, dns.options), (vec!["a.b".into(), "c".into()], vec!["ndots:5".to_owned()]));
    }
}
