//! Fields of pod and container as text, for variables and volumes.

use super::quantity;
use crate::pod::Pod;
use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

/// Addresses that fields speak of.
#[derive(Debug, Clone, Copy)]
pub struct Addresses<'a> {
    /// The pod's; empty until its sandbox has some.
    pub pod: &'a [IpAddr],
    /// The node's, the primary one first.
    pub host: &'a [IpAddr],
}

/// A field of the object itself: `metadata.…` and what of `spec` and `status` variables may refer to.
///
/// # Errors
/// Upstream's text.
pub fn field(pod: &Pod, path: &str, addresses: Addresses<'_>) -> Result<String, String> {
    let metadata = &pod.object().metadata;
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        return subscripted(pod, path, map, key);
    }
    Ok(match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => pod.uid().to_string(),
        "metadata.labels" => format_map(metadata.labels.as_ref()),
        "metadata.annotations" => format_map(metadata.annotations.as_ref()),
        // `spec.host` is the same field's older name, which the API server still lets pass.
        "spec.nodeName" | "spec.host" => pod.spec().node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => pod.spec().service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => addresses.host.first().map(ToString::to_string).unwrap_or_default(),
        "status.hostIPs" => joined(addresses.host),
        "status.podIP" => ordered(addresses).first().map(ToString::to_string).unwrap_or_default(),
        "status.podIPs" => joined(&ordered(addresses)),
        "spec.restartPolicy" | "spec.schedulerName" | "status.phase" => {
            return Err(format!("unsupported fieldPath: {path}"));
        }
        _ => return Err(format!("field label not supported: {path}")),
    })
}

fn subscripted(pod: &Pod, path: &str, map: &str, key: &str) -> Result<String, String> {
    let metadata = &pod.object().metadata;
    let values = match map {
        "metadata.labels" => metadata.labels.as_ref(),
        "metadata.annotations" => metadata.annotations.as_ref(),
        _ => return Err(format!("field label does not support subscript: {path}")),
    };
    let name = key.rsplit('/').next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
        return Err(format!("invalid key subscript in {path}: {key:?} is not a qualified name"));
    }
    Ok(values.and_then(|values| values.get(key)).cloned().unwrap_or_default())
}

/// The pod's addresses, those of the family of the node's first one in front.
fn ordered(addresses: Addresses<'_>) -> Vec<IpAddr> {
    let mut ips = addresses.pod.to_vec();
    if let Some(node) = addresses.host.first() {
        ips.sort_by_key(|ip| ip.is_ipv4() != node.is_ipv4());
    }
    ips
}

fn joined(ips: &[IpAddr]) -> String {
    ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// `key="value"` lines by key, quoted as Go quotes.
pub fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let mut text = String::new();
    for (key, value) in map.into_iter().flatten() {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(key);
        text.push('=');
        quote(value, &mut text);
    }
    text
}

