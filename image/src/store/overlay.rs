//! Directories stacked by overlay, as a detached mount, in whichever way the kernel has.
//!
//! Linux 6.13 takes each directory as an fd, 6.8 as a string of at most 255 bytes. Older kernels take all of them in one string
//! of that length, too short for an image: there mount(2) is called, which takes a page, in a mount namespace that
//! lasts as long as the call.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use sys::Errno;
use sys::at::proc_path;
use sys::mount::{Fs, MountFlags, MsFlags, Propagation, clone_tree, mount_on, set_propagation_root};
use sys::namespace::{CloneFlags, unshare};
use sys::rootfd::RootFd;

/// What is stacked, all of it directories of the host.
pub(super) struct Stack {
    /// Read-only, the uppermost first.
    pub(super) lower: Vec<PathBuf>,
    /// An empty directory for the bottom: overlay wants two at least where nothing is writable.
    pub(super) empty: PathBuf,
    /// What is written goes here; without one the mount is read-only.
    pub(super) upper: Option<Upper>,
}

/// The writable part.
pub(super) struct Upper {
    /// The directory itself.
    pub(super) fs: PathBuf,
    /// Overlay's own, on the same file system.
    pub(super) work: PathBuf,
    /// Never synced, see [`MountOptions`](super::MountOptions).
    pub(super) volatile: bool,
}

/// They tie an upper directory to its lower ones by handles; off, because a pod's root is never exported.
const FIXED: [(&str, &str); 2] = [("index", "off"), ("xino", "off")];

impl Stack {
    /// Mounts it.
    pub(super) fn mount(&self) -> sys::Result<OwnedFd> {
        let overlay = Fs::open("overlay")?;
        match self.configure(&overlay) {
            // The kernel knows no fd here at all, or not the key, or the string is too long for it.
            Err(error) if error.is(Errno::EOPNOTSUPP) || error.is(Errno::EINVAL) => self.mount_in_a_namespace(),
            configured => configured.and_then(|()| overlay.mount(self.attributes())),
        }
    }

    fn configure(&self, overlay: &Fs) -> sys::Result<()> {
        overlay.set_string("source", "orlop")?;
        for layer in self.layers() {
            set_directory(overlay, "lowerdir+", layer)?;
        }
        for (key, value) in FIXED {
            overlay.set_string(key, value)?;
        }
        if let Some(upper) = &self.upper {
            set_directory(overlay, "upperdir", &upper.fs)?;
            set_directory(overlay, "workdir", &upper.work)?;
            if upper.volatile {
                overlay.set_flag("volatile")?;
            }
        }
        Ok(())
    }

    fn layers(&self) -> impl Iterator<Item = &PathBuf> {
        self.lower.iter().chain([&self.empty])
    }

    fn attributes(&self) -> MountFlags {
        if self.upper.is_some() { MountFlags::empty() } else { MountFlags::RDONLY }
    }

    /// On a thread of its own, which ends with its namespace: what is attached there never shows up anywhere else, and a
    /// crash leaves no mount.
    fn mount_in_a_namespace(&self) -> sys::Result<OwnedFd> {
        let mounted = std::thread::scope(|scope| scope.spawn(|| self.mount_by_the_old_call()).join());
        mounted.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn mount_by_the_old_call(&self) -> sys::Result<OwnedFd> {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)?;
        set_propagation_root(Propagation::Private)?;
        // Opened here: overlay takes no directory of another mount namespace.
        let lower: Vec<RootFd> = self.layers().map(RootFd::open).collect::<sys::Result<_>>()?;
        let upper = self.upper.as_ref().map(|upper| Ok((RootFd::open(&upper.fs)?, RootFd::open(&upper.work)?)));
        let upper = upper.transpose()?;
        let by_fd = |directory: &RootFd| proc_path(directory).to_string_lossy().into_owned();
        let mut data = String::new();
        for (index, layer) in lower.iter().enumerate() {
            let separator = if index == 0 { "lowerdir=" } else { ":" };
            let _ = write!(data, "{separator}{}", by_fd(layer));
        }
        for (key, value) in FIXED {
            let _ = write!(data, ",{key}={value}");
        }
        if let Some((fs, work)) = &upper {
            let _ = write!(data, ",upperdir={},workdir={}", by_fd(fs), by_fd(work));
        }
        if self.upper.as_ref().is_some_and(|upper| upper.volatile) {
            data.push_str(",volatile");
        }
        // Anywhere does, and this directory nobody looks at.
        let place = RootFd::open(&self.empty)?;
        let flags = if upper.is_some() { MsFlags::empty() } else { MsFlags::MS_RDONLY };
        mount_on("orlop", &place, "overlay", flags, &data)?;
        clone_tree(&self.empty, false)
    }
}

/// By fd: a value is at most 255 bytes, and a store may lie deeper than that.
fn set_directory(overlay: &Fs, key: &str, path: &Path) -> sys::Result<()> {
    let directory = RootFd::open(path)?;
    match overlay.set_fd(key, &directory) {
        // A kernel that takes no fd.
        Err(error) if error.is(Errno::EINVAL) && path.to_str().is_some_and(|path| path.len() < 256) => {
            overlay.set_string(key, path.to_str().unwrap_or_default()).map(drop)
        }
        result => result.map(drop),
    }
}
