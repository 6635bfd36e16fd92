//! The plugin's side of the protocol: environment and configuration in, result or error out.
//!
//! The order of checks, their codes and messages are those of the reference's skel, because runtimes and tests read
//! them: environment, then JSON, then the network's name, then the version, then the verb.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Map, Value};

use super::netns;
use crate::caseless;
use crate::convert;
use crate::error::{PluginError, code};
use crate::names::{check_container_id, check_interface_name, check_network_name};
use crate::result::CniResult;
use crate::version::{self, Version};

/// The largest configuration that is read.
const CONFIG_MAX: u64 = 4 * 1024 * 1024;

/// The variables of the protocol, empty where not set.
#[derive(Debug, Default, Clone)]
pub struct Environment {
    /// `CNI_COMMAND`: the verb.
    pub command: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`: the path of the pod's network namespace.
    pub netns: String,
    /// `CNI_IFNAME`: the name of the interface inside it.
    pub ifname: String,
    /// `CNI_ARGS`: `K=V;K=V`.
    pub args: String,
    /// `CNI_PATH`: where other plugins are.
    pub path: String,
    /// `CNI_NETNS_OVERRIDE`: allows the plugin's own namespace.
    pub netns_override: String,
    /// `ORLOP_CNI_NETNS_ENDS`: our client drops the namespace right after this DEL, see `Invocation::netns_ends`.
    pub netns_ends: String,
}

impl Environment {
    /// Reads the variables by name.
    pub fn read(variable: impl Fn(&str) -> String) -> Environment {
        Environment {
            command: variable("CNI_COMMAND"),
            container_id: variable("CNI_CONTAINERID"),
            netns: variable("CNI_NETNS"),
            ifname: variable("CNI_IFNAME"),
            args: variable("CNI_ARGS"),
            path: variable("CNI_PATH"),
            netns_override: variable("CNI_NETNS_OVERRIDE"),
            netns_ends: variable(crate::NETNS_ENDS),
        }
    }

    fn allows_own_namespace(&self) -> bool {
        self.netns_override == "1" || self.netns_override.eq_ignore_ascii_case("true")
    }
}

/// A plugin: its name and its verbs. A verb that a plugin has nothing to do for succeeds.
pub(super) struct Plugin {
    /// The file name under which it runs.
    pub(super) name: &'static str,
    /// Makes the attachment.
    pub(super) add: fn(&Invocation) -> Result<CniResult, PluginError>,
    /// Removes it; succeeds if it is gone.
    pub(super) del: fn(&Invocation) -> Result<(), PluginError>,
    /// Fails if it is not as ADD left it.
    pub(super) check: fn(&Invocation) -> Result<(), PluginError>,
    /// Fails if an ADD would.
    pub(super) status: fn(&Invocation) -> Result<(), PluginError>,
}

/// One call of a plugin.
#[derive(Debug, Clone)]
pub(super) struct Invocation {
    /// The sandbox.
    pub(super) container_id: String,
    /// The path of its network namespace, empty if the runtime has none any more.
    pub(super) netns: String,
    /// The interface inside it.
    pub(super) ifname: String,
    /// `CNI_ARGS`.
    pub(super) args: String,
    /// The directories of `CNI_PATH`.
    pub(super) path: Vec<PathBuf>,
    /// The configuration, as it came: it is passed on to IPAM unchanged.
    pub(super) config: Map<String, Value>,
    /// The network's name.
    pub(super) network: String,
    /// The configuration's version.
    pub(super) version: String,
    /// Set by our own client on a DEL when it drops the namespace's last reference next: whatever lives only in the
    /// namespace may be left to the kernel. The addresses must still be given back so that they can be used at once.
    pub(super) netns_ends: bool,
}

impl Invocation {
    /// What the plugin before this one in the chain returned.
    pub(super) fn previous_result(&self) -> Result<Option<CniResult>, PluginError> {
        let Some(previous) = caseless::get(&self.config, "prevResult") else { return Ok(None) };
        let result = convert::from_json(previous.clone(), &self.version);
        result
            .map(Some)
            .map_err(|error| PluginError::new(code::DECODE, "could not parse prevResult").with_details(chain(&error)))
    }
}

/// An error with its sources, `a: b: c`.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Serves one call and prints its outcome.
pub(super) fn run(plugin: &Plugin, environment: &Environment) -> ExitCode {
    let outcome = match environment.command.as_str() {
        "" => {
            let versions = version::ALL.join(", ");
            eprintln!("Orlop CNI plugin {}\nCNI protocol versions supported: {versions}", plugin.name);
            return ExitCode::SUCCESS;
        }
        "VERSION" => Ok(Some(version_info())),
        _ => serve(plugin, environment),
    };
    match outcome {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(output)) => print(&output, ExitCode::SUCCESS),
        Err(error) => {
            let cni_version = version::CURRENT.to_owned();
            let error = serde_json::json!(PluginError { cni_version, ..error });
            print(&error, ExitCode::FAILURE)
        }
    }
}

/// Refuses a start under a name that is no plugin.
pub(super) fn refuse_name(name: &OsStr, known: &[&str]) -> ExitCode {
    let message = format!("orlop-cni was started as {name:?}, which is no plugin: link it as {}", known.join(", "));
    eprintln!("{message}");
    let error = PluginError::new(code::INVALID_ENVIRONMENT, message);
    print(&serde_json::json!(error), ExitCode::FAILURE)
}

fn version_info() -> Value {
    serde_json::json!({"cniVersion": version::CURRENT, "supportedVersions": version::ALL})
}

fn print(output: &Value, status: ExitCode) -> ExitCode {
    // As one text: standard output is buffered by lines.
    match std::io::stdout().write_all(format!("{output:#}\n").as_bytes()) {
        Ok(()) => status,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(plugin: &Plugin, environment: &Environment) -> Result<Option<Value>, PluginError> {
    check_environment(environment)?;
    let invocation = read_configuration(environment)?;
    match environment.command.as_str() {
        "ADD" => {
            check_version(&invocation)?;
            // The reference looks after the call. Looking first leaves nothing to undo.
            check_namespace(environment)?;
            let result = (plugin.add)(&invocation)?;
            let written = convert::to_json(&result, &invocation.version);
            written.map(Some).map_err(|error| PluginError::new(code::INTERNAL, chain(&error)))
        }
        "DEL" => {
            check_version(&invocation)?;
            (plugin.del)(&invocation)?;
            check_namespace(environment)?;
            Ok(None)
        }
        "CHECK" => {
            check_verb_exists(&invocation, "CHECK", Version::WITH_CHECK)?;
            check_version(&invocation)?;
            (plugin.check)(&invocation).map(|()| None)
        }
        "STATUS" => {
            check_verb_exists(&invocation, "STATUS", Version::WITH_STATUS)?;
            check_version(&invocation)?;
            (plugin.status)(&invocation).map(|()| None)
        }
        "GC" => {
            check_verb_exists(&invocation, "GC", Version::WITH_STATUS)?;
            check_version(&invocation)?;
            let message = format!("CNI_COMMAND GC is not built yet in Orlop's {}", plugin.name);
            Err(PluginError::new(code::INVALID_ENVIRONMENT, message))
        }
        unknown => Err(PluginError::new(code::INVALID_ENVIRONMENT, format!("unknown CNI_COMMAND: {unknown}"))),
    }
}

/// A variable's check.
type Check = fn(&str) -> Result<(), PluginError>;

/// Checks the variables that the verb needs, in the reference's order: a wrong one ends at once, missing ones are
/// collected.
fn check_environment(environment: &Environment) -> Result<(), PluginError> {
    let attachment = matches!(environment.command.as_str(), "ADD" | "DEL" | "CHECK");
    let makes_or_checks = matches!(environment.command.as_str(), "ADD" | "CHECK");
    let any_verb = attachment || matches!(environment.command.as_str(), "GC" | "STATUS");
    let variables: [(&str, &str, bool, Check); 4] = [
        ("CNI_CONTAINERID", &environment.container_id, attachment, check_container_id),
        ("CNI_NETNS", &environment.netns, makes_or_checks, |_| Ok(())),
        ("CNI_IFNAME", &environment.ifname, attachment, check_interface_name),
        ("CNI_PATH", &environment.path, any_verb, |_| Ok(())),
    ];
    let mut missing = Vec::new();
    for (name, value, needed, check) in variables {
        match (needed, value) {
            (false, _) => {}
            (true, "") => missing.push(name),
            (true, value) => check(value)?,
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("required env variables [{}] missing", missing.join(","));
    Err(PluginError::new(code::INVALID_ENVIRONMENT, message))
}

/// Reads standard input to its end.
fn read_configuration(environment: &Environment) -> Result<Invocation, PluginError> {
    let mut text = Vec::new();
    let read = std::io::stdin().lock().take(CONFIG_MAX + 1).read_to_end(&mut text);
    read.map_err(|error| PluginError::new(code::IO, format!("error reading from stdin: {error}")))?;
    if text.len() as u64 > CONFIG_MAX {
        let message = format!("error reading from stdin: the configuration has more than {CONFIG_MAX} bytes");
        return Err(PluginError::new(code::IO, message));
    }
    parse_configuration(&text, environment)
}

fn parse_configuration(text: &[u8], environment: &Environment) -> Result<Invocation, PluginError> {
    let malformed = |error: String| PluginError::new(code::DECODE, format!("error unmarshall network config: {error}"));
    let config: Map<String, Value> = serde_json::from_slice(text).map_err(|error| malformed(error.to_string()))?;
    let string = |key: &str| match caseless::get(&config, key) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(malformed(format!("{key} is {other}, not a text"))),
    };
    let network = string("name")?;
    if network.is_empty() {
        return Err(PluginError::new(code::INVALID_CONFIG, "missing network name"));
    }
    check_network_name(&network)?;
    Ok(Invocation {
        container_id: environment.container_id.clone(),
        netns: environment.netns.clone(),
        ifname: environment.ifname.clone(),
        args: environment.args.clone(),
        path: std::env::split_paths(&environment.path).collect(),
        version: string("cniVersion")?,
        network,
        config,
        netns_ends: environment.netns_ends == "1",
    })
}

/// The plugin speaks any version of the list, and no other.
fn check_version(invocation: &Invocation) -> Result<(), PluginError> {
    // A configuration without a version is of 0.1.0.
    let version = if invocation.version.is_empty() { "0.1.0" } else { &invocation.version };
    if version::ALL.contains(&version) {
        return Ok(());
    }
    let supported = version::ALL.map(|version| format!("{version:?}")).join(" ");
    let details = format!("config is {version:?}, plugin supports [{supported}]");
    Err(PluginError::new(code::INCOMPATIBLE_VERSION, "incompatible CNI versions").with_details(details))
}

/// CHECK, STATUS and GC came later than ADD: an older configuration does not allow them, a newer one than ours
/// can't be served.
fn check_verb_exists(invocation: &Invocation, verb: &str, since: Version) -> Result<(), PluginError> {
    let parsed = invocation.version.parse::<Version>();
    let version = parsed.map_err(|error| PluginError::new(code::DECODE, error.to_string()))?;
    if version < since {
        let message = format!("config version does not allow {verb}");
        return Err(PluginError::new(code::INCOMPATIBLE_VERSION, message));
    }
    if version > Version::CURRENT {
        let message = format!("plugin version does not allow {verb}");
        return Err(PluginError::new(code::INCOMPATIBLE_VERSION, message));
    }
    Ok(())
}

/// A pod's namespace is never the plugin's own: rules and links would land in the host.
fn check_namespace(environment: &Environment) -> Result<(), PluginError> {
    if environment.allows_own_namespace() || !netns::is_own(environment.netns.as_ref())? {
        return Ok(());
    }
    let message = "plugin's netns and netns from CNI_NETNS should not be the same";
    Err(PluginError::new(code::INVALID_NETNS, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(command: &str) -> Environment {
        let text = |text: &str| text.to_owned();
        Environment {
            command: text(command),
            container_id: text("c1"),
            netns: text("/run/netns/x"),
            ifname: text("eth0"),
            path: text("/opt/cni/bin"),
            ..Environment::default()
        }
    }

    #[test]
    fn all_missing_variables_are_named_at_once() {
        let bare = Environment { command: "ADD".into(), ..Environment::default() };
        let error = check_environment(&bare).unwrap_err();
        assert_eq!(error.code, 4);
        assert_eq!(error.msg, "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing");
        let del = Environment { netns: String::new(), ..environment("DEL") };
        assert!(check_environment(&del).is_ok(), "DEL works without a namespace");
        let status = Environment { command: "STATUS".into(), path: "/p".into(), ..Environment::default() };
        assert!(check_environment(&status).is_ok());
    }

    #[test]
    fn a_configuration_is_decoded_before_its_name_and_the_name_before_its_version() {
        let code_of = |text: &str| match parse_configuration(text.as_bytes(), &environment("ADD")) {
            Err(error) => error.code,
            Ok(invocation) => check_version(&invocation).err().map_or(0, |error| error.code),
        };
        assert_eq!(code_of("{"), 6);
        assert_eq!(code_of("[]"), 6);
        assert_eq!(code_of(r#"{"name": 1}"#), 6);
        assert_eq!(code_of(r#"{"cniVersion": "9.9.9"}"#), 7);
        assert_eq!(code_of(r#"{"name": "../x"}"#), 7);
        assert_eq!(code_of(r#"{"name": "n", "cniVersion": "9.9.9"}"#), 1);
        assert_eq!(code_of(r#"{"NAME": "n", "CniVersion": "0.3.1"}"#), 0);
        assert_eq!(code_of(r#"{"name": "n"}"#), 0);
    }

    #[test]
    fn an_incompatible_version_is_told_as_the_reference_tells_it() {
        let text = br#"{"name": "n", "cniVersion": "9.9.9"}"#;
        let error = check_version(&parse_configuration(text, &environment("ADD")).unwrap()).unwrap_err();
        assert_eq!(error.msg, "incompatible CNI versions");
        assert!(
            error.details.starts_with(r#"config is "9.9.9", plugin supports ["0.1.0" "0.2.0""#),
            "{}",
            error.details
        );
    }

    #[test]
    fn verbs_need_the_version_that_introduced_them() {
        let with = |version: &str| {
            let text = format!(r#"{{"name": "n", "cniVersion": "{version}"}}"#);
            parse_configuration(text.as_bytes(), &environment("CHECK")).unwrap()
        };
        assert_eq!(check_verb_exists(&with("0.3.1"), "CHECK", Version::WITH_CHECK).unwrap_err().code, 1);
        assert!(check_verb_exists(&with("0.4.0"), "CHECK", Version::WITH_CHECK).is_ok());
        assert_eq!(check_verb_exists(&with("1.0.0"), "STATUS", Version::WITH_STATUS).unwrap_err().code, 1);
        assert_eq!(check_verb_exists(&with("x"), "STATUS", Version::WITH_STATUS).unwrap_err().code, 6);
    }
}
