//! New file systems for a container, detached.

use std::os::fd::OwnedFd;

use sys::mount::{Attr, Fs, MAX_STRING, MountFlags, mount_setattr};

use crate::plan::{MountKind, MountPlan, Parameter};

/// File systems that need nothing of the host, whatever stands as their source.
const WITHOUT_SOURCE: [&str; 16] = [
    "binfmt_misc",
    "bpf",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "proc",
    "ramfs",
    "securityfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

/// Whether the file system is made from what is on the host, a device or directories, and so before the container's process is
/// there: in that one, no path of the host is resolved. The others belong to its namespaces.
pub(crate) fn is_made_from_host(mount: &MountPlan) -> bool {
    match &mount.kind {
        MountKind::Filesystem { fstype, source, .. } => {
            let named = source.as_deref().is_some_and(|source| source.starts_with('/'));
            fstype == "overlay" || named && !WITHOUT_SOURCE.contains(&fstype.as_str())
        }
        MountKind::Bind { .. } | MountKind::Cgroup | MountKind::Remount { .. } => false,
    }
}

/// Makes one, with the attributes of its mount but for the deferred one (see [`is_deferred`]). `more` goes before its own
/// parameters.
pub(crate) fn make(mount: &MountPlan, more: &[Parameter]) -> sys::Result<OwnedFd> {
    let MountKind::Filesystem { fstype, source, parameters } = &mount.kind else {
        return Err(sys::Error::new("fsopen", sys::Errno::EINVAL, "not a file system"));
    };
    let fs = Fs::open(fstype)?;
    if let Some(source) = source {
        fs.set_string("source", source)?;
    }
    let mut attributes = mount.attributes.set | mount.recursive.set;
    if is_deferred(mount) {
        attributes -= MountFlags::RDONLY;
    } else if attributes.contains(MountFlags::RDONLY) && is_made_from_host(mount) {
        // A device that can't be written to, or whose journal would be.
        fs.set_flag("ro")?;
    }
    for parameter in more.iter().chain(parameters) {
        set(&fs, fstype, parameter)?;
    }
    let made = fs.mount(attributes)?;
    for change in &mount.propagation {
        mount_setattr(&made, change.recursive, &Attr { propagation: Some(change.kind), ..Attr::default() })?;
    }
    Ok(made)
}

/// Sets a parameter.
pub(crate) fn set(fs: &Fs, fstype: &str, parameter: &Parameter) -> sys::Result<()> {
    match parameter {
        Parameter::Flag(name) => fs.set_flag(name).map(drop),
        // One layer after the other: a list of them is soon too long for one value.
        Parameter::Value(name, value) if fstype == "overlay" && name == "lowerdir" && value.len() > MAX_STRING => {
            layers(value).iter().try_for_each(|layer| fs.set_string("lowerdir+", layer).map(drop))
        }
        Parameter::Value(name, value) => fs.set_string(name, value).map(drop),
    }
}

/// The directories of overlay's `lowerdir`: colons separate them, unless there is a backslash in front.
fn layers(list: &str) -> Vec<String> {
    let mut layers = vec![String::new()];
    let mut characters = list.chars();
    while let Some(character) = characters.next() {
        let layer = layers.last_mut().expect("one at least");
        match character {
            ':' => layers.push(String::new()),
            '\\' => layer.extend(characters.next()),
            other => layer.push(other),
        }
    }
    layers
}

/// A read-only tmpfs, or `/dev`, still has to take the mount points, nodes and links of what comes after it.
pub(crate) fn is_deferred(mount: &MountPlan) -> bool {
    let MountKind::Filesystem { fstype, .. } = &mount.kind else { return false };
    (fstype == "tmpfs" || mount.target == *"/dev") && (mount.attributes.read_only() || mount.recursive.read_only())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_separated_by_colons_that_are_not_escaped() {
        assert_eq!(layers(r"/a:/b\:c:/d\\e"), ["/a", "/b:c", r"/d\e"]);
        assert_eq!(layers("/a"), ["/a"]);
    }
}
