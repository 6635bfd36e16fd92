//! Running the plugins of one network, as libcni does: what each is told by environment and configuration.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::conflist::{NetworkList, PluginConfig};
use super::{Attachment, Deadlines, Error, Namespace};
use crate::caseless;
use crate::convert::{self, ConvertError};
use crate::exec::{self, ExecError, Group};
use crate::names::{is_argument, is_plugin_type};
use crate::result::CniResult;
use crate::version;

/// A network and where its plugins are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain<'a> {
    pub(super) list: &'a NetworkList,
    pub(super) bin_dirs: &'a [PathBuf],
    pub(super) deadlines: Deadlines,
}

/// How one plugin failed.
#[derive(Debug, thiserror::Error)]
pub enum PluginFailure {
    /// Its binary is in none of the plugin directories.
    #[error("not found in {0}")]
    Missing(String),
    /// It ended without a result.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// Its result is no JSON.
    #[error("its result is no JSON: {0}")]
    Json(String),
    /// Its result is not of the version's form.
    #[error(transparent)]
    Result(#[from] ConvertError),
}

impl PluginFailure {
    /// Whether the plugin never ran.
    fn is_of_start(&self) -> bool {
        matches!(self, PluginFailure::Missing(_) | PluginFailure::Exec(ExecError::Start { .. }))
    }
}

impl Chain<'_> {
    /// ADD through all plugins; each gets the result of the one before it. A failure is undone, by DEL.
    pub(super) fn add(&self, attachment: &Attachment) -> Result<CniResult, Error> {
        let mut result: Option<CniResult> = None;
        for (position, plugin) in self.list.plugins.iter().enumerate() {
            let added = self.add_one(plugin, attachment, result.as_ref());
            result = Some(added.map_err(|failure| {
                // The one that failed may have made something before it did, unless it never ran.
                let ran = if failure.is_of_start() { position } else { position + 1 };
                let undone = self.del_first(ran, attachment, None, Namespace::Stays);
                let undo = undone.err().map(|error| format!("; and undoing it failed: {}", chain_of(&error)));
                self.failed("ADD", plugin, failure, undo.unwrap_or_default())
            })?);
        }
        Ok(result.unwrap_or_default())
    }

    fn add_one(
        &self,
        plugin: &PluginConfig,
        attachment: &Attachment,
        previous: Option<&CniResult>,
    ) -> Result<CniResult, PluginFailure> {
        let previous = previous.map(|result| convert::to_json(result, &self.list.cni_version)).transpose()?;
        let config = self.config_for(plugin, Some(attachment), previous);
        let printed = self.run("ADD", plugin, attachment, &config, self.deadlines.add, Namespace::Stays)?;
        let result: Value = serde_json::from_slice(&printed).map_err(|error| PluginFailure::Json(error.to_string()))?;
        Ok(convert::from_json(result, &self.list.cni_version)?)
    }

    /// DEL through all plugins, in reverse, up to the first that fails, as libcni does. Those before it keep what they
    /// made until a DEL succeeds: an address that were given back while a host port still leads to it would be the next
    /// pod's, and the port's traffic with it.
    pub(super) fn del(
        &self,
        attachment: &Attachment,
        result: Option<&Value>,
        namespace: Namespace,
    ) -> Result<(), Error> {
        self.del_first(self.list.plugins.len(), attachment, result, namespace)
    }

    /// DEL through the chain's first `count` plugins.
    fn del_first(
        &self,
        count: usize,
        attachment: &Attachment,
        result: Option<&Value>,
        namespace: Namespace,
    ) -> Result<(), Error> {
        for plugin in self.list.plugins[..count].iter().rev() {
            let config = self.config_for(plugin, Some(attachment), result.cloned());
            self.run("DEL", plugin, attachment, &config, self.deadlines.del, namespace)
                .map_err(|failure| self.failed("DEL", plugin, failure, String::new()))?;
        }
        Ok(())
    }

    /// CHECK through all plugins, each with the chain's final result.
    pub(super) fn check(&self, attachment: &Attachment, result: Option<&Value>) -> Result<(), Error> {
        for plugin in &self.list.plugins {
            let config = self.config_for(plugin, Some(attachment), result.cloned());
            self.run("CHECK", plugin, attachment, &config, self.deadlines.add, Namespace::Stays)
                .map_err(|failure| self.failed("CHECK", plugin, failure, String::new()))?;
        }
        Ok(())
    }

    /// STATUS of all plugins.
    pub(super) fn status(&self) -> Result<(), Error> {
        for plugin in &self.list.plugins {
            let config = self.config_for(plugin, None, None);
            let environment = [("CNI_COMMAND", OsStr::new("STATUS"))];
            self.execute(plugin, &environment, &config, self.deadlines.status)
                .map_err(|failure| self.failed("STATUS", plugin, failure, String::new()))?;
        }
        Ok(())
    }

    /// The plugin's configuration with what libcni injects: name, version, previous result, and of the capability
    /// arguments those that the plugin declares.
    fn config_for(&self, plugin: &PluginConfig, attachment: Option<&Attachment>, previous: Option<Value>) -> Vec<u8> {
        let mut config = plugin.config.clone();
        let mut inject = |key: &str, value: Value| {
            config.retain(|present, _| !present.eq_ignore_ascii_case(key));
            config.insert(key.into(), value);
        };
        inject("name", Value::String(self.list.name.clone()));
        inject("cniVersion", Value::String(self.list.cni_version.clone()));
        if let Some(previous) = previous {
            inject("prevResult", previous);
        }
        let arguments = attachment.map(|attachment| wanted_capabilities(&plugin.config, &attachment.capabilities));
        if let Some(arguments) = arguments.filter(|arguments| !arguments.is_empty()) {
            inject("runtimeConfig", Value::Object(arguments));
        }
        Value::Object(config).to_string().into_bytes()
    }

