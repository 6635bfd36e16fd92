//! Delegation to an IPAM plugin: the one that the configuration names, found through `CNI_PATH`.
//!
//! If that file is this very binary, its function is called instead: same code, same result, without a process.
//! A foreign plugin of the same name is executed as the configuration's author meant it.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::host_local;
use super::skel::{Invocation, Plugin, chain};
use crate::convert;
use crate::error::{PluginError, code};
use crate::exec::{self, ExecError, Group};
use crate::names::is_plugin_type;
use crate::result::CniResult;

/// Longer than any allocator's lock should be held, shorter than a runtime's patience.
const LIMIT: Duration = Duration::from_secs(60);

/// The IPAM plugin of a configuration.
#[derive(Debug)]
pub(super) struct Ipam<'a> {
    kind: &'a str,
    call: &'a Invocation,
}

impl<'a> Ipam<'a> {
    /// The plugin named `kind`.
    pub(super) fn new(kind: &'a str, call: &'a Invocation) -> Result<Ipam<'a>, PluginError> {
        if is_plugin_type(kind) {
            return Ok(Ipam { kind, call });
        }
        Err(PluginError::new(code::INVALID_CONFIG, format!("invalid plugin name: {kind}")))
    }

    /// Allocates addresses.
    pub(super) fn add(&self) -> Result<CniResult, PluginError> {
        if let Some(built_in) = self.built_in()? {
            return (built_in.add)(self.call);
        }
        let printed = self.execute("ADD")?;
        let malformed = |error: String| PluginError::new(code::DECODE, format!("result of {}: {error}", self.kind));
        let result: Value = serde_json::from_slice(&printed).map_err(|error| malformed(error.to_string()))?;
        convert::from_json(result, &self.call.version).map_err(|error| malformed(chain(&error)))
    }

    /// Gives them back.
    pub(super) fn del(&self) -> Result<(), PluginError> {
        match self.built_in()? {
            Some(built_in) => (built_in.del)(self.call),
            None => self.execute("DEL").map(drop),
        }
    }

    /// Fails if they are not allocated.
    pub(super) fn check(&self) -> Result<(), PluginError> {
        match self.built_in()? {
            Some(built_in) => (built_in.check)(self.call),
            None => self.execute("CHECK").map(drop),
        }
    }

    /// Fails if there are none.
    pub(super) fn status(&self) -> Result<(), PluginError> {
        match self.built_in()? {
            Some(built_in) => (built_in.status)(self.call),
            None => self.execute("STATUS").map(drop),
        }
    }

    /// Our own plugin, if the file that would be executed is this binary.
    fn built_in(&self) -> Result<Option<&'static Plugin>, PluginError> {
        let identity = |path: &Path| path.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
        let is_ours = self.kind == host_local::PLUGIN.name
            && identity(&self.find()?).is_some_and(|found| identity(Path::new("/proc/self/exe")) == Some(found));
        Ok(is_ours.then_some(&host_local::PLUGIN))
    }

    fn find(&self) -> Result<std::path::PathBuf, PluginError> {
        let path = || self.call.path.iter().map(|directory| directory.display().to_string()).collect::<Vec<_>>();
        let missing = || {
            let message = format!("failed to find plugin {:?} in path [{}]", self.kind, path().join(" "));
            PluginError::new(code::INTERNAL, message)
        };
        exec::find(self.kind, &self.call.path).ok_or_else(missing)
    }

    /// Executes the plugin with the environment and configuration of this call.
    fn execute(&self, verb: &str) -> Result<Vec<u8>, PluginError> {
        let config = serde_json::to_vec(&self.call.config)
            .map_err(|error| PluginError::new(code::INTERNAL, error.to_string()))?;
        let environment = [("CNI_COMMAND", OsStr::new(verb))];
        let printed = exec::run(&self.find()?, &environment, &config, LIMIT, Group::Callers);
        printed.map_err(|error| match error {
            ExecError::Plugin(error) => error,
            other => PluginError::new(code::INTERNAL, chain(&other)),
        })
    }
}
