//! What the plugins' configurations share: decoding, refusal of keys that are not built, `CNI_ARGS`.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::skel::Invocation;
use crate::caseless;
use crate::error::{PluginError, code};

/// Decodes a plugin's configuration.
pub(super) fn decode<T: DeserializeOwned>(invocation: &Invocation) -> Result<T, PluginError> {
    caseless::from_value(Value::Object(invocation.config.clone())).map_err(|error| {
        PluginError::new(code::DECODE, format!("failed to load netconf of network {}: {error}", invocation.network))
    })
}

/// Refuses the keys of `not_built` that are set to something: false, 0, "" and empty lists ask for nothing.
pub(super) fn refuse_not_built(
    plugin: &str,
    config: &Map<String, Value>,
    not_built: &[&str],
) -> Result<(), PluginError> {
    let asks = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(true) => true,
    };
    match not_built.iter().find(|key| caseless::get(config, key).is_some_and(asks)) {
        None => Ok(()),
        Some(key) => Err(refused(plugin, key)),
    }
}

/// The error for a part of a configuration that is not built.
pub(super) fn refused(plugin: &str, what: &str) -> PluginError {
    PluginError::new(code::UNSUPPORTED_FIELD, format!("{plugin}: {what} is not built yet in Orlop"))
}

/// The value of a key in `CNI_ARGS`. The runtime's other keys are its own business, with or without `IgnoreUnknown`.
pub(super) fn argument<'a>(args: &'a str, key: &str) -> Option<&'a str> {
    let pairs = args.split(';').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(present, _)| *present == key).map(|(_, value)| value).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_that_is_not_built_is_refused_by_name_unless_it_asks_for_nothing() {
        let check = |config: Value| refuse_not_built("bridge", config.as_object().unwrap(), &["vlan", "vlanTrunk"]);
        for idle in [json!({"vlan": 0}), json!({"vlanTrunk": []}), json!({"vlan": null}), json!({"other": true})] {
            assert!(check(idle.clone()).is_ok(), "{idle}");
        }
        let error = check(json!({"VLAN": 100})).unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (2, "bridge: vlan is not built yet in Orlop"));
    }

    #[test]
    fn arguments_are_found_among_those_of_the_runtime() {
        let args = "IgnoreUnknown=1;K8S_POD_NAME=web-0;IP=10.0.0.9;MAC=";
        assert_eq!(argument(args, "IP"), Some("10.0.0.9"));
        assert_eq!(argument(args, "MAC"), None);
        assert_eq!(argument("", "IP"), None);
    }
}
