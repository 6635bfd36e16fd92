//! Whose a container's cgroup is (config-linux.md, "Cgroup ownership").
//!
//! On v2, a container that sees its own cgroup as the root and may write there may make cgroups below it: its process owns
//! it, as whom it is outside. Limits stay the host's.

use std::path::Path;

use cgroup::Cgroup;

use crate::error::{Error, Step};
use crate::plan::{IdMaps, MountKind, Namespace, Plan};

/// Gives the cgroup to the container's user, if the plan has it write there. `maps` are those of its user namespace.
pub(crate) fn delegate(plan: &Plan, cgroup: &Cgroup, maps: Option<&IdMaps>) -> Result<(), Error> {
    if plan.namespaces.cgroup != Namespace::New || !is_mounted_writable(plan) {
        return Ok(());
    }
    let user = plan.process.uid;
    match maps.map_or(Some(user), |maps| maps.users.outside(user)) {
        None | Some(0) => Ok(()),
        Some(user) => cgroup.delegate(user).step(|| format!("give cgroup {} to user {user}", cgroup.path())),
    }
}

fn is_mounted_writable(plan: &Plan) -> bool {
    plan.mounts.iter().any(|mount| {
        mount.kind == MountKind::Cgroup
            && mount.target == Path::new("/sys/fs/cgroup")
            && !mount.attributes.read_only()
            && !mount.recursive.read_only()
    })
}
