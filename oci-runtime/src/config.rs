//! Reading config.json and process.json, with the leniency that clients count on.

use oci_spec::runtime::{Process, Spec};
use serde_json::Value;
use sys::credentials::Capabilities;

/// The most that a config.json or process.json may hold, in bytes; a document of that size is none.
pub const MAX_SIZE: u64 = 16 << 20;

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
    let warnings = value.get_mut("process").map(make_readable).unwrap_or_default();
    drop_empty_filter(&mut value);
    Ok((serde_json::from_value(value).map_err(fail)?, warnings))
}

/// Parses a process object (`process.json` of exec), as [`parse`] does.
///
/// # Errors
/// Not JSON, or not a runtime-spec process.
pub fn parse_process(bytes: &[u8]) -> Result<(Process, Vec<String>), ParseError> {
    let fail = |source| ParseError { what: "process", source };
    let mut value: Value = serde_json::from_slice(bytes).map_err(fail)?;
    let warnings = make_readable(&mut value);
    Ok((serde_json::from_value(value).map_err(fail)?, warnings))
}

/// Turns a process object into one that the spec's types can hold; what is lost is warned of.
fn make_readable(process: &mut Value) -> Vec<String> {
    respell_scheduler_flags(process);
    tidy_affinity(process);
    drop_unknown_capabilities(process)
}

/// As runc: a filter with neither a default action nor rules is none. That is how Go's types write an empty one.
fn drop_empty_filter(config: &mut Value) {
    let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut) else { return };
    let Some(filter) = linux.get("seccomp").and_then(Value::as_object) else { return };
    let no_action = filter.is_empty() || filter.get("defaultAction").is_some_and(|action| action.as_str() == Some(""));
    let no_rules = filter.get("syscalls").is_none_or(|rules| rules.is_null() || *rules == Value::Array(Vec::new()));
    if no_action && no_rules {
        linux.remove("seccomp");
    }
}

/// Two flags have other names in the `oci-spec` crate than in the runtime-spec.
fn respell_scheduler_flags(process: &mut Value) {
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
            _ => {}
        }
    }
}

/// As runc reads lists of CPUs: with spaces and commas to spare, an empty one is none.
fn tidy_affinity(process: &mut Value) {
    let Some(affinity) = process.get_mut("execCPUAffinity").and_then(Value::as_object_mut) else { return };
    for (_, list) in affinity.iter_mut() {
        if let Some(text) = list.as_str() {
            let ranges: Vec<&str> = text.split(',').map(str::trim).filter(|range| !range.is_empty()).collect();
            // Nothing but commas is a mistake, which is left for the spec's types to refuse.
            *list = match (ranges.is_empty(), text.is_empty()) {
                (true, true) => Value::Null,
                (true, false) => continue,
                _ => ranges.join(",").into(),
            };
        }
    }
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
    match unknown.is_empty() {
        true => Vec::new(),
        false => vec![format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" "))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_capability_is_a_warning() {
        let json = br#"{"cwd":"/","user":{"uid":0,"gid":0},"capabilities":{
            "bounding":["CAP_CHOWN","CAP_TELEPORT"],"permitted":["CAP_TELEPORT"]}}"#;
        let (process, warnings) = parse_process(json).unwrap();
        assert_eq!(warnings, ["ignoring unknown or unavailable capabilities: [CAP_TELEPORT]"]);
        let sets = process.capabilities().as_ref().unwrap();
        assert_eq!(sets.bounding().as_ref().unwrap().len(), 1);
        assert!(sets.permitted().as_ref().unwrap().is_empty());
    }

    #[test]
    fn names_of_the_runtime_spec_and_lists_as_runc_reads_them_are_understood() {
        for flag in [
            "SCHED_FLAG_RESET_ON_FORK",
            "SCHED_FLAG_RECLAIM",
            "SCHED_FLAG_DL_OVERRUN",
            "SCHED_FLAG_KEEP_POLICY",
            "SCHED_FLAG_KEEP_PARAMS",
            "SCHED_FLAG_UTIL_CLAMP_MIN",
            "SCHED_FLAG_UTIL_CLAMP_MAX",
        ] {
            let json = format!(
                r#"{{"cwd":"/","user":{{"uid":0,"gid":0}},"scheduler":{{"policy":"SCHED_OTHER","flags":["{flag}"]}}}}"#
            );
            let (process, _) = parse_process(json.as_bytes()).unwrap_or_else(|error| panic!("{flag}: {error:?}"));
            assert_eq!(process.scheduler().as_ref().unwrap().flags().as_ref().unwrap().len(), 1);
        }
        let affinity = |list: &str| {
            let json = format!(
                r#"{{"cwd":"/","user":{{"uid":0,"gid":0}},"execCPUAffinity":{{"initial":"{list}","final":"1"}}}}"#
            );
            let (process, _) = parse_process(json.as_bytes()).map_err(drop)?;
            Ok::<_, ()>(process.exec_cpu_affinity().as_ref().unwrap().initial().clone())
        };
        assert_eq!(affinity(" 0-3, 7,"), Ok(Some("0-3,7".to_owned())));
        assert_eq!(affinity(""), Ok(None));
        for list in [",", " ", "a", "1-2-3"] {
            assert_eq!(affinity(list), Err(()), "{list:?}");
        }
    }

    #[test]
    fn a_filter_without_action_and_rules_is_none() {
        let seccomp = |json: &str| {
            let config = format!(r#"{{"ociVersion":"1.0.0","linux":{{"seccomp":{json}}}}}"#);
            parse(config.as_bytes()).map(|(spec, _)| spec.linux().as_ref().unwrap().seccomp().is_some())
        };
        for empty in ["{}", r#"{"defaultAction":"","syscalls":[]}"#] {
            assert!(!seccomp(empty).unwrap(), "{empty}");
        }
        assert!(seccomp(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap());
        seccomp(r#"{"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}"#).unwrap_err();
    }

    #[test]
    fn what_is_no_config_is_an_error_that_says_where() {
        let error = parse(b"{\"ociVersion\": 1}").unwrap_err();
        assert_eq!(error.to_string(), "config.json is not valid");
        assert!(std::error::Error::source(&error).is_some());
    }
}