/// A string literal of Go, as `strconv.Quote` writes it.
fn quote(value: &str, out: &mut String) {
    out.push('"');
    for c in value.chars() {
        let _ = match c {
            '"' => out.write_str("\\\""),
            '\\' => out.write_str("\\\\"),
            '\x07' => out.write_str("\\a"),
            '\x08' => out.write_str("\\b"),
            '\x0c' => out.write_str("\\f"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            '\x0b' => out.write_str("\\v"),
            c if c.is_ascii_control() => write!(out, "\\x{:02x}", u32::from(c)),
            c if is_printable(c) => out.write_char(c),
            c if c <= '\u{ffff}' => write!(out, "\\u{:04x}", u32::from(c)),
            c => write!(out, "\\U{:08x}", u32::from(c)),
        };
    }
    out.push('"');
}

/// Letters, marks, numbers, punctuation, symbols and the space of ASCII, as `strconv.IsPrint`. The standard library has the
/// same table behind its own quoting, which leaves a mark alone where it follows something.
fn is_printable(c: char) -> bool {
    c.is_ascii_graphic() || ['a', c].iter().collect::<String>().escape_debug().nth(1) == Some(c)
}

/// A request or limit, in units of the divisor; a limit of CPU, memory or storage that is not set is the pod's, or what
/// the node can give.
///
/// # Errors
/// Upstream's text.
pub fn resource(
    pod: &Pod,
    container: &Container,
    selector: &ResourceFieldSelector,
    allocatable: &BTreeMap<String, Quantity>,
) -> Result<String, String> {
    let container = match selector.container_name.as_deref() {
        None | Some("") => container,
        Some(name) => pod.container(name).map(|(_, found)| found).ok_or(format!("container {name} not found"))?,
    };
    let unsupported = || format!("unsupported container resource : {}", selector.resource);
    let (kind, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !name.starts_with("hugepages-") {
        return Err(unsupported());
    }
    let resources = container.resources.as_ref();
    let amount = match kind {
        "requests" => resources.and_then(|resources| resources.requests.as_ref()?.get(name)),
        "limits" => limit(pod, container, name, allocatable),
        _ => return Err(unsupported()),
    };
    let nano = |quantity: &Quantity| quantity::nano(quantity).map_err(|error| error.to_string());
    let divisor = selector.divisor.as_ref().map(nano).transpose()?.filter(|&divisor| divisor != 0);
    let divisor = divisor.unwrap_or(1_000_000_000);
    let amount = amount.map(nano).transpose()?.unwrap_or(0);
    // Upstream divides thousandths of a CPU and whole units of all else, each rounded up first.
    let step = if name == "cpu" { 1_000_000 } else { 1_000_000_000 };
    let (amount, divisor) = (ceil(amount, step), ceil(divisor, step));
    if divisor <= 0 {
        let text = selector.divisor.as_ref().map(|divisor| divisor.0.as_str()).unwrap_or_default();
        return Err(format!("{}: nothing can be divided by {text:?}", selector.resource));
    }
    Ok(ceil(amount, divisor).to_string())
}

fn limit<'a>(
    pod: &'a Pod,
    container: &'a Container,
    name: &str,
    allocatable: &'a BTreeMap<String, Quantity>,
) -> Option<&'a Quantity> {
    let set = |quantity: &&Quantity| quantity::nano(quantity).is_ok_and(|amount| amount != 0);
    let own = container.resources.as_ref().and_then(|resources| resources.limits.as_ref()?.get(name));
    if name.starts_with("hugepages-") {
        return own;
    }
    let of_pod = || pod.spec().resources.as_ref().and_then(|resources| resources.limits.as_ref()?.get(name));
    own.filter(set).or_else(|| of_pod().filter(set)).or_else(|| allocatable.get(name))
}

