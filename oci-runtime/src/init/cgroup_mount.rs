//! The mount type `cgroup`: the container's own cgroups in the host's layout.
//!
//! On v1 and hybrid hosts: a tmpfs with a directory per v1 hierarchy, named as on the host, and links for the controllers
//! that share one (`cpu -> cpu,cpuacct`). On a host with v2 alone there is one
//! tree, which is attached as it is, or mounted here by a container that has joined a cgroup namespace.

use std::os::fd::OwnedFd;

use cgroup::Kind;
use sys::at;
use sys::mount::{Attr, Fs, MountFlags, mount_setattr, move_mount, move_mount_at};

use crate::host::CgroupTree;
use crate::plan::MountPlan;

/// Makes and attaches all of it; what is at the target then, unless that is one of the trees.
pub(super) fn make(plan: &MountPlan, trees: &[CgroupTree], target: &OwnedFd) -> sys::Result<Option<OwnedFd>> {
    let flags = plan.attributes.set | plan.recursive.set;
    match trees {
        [] => {
            let tree = Fs::open("cgroup2")?.set_string("source", "cgroup")?.mount(flags)?;
            move_mount(&tree, target)?;
            share(&tree, plan)?;
            return Ok(Some(tree));
        }
        [CgroupTree { kind: Kind::V2, mount, .. }] => {
            move_mount(mount, target)?;
            return share(mount, plan).map(|()| None);
        }
        _ => {}
    }
    let fs = Fs::open("tmpfs")?;
    let tmpfs = fs.set_string("source", "cgroup")?.set_string("mode", "755")?.mount(flags - MountFlags::RDONLY)?;
    for tree in trees {
        at::mkdirat(&tmpfs, &tree.name, 0o755)?;
        for controller in co_mounted(tree) {
            at::symlinkat(&tree.name, &tmpfs, controller)?;
        }
    }
    mount_setattr(&tmpfs, false, &Attr { set: flags, ..Attr::default() })?;
    move_mount(&tmpfs, target)?;
    for tree in trees {
        move_mount_at(&tree.mount, &tmpfs, &tree.name)?;
    }
    share(&tmpfs, plan)?;
    Ok(Some(tmpfs))
}

/// Last, so that a change of the whole tree reaches all of it.
fn share(top: &OwnedFd, plan: &MountPlan) -> sys::Result<()> {
    plan.propagation.iter().try_for_each(|change| {
        mount_setattr(top, change.recursive, &Attr { propagation: Some(change.kind), ..Attr::default() })
    })
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
