//! `maskedPaths` and `readonlyPaths`.

use std::os::fd::OwnedFd;

use sys::Errno;
use sys::at::{self, SFlag};
use sys::mount::{Attr, Fs, MountFlags, clone_fd, mount_setattr, move_mount};
use sys::rootfd::RootFd;

use crate::error::{Error, Step};
use crate::host::Host;
use crate::plan::Plan;

/// Covers and protects; a path that the container does not have is left out.
pub(super) fn hide(plan: &Plan, host: &Host, root: &RootFd) -> Result<(), Error> {
    for path in &plan.readonly_paths {
        let step = || format!("make {} read-only", path.display());
        if let Some(target) = if_there(root.find(path)).step(step)? {
            protect(&target).step(step)?;
        }
    }
    // One empty directory for all masked ones: a kubelet masks one per CPU.
    let mut covers = Covers { directory: None, null: Attached::No(&host.null), label: plan.mount_label.as_deref() };
    for path in &plan.masked_paths {
        let step = || format!("mask {}", path.display());
        if let Some(target) = if_there(root.find(path)).step(step)? {
            covers.mask(&target).step(step)?;
        }
    }
    Ok(())
}

/// What lies below a file is not there either.
fn if_there(found: sys::Result<Option<OwnedFd>>) -> sys::Result<Option<OwnedFd>> {
    match found {
        Err(error) if error.is(Errno::ENOTDIR) => Ok(None),
        found => found,
    }
}

/// Mounts the path on itself, read-only with everything below.
fn protect(target: &OwnedFd) -> sys::Result<()> {
    let copy = clone_fd(target, true)?;
    mount_setattr(&copy, true, &Attr { set: MountFlags::RDONLY, ..Attr::default() })?;
    move_mount(&copy, target)
}

/// What masked paths are covered with. The first use attaches the mount itself, the others a copy of it: a mount that
/// is attached nowhere can be copied since Linux 6.15 only.
struct Covers<'a> {
    directory: Option<OwnedFd>,
    null: Attached<'a>,
    /// SELinux context of the directory.
    label: Option<&'a str>,
}

enum Attached<'a> {
    No(&'a OwnedFd),
    Yes(&'a OwnedFd),
}

impl Covers<'_> {
    fn mask(&mut self, target: &OwnedFd) -> sys::Result<()> {
        match at::file_type(&at::fstat(target)?) {
            SFlag::S_IFDIR => self.mask_directory(target),
            _ => self.mask_file(target),
        }
    }

    fn mask_directory(&mut self, target: &OwnedFd) -> sys::Result<()> {
        if let Some(first) = &self.directory {
            return move_mount(&clone_fd(first, false)?, target);
        }
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let empty = Fs::open("tmpfs")?;
        empty.set_string("nr_blocks", "1")?.set_string("nr_inodes", "1")?;
        if let Some(label) = self.label {
            empty.set_string("context", label)?;
        }
        let empty = empty.mount(flags)?;
        move_mount(&empty, target)?;
        self.directory = Some(empty);
        Ok(())
    }

    fn mask_file(&mut self, target: &OwnedFd) -> sys::Result<()> {
        match self.null {
            Attached::Yes(null) => move_mount(&clone_fd(null, false)?, target),
            Attached::No(null) => {
                move_mount(null, target)?;
                self.null = Attached::Yes(null);
                Ok(())
            }
        }
    }
}
