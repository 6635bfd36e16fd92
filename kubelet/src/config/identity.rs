//! Who the node is: its name, addresses, labels, and the API server it speaks to.

use super::flags::Given;
use super::machine::{self, Addresses, Family};
use super::settle::read_path;
use super::source::Place;
use super::{ConfigError, kubeconfig, rules};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// What the flags and the machine say about the node.
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) ips: Vec<IpAddr>,
    pub(super) ips_given: bool,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) kubeconfig: Option<PathBuf>,
    pub(super) external_cloud: bool,
}

/// # Errors
/// A name, address, label or kubeconfig that can't be used.
pub(super) fn settle(given: &Given<'_>) -> Result<Identity, ConfigError> {
    let name = name(given)?;
    let kubeconfig = kubeconfig(given)?;
    let wanted = node_ips(given.own("node-ip").unwrap_or_default())?;
    let ips_given = !wanted.specified.is_empty();
    let ips = match ips_given {
        true => wanted.specified,
        false => {
            let known = Addresses::read(&name);
            let chosen = known.choose(&name, wanted.family);
            // A node alone needs some address for its pods' status; a cluster must not learn a wrong one.
            chosen.or_else(|| kubeconfig.is_none().then(|| known.any())).into_iter().collect()
        }
    };
    let external_cloud = cloud(given)?;
    let labels = labels(&given.all("node-labels").collect::<Vec<_>>().join(","))?;
    Ok(Identity { name, ips, ips_given, labels, kubeconfig, external_cloud })
}

/// The node's address as [`settle`] chooses it, for a machine that had none yet when the kubelet started.
pub(crate) fn detect_ip(node_name: &str) -> Option<IpAddr> {
    Addresses::read(node_name).choose(node_name, Family::PreferIpv4)
}

fn name(given: &Given<'_>) -> Result<String, ConfigError> {
    let overridden =
        given.own("hostname-override").map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty());
    let place = Place::Flag("hostname-override");
    let name = match overridden {
        Some(name) => name,
        None => machine::hostname()
            .map_err(|source| ConfigError::Read { path: "/proc/sys/kernel/hostname".into(), source })?,
    };
    if rules::is_dns_name(&name) {
        return Ok(name);
    }
    Err(place.mistake(&format!("{name:?} can't be a node's name"), "it is an RFC 1123 subdomain: a-z, 0-9, - and ."))
}

/// The kubeconfig, checked; `None` for a node alone.
fn kubeconfig(given: &Given<'_>) -> Result<Option<PathBuf>, ConfigError> {
    let path = read_path(given, "kubeconfig");
    let exists = path.as_ref().is_some_and(|path| path.exists());
    if let Some(bootstrap) = given.own("bootstrap-kubeconfig").filter(|path| !path.is_empty())
        && !exists
    {
        let wanted = path
            .as_ref()
            .map_or("--kubeconfig is not given".to_owned(), |path| format!("{} is missing", path.display()));
        let title = format!("TLS bootstrap with {bootstrap} is not supported yet, and {wanted}");
        return Err(Place::Flag("bootstrap-kubeconfig")
            .mistake(&title, "give a --kubeconfig with a client certificate or token"));
    }
    if let Some(path) = &path {
        kubeconfig::check(path)?;
    }
    Ok(path)
}

struct NodeIps {
    specified: Vec<IpAddr>,
    family: Family,
}

