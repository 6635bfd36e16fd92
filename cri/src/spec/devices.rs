//! Device nodes of the host that a container gets, and what its device cgroup allows.
//!
//! The nodes that every container has (`null`, `zero`, `full`, `random`, `urandom`, `tty`, the ptys) are the runtime's
//! business. [`find`] looks at the host; the rest is pure.

use crate::failure::{Failure, Result};
use nix::sys::stat::{SFlag, major, minor};
use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};
use proto::Device;
use std::path::{Path, PathBuf};

/// A device node of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostDevice {
    /// In the container.
    pub(crate) path: PathBuf,
    pub(crate) kind: LinuxDeviceType,
    pub(crate) major: u64,
    pub(crate) minor: u64,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Of `r`, `w`, `m`.
    pub(crate) access: String,
}

impl HostDevice {
    pub(super) fn to_oci(&self) -> LinuxDevice {
        LinuxDeviceBuilder::default()
            .path(&self.path)
            .typ(self.kind)
            .major(self.major.cast_signed())
            .minor(self.minor.cast_signed())
            .file_mode(self.mode)
            .uid(self.uid)
            .gid(self.gid)
            .build()
            .expect("complete")
    }
}

/// The device cgroup: nothing (the runtime adds what every container needs) plus the given nodes; everything if
/// privileged.
pub(super) fn rules(devices: &[HostDevice], privileged: bool) -> Vec<LinuxDeviceCgroup> {
    let all = LinuxDeviceCgroupBuilder::default().allow(privileged).access("rwm").build().expect("complete");
    let one = |device: &HostDevice| {
        LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(device.kind)
            .major(device.major.cast_signed())
            .minor(device.minor.cast_signed())
            .access(device.access.as_str())
            .build()
            .expect("complete")
    };
    let listed = devices.iter().filter(|_| !privileged).map(one);
    std::iter::once(all).chain(listed).collect()
}

/// Looks up the nodes that a request names; a directory stands for all nodes below it, symbolic links are followed.
///
/// # Errors
/// A path that is missing or no device.
pub(crate) fn find(devices: &[Device]) -> Result<Vec<HostDevice>> {
    let mut found = Vec::new();
    for device in devices {
        let access = match device.permissions.as_str() {
            "" => "rwm",
            letters if letters.bytes().all(|letter| b"rwm".contains(&letter)) => letters,
            other => {
                return Err(Failure::invalid(format!("device {}: permissions {other:?}", device.host_path)));
            }
        };
        let target = if device.container_path.is_empty() { &device.host_path } else { &device.container_path };
        let source = Path::new(&device.host_path);
        let what = || format!("device {}", device.host_path);
        if !source.is_absolute() || !Path::new(target).is_absolute() {
            return Err(Failure::invalid(format!("{}: not an absolute path", what())));
        }
        let metadata = std::fs::metadata(source).map_err(|error| Failure::invalid(format!("{}: {error}", what())))?;
        if metadata.is_dir() {
            walk(source, Path::new(target), access, &mut found)?;
        } else {
            let node = node(&metadata, target.into(), access)
                .ok_or_else(|| Failure::invalid(format!("{}: not a device", what())))?;
            found.push(node);
        }
    }
    Ok(found)
}

/// All device nodes of the host, for a privileged container. What is each container's own (`/dev/pts`, `/dev/shm`,
/// `/dev/mqueue`, `/dev/console`) is left out.
pub(crate) fn all_of_host() -> Result<Vec<HostDevice>> {
    let mut found = Vec::new();
    walk(Path::new("/dev"), Path::new("/dev"), "rwm", &mut found)?;
    Ok(found)
}

fn walk(dir: &Path, target: &Path, access: &str, found: &mut Vec<HostDevice>) -> Result<()> {
    let failure = |error| Failure::internal(format!("list devices in {}", dir.display()), &error);
    for entry in std::fs::read_dir(dir).map_err(failure)? {
        let entry = entry.map_err(failure)?;
        let target = target.join(entry.file_name());
        let own = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console", "/dev/fd", "/dev/core"];
        // A node may vanish between the listing and the look at it.
        let Ok(metadata) = entry.metadata() else { continue };
        if own.iter().any(|own| target == Path::new(own)) {
            continue;
        }
        if metadata.is_dir() {
            walk(&entry.path(), &target, access, found)?;
        } else if let Some(node) = node(&metadata, target, access) {
            found.push(node);
        }
    }
    Ok(())
}

fn node(metadata: &std::fs::Metadata, path: PathBuf, access: &str) -> Option<HostDevice> {
    use std::os::unix::fs::MetadataExt as _;
    let kind = match SFlag::from_bits_truncate(metadata.mode() & SFlag::S_IFMT.bits()) {
        SFlag::S_IFBLK => LinuxDeviceType::B,
        SFlag::S_IFCHR => LinuxDeviceType::C,
        _ => return None,
    };
    Some(HostDevice {
        path,
        kind,
        major: major(metadata.rdev()),
        minor: minor(metadata.rdev()),
        mode: metadata.mode() & 0o777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        access: access.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(host: &str, container: &str, permissions: &str) -> Device {
        Device { host_path: host.into(), container_path: container.into(), permissions: permissions.into() }
    }

    #[test]
    fn a_node_keeps_its_numbers_under_another_path() {
        let found = find(&[device("/dev/null", "/dev/other", "r")]).unwrap();
        assert_eq!((found[0].major, found[0].minor, found[0].access.as_str()), (1, 3, "r"));
        assert_eq!(found[0].path, Path::new("/dev/other"));
        let rules = rules(&found, false);
        assert!(!rules[0].allow() && rules[1].allow() && rules.len() == 2);
    }

    #[test]
    fn what_is_no_device_is_refused_by_its_path() {
        for (path, permissions) in [("/dev/absent", ""), ("/etc/passwd", ""), ("null", ""), ("/dev/null", "rx")] {
            let error = find(&[device(path, "", permissions)]).unwrap_err();
            assert!(error.message.contains(path), "{error}");
        }
    }

    #[test]
    fn a_directory_stands_for_the_nodes_below_it() {
        let host = all_of_host().unwrap();
        assert!(host.iter().any(|device| device.path == Path::new("/dev/null")));
        assert!(!host.iter().any(|device| device.path.starts_with("/dev/pts")));
    }
}
