//! Network sysctls of the calling thread's namespace.
//!
//! `/proc/sys/net` shows the namespace of whoever opens a file in it, so the same path serves host and pod.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use crate::error::{PluginError, code};

/// Sets a sysctl below `net`, given as path components. Reads first: a write takes locks and sends notifications
/// even if it changes nothing, and on a read-only `/proc/sys` what is already right must not fail.
pub(super) fn set(components: &[&str], value: &str) -> Result<(), PluginError> {
    match write(components, value) {
        Ok(()) => Ok(()),
        Err(error) => {
            let message = format!("set net/{} to {value}: {error}", components.join("/"));
            Err(PluginError::new(code::INTERNAL, message))
        }
    }
}

/// Sets a sysctl of a protocol that the kernel may lack: without IPv6 there is nothing to protect from it.
pub(super) fn set_if_present(components: &[&str], value: &str) -> Result<(), PluginError> {
    match write(components, value) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            let message = format!("set net/{} to {value}: {error}", components.join("/"));
            Err(PluginError::new(code::INTERNAL, message))
        }
        _ => Ok(()),
    }
}

fn write(components: &[&str], value: &str) -> std::io::Result<()> {
    // Components are joined one by one: a dot in an interface's name is no separator.
    let mut path = Path::new("/proc/sys/net").to_owned();
    path.extend(components);
    let mut present = String::new();
    OpenOptions::new().read(true).open(&path)?.read_to_string(&mut present)?;
    if present.trim_end() == value {
        return Ok(());
    }
    OpenOptions::new().write(true).open(&path)?.write_all(value.as_bytes())
}
