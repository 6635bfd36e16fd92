//! The mount table: what every container has, the pod's files, the image's volumes, and the request's own mounts, which
//! come last and take the place of anything at the same path.

use super::Inputs;
use crate::failure::{Failure, Result};
use oci_spec::runtime::{Mount, MountBuilder};
use proto::{ContainerConfig, LinuxContainerSecurityContext, MountPropagation, NamespaceMode};
use shim_protocol::{Propagation, Source};
use std::path::{Component, Path, PathBuf};

/// The files that all containers of a pod see.
#[derive(Debug, Clone)]
pub(crate) struct PodFiles {
    pub(crate) hostname: PathBuf,
    pub(crate) hosts: PathBuf,
    pub(crate) resolv_conf: PathBuf,
}

/// A volume that the image declares, with the directory of the host that backs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volume {
    /// In the container.
    pub(crate) target: PathBuf,
    /// On the host.
    pub(crate) source: PathBuf,
}

/// The path, absolute, without `.` and `..` (which stop at the root).
pub(crate) fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Whether the request mounts something of its own there.
pub(crate) fn takes_place_of(config: &ContainerConfig, path: &Path) -> bool {
    config.mounts.iter().any(|mount| clean(&mount.container_path) == path)
}

/// The whole table, in the order in which it is to be mounted.
pub(super) fn build(inputs: &Inputs<'_>, security: &LinuxContainerSecurityContext) -> Result<Vec<Mount>> {
    let config = inputs.config;
    let mut mounts = base(inputs, security.privileged);
    mounts.retain(|mount| !takes_place_of(config, mount.destination()));
    let mut extra = Vec::new();
    let rw = if security.readonly_rootfs { "ro" } else { "rw" };
    for (path, source) in [
        ("/etc/hostname", &inputs.files.hostname),
        ("/etc/hosts", &inputs.files.hosts),
        ("/etc/resolv.conf", &inputs.files.resolv_conf),
    ] {
        if !takes_place_of(config, Path::new(path)) {
            extra.push(bind(path.into(), source, &["rbind", "rprivate", rw]));
        }
    }
    for volume in inputs.volumes {
        extra.push(bind(volume.target.clone(), &volume.source, &["rbind", "rprivate", "rw"]));
    }
    for mount in &config.mounts {
        extra.push(requested(mount)?);
    }
    // A mount hides what was mounted below its path before: parents first. The sort is stable.
    extra.sort_by_key(|mount| mount.destination().components().count());
    mounts.append(&mut extra);
    Ok(mounts)
}

fn base(inputs: &Inputs<'_>, privileged: bool) -> Vec<Mount> {
    let rw = if privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        filesystem("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        filesystem("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        filesystem(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        filesystem("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        filesystem("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", rw]),
        filesystem("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", rw]),
    ];
    if shares_host_ipc(inputs) {
        mounts.push(bind("/dev/shm".into(), Path::new("/dev/shm"), &["rbind", "rprivate", "rw"]));
    }
    mounts
}

fn shares_host_ipc(inputs: &Inputs<'_>) -> bool {
    super::namespaces::options(&inputs.sandbox.config).ipc() == NamespaceMode::Node
}

fn filesystem(target: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let options: Vec<String> = options.iter().map(|&option| option.into()).collect();
    MountBuilder::default().destination(target).typ(kind).source(source).options(options).build().expect("complete")
}

fn bind(target: PathBuf, source: &Path, options: &[&str]) -> Mount {
    let options: Vec<String> = options.iter().map(|&option| option.into()).collect();
    MountBuilder::default().destination(target).typ("bind").source(source).options(options).build().expect("complete")
}

/// A mount of the request; refuses what contradicts itself or is not built.
fn requested(mount: &proto::Mount) -> Result<Mount> {
    let path = &mount.container_path;
    if mount.image.as_ref().is_some_and(|image| !image.image.is_empty()) {
        return Err(Failure::unbuilt(format!("ImageVolumeMountFailed: mount an image on {path}")));
    }
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        return Err(Failure::unbuilt(format!("id-mapped mount on {path}")));
    }
    if mount.selinux_relabel && crate::host::selinux() {
        return Err(Failure::unbuilt(format!("SELinux relabelling of the mount on {path}")));
    }
    if path.is_empty() || path.contains('\0') || mount.host_path.contains('\0') {
        return Err(Failure::invalid(format!("mount of {:?}: container_path {path:?}", mount.host_path)));
    }
    if !Path::new(&mount.host_path).is_absolute() {
        return Err(Failure::invalid(format!("mount on {path}: host_path {:?} is not absolute", mount.host_path)));
    }
    let propagation = propagation(mount)?;
    if mount.recursive_read_only && (!mount.readonly || propagation != MountPropagation::PropagationPrivate) {
        return Err(Failure::invalid(format!(
            "mount on {path}: recursive_read_only needs readonly and private propagation"
        )));
    }
    let propagation = match propagation {
        MountPropagation::PropagationPrivate => "rprivate",
        MountPropagation::PropagationHostToContainer => "rslave",
        MountPropagation::PropagationBidirectional => "rshared",
    };
    let access = match (mount.readonly, mount.recursive_read_only) {
        (_, true) => "rro",
        (true, false) => "ro",
        (false, false) => "rw",
    };
    Ok(bind(clean(path), Path::new(&mount.host_path), &["rbind", propagation, access]))
}

fn propagation(mount: &proto::Mount) -> Result<MountPropagation> {
    MountPropagation::try_from(mount.propagation).map_err(|_| {
        Failure::invalid(format!("mount on {}: propagation {} is unknown", mount.container_path, mount.propagation))
    })
}

/// What the sources of bind mounts need; checked by the shim's stage child, which may hang on a dead file system
/// without holding up anything else.
pub(crate) fn sources(config: &ContainerConfig) -> Result<Vec<Source>> {
    let source = |mount: &proto::Mount| {
        let require = match propagation(mount)? {
            MountPropagation::PropagationPrivate => None,
            MountPropagation::PropagationHostToContainer => Some(Propagation::SharedOrSlave),
            MountPropagation::PropagationBidirectional => Some(Propagation::Shared),
        };
        Ok(Source { path: PathBuf::from(&mount.host_path), create_missing: true, require })
    };
    config.mounts.iter().map(source).collect()
}

/// What the root needs for mounts to travel as asked: the widest of all.
pub(super) fn root_propagation(mounts: &[proto::Mount]) -> Option<&'static str> {
    let has = |kind: MountPropagation| mounts.iter().any(|mount| mount.propagation() == kind);
    if has(MountPropagation::PropagationBidirectional) {
        Some("rshared")
    } else if has(MountPropagation::PropagationHostToContainer) {
        Some("rslave")
    } else {
        None
    }
}

/// The image's volumes that the request does not mount over, each to be backed by a directory below `dir`.
pub(crate) fn volumes(config: &ContainerConfig, image: &image::ImageConfig, dir: &Path) -> Vec<Volume> {
    let mut volumes: Vec<Volume> = Vec::new();
    for path in &image.volumes {
        let target = clean(path);
        let known = volumes.iter().any(|volume| volume.target == target);
        if target != Path::new("/") && !known && !takes_place_of(config, &target) {
            volumes.push(Volume { target, source: dir.join(volumes.len().to_string()) });
        }
    }
    volumes
}

/// Whether the pod's `/dev/shm` is to be mounted.
pub(crate) fn wants_pod_shm(config: &ContainerConfig) -> bool {
    !takes_place_of(config, Path::new("/dev/shm"))
}
