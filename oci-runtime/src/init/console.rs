//! The terminal: a pair of the container's own devpts, bound on `/dev/console`.

use std::os::fd::OwnedFd;
use std::path::Path;

use sys::at::{self, OFlag};
use sys::mount::{clone_fd, move_mount};
use sys::pty::{Pty, Size};
use sys::rootfd::RootFd;

use crate::error::{Error, Step};
use crate::plan::ProcessPlan;

/// Opens a pair if the process is to have a terminal. `terminals` is the devpts that was mounted just now; without one,
/// whatever devpts the container has at `/dev/pts`.
pub(super) fn open(
    process: &ProcessPlan,
    own_dev: bool,
    root: &RootFd,
    terminals: Option<&OwnedFd>,
) -> Result<Option<Pty>, Error> {
    if !process.terminal {
        return Ok(None);
    }
    let console = match terminals {
        Some(devpts) => open_pair(process, devpts)?,
        None => open_pair(process, &find_devpts(root)?)?,
    };
    if own_dev {
        bind_console(&console.peer, root).step(|| "bind the terminal on /dev/console".to_owned())?;
    }
    Ok(Some(console))
}

/// What is mounted at `/dev/pts`; that it is a devpts is checked when a terminal is opened in it.
pub(super) fn find_devpts(root: &RootFd) -> Result<OwnedFd, Error> {
    root.open_path(Path::new("/dev/pts")).step(|| "open /dev/pts".to_owned())
}

/// Both ends; the peer comes from the master by ioctl and never from a path (CVE-2025-52565).
pub(super) fn open_pair(process: &ProcessPlan, devpts: &OwnedFd) -> Result<Pty, Error> {
    let step = || "open a terminal".to_owned();
    let console = sys::pty::open(devpts).step(step)?;
    if let Some((rows, columns)) = process.console_size.filter(|size| *size != (0, 0)) {
        sys::pty::set_size(&console.master, Size { rows, columns }).step(step)?;
    }
    Ok(console)
}

/// `O_EXCL|O_NOFOLLOW` or what is there already, if it is no link: CVE-2026-88264.
fn bind_console(peer: &OwnedFd, root: &RootFd) -> sys::Result<()> {
    let dev = root.mkdir_all(Path::new("/dev"), 0o755)?;
    match at::openat(&dev, "console", OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY, 0o600) {
        Err(error) if !error.is(sys::Errno::EEXIST) => return Err(error),
        _ => {}
    }
    let target = at::openat(&dev, "console", OFlag::O_PATH, 0)?;
    if at::file_type(&at::fstat(&target)?) == at::SFlag::S_IFLNK {
        let error = sys::Error::new("openat", sys::Errno::ELOOP, sys::error::fd(&target));
        return Err(error.with_detail("/dev/console is a symbolic link"));
    }
    move_mount(&clone_fd(peer, false)?, &target)
}
