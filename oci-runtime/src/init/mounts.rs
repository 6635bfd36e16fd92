//! The config's mounts, in its order.
//!
//! Each is made or copied detached, has its attributes before anybody can see it, and is attached to a target that was
//! resolved inside the root and is held by fd: what a neighbour does to a shared volume meanwhile moves nothing
//! (CVE-2021-30465, CVE-2024-45310).

use std::os::fd::OwnedFd;
use std::path::Path;

use sys::Errno;
use sys::at;
use sys::mount::{Attr, Fs, MountFlags, filesystem_magic, mount_setattr, move_mount};
use sys::rootfd::RootFd;

use super::{cgroup_mount, labels};
use crate::error::{Error, Step};
use crate::host::{Bind, Host, Source};
use crate::launch::Channel;
use crate::plan::{MountKind, MountPlan, NOT_OF_TYPE_PROC, PROC_OVERMOUNTS, Parameter, Plan};

/// `PROC_SUPER_MAGIC` of linux/magic.h.
const PROC_MAGIC: i64 = 0x9fa0;

/// Makes them all; returns the mount of the container's own devpts, from which its console comes.
pub(super) fn make_all(plan: &Plan, host: &Host, root: &RootFd, channel: &Channel) -> Result<Option<OwnedFd>, Error> {
    let mut terminals = None;
    for (mount, source) in plan.mounts.iter().zip(&host.sources) {
        if host.shared_memory.as_ref().is_some_and(|(target, _)| *target == mount.target) {
            continue;
        }
        let stage = describe(mount);
        channel.stage(&stage);
        let made = make(mount, source, root, &stage)?;
        if let Some(made) = &made {
            labels::label_queues(plan, mount, made).step(|| stage)?;
        }
        if matches!(&mount.kind, MountKind::Filesystem { fstype, .. } if fstype == "devpts") {
            terminals = made;
        }
    }
    if let Some((target, bind)) = &host.shared_memory {
        attach_bind(bind, target, root, &format!("mount shared memory on {}", target.display()))?;
    }
    Ok(terminals)
}

fn describe(mount: &MountPlan) -> String {
    let target = mount.target.display();
    match &mount.kind {
        MountKind::Bind { source, .. } => format!("bind {} on {target}", source.display()),
        MountKind::Filesystem { fstype, .. } => format!("mount {fstype} on {target}"),
        MountKind::Cgroup => format!("mount cgroup on {target}"),
    }
}

/// Makes and attaches one; the new mount, where a later step needs it.
fn make(mount: &MountPlan, from_host: &Source, root: &RootFd, stage: &str) -> Result<Option<OwnedFd>, Error> {
    match (&mount.kind, from_host) {
        (_, Source::Bind(bind)) => attach_bind(bind, &mount.target, root, stage).map(|()| None),
        (_, Source::Cgroups(trees)) => {
            let target = directory(root, &mount.target, stage)?;
            cgroup_mount::make(mount, trees, &target).step(|| stage.to_owned()).map(|()| None)
        }
        (MountKind::Bind { .. } | MountKind::Cgroup, Source::None) => {
            Err(Error::Refused(format!("{stage}: its source was not opened")))
        }
        (MountKind::Filesystem { fstype, source, parameters }, Source::None) => {
            let existed = root.open_path(&mount.target).is_ok();
            let target = match fstype.as_str() {
                "proc" | "sysfs" => ordinary_directory(root, &mount.target, fstype, stage)?,
                _ => directory(root, &mount.target, stage)?,
            };
            let mode = match fstype == "tmpfs" && existed {
                true => Some(at::fstat(&target).step(|| stage.to_owned())?.st_mode & 0o7777),
                false => None,
            };
            let made = filesystem(fstype, source.as_deref(), parameters, mode, mount).step(|| stage.to_owned())?;
            move_mount(&made, &target).step(|| stage.to_owned())?;
            Ok(Some(made))
        }
    }
}

