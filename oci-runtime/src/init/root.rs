//! The root file system: attached in the container's mount namespace, later its `/`.

use sys::mount::{self, Attr, Propagation, mount_setattr, set_propagation_root};
use sys::rootfd::RootFd;

use crate::error::{Error, Step};
use crate::host::Host;
use crate::plan::Plan;

/// Cuts this namespace's mounts off the host's and attaches the root on top of the old one.
///
/// What the caller resolves in the returned handle sees what is mounted below it from now on.
pub(super) fn attach(host: &Host) -> Result<RootFd, Error> {
    // Mounts of the host still arrive until the pivot, none of ours leaves. pivot_root refuses shared parents.
    set_propagation_root(Propagation::Slave)
        // Below the root, and gone with the old one: what is attached nowhere can't be bound before Linux 6.15.
        .and_then(|()| host.devices.as_ref().map_or(Ok(()), |devices| mount::attach(devices, "/")))
        .and_then(|()| mount::attach(&host.root, "/"))
        .and_then(|()| sys::fd::duplicate(&host.root))
        .map(RootFd::from_fd)
        .step(|| "attach the root file system".to_owned())
}

/// `rootfsPropagation`, on what is `/` now. Private and slave are what a new root without peers is already.
pub(super) fn set_propagation(plan: &Plan) -> Result<(), Error> {
    let Some(change) = plan.root_propagation else { return Ok(()) };
    if matches!(change.kind, Propagation::Private) {
        return Ok(());
    }
    let attr = Attr { propagation: Some(change.kind), ..Attr::default() };
    RootFd::open("/")
        .and_then(|root| mount_setattr(&root, change.recursive, &attr))
        .step(|| "set linux.rootfsPropagation".to_owned())
}
