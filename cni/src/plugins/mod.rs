//! Our plugins, in one binary: `bridge`, `host-local`, `loopback`, `portmap`.
//!
//! [`main`] picks one by the name under which the binary was started and hands it to `skel`, which speaks the
//! protocol. A plugin is a `Plugin`: functions from an `Invocation` to a result. Each decodes its own
//! configuration; a key of the reference plugins that is not built here is refused by name, so that nobody
//! believes in an isolation or an address that isn't there.
//!
//! A plugin has one thread and enters the pod's namespace by `setns(2)`, in and out.

mod bridge;
mod conf;
mod host_local;
mod ipam;
mod loopback;
mod nat;
mod netns;
mod portmap;
mod skel;
mod sysctl;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

pub use skel::Environment;
use skel::Plugin;

/// All plugins.
const ALL: [&Plugin; 4] = [&bridge::PLUGIN, &host_local::PLUGIN, &loopback::PLUGIN, &portmap::PLUGIN];

/// Runs the plugin that `program` names, the path under which the binary was started.
pub fn main(program: &OsStr, environment: &Environment) -> ExitCode {
    let name = Path::new(program).file_name().unwrap_or_default();
    match ALL.into_iter().find(|plugin| name == plugin.name) {
        Some(plugin) => skel::run(plugin, environment),
        None => skel::refuse_name(name, &ALL.map(|plugin| plugin.name)),
    }
}
