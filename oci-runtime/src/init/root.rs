//! The root file system: attached in the container's mount namespace, later its `/`.

use sys::at;
use sys::mount::{self, Attr, Propagation, change_root_to, mount_setattr, pivot_root_to, set_propagation_root};
use sys::rootfd::RootFd;

use crate::error::{Error, Step};
use crate::host::{Host, RootAt};
use crate::plan::Plan;

/// Cuts this namespace's mounts off the host's and attaches the root on top of the old one, or where hooks look for it.
///
/// What the caller resolves in the returned handle sees what is mounted below it from now on. In the creator's own mount
/// namespace nothing is attached: the container's mounts would stay there when it has ended.
pub(super) fn attach(plan: &Plan, host: &Host) -> Result<RootFd, Error> {
    if !plan.namespaces.mount.is_private() {
        let root = sys::fd::duplicate(&host.root).map(RootFd::from_fd);
        return root.step(|| "take the root file system".to_owned());
    }
    let step = || "attach the root file system".to_owned();
    // Mounts of the host still arrive until the pivot, none of ours leaves. pivot_root refuses shared parents.
    set_propagation_root(Propagation::Slave).step(step)?;
    if let Some(devices) = &host.devices {
        // Below the root, and gone with the old one: what is attached nowhere can't be bound before Linux 6.15.
        mount::attach(devices, "/").step(step)?;
    }
    match &host.root_at {
        None => mount::attach(&host.root, "/").step(step)?,
        Some(place) => attach_at(host, place)?,
    }
    sys::fd::duplicate(&host.root).map(RootFd::from_fd).step(step)
}

/// For hooks, which work on the root by its path. It was resolved before: here, in a copy of the host's mounts, it has to be
/// what it was there.
fn attach_at(host: &Host, place: &RootAt) -> Result<(), Error> {
    let step = || format!("attach the root file system at {}", place.path.display());
    let target = RootFd::open(&place.path).step(step)?;
    let found = at::fstat(&target).step(step)?;
    if (found.st_dev, found.st_ino) != (place.is.st_dev, place.is.st_ino) {
        return Err(Error::Refused(format!("root {} is not what it was a moment ago", place.path.display())));
    }
    mount::move_mount(&host.root, &target).step(step)
}

/// Makes it `/`, and nothing else reachable: where the mount namespace is the creator's own, only as far as chroot(2) goes.
pub(super) fn enter(plan: &Plan, root: &RootFd) -> Result<(), Error> {
    match plan.namespaces.mount.is_private() {
        true => pivot_root_to(root).step(|| "pivot into the root file system".to_owned()),
        false => change_root_to(root).step(|| "change into the root file system".to_owned()),
    }
}

/// `rootfsPropagation`, on what is `/` now. Private and slave are what a new root without peers is already; volumes began with
/// either, and may have been told to be something else.
pub(super) fn set_propagation(plan: &Plan) -> Result<(), Error> {
    let Some(change) = plan.root_propagation else { return Ok(()) };
    if matches!(change.kind, Propagation::Private | Propagation::Slave) {
        return Ok(());
    }
    let attr = Attr { propagation: Some(change.kind), ..Attr::default() };
    RootFd::open("/")
        .and_then(|root| mount_setattr(&root, change.recursive, &attr))
        .step(|| "set linux.rootfsPropagation".to_owned())
}
