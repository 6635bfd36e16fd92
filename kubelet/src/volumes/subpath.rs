//! subPath: one path inside of a volume, mounted instead of the whole.
//!
//! A pod writes to its volume while we look: it can put a link to the host's root wherever we are about to go
//! (CVE-2017-1002101), and exchange it for a folder and back at any moment (CVE-2021-25741). So the path is resolved by
//! the kernel, beneath an fd of the volume, and what comes back is an fd; that fd is mounted, and no path of the volume
//! is looked at again. A relative link that stays inside of the volume is fine. An absolute one is refused wherever it
//! leads: it means one path to the pod and another one to the host, and upstream takes the host's.

use super::empty_dir::make_folders;
use std::os::fd::OwnedFd;
use std::path::Path;
use sys::Errno;
use sys::at::{self, OFlag, SFlag};
use sys::rootfd::RootFd;

/// Which step failed: upstream's two texts differ by it. The cause is for the log alone, it speaks of the host.
#[derive(Debug, thiserror::Error)]
pub(super) enum SubPathError {
    #[error("failed to create subPath directory")]
    Create(#[source] sys::Error),
    #[error("failed to prepare subPath")]
    Prepare(#[source] sys::Error),
}

/// Binds `sub_path` of the volume at `volume` on `target`, in place of what an earlier start of the container left
/// there.
pub(super) fn bind(volume: &Path, sub_path: &Path, target: &Path) -> Result<(), SubPathError> {
    let volume = RootFd::open(volume).map_err(SubPathError::Prepare)?;
    let source = open(&volume, sub_path)?;
    mount(&source, target).map_err(SubPathError::Prepare)
}

/// A handle to `sub_path`. Folders that are missing are made, with the volume's own permissions: a pod with an fsGroup
/// can write to them then.
fn open(volume: &RootFd, sub_path: &Path) -> Result<OwnedFd, SubPathError> {
    match volume.open_path_beneath(sub_path) {
        Err(error) if error.is(Errno::ENOENT) => {
            let make = |mode| volume.make_path_beneath(sub_path, mode);
            at::fstat(volume).and_then(|stat| make(stat.st_mode & 0o7777)).map_err(SubPathError::Create)
        }
        result => result.map_err(SubPathError::Prepare),
    }
}

/// Mounts what `source` refers to on `target`, a folder or file of ours.
fn mount(source: &OwnedFd, target: &Path) -> sys::Result<()> {
    let parent = target.parent().unwrap_or(target);
    make_folders(parent)?;
    let (parent, name) = (RootFd::open(parent)?, target.file_name().unwrap_or_default());
    clear(&parent, name)?;
    match at::file_type(&at::fstat(source)?) {
        SFlag::S_IFDIR => at::mkdirat(&parent, name, 0o750)?,
        _ => at::mknodat(&parent, name, SFlag::S_IFREG, 0o640, 0)?, // any other kind can be mounted on a file
    }
    let target = at::openat(&parent, name, OFlag::O_PATH, 0)?;
    sys::mount::move_mount(&sys::mount::clone_fd(source, false)?, &target)
}

/// Takes away what is mounted on `name`, and `name` itself.
fn clear(parent: &RootFd, name: &std::ffi::OsStr) -> sys::Result<()> {
    loop {
        match sys::mount::umount_idle_at(parent, name) {
            Ok(()) => {} // there may be another one below
            Err(error) if matches!(error.errno(), Errno::EINVAL | Errno::ENOENT) => break,
            Err(error) => return Err(error),
        }
    }
    sys::remove::remove_all(parent, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    /// A volume beside a canary that no subPath may reach.
    struct Fixture(tempfile::TempDir);

    impl Fixture {
        fn new() -> Fixture {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir_all(folder.path().join("volume/dir")).unwrap();
            fs::create_dir_all(folder.path().join("canary/dir")).unwrap();
            Fixture(folder)
        }

        fn place(&self, path: &str) -> std::path::PathBuf {
            self.0.path().join(path)
        }

        fn open(&self, sub_path: &str) -> Result<u64, SubPathError> {
            let volume = RootFd::open(self.place("volume")).unwrap();
            open(&volume, Path::new(sub_path)).map(|handle| at::fstat(&handle).unwrap().st_ino)
        }

        fn inode(&self, path: &str) -> u64 {
            fs::metadata(self.place(path)).unwrap().ino()
        }

        fn canary_is_unchanged(&self) -> bool {
            let count = |path: &str| fs::read_dir(self.place(path)).unwrap().count();
            (count("canary"), count("canary/dir")) == (1, 0)
        }
    }

    #[test]
    fn a_sub_path_is_found_or_made_inside_of_the_volume() {
        let fixture = Fixture::new();
        symlink("dir", fixture.place("volume/link")).unwrap();
        fs::set_permissions(fixture.place("volume"), fs::Permissions::from_mode(0o2770)).unwrap();
        assert_eq!(fixture.open("dir").unwrap(), fixture.inode("volume/dir"));
        assert_eq!(fixture.open("link").unwrap(), fixture.inode("volume/dir"));
        assert_eq!(fixture.open("link/a/b").unwrap(), fixture.inode("volume/dir/a/b"));
        assert_eq!(fs::metadata(fixture.place("volume/dir/a")).unwrap().mode() & 0o7777, 0o2770);
    }

    /// SYM: every way that a link can lead out. Mutant: RESOLVE_BENEATH left out of `open_path_beneath`.
    #[test]
    fn a_link_that_leads_out_of_the_volume_is_never_followed() {
        let fixture = Fixture::new();
        let canary = fixture.place("canary");
        for (name, target) in [
            ("absolute", canary.as_path()),
            ("up", Path::new("../canary")),
            ("root", Path::new("/")),
            ("proc", Path::new("/proc/self/cwd")),
        ] {
            symlink(target, fixture.place("volume").join(name)).unwrap();
        }
        symlink("absolute", fixture.place("volume/chain")).unwrap();
        symlink(canary.join("new"), fixture.place("volume/dangling")).unwrap();
        symlink("dir/new", fixture.place("volume/inside")).unwrap();
        for path in
            ["absolute", "absolute/dir", "absolute/new", "up", "up/new/x", "root", "proc", "chain/new", "dangling"]
        {
            assert!(matches!(fixture.open(path), Err(SubPathError::Prepare(_))), "{path}");
        }
        assert!(matches!(fixture.open("inside"), Err(SubPathError::Create(_))));
        assert!(fixture.canary_is_unchanged());
    }

    /// RACE: a folder and a link to the canary change places while we resolve. Mutant: as above.
    #[test]
    fn a_link_that_takes_a_folders_place_meanwhile_leads_nowhere() {
        let fixture = Fixture::new();
        symlink(fixture.place("canary"), fixture.place("volume/link")).unwrap();
        let volume = fs::File::open(fixture.place("volume")).unwrap();
        /// Ends the swapping, after a failed assertion too.
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let (done, swaps) = (AtomicBool::new(false), AtomicU32::new(0));
        let inside = fixture.inode("volume/dir");
        let mut opened = 0;
        std::thread::scope(|scope| {
            let swapper = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    at::renameat(&volume, "dir", &volume, "link", at::RenameFlags::RENAME_EXCHANGE).unwrap();
                    swaps.fetch_add(1, Ordering::Relaxed);
                    std::thread::yield_now();
                }
            });
            let _done = Done(&done);
            let mut number = 0;
            // Either thread may stand still while the other goes on: both have to get somewhere.
            while swaps.load(Ordering::Relaxed) < 1000 || (opened == 0 && number < 1_000_000) {
                assert!(!swapper.is_finished(), "the swapper failed");
                number += 1;
                if let Ok(inode) = fixture.open("dir") {
                    assert_eq!(inode, inside);
                    opened += 1;
                }
                // Made in the folder, or refused; never made in the canary.
                let _ = fixture.open(&format!("dir/{number}"));
            }
        });
        assert!(fixture.canary_is_unchanged());
        assert!(opened > 0, "no attempt met the folder");
    }
}