/// `--node-ip`: one address, a pair of both families, or the unspecified one of the family that is preferred.
fn node_ips(text: &str) -> Result<NodeIps, ConfigError> {
    let fail = |title: String| Err(Place::Flag("node-ip").mistake(&title, ""));
    let mut ips: Vec<IpAddr> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.parse() {
            Ok(ip) => ips.push(ip),
            Err(_) => return fail(format!("{part:?} is not an IP address")),
        }
    }
    if ips.len() > 2 || (ips.len() == 2 && ips[0].is_ipv4() == ips[1].is_ipv4()) {
        return fail("must contain either a single IP or a dual-stack pair of IPs".to_owned());
    }
    if ips.len() == 2 && ips.iter().any(IpAddr::is_unspecified) {
        return fail("dual-stack node IP cannot include '0.0.0.0' or '::'".to_owned());
    }
    if let [ip] = ips[..]
        && ip.is_unspecified()
    {
        let family = if ip.is_ipv4() { Family::PreferIpv4 } else { Family::PreferIpv6 };
        return Ok(NodeIps { specified: Vec::new(), family });
    }
    match ips.iter().find_map(|ip| Some((ip, machine::refusal(*ip)?))) {
        Some((ip, reason)) => fail(format!("{reason}: {ip}")),
        None => Ok(NodeIps { specified: ips, family: Family::PreferIpv4 }),
    }
}

fn cloud(given: &Given<'_>) -> Result<bool, ConfigError> {
    match given.own("cloud-provider").unwrap_or_default() {
        "" => Ok(false),
        "external" => Ok(true),
        other => {
            let title = format!("unsupported cloud provider {other:?}");
            Err(Place::Flag("cloud-provider").mistake(&title, "external, or none at all"))
        }
    }
}

/// The labels of kubernetes.io and k8s.io that a node may give itself; NodeRestriction refuses others.
const OWN_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

fn labels(text: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    let place = Place::Flag("node-labels");
    let mut labels = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((key, value)) = part.split_once('=') else {
            return Err(place.mistake(&format!("{part:?} is not KEY=VALUE"), ""));
        };
        if !rules::is_qualified_name(key) || !rules::is_label(value) {
            return Err(place.mistake(&format!("invalid node label {part:?}"), ""));
        }
        if !may_set(key) {
            let help =
                "of kubernetes.io and k8s.io, a node sets kubelet.kubernetes.io/…, node.kubernetes.io/… and topology";
            return Err(place.mistake(&format!("the label {key} is not a node's own to set"), help));
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

fn may_set(key: &str) -> bool {
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
    let within = |domain: &str| prefix == domain || prefix.ends_with(&format!(".{domain}"));
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    !kubernetes || OWN_LABELS.contains(&key) || within("kubelet.kubernetes.io") || within("node.kubernetes.io")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, wants: &str) {
        let error = node_ips(text).err().unwrap().to_string();
        assert!(error.contains(wants), "{error}");
    }

    #[test]
    fn addresses_that_no_node_can_have_are_refused_in_upstreams_words() {
        refused("127.0.0.1", "nodeIP can't be loopback address");
        refused("224.0.0.1", "nodeIP can't be a multicast address");
        refused("fe80::1", "nodeIP can't be a link-local unicast address");
        refused("10.0.0.1,10.0.0.2", "must contain either a single IP or a dual-stack pair of IPs");
        refused("10.0.0.1,::", "dual-stack node IP cannot include '0.0.0.0' or '::'");
        refused("ten", "is not an IP address");
    }

    #[test]
    fn the_unspecified_address_is_a_preference_of_family() {
        let wanted = node_ips("::").unwrap();
        assert_eq!((wanted.specified.len(), wanted.family), (0, Family::PreferIpv6));
        assert_eq!(node_ips("10.0.0.1, 2001:db8::1").unwrap().specified.len(), 2);
    }

    #[test]
    fn a_node_labels_itself_only_where_it_may() {
        let fine = "a=b,x.io/y=,node.kubernetes.io/role=w,topology.kubernetes.io/zone=z,x.kubelet.kubernetes.io/y=1";
        assert_eq!(labels(fine).unwrap().len(), 5);
        for bad in [
            "node-role.kubernetes.io/worker=",
            "node-restriction.kubernetes.io/a=b",
            "a.k8s.io/b=c",
            "a",
            "-a=b",
            "a=b c",
        ] {
            assert!(labels(bad).is_err(), "{bad}");
        }
    }
}
