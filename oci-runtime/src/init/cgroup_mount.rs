//! The mount type `cgroup`: the container's own cgroups in the host's layout.
//!
//! On v1 and hybrid hosts: a tmpfs with a directory per v1 hierarchy, named as on the host, and links for the controllers
//! that share one (`cpu -> cpu,cpuacct`). With a new cgroup namespace each is a mount of the hierarchy, which shows the
//! namespace's root; without, it is a bind of the container's own directory.

use std::os::fd::OwnedFd;

use cgroup::Kind;
use sys::at::{self, OFlag};
use sys::mount::{Attr, Fs, MountFlags, mount_setattr, move_mount};

use crate::host::CgroupTree;
use crate::plan::MountPlan;

/// Makes and attaches all of it.
pub(super) fn make(plan: &MountPlan, trees: &[CgroupTree], target: &OwnedFd) -> sys::Result<()> {
    let flags = plan.attributes.set | plan.recursive.set;
    let tmpfs = Fs::open("tmpfs")?.set_string("mode", "755")?.mount(flags - MountFlags::RDONLY)?;
    for tree in trees {
        at::mkdirat(&tmpfs, &tree.name, 0o755)?;
        for controller in co_mounted(tree) {
            at::symlinkat(&tree.name, &tmpfs, controller)?;
        }
    }
    mount_setattr(&tmpfs, false, &Attr { set: flags, ..Attr::default() })?;
    move_mount(&tmpfs, target)?;
    for tree in trees {
        let directory = at::openat(&tmpfs, &tree.name, OFlag::O_PATH | OFlag::O_DIRECTORY, 0)?;
        match &tree.mount {
            Some(mount) => {
                mount_setattr(mount, false, &Attr { set: flags, ..Attr::default() })?;
                move_mount(mount, &directory)?;
            }
            None => move_mount(&hierarchy(&tree.kind, flags)?, &directory)?,
        }
    }
    Ok(())
}

/// The links beside a hierarchy of several controllers.
fn co_mounted(tree: &CgroupTree) -> impl Iterator<Item = &str> {
    let controllers: &[String] = match &tree.kind {
        Kind::V1 { controllers } => controllers,
        Kind::V2 => &[],
    };
    let names = controllers.iter().map(String::as_str).filter(|name| !name.starts_with("name="));
    names.filter(|name| *name != tree.name)
}

/// A mount of an existing v1 hierarchy: the same controllers and name as the host's.
fn hierarchy(kind: &Kind, flags: MountFlags) -> sys::Result<OwnedFd> {
    let Kind::V1 { controllers } = kind else { return Fs::open("cgroup2")?.mount(flags) };
    let fs = Fs::open("cgroup")?;
    for controller in controllers {
        match controller.strip_prefix("name=") {
            Some(name) => {
                fs.set_flag("none")?;
                fs.set_string("name", name)?
            }
            None => fs.set_flag(controller)?,
        };
    }
    fs.mount(flags)
}
