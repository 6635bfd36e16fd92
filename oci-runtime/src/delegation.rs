//! Delegating a cgroup (cgroups(7), "Cgroups delegation: delegating a hierarchy to a less privileged user").
//!
//! As runc does it: a container on cgroup v2 that has a cgroup namespace and a writable mount of it may make cgroups below
//! its own. So its user owns the directory and the files that the kernel names for this; limits stay the host's.

use std::path::Path;

use cgroup::{Cgroup, Layout, Mode};
use sys::Errno;
use sys::at;

use crate::error::{Error, Step};
use crate::plan::{IdMaps, MountKind, Namespace, Plan};

/// The files that the kernel names are a list of its own.
const DELEGATE: &str = "/sys/kernel/cgroup/delegate";

/// Gives the container's user its cgroup, if the plan has it write there.
pub(crate) fn delegate(plan: &Plan, layout: &Layout, cgroup: &Cgroup, maps: Option<&IdMaps>) -> Result<(), Error> {
    let uid = plan.process.uid;
    let owner = maps.map_or(Some(uid), |maps| maps.users.outside(uid));
    let (Some(owner), Some(directory)) = (owner.filter(|owner| *owner != 0), cgroup.unified()) else { return Ok(()) };
    if layout.mode() != Mode::V2 || plan.namespaces.cgroup != Namespace::New || !is_mounted_writable(plan) {
        return Ok(());
    }
    let step = || format!("give cgroup {} to user {owner}", cgroup.path());
    let group = at::fstat(&directory).step(step)?.st_gid;
    at::fchown(&directory, owner, group).step(step)?;
    let names = std::fs::read_to_string(DELEGATE).map_err(|error| sys::Error::from_io("read", &error, DELEGATE));
    for name in names.step(step)?.lines() {
        match at::fchownat(&directory, name, owner, group) {
            // Of a controller that is not there.
            Err(error) if error.is(Errno::ENOENT) => {}
            given => given.step(step)?,
        }
    }
    Ok(())
}

fn is_mounted_writable(plan: &Plan) -> bool {
    plan.mounts.iter().any(|mount| {
        mount.kind == MountKind::Cgroup
            && mount.target == Path::new("/sys/fs/cgroup")
            && !mount.attributes.read_only()
            && !mount.recursive.read_only()
    })
}
