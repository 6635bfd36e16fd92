//! Device nodes: those that every container has, those of the config, and the device controller's rules for them.

use std::path::{Path, PathBuf};

use cgroup::{Access, DeviceKind, DeviceRule};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::{PlanError, invalid};

/// A node to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// In the container.
    pub path: PathBuf,
    /// What it is.
    pub kind: NodeKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits; the umask does not apply.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Kinds of node that `mknod` makes here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

/// Name, major, minor of what config-linux.md calls default devices.
const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// `/dev/pts/*`
const PTS_MAJOR: u32 = 136;
/// `/dev/ptmx`
const PTMX: (u32, u32) = (5, 2);

/// The config's devices and, where it has none of that path, the default ones.
pub(super) fn nodes(devices: &[LinuxDevice]) -> Result<Vec<Device>, PlanError> {
    let mut nodes: Vec<Device> = Vec::with_capacity(DEFAULT.len() + devices.len());
    for (index, device) in devices.iter().enumerate() {
        if !is_ptmx(device) {
            nodes.push(node(device, &format!("linux.devices[{index}]"))?);
        }
    }
    for (name, major, minor) in DEFAULT {
        let path = Path::new("/dev").join(name);
        if !nodes.iter().any(|node| node.path == path) {
            nodes.push(Device { path, kind: NodeKind::Char, major, minor, mode: 0o666, uid: 0, gid: 0 });
        }
    }
    Ok(nodes)
}

/// A container's `/dev/ptmx` is a link into its own devpts; a node would reach the host's terminals.
fn is_ptmx(device: &LinuxDevice) -> bool {
    device.path() == Path::new("/dev/ptmx")
}

/// Of a device that is not made. Who asks for the terminals themselves gets the container's own, which needs no word.
pub(super) fn warning(devices: &[LinuxDevice]) -> Option<String> {
    let index = devices.iter().position(|device| {
        let number = (i64::from(PTMX.0), i64::from(PTMX.1));
        let is_character = matches!(device.typ(), LinuxDeviceType::C | LinuxDeviceType::U);
        is_ptmx(device) && !(is_character && (device.major(), device.minor()) == number)
    })?;
    Some(format!("linux.devices[{index}]: not made, since /dev/ptmx is a link to the container's own terminals"))
}

fn node(device: &LinuxDevice, field: &str) -> Result<Device, PlanError> {
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => NodeKind::Char,
        LinuxDeviceType::B => NodeKind::Block,
        LinuxDeviceType::P => NodeKind::Fifo,
        LinuxDeviceType::A => return Err(invalid(format!("{field}.type"), "a is not the type of a node")),
    };
    if !device.path().is_absolute() {
        return Err(invalid(format!("{field}.path"), format!("{} is not absolute", device.path().display())));
    }
    let number = |name: &str, value: i64, max: u32| match u32::try_from(value) {
        Ok(number) if number <= max => Ok(number),
        _ if kind == NodeKind::Fifo => Ok(0),
        _ => Err(invalid(format!("{field}.{name}"), format!("{value} is not between 0 and {max}"))),
    };
    Ok(Device {
        path: device.path().clone(),
        kind,
        major: number("major", device.major(), (1 << 12) - 1)?,
        minor: number("minor", device.minor(), (1 << 20) - 1)?,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

/// The config's rules, then what every container may do: make any node, and use the default devices and terminals.
/// A config without rules denies the rest; an empty list never means "all" (GHSA-g54h-m393-cpwq).
pub(super) fn rules(config: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>, PlanError> {
    let mut rules = config_rules(config)?;
    let allow = |kind, major, minor, access| DeviceRule { allow: true, kind, major, minor, access };
    rules.push(allow(DeviceKind::Char, None, None, Access::MKNOD));
    rules.push(allow(DeviceKind::Block, None, None, Access::MKNOD));
    for (_, major, minor) in DEFAULT {
        rules.push(allow(DeviceKind::Char, Some(major), Some(minor), Access::ALL));
    }
    rules.push(allow(DeviceKind::Char, Some(PTS_MAJOR), None, Access::ALL));
    rules.push(allow(DeviceKind::Char, Some(PTMX.0), Some(PTMX.1), Access::ALL));
    Ok(rules)
}

fn config_rules(config: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>, PlanError> {
    let mut rules = Vec::with_capacity(config.len() + 10);
    for (index, rule) in config.iter().enumerate() {
        let field = format!("linux.resources.devices[{index}]");
        let kind = match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::A => DeviceKind::All,
            LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Char,
            LinuxDeviceType::B => DeviceKind::Block,
            LinuxDeviceType::P => return Err(invalid(format!("{field}.type"), "p is not a device")),
        };
        // -1 is runc's "all", from before the field was optional.
        let number = |name: &str, value: Option<i64>| match value {
            None | Some(-1) => Ok(None),
            Some(value) => match u32::try_from(value) {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(invalid(format!("{field}.{name}"), format!("{value} is not a device number"))),
            },
        };
        let access = match rule.access().as_deref() {
            None | Some("") => Access::ALL,
            Some(letters) => Access::parse(letters).ok_or_else(|| {
                invalid(format!("{field}.access"), format!("{letters:?} is not made of the letters r, w and m"))
            })?,
        };
        rules.push(DeviceRule {
            allow: rule.allow(),
            kind,
            major: number("major", rule.major())?,
            minor: number("minor", rule.minor())?,
            access,
        });
    }
    Ok(rules)
}
