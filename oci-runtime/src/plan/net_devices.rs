//! `linux.netDevices`: devices of the host that move into the container's network namespace.

use std::collections::HashMap;

use oci_spec::runtime::LinuxNetDevice;

use super::{Namespace, PlanError, invalid};

/// A device to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDevice {
    /// Its name on the host.
    pub name: String,
    /// Its name in the container.
    pub name_inside: String,
}

/// In the order of their names on the host: the config has none.
pub(super) fn from_spec(
    network: &Namespace,
    devices: Option<&HashMap<String, LinuxNetDevice>>,
) -> Result<Vec<NetDevice>, PlanError> {
    let mut list: Vec<NetDevice> = Vec::new();
    for (name, device) in devices.into_iter().flatten() {
        let name_inside = device.name().clone().filter(|inside| !inside.is_empty()).unwrap_or_else(|| name.clone());
        list.push(NetDevice { name: name.clone(), name_inside });
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    if !list.is_empty() && !network.is_private() {
        return Err(invalid("linux.netDevices", "the container has no network namespace of its own to move them to"));
    }
    for (index, device) in list.iter().enumerate() {
        let field = format!("linux.netDevices[{}]", device.name);
        if let Some(bad) = [&device.name, &device.name_inside].into_iter().find(|name| !is_name(name)) {
            return Err(invalid(field, format!("{bad:?} is not the name of a network device")));
        }
        if list[..index].iter().any(|other| other.name_inside == device.name_inside) {
            return Err(invalid(field, format!("a second device named {} in the container", device.name_inside)));
        }
    }
    Ok(list)
}

/// As `dev_valid_name` of the kernel has it. `%` would make the kernel choose a number.
fn is_name(name: &str) -> bool {
    let bad = |letter: char| letter.is_whitespace() || matches!(letter, '/' | ':' | '%' | '\0');
    !name.is_empty() && name.len() < 16 && name != "." && name != ".." && !name.contains(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(network: &Namespace, devices: &str, expected: Result<&[(&str, &str)], &str>) {
        let devices = serde_json::from_str(devices).unwrap();
        let list = from_spec(network, Some(&devices)).map_err(|error| error.to_string());
        let names: Result<Vec<_>, _> = list
            .as_ref()
            .map(|list| list.iter().map(|device| (device.name.as_str(), device.name_inside.as_str())).collect());
        assert_eq!(names.as_deref().map_err(|error| error.as_str()), expected);
    }

    #[test]
    fn a_device_keeps_its_name_unless_it_is_given_another() {
        let devices = r#"{"eth1": {"name": "net0"}, "eth0": {}, "eth2": {"name": ""}}"#;
        check(&Namespace::New, devices, Ok(&[("eth0", "eth0"), ("eth1", "net0"), ("eth2", "eth2")]));
        check(&Namespace::Inherited, "{}", Ok(&[]));
    }

    #[test]
    fn a_name_that_is_none_or_taken_or_of_the_host_is_refused() {
        check(
            &Namespace::Inherited,
            r#"{"eth0": {}}"#,
            Err("linux.netDevices: the container has no network namespace of its own to move them to"),
        );
        check(
            &Namespace::New,
            r#"{"a": {"name": "c"}, "b": {"name": "c"}}"#,
            Err("linux.netDevices[b]: a second device named c in the container"),
        );
        for name in ["a/b", "a:b", "a b", "eth%d", "..", "0123456789abcdef"] {
            let expected = format!("linux.netDevices[eth0]: {name:?} is not the name of a network device");
            check(&Namespace::New, &format!(r#"{{"eth0": {{"name": "{name}"}}}}"#), Err(&expected));
        }
    }
}
