//! What the configuration asks of a bridge.

use serde::Deserialize;
use serde_json::Value;
use sys::netlink::route::Mac;

use super::super::conf::{argument, decode, refuse_not_built, refused};
use super::super::skel::Invocation;
use super::PLUGIN;
use crate::caseless;
use crate::error::{PluginError, code};
use crate::names::{check_interface_name, is_plugin_type};
use crate::result::Dns;

/// Keys of the reference that are not built. `ipMasqBackend` is looked at for its value.
const NOT_BUILT: [&str; 8] = [
    "promiscMode",
    "vlan",
    "vlanTrunk",
    "preserveDefaultVlan",
    "macspoofchk",
    "enabledad",
    "disableContainerInterface",
    "portIsolation",
];

/// The configuration as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Keys {
    bridge: Option<String>,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    ip_masq: bool,
    ip_masq_backend: Option<String>,
    mtu: i64,
    hairpin_mode: bool,
    ipam: IpamKeys,
    dns: Dns,
    runtime_config: MacKeys,
    args: Args,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct IpamKeys {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MacKeys {
    mac: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Args {
    cni: MacKeys,
}

/// A validated configuration.
#[derive(Debug)]
pub(super) struct Config {
    /// The bridge's name.
    pub(super) bridge: String,
    /// The bridge has the gateway's address.
    pub(super) is_gateway: bool,
    /// And pods get a default route to it.
    pub(super) is_default_gateway: bool,
    /// An address of the bridge that is another than the gateway's is replaced.
    pub(super) force_address: bool,
    /// What leaves the subnet gets the host's address.
    pub(super) masquerade: bool,
    /// The MTU, bytes; `None` leaves the kernel's choice.
    pub(super) mtu: Option<u32>,
    /// The bridge sends packets back through the port they came from.
    pub(super) hairpin: bool,
    /// The IPAM plugin; `None` for a network without addresses.
    pub(super) ipam: Option<String>,
    /// Overrides IPAM's.
    pub(super) dns: Dns,
    /// The pod's hardware address, if one is asked for.
    pub(super) mac: Option<Mac>,
}

impl Config {
    /// Reads and validates all of it.
    pub(super) fn parse(call: &Invocation) -> Result<Config, PluginError> {
        refuse_not_built(PLUGIN.name, &call.config, &NOT_BUILT)?;
        let keys: Keys = decode(call)?;
        if let Some(backend) = keys.ip_masq_backend.filter(|backend| !matches!(backend.as_str(), "" | "nftables")) {
            return Err(refused(PLUGIN.name, &format!("ipMasqBackend {backend:?}")));
        }
        let bridge = keys.bridge.unwrap_or_else(|| "cni0".into());
        check_interface_name(&bridge).map_err(|error| invalid(format!("bridge {bridge:?}: {error}")))?;
        let mtu = u32::try_from(keys.mtu).map_err(|_| invalid(format!("mtu {} is out of range", keys.mtu)))?;
        let from_args = argument(&call.args, "MAC").unwrap_or_default().to_owned();
        let asked = [keys.runtime_config.mac, keys.args.cni.mac, from_args].into_iter().find(|mac| !mac.is_empty());
        Ok(Config {
            bridge,
            is_gateway: keys.is_gateway || keys.is_default_gateway,
            is_default_gateway: keys.is_default_gateway,
            force_address: keys.force_address,
            masquerade: keys.ip_masq,
            mtu: (mtu > 0).then_some(mtu),
            hairpin: keys.hairpin_mode,
            ipam: Some(keys.ipam.kind).filter(|kind| !kind.is_empty()),
            dns: keys.dns,
            mac: asked.map(|mac| parse_mac(&mac)).transpose()?,
        })
    }
}

/// The IPAM plugin to give addresses back to. It is all that a DEL reads of the configuration: what an ADD would be
/// refused for must not keep what another plugin, or another version of this one, made from being removed. Of an
/// impossible name no ADD ever had an address.
pub(super) fn ipam_of_del(call: &Invocation) -> Option<&str> {
    let ipam = caseless::get(&call.config, "ipam").and_then(Value::as_object)?;
    caseless::get(ipam, "type").and_then(Value::as_str).filter(|kind| is_plugin_type(kind))
}

fn invalid(message: String) -> PluginError {
    PluginError::new(code::INVALID_CONFIG, message)
}

fn parse_mac(text: &str) -> Result<Mac, PluginError> {
    let refused = || invalid(format!("mac {text:?} is no hardware address"));
    let octets: Result<Vec<u8>, _> = text.split([':', '-']).map(|octet| u8::from_str_radix(octet, 16)).collect();
    octets.ok().and_then(|octets| octets.try_into().ok()).map(Mac).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(config: Value) -> Result<Config, PluginError> {
        Config::parse(&call(config))
    }

    fn call(config: Value) -> Invocation {
        let Value::Object(config) = config else { panic!("{config}") };
        Invocation {
            container_id: "c1".into(),
            netns: "/run/netns/c1".into(),
            ifname: "eth0".into(),
            args: "IgnoreUnknown=1;MAC=02:00:00:00:00:03".into(),
            path: vec![],
            config,
            network: "net".into(),
            version: "1.0.0".into(),
            netns_ends: false,
        }
    }

    #[test]
    fn a_del_finds_its_ipam_in_a_configuration_that_an_add_refuses() {
        let check = |config: Value, expected: Option<&str>| {
            assert!(parse(config.clone()).is_err(), "{config}");
            assert_eq!(ipam_of_del(&call(config.clone())), expected, "{config}");
        };
        check(json!({"vlan": 5, "ipam": {"type": "host-local"}}), Some("host-local"));
        check(json!({"mtu": "large", "IPAM": {"Type": "host-local"}}), Some("host-local"));
        check(json!({"mtu": -1}), None);
        check(json!({"ipam": {"type": 5}}), None);
        assert_eq!(ipam_of_del(&call(json!({"ipam": {"type": "../host-local"}}))), None);
    }

    #[test]
    fn defaults_are_those_of_the_reference() {
        let config = parse(json!({})).unwrap();
        assert_eq!((config.bridge.as_str(), config.is_gateway, config.mtu, config.ipam), ("cni0", false, None, None));
        assert!(parse(json!({"isDefaultGateway": true})).unwrap().is_gateway, "a default gateway is a gateway");
    }

    #[test]
    fn the_runtimes_mac_wins_over_the_networks_and_that_over_the_arguments() {
        let mac = |config: Value| parse(config).unwrap().mac.unwrap().to_string();
        let args = json!({"cni": {"mac": "02:00:00:00:00:02"}});
        assert_eq!(mac(json!({"args": args, "runtimeConfig": {"mac": "02:00:00:00:00:01"}})), "02:00:00:00:00:01");
        assert_eq!(mac(json!({"args": args})), "02:00:00:00:00:02");
        assert_eq!(mac(json!({})), "02:00:00:00:00:03");
        assert!(parse(json!({"runtimeConfig": {"mac": "02:00"}})).is_err());
    }

    #[test]
    fn isolation_that_is_not_built_is_refused_by_name() {
        for key in ["macspoofchk", "portIsolation", "promiscMode", "enabledad"] {
            let error = parse(json!({key: true})).unwrap_err();
            assert_eq!((error.code, error.msg), (2, format!("bridge: {key} is not built yet in Orlop")));
            assert!(parse(json!({key: false})).is_ok());
        }
        assert_eq!(parse(json!({"vlan": 100})).unwrap_err().code, 2);
        assert_eq!(parse(json!({"ipMasqBackend": "iptables"})).unwrap_err().code, 2);
        assert!(parse(json!({"ipMasqBackend": "nftables"})).is_ok());
    }

    #[test]
    fn values_out_of_range_are_refused() {
        assert!(parse(json!({"mtu": -1})).is_err());
        assert!(parse(json!({"bridge": "../x"})).is_err());
        assert!(parse(json!({"bridge": "a-name-too-long-for-it"})).is_err());
    }
}
