//! The rules for names that come in by environment and configuration, with the messages of the reference (SPEC §2).

use crate::error::{PluginError, code};

/// A container id or network name starts with a letter or digit and goes on with those and `_ . -`.
fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// Checks `CNI_CONTAINERID`.
pub(crate) fn check_container_id(id: &str) -> Result<(), PluginError> {
    match id {
        "" => Err(PluginError::new(code::UNKNOWN_CONTAINER, "missing containerID")),
        id if is_identifier(id) => Ok(()),
        id => Err(PluginError::new(code::INVALID_ENVIRONMENT, "invalid characters in containerID").with_details(id)),
    }
}

/// Checks a configuration's `name`.
pub(crate) fn check_network_name(name: &str) -> Result<(), PluginError> {
    match name {
        "" => Err(PluginError::new(code::INVALID_CONFIG, "missing network name:")),
        name if is_identifier(name) => Ok(()),
        name => {
            Err(PluginError::new(code::INVALID_CONFIG, "invalid characters found in network name").with_details(name))
        }
    }
}

/// Checks `CNI_IFNAME` by the kernel's rules for interface names.
pub(crate) fn check_interface_name(name: &str) -> Result<(), PluginError> {
    let refused = |message: &str| PluginError::new(code::INVALID_ENVIRONMENT, message);
    match name {
        "" => Err(refused("interface name is empty")),
        name if name.len() > 15 => {
            Err(refused("interface name is too long").with_details("interface name should be less than 16 characters"))
        }
        "." | ".." => Err(refused("interface name is . or ..")),
        name if name.chars().any(|letter| letter == '/' || letter == ':' || letter.is_whitespace()) => {
            Err(refused("interface name contains / or : or whitespace characters"))
        }
        _ => Ok(()),
    }
}

/// Whether a pair can stand in `CNI_ARGS` (`K=V;K=V`, which has no escapes) and mean itself alone.
pub(crate) fn is_argument(key: &str, value: &str) -> bool {
    let separates = |letter: char| letter == ';' || letter.is_control();
    !key.is_empty() && !key.contains('=') && !key.contains(separates) && !value.contains(separates)
}

/// Checks the pairs of `CNI_ARGS`.
pub(crate) fn check_arguments(pairs: &[(String, String)]) -> Result<(), PluginError> {
    match pairs.iter().find(|(key, value)| !is_argument(key, value)) {
        None => Ok(()),
        Some((key, value)) => {
            let message = format!("CNI_ARGS can't carry {key:?} = {value:?}: a semicolon or control character");
            Err(PluginError::new(code::INVALID_ENVIRONMENT, message))
        }
    }
}

/// A plugin's type must be one component of a path: anything else could name a program outside the plugin
/// directories (CVE-2021-20206).
pub(crate) fn is_plugin_type(text: &str) -> bool {
    !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_follow_the_specification() {
        for good in ["a", "0", "pod-1_2.3", &"f".repeat(64)] {
            assert!(check_container_id(good).is_ok() && check_network_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "../etc", "a/b", "a b", "ä", "a\n"] {
            assert!(check_container_id(bad).is_err() && check_network_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn interface_names_are_those_of_the_kernel() {
        assert!(check_interface_name("eth0").is_ok());
        for bad in ["", ".", "..", "a/b", "a:1", "a b", "a\u{a0}b", "sixteen-bytes-xx"] {
            assert!(check_interface_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_argument_never_becomes_two() {
        assert!(is_argument("K8S_POD_NAME", "web-0") && is_argument("K", "") && is_argument("K", "a=b"));
        for (key, value) in [("K", "x;IP=10.0.0.9"), ("K;IP", "1"), ("K=1", ""), ("", "1"), ("K", "a\0b"), ("K", "\n")]
        {
            assert!(!is_argument(key, value), "{key:?} {value:?}");
        }
    }

    #[test]
    fn a_plugin_type_never_leaves_its_directory() {
        assert!(is_plugin_type("bridge") && is_plugin_type("host-local") && is_plugin_type("..bridge"));
        for bad in ["", ".", "..", "../../bin/sh", "/bin/sh", "a/b", "a\0b"] {
            assert!(!is_plugin_type(bad), "{bad}");
        }
    }
}