/// A new file system, detached, with all its attributes but the deferred one (see [`make_read_only`]).
fn filesystem(
    fstype: &str,
    source: Option<&str>,
    parameters: &[Parameter],
    mode: Option<u32>,
    mount: &MountPlan,
) -> sys::Result<OwnedFd> {
    let fs = Fs::open(fstype)?;
    if let Some(source) = source {
        fs.set_string("source", source)?;
    }
    // As runc: a tmpfs over a directory of the image looks like it, unless the config says how.
    let named = |name: &str| parameters.iter().any(|known| matches!(known, Parameter::Value(key, _) if key == name));
    if let Some(mode) = mode.filter(|_| !named("mode")) {
        fs.set_string("mode", &format!("{mode:o}"))?;
    }
    for parameter in parameters {
        match parameter {
            Parameter::Flag(name) => fs.set_flag(name)?,
            Parameter::Value(name, value) => fs.set_string(name, value)?,
        };
    }
    let mut flags = mount.attributes.set | mount.recursive.set;
    if is_deferred(mount) {
        flags -= MountFlags::RDONLY;
    }
    let made = fs.mount(flags)?;
    for change in &mount.propagation {
        mount_setattr(&made, change.recursive, &Attr { propagation: Some(change.kind), ..Attr::default() })?;
    }
    Ok(made)
}

fn attach_bind(bind: &Bind, target: &Path, root: &RootFd, stage: &str) -> Result<(), Error> {
    if target == Path::new("/proc") && filesystem_magic(&bind.mount).step(|| stage.to_owned())? != PROC_MAGIC {
        return Err(Error::Refused(format!("{stage}: {NOT_OF_TYPE_PROC}")));
    }
    let target = match bind.is_directory {
        true => directory(root, target, stage)?,
        false => {
            let file = root.ensure_file(target, 0o644).step(|| stage.to_owned())?;
            refuse_inside_proc(file, target, stage)?
        }
    };
    move_mount(&bind.mount, &target).step(|| stage.to_owned())
}

fn directory(root: &RootFd, target: &Path, stage: &str) -> Result<OwnedFd, Error> {
    let directory = root.mkdir_all(target, 0o755).step(|| stage.to_owned())?;
    refuse_inside_proc(directory, target, stage)
}

/// The plan looked at the name; a symbolic link of the image can lead there all the same (CVE-2019-16884).
fn refuse_inside_proc(opened: OwnedFd, target: &Path, stage: &str) -> Result<OwnedFd, Error> {
    let inside = filesystem_magic(&opened).step(|| stage.to_owned())? == PROC_MAGIC;
    // /proc itself may be mounted over: a config can have two entries for it.
    let allowed = target == Path::new("/proc") || PROC_OVERMOUNTS.iter().any(|path| target == Path::new(path));
    match inside && !allowed {
        true => Err(Error::Refused(format!("{stage}: {target:?} cannot be mounted because it is inside /proc"))),
        false => Ok(opened),
    }
}

/// For `/proc` and `/sys`: a link there would put the kernel's files where nobody looks for them, and the image's where
/// everybody does (CVE-2019-19921, CVE-2023-27561, CVE-2025-54867).
fn ordinary_directory(root: &RootFd, target: &Path, fstype: &str, stage: &str) -> Result<OwnedFd, Error> {
    match root.open_path_no_symlinks(target) {
        Err(error) if error.is(Errno::ENOENT) => {
            root.mkdir_all(target, 0o755).step(|| stage.to_owned())?;
            root.open_path_no_symlinks(target).step(|| stage.to_owned())
        }
        Err(error) if error.is(Errno::ELOOP) => {
            Err(Error::Refused(format!("{stage}: filesystem {fstype:?} must be mounted on ordinary directory")))
        }
        opened => opened.step(|| stage.to_owned()),
    }
}

/// A read-only tmpfs still has to take the mount points, nodes and links of what comes after it.
fn is_deferred(mount: &MountPlan) -> bool {
    matches!(&mount.kind, MountKind::Filesystem { fstype, .. } if fstype == "tmpfs")
        && (mount.attributes.read_only() || mount.recursive.read_only())
}

/// What had to stay writable until everything was in place: tmpfs mounts, and the root itself.
pub(super) fn make_read_only(plan: &Plan, root: &RootFd) -> Result<(), Error> {
    let read_only = Attr { set: MountFlags::RDONLY, ..Attr::default() };
    for mount in plan.mounts.iter().filter(|mount| is_deferred(mount)) {
        let step = || format!("make {} read-only", mount.target.display());
        let target = root.open_path(&mount.target).step(step)?;
        mount_setattr(&target, false, &read_only).step(step)?;
    }
    if plan.root_readonly {
        mount_setattr(root, false, &read_only).step(|| "make the root file system read-only".to_owned())?;
    }
    Ok(())
}