    fn run(
        &self,
        verb: &str,
        plugin: &PluginConfig,
        attachment: &Attachment,
        config: &[u8],
        limit: Duration,
        namespace: Namespace,
    ) -> Result<Vec<u8>, PluginFailure> {
        // An ADD was refused with others; a DEL goes without them.
        let args = attachment.args.iter().filter(|(key, value)| is_argument(key, value));
        let args: Vec<_> = args.map(|(key, value)| format!("{key}={value}")).collect();
        let args = args.join(";");
        let ends = match namespace {
            Namespace::Ends => "1",
            Namespace::Stays => "",
        };
        let environment = [
            ("CNI_COMMAND", OsStr::new(verb)),
            ("CNI_CONTAINERID", OsStr::new(&attachment.container_id)),
            ("CNI_NETNS", attachment.netns.as_os_str()),
            ("CNI_IFNAME", OsStr::new(&attachment.ifname)),
            ("CNI_ARGS", OsStr::new(&args)),
            (crate::NETNS_ENDS, OsStr::new(ends)),
        ];
        self.execute(plugin, &environment, config, limit)
    }

    fn execute(
        &self,
        plugin: &PluginConfig,
        environment: &[(&str, &OsStr)],
        config: &[u8],
        limit: Duration,
    ) -> Result<Vec<u8>, PluginFailure> {
        let path = std::env::join_paths(self.bin_dirs).unwrap_or_default();
        let missing = || PluginFailure::Missing(path.to_string_lossy().into_owned());
        let binary = exec::find(&plugin.kind, self.bin_dirs).ok_or_else(missing)?;
        let environment: Vec<_> = environment.iter().copied().chain([("CNI_PATH", path.as_os_str())]).collect();
        Ok(exec::run(&binary, &environment, config, limit, Group::Own)?)
    }

    fn failed(&self, verb: &'static str, plugin: &PluginConfig, source: PluginFailure, undo: String) -> Error {
        let (network, file, kind) = (self.list.name.clone(), self.list.file.clone(), plugin.kind.clone());
        Error::Plugin { verb, plugin: kind, network, file, source: Box::new(source), undo }
    }
}

/// The protocol versions that a plugin says it speaks. One of before 0.2.0 does not know the verb, and one of 0.2.0 may
/// leave the list out (SPEC 0.2 "VERSION").
pub(super) fn versions(kind: &str, bin_dirs: &[PathBuf], limit: Duration) -> Result<Vec<String>, PluginFailure> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Info {
        cni_version: String,
        supported_versions: Vec<String>,
    }
    let path = std::env::join_paths(bin_dirs).unwrap_or_default();
    let missing = || PluginFailure::Missing(path.to_string_lossy().into_owned());
    let binary = is_plugin_type(kind).then(|| exec::find(kind, bin_dirs)).flatten().ok_or_else(missing)?;
    // Old plugins check the variables of ADD before they look at the verb.
    let dummy = OsStr::new("dummy");
    let environment = [
        ("CNI_COMMAND", OsStr::new("VERSION")),
        ("CNI_CONTAINERID", dummy),
        ("CNI_NETNS", dummy),
        ("CNI_IFNAME", dummy),
        ("CNI_PATH", dummy),
    ];
    let config = format!("{{\"cniVersion\":\"{}\"}}", version::CURRENT);
    let printed = match exec::run(&binary, &environment, config.as_bytes(), limit, Group::Own) {
        Err(ExecError::Plugin(error)) if error.msg == "unknown CNI_COMMAND: VERSION" => {
            return Ok(vec!["0.1.0".into()]);
        }
        other => other?,
    };
    let info: Info = caseless::from_slice(&printed).map_err(|error| PluginFailure::Json(error.to_string()))?;
    match (info.cni_version.as_str(), info.supported_versions.is_empty()) {
        (_, false) => Ok(info.supported_versions),
        ("0.2.0", true) => Ok(vec!["0.1.0".into(), "0.2.0".into()]),
        (_, true) => Err(PluginFailure::Json("missing field supportedVersions".into())),
    }
}

fn wanted_capabilities(plugin: &Map<String, Value>, offered: &Map<String, Value>) -> Map<String, Value> {
    let declared = caseless::get(plugin, "capabilities").and_then(Value::as_object);
    let wants = |name: &str| declared.is_some_and(|declared| declared.get(name) == Some(&Value::Bool(true)));
    offered.iter().filter(|(name, _)| wants(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// An error with its sources, `a: b: c`.
pub(super) fn chain_of(error: &dyn std::error::Error) -> String {
    match error.source() {
        None => error.to_string(),
        Some(source) => format!("{error}: {}", chain_of(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_plugin_gets_the_capabilities_that_it_declares_and_no_others() {
        let plugin = object(json!({"capabilities": {"portMappings": true, "bandwidth": false}}));
        let offered = object(json!({"portMappings": [1], "bandwidth": {}, "dns": {}}));
        assert_eq!(wanted_capabilities(&plugin, &offered), object(json!({"portMappings": [1]})));
        assert!(wanted_capabilities(&object(json!({})), &offered).is_empty());
    }
}
