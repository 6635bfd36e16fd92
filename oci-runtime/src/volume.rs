//! What a mount takes from the host: volumes, opened before there is a container, as detached mounts.
//!
//! They get their attributes and propagation here, so that nothing is ever attached with more rights than it shall have. A
//! source on a file server that does not answer hangs here, under its name.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use sys::Errno;
use sys::at::{self, SFlag};
use sys::mount::{Attr, OpenTree, Propagation, attributes_of, mount_setattr, open_tree_at};

use crate::error::{Error, Step};
use crate::plan::{MountPlan, Plan};

/// A detached bind mount.
pub(crate) struct Bind {
    pub(crate) mount: OwnedFd,
    pub(crate) is_directory: bool,
}

/// What stands at the source of a volume.
pub(crate) enum Volume {
    /// Something to be mounted.
    Bind(Bind),
    /// A symbolic link, to be made again.
    Link(PathBuf),
}

/// Opens the source of a bind mount.
pub(crate) fn open(
    source: &Path,
    recursive: bool,
    plan: &MountPlan,
    base: Option<Propagation>,
    stage: &str,
) -> Result<Volume, Error> {
    let step = || stage.to_owned();
    if plan.links.copy {
        match std::fs::read_link(source) {
            Ok(target) => return Ok(Volume::Link(target)),
            // EINVAL: it is no link.
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {}
            Err(error) => return Err(sys::Error::from_io("readlink", &error, format_args!("{source:?}"))).step(step),
        }
    }
    let mut how = OpenTree::CLONE;
    how.set(OpenTree::RECURSIVE, recursive);
    how.set(OpenTree::SYMLINK_NOFOLLOW, plan.links.mount_source);
    let mount = open_tree_at(source, how).step(step)?;
    share(&mount, plan, base).step(step)?;
    change(&mount, plan, stage)?;
    let is_directory = at::file_type(&at::fstat(&mount).step(step)?) == SFlag::S_IFDIR;
    Ok(Volume::Bind(Bind { mount, is_directory }))
}

/// Propagation first of what all volumes have in common, then each change in its order.
fn share(mount: &OwnedFd, plan: &MountPlan, base: Option<Propagation>) -> sys::Result<()> {
    let set = |recursive, kind| mount_setattr(mount, recursive, &Attr { propagation: Some(kind), ..Attr::default() });
    match (base, plan.propagation.first()) {
        // What all have would be gone again with the first change. Not so if that is "shared", which a slave can be as well.
        (_, Some(first)) if first.recursive && first.kind != Propagation::Shared => {}
        (Some(base), _) => set(true, base)?,
        (None, _) => {}
    }
    plan.propagation.iter().try_for_each(|change| set(change.recursive, change.kind))
}

/// Attributes of the mount itself, then those of the tree.
fn change(mount: &OwnedFd, plan: &MountPlan, stage: &str) -> Result<(), Error> {
    let step = || stage.to_owned();
    let asked = if plan.exact { plan.attributes.exactly() } else { plan.attributes };
    if !asked.is_empty() {
        match mount_setattr(mount, false, &asked.into()) {
            // What the runtime's own user namespace was given read-only, or without devices, stays so.
            Err(error) if error.is(Errno::EPERM) && plan.exact => {
                let locked = attributes_of(mount).step(step)?;
                let beside = plan.attributes.beside(locked);
                let beside = beside.map_err(|why| Error::Refused(format!("{stage}: {why}: {error}")))?;
                mount_setattr(mount, false, &beside.into()).step(step)?;
            }
            changed => changed.step(step)?,
        }
    }
    match plan.recursive.is_empty() {
        true => Ok(()),
        false => mount_setattr(mount, true, &plan.recursive.into()).step(step),
    }
}

/// How volumes share mounts with the host unless they say it themselves: as a slave, so that later mounts of the host
/// show up, or as `rootfsPropagation` has it. `None` keeps what the host's mount is.
pub(crate) fn base_propagation(plan: &Plan) -> Option<Propagation> {
    match plan.root_propagation {
        None => Some(Propagation::Slave),
        Some(change) if change.kind == Propagation::Shared => None,
        Some(change) => Some(change.kind),
    }
}