fn ceil(amount: i128, unit: i128) -> i128 {
    amount.div_euclid(unit) + i128::from(amount.rem_euclid(unit) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Source;
    use serde_json::json;
    use std::sync::Arc;

    fn pod() -> Pod {
        let object = json!({
            "metadata": {
                "name": "p", "namespace": "n", "uid": "u-1",
                "labels": { "a": "1", "example.com/b": "two \"2\"" },
                "annotations": { "note": "line\nline\t\u{1}ü" },
            },
            "spec": {
                "nodeName": "node-1", "serviceAccountName": "robot",
                "containers": [
                    { "name": "c", "resources": {
                        "requests": { "cpu": "100m", "memory": "1.5Gi", "hugepages-2Mi": "4Mi" },
                        "limits": { "cpu": "1500m" },
                    } },
                    { "name": "bare" },
                ],
            },
        });
        Pod::new(Arc::new(serde_json::from_value(object).expect("a pod")), Source::Api).expect("a pod")
    }

    #[track_caller]
    fn check(path: &str, expected: Result<&str, &str>) {
        let ips = |list: &[&str]| -> Vec<IpAddr> { list.iter().map(|ip| ip.parse().expect("an address")).collect() };
        let (own, host) = (ips(&["fd00::2", "10.0.0.2"]), ips(&["192.168.0.1", "fe80::1"]));
        let got = field(&pod(), path, Addresses { pod: &own, host: &host });
        assert_eq!(got.as_deref().map_err(String::as_str), expected, "{path}");
    }

    #[test]
    fn every_field_that_a_variable_may_name_is_read() {
        check("metadata.name", Ok("p"));
        check("metadata.namespace", Ok("n"));
        check("metadata.uid", Ok("u-1"));
        check("metadata.labels", Ok("a=\"1\"\nexample.com/b=\"two \\\"2\\\"\""));
        check("metadata.annotations", Ok("note=\"line\\nline\\t\\x01ü\""));
        check("metadata.labels['example.com/b']", Ok("two \"2\""));
        check("metadata.annotations['absent']", Ok(""));
        check("spec.nodeName", Ok("node-1"));
        check("spec.serviceAccountName", Ok("robot"));
        check("status.hostIP", Ok("192.168.0.1"));
        check("status.hostIPs", Ok("192.168.0.1,fe80::1"));
    }

    #[test]
    fn the_pod_s_first_address_is_of_the_node_s_family() {
        check("status.podIP", Ok("10.0.0.2"));
        check("status.podIPs", Ok("10.0.0.2,fd00::2"));
    }

    #[test]
    fn what_is_no_field_is_refused_in_upstream_s_words() {
        check("status.phase", Err("unsupported fieldPath: status.phase"));
        check("spec.x", Err("field label not supported: spec.x"));
        check("spec.x['y']", Err("field label does not support subscript: spec.x['y']"));
        check(
            "metadata.labels['a b']",
            Err("invalid key subscript in metadata.labels['a b']: \"a b\" is not a qualified name"),
        );
    }

    /// What `strconv.Quote` makes of each.
    #[test]
    fn values_are_quoted_as_go_quotes() {
        for (value, expected) in [
            ("a b", "a b"),
            ("ü→é\u{301}日\u{1f600}", "ü→é\u{301}日\u{1f600}"),
            ("\u{301}", "\u{301}"),
            ("\u{7f}\u{85}", "\\x7f\\u0085"),
            ("\u{a0}\u{200b}\u{2028}\u{feff}\u{e000}", "\\u00a0\\u200b\\u2028\\ufeff\\ue000"),
            ("\u{e0001}", "\\U000e0001"),
            ("'\"\\", "'\\\"\\\\"),
        ] {
            let mut quoted = String::new();
            quote(value, &mut quoted);
            assert_eq!(quoted, format!("\"{expected}\""), "{value:?}");
        }
    }

    #[track_caller]
    fn check_resource(container: &str, name: &str, divisor: &str, expected: Result<&str, &str>) {
        let pod = pod();
        let selector = ResourceFieldSelector {
            container_name: Some(container.to_owned()),
            divisor: (!divisor.is_empty()).then(|| Quantity(divisor.to_owned())),
            resource: name.to_owned(),
        };
        let allocatable = [("cpu", "3800m"), ("memory", "7Gi"), ("ephemeral-storage", "10Gi")]
            .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())));
        let got = resource(&pod, &pod.spec().containers[0], &selector, &BTreeMap::from(allocatable));
        assert_eq!(got.as_deref().map_err(String::as_str), expected, "{container} {name} / {divisor}");
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        check_resource("c", "requests.cpu", "", Ok("1"));
        check_resource("c", "requests.cpu", "1m", Ok("100"));
        check_resource("c", "limits.cpu", "", Ok("2"));
        check_resource("c", "requests.memory", "1Gi", Ok("2"));
        check_resource("c", "requests.memory", "0", Ok("1610612736"));
        check_resource("c", "requests.hugepages-2Mi", "1Mi", Ok("4"));
        check_resource("bare", "requests.memory", "", Ok("0"));
    }

    #[test]
    fn a_limit_that_is_not_set_is_what_the_node_can_give() {
        check_resource("", "limits.memory", "1Mi", Ok("7168"));
        check_resource("bare", "limits.cpu", "1m", Ok("3800"));
        check_resource("bare", "limits.ephemeral-storage", "1Gi", Ok("10"));
        check_resource("bare", "limits.hugepages-2Mi", "", Ok("0"));
    }

    #[test]
    fn what_is_no_resource_is_refused_in_upstream_s_words() {
        check_resource("x", "limits.cpu", "", Err("container x not found"));
        check_resource("c", "limits.pods", "", Err("unsupported container resource : limits.pods"));
        check_resource("c", "limits.cpu", "-1n", Err("limits.cpu: nothing can be divided by \"-1n\""));
        check_resource("c", "limits.memory", "-2Gi", Err("limits.memory: nothing can be divided by \"-2Gi\""));
    }
}
