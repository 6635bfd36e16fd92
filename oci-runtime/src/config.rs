//! Reading config.json and process.json, with the leniency that clients count on.

use oci_spec::runtime::{Process, Spec};
use serde_json::Value;
use sys::credentials::Capabilities;

/// A JSON document that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("{what} is not valid")]
pub struct ParseError {
    what: &'static str,
    #[source]
    source: serde_json::Error,
}

/// Parses a config.json. Names of capabilities that this build does not know are dropped, with a warning each: newer
/// engines send them to older runtimes.
///
/// # Errors
/// Not JSON, or not a runtime-spec configuration.
pub fn parse(bytes: &[u8]) -> Result<(Spec, Vec<String>), ParseError> {
    let fail = |source| ParseError { what: "config.json", source };
    let mut value: Value = serde_json::from_slice(bytes).map_err(fail)?;
    let warnings = value.get_mut("process").map(drop_unknown_capabilities).unwrap_or_default();
    Ok((serde_json::from_value(value).map_err(fail)?, warnings))
}

/// Parses a process object (`process.json` of exec), as [`parse`] does.
///
/// # Errors
/// Not JSON, or not a runtime-spec process.
pub fn parse_process(bytes: &[u8]) -> Result<(Process, Vec<String>), ParseError> {
    let fail = |source| ParseError { what: "process", source };
    let mut value: Value = serde_json::from_slice(bytes).map_err(fail)?;
    let warnings = drop_unknown_capabilities(&mut value);
    Ok((serde_json::from_value(value).map_err(fail)?, warnings))
}

/// Takes the names that are not known out of the five sets.
fn drop_unknown_capabilities(process: &mut Value) -> Vec<String> {
    let mut unknown: Vec<String> = Vec::new();
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    for list in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(Value::as_array_mut) {
        list.retain(|entry| match entry.as_str() {
            Some(name) if Capabilities::from_name(name).is_err() => {
                unknown.push(name.to_owned());
                false
            }
            _ => true,
        });
    }
    unknown.sort();
    unknown.dedup();
    unknown.into_iter().map(|name| format!("ignoring unknown capability {name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_capability_is_a_warning() {
        let json = br#"{"cwd":"/","user":{"uid":0,"gid":0},"capabilities":{
            "bounding":["CAP_CHOWN","CAP_TELEPORT"],"permitted":["CAP_TELEPORT"]}}"#;
        let (process, warnings) = parse_process(json).unwrap();
        assert_eq!(warnings, ["ignoring unknown capability CAP_TELEPORT"]);
        let sets = process.capabilities().as_ref().unwrap();
        assert_eq!(sets.bounding().as_ref().unwrap().len(), 1);
        assert!(sets.permitted().as_ref().unwrap().is_empty());
    }

    #[test]
    fn what_is_no_config_is_an_error_that_says_where() {
        let error = parse(b"{\"ociVersion\": 1}").unwrap_err();
        assert_eq!(error.to_string(), "config.json is not valid");
        assert!(std::error::Error::source(&error).is_some());
    }
}
