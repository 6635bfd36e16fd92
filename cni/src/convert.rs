//! Results in the form of each protocol version.
//!
//! | versions | form |
//! |---|---|
//! | 0.1.0, 0.2.0 | `ip4` and `ip6`, one address each, with the routes of its family |
//! | 0.3.0 – 0.4.0 | interfaces; addresses that say their family as `version` |
//! | 1.0.0, 1.1.0 | as [`CniResult`]; 1.0.0 differs in its number only |

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::caseless;
use crate::result::{Cidr, CniResult, Dns, IpConfig, Route};
use crate::version::{CURRENT, Version};

/// Why a result can't be read or written in a version.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The version is none.
    #[error(transparent)]
    Version(#[from] crate::version::VersionError),
    /// The JSON is not of the version's form.
    #[error("parse the result")]
    Parse(#[source] serde_json::Error),
    /// The version's form can't hold the result.
    #[error("cannot convert: no valid IP addresses")]
    NoAddress,
    /// The version is newer than ours.
    #[error("unsupported CNI result version {0:?}")]
    Newer(String),
}

/// The form of 0.1.0 and 0.2.0.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Result02 {
    ip4: Option<Address02>,
    ip6: Option<Address02>,
    dns: Dns,
}

#[derive(Debug, Deserialize)]
struct Address02 {
    ip: Cidr,
    #[serde(default)]
    gateway: Option<IpAddr>,
    #[serde(default)]
    routes: Vec<Route>,
}

/// Reads a result. One without a version is in that of the configuration, `config_version` (SPEC §5); `null`, which
/// some plugins print, is an empty result.
pub fn from_json(result: Value, config_version: &str) -> Result<CniResult, ConvertError> {
    let result = if result.is_null() { Value::Object(Map::new()) } else { result };
    let own_version = result.as_object().and_then(|map| caseless::get(map, "cniVersion")).and_then(Value::as_str);
    let version = own_version.filter(|version| !version.is_empty()).unwrap_or(config_version).to_owned();
    let parsed = version.parse::<Version>()?;
    if parsed > Version::CURRENT {
        return Err(ConvertError::Newer(version));
    }
    let mut result = if parsed < Version::WITH_INTERFACES {
        from_02(caseless::from_value(result).map_err(ConvertError::Parse)?)
    } else {
        caseless::from_value::<CniResult>(result).map_err(ConvertError::Parse)?
    };
    result.cni_version = CURRENT.to_owned();
    Ok(result)
}

/// Writes a result in the form of `version`.
pub fn to_json(result: &CniResult, version: &str) -> Result<Value, ConvertError> {
    let parsed = version.parse::<Version>()?;
    let version = if version.is_empty() { "0.1.0" } else { version };
    if parsed < Version::WITH_INTERFACES {
        return to_02(result, version);
    }
    let mut written = json!(CniResult { cni_version: version.to_owned(), ..result.clone() });
    if parsed < Version::WITHOUT_FAMILY {
        to_04(&mut written);
    }
    Ok(written)
}

/// Adds what 1.0.0 dropped and drops what came later.
fn to_04(result: &mut Value) {
    for interface in list_mut(result, "interfaces") {
        for added_later in ["mtu", "socketPath", "pciID"] {
            interface.remove(added_later);
        }
    }
    for ip in list_mut(result, "ips") {
        let is_v6 = ip.get("address").and_then(Value::as_str).is_some_and(|address| address.contains(':'));
        ip.insert("version".into(), json!(if is_v6 { "6" } else { "4" }));
    }
    if let Some(result) = result.as_object_mut() {
        // Before 1.0.0 the key was always there.
        result.entry("dns").or_insert_with(|| json!({}));
    }
}

fn list_mut<'a>(result: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let list = result.get_mut(key).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

fn to_02(result: &CniResult, version: &str) -> Result<Value, ConvertError> {
    let first = |v4: bool| result.ips.iter().find(|ip| ip.address.address.is_ipv4() == v4);
    let mut written = json!({"cniVersion": version, "dns": result.dns});
    if first(true).is_none() && first(false).is_none() {
        return Err(ConvertError::NoAddress);
    }
    for (key, v4) in [("ip4", true), ("ip6", false)] {
        let Some(ip) = first(v4) else { continue };
        let mut address = json!({"ip": ip.address});
        if let Some(gateway) = ip.gateway {
            address["gateway"] = json!(gateway);
        }
        let routes: Vec<_> =
            result.routes.iter().filter(|route| route.dst.address.is_ipv4() == v4).map(route_02).collect();
        if !routes.is_empty() {
            address["routes"] = json!(routes);
        }
        written[key] = address;
    }
    Ok(written)
}

fn route_02(route: &Route) -> Value {
    match route.gw {
        Some(gw) => json!({"dst": route.dst, "gw": gw}),
        None => json!({"dst": route.dst}),
    }
}

fn from_02(old: Result02) -> CniResult {
    let mut result = CniResult { dns: old.dns, ..CniResult::default() };
    for address in old.ip4.into_iter().chain(old.ip6) {
        result.ips.push(IpConfig { interface: None, address: address.ip, gateway: address.gateway });
        result.routes.extend(address.routes);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::ALL;

    fn newest() -> Value {
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1500, "sandbox": "/run/netns/a"}],
            "ips": [{"interface": 0, "address": "10.88.0.5/16", "gateway": "10.88.0.1"}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.88.0.1"}],
            "dns": {"nameservers": ["10.0.0.10"]},
        })
    }

    #[test]
    fn the_newest_form_survives_a_round_trip() {
        let result = from_json(newest(), "1.1.0").unwrap();
        assert_eq!(to_json(&result, "1.1.0").unwrap(), newest());
    }

    #[test]
    fn a_result_reads_back_from_every_version_with_its_addresses() {
        let result = from_json(newest(), "1.1.0").unwrap();
        for version in ALL {
            let written = to_json(&result, version).unwrap();
            assert_eq!(written["cniVersion"], version);
            let read = from_json(written, version).unwrap();
            assert_eq!(read.ips[0].address, result.ips[0].address, "{version}");
            assert_eq!(read.routes, result.routes, "{version}");
            assert_eq!(read.dns, result.dns, "{version}");
        }
    }

    #[test]
    fn version_0_4_says_the_family_and_knows_no_mtu() {
        let written = to_json(&from_json(newest(), "1.1.0").unwrap(), "0.4.0").unwrap();
        assert_eq!(written["ips"][0]["version"], "4");
        assert_eq!(written["interfaces"][0].get("mtu"), None);
    }

    #[test]
    fn a_result_without_version_is_in_that_of_the_configuration() {
        let read = from_json(json!({"ip4": {"ip": "10.0.0.2/24"}}), "0.2.0").unwrap();
        assert_eq!(read.ips[0].address.to_string(), "10.0.0.2/24");
        assert_eq!(from_json(Value::Null, "1.0.0").unwrap().ips, []);
    }

    #[test]
    fn a_result_without_address_has_no_form_before_0_3() {
        let error = to_json(&CniResult::default(), "0.2.0").unwrap_err();
        assert_eq!(error.to_string(), "cannot convert: no valid IP addresses");
    }

    #[test]
    fn a_result_from_the_future_is_refused() {
        assert!(matches!(from_json(json!({"cniVersion": "2.0.0"}), "1.1.0"), Err(ConvertError::Newer(_))));
    }
}
