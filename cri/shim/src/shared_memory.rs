//! The pod's `/dev/shm`: one tmpfs, of which each container gets a clone of the mount.
//!
//! It stays detached: it exists as an fd of the shim only, and nothing of it is left when the shim is gone. Cloning a
//! detached mount needs kernel 6.15; below that it is attached in the shim's directory.

use crate::state_dir::StateDir;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use sys::Errno;
use sys::mount::{Fs, MountFlags};

/// The tmpfs.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    mount: OwnedFd,
    /// It is mounted in the shim's directory.
    is_attached: bool,
}

impl SharedMemory {
    /// A tmpfs of at most `bytes`, with the options that Docker and containerd give it.
    pub(crate) fn new(bytes: u64, dir: &StateDir) -> sys::Result<Self> {
        let fs = Fs::open("tmpfs")?;
        fs.set_string("source", "shm")?.set_string("mode", "1777")?.set_string("size", &bytes.to_string())?;
        let mount = fs.mount(MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC)?;
        match sys::mount::clone_fd(&mount, false) {
            Ok(_) => Ok(Self { mount, is_attached: false }),
            Err(error) if error.is(Errno::EINVAL) => {
                dir.make_shared_memory()?;
                sys::mount::attach(&mount, dir.shared_memory())?;
                Ok(Self { mount, is_attached: true })
            }
            Err(error) => Err(error),
        }
    }

    /// Takes it from the shim's directory, if it had to be there.
    pub(crate) fn remove(&self, dir: &StateDir) -> sys::Result<()> {
        if !self.is_attached {
            return Ok(());
        }
        match sys::mount::umount_detach(dir.shared_memory()) {
            Err(error) if !error.is(Errno::EINVAL) => Err(error),
            _ => Ok(()),
        }
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }
}
