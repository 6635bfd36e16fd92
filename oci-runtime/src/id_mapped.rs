//! Id-mapped mounts: volumes whose owners are shown as a user namespace maps them (mount_setattr(2), `MOUNT_ATTR_IDMAP`).
//!
//! The maps are those of the container's user namespace, or of one that is made for them and in which nobody ever is.

use std::os::fd::AsFd;

use sys::Errno;
use sys::mount::{Attr, mount_setattr};
use sys::procfs::ProcFd;

use crate::error::Error;
use crate::host::Source;
use crate::plan::{IdMapping, IdMaps, MountKind, MountPlan, Plan};
use crate::user_namespace::UserNamespace;
use crate::volume::Bind;

/// Maps the volumes of the plan that want it, which are attached nowhere yet.
pub(crate) fn map_sources(
    plan: &Plan,
    sources: &[Source],
    container: Option<&UserNamespace>,
    procfs: &ProcFd,
) -> Result<(), Error> {
    let mut made: Vec<UserNamespace> = Vec::new();
    for (mount, source) in plan.mounts.iter().zip(sources) {
        let (Some(mapping), Source::Bind(bind)) = (&mount.id_mapping, source) else { continue };
        let known = |user: &&UserNamespace| mapping.maps.as_ref().is_none_or(|maps| *maps == user.maps);
        let user = match container.filter(known).or_else(|| made.iter().find(known)) {
            Some(user) => user,
            None => {
                made.push(UserNamespace::make(maps_of(mapping)?, procfs)?);
                &made[made.len() - 1]
            }
        };
        map(mount, mapping, bind, user)?;
    }
    Ok(())
}

/// The plan has refused a mount without maps where there is no user namespace.
fn maps_of(mapping: &IdMapping) -> Result<IdMaps, Error> {
    mapping.maps.clone().ok_or_else(|| Error::Refused("mounts: idmap without a user namespace".to_owned()))
}

fn map(mount: &MountPlan, mapping: &IdMapping, bind: &Bind, user: &UserNamespace) -> Result<(), Error> {
    let change = Attr { userns: Some(user.namespace.as_fd()), ..Attr::default() };
    let what = match &mount.kind {
        MountKind::Bind { source, .. } => {
            format!("map the ids of volume {} on {}", source.display(), mount.target.display())
        }
        _ => format!("map the ids of {}", mount.target.display()),
    };
    mount_setattr(&bind.mount, mapping.recursive, &change).map_err(|source| {
        // What else the kernel says EINVAL to is ruled out: the volume is attached nowhere and is no user namespace's own.
        let step = match source.is(Errno::EINVAL) {
            true => format!("{what}: this kernel has no id-mapped mounts of its file system"),
            false => what,
        };
        Error::Step { step, source }
    })
}
