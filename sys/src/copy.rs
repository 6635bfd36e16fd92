//! Copies of trees that somebody hostile may have built: owners, modes and extended attributes included.
//!
//! Both sides are held by fd; each entry is one name in an open directory, links are never followed (CVE-2022-23648), and what
//! is opened to be read was looked at before, through the same handle.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::SFlag;

use crate::error::{Error, Result, fd, quoted};
use crate::procfs::ProcFd;
use crate::{Errno, at};

/// How deep a tree may be: each level takes a few fds.
const MAX_DEPTH: u32 = 256;

/// Copies what is in `source`, and its own attributes, to the empty directory `target`. An extended attribute that the file
/// system of `target` does not know is left out. Files are opened, and modes of nodes set, through `procfs`.
pub fn copy_content(source: &impl AsFd, target: &impl AsFd, procfs: &ProcFd) -> Result<()> {
    copy_directory(&at::reopen_directory(source)?, &at::reopen_directory(target)?, procfs, MAX_DEPTH)
}

fn copy_directory(source: &OwnedFd, target: &OwnedFd, procfs: &ProcFd, depth: u32) -> Result<()> {
    if depth == 0 {
        return Err(Error::new("copy", Errno::ELOOP, fd(source)).with_detail(format!("deeper than {MAX_DEPTH}")));
    }
    let listing = at::reopen_directory(source)?;
    let mut entries = Dir::from_fd(listing).map_err(|errno| Error::new("fdopendir", errno, fd(source)))?;
    for entry in entries.iter() {
        let entry = entry.map_err(|errno| Error::new("getdents64", errno, fd(source)))?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            copy_entry(source, target, name, procfs, depth)?;
        }
    }
    copy_attributes(source, target)
}

fn copy_entry(directory: &OwnedFd, target: &OwnedFd, name: &OsStr, procfs: &ProcFd, depth: u32) -> Result<()> {
    let source = at::openat(directory, name, OFlag::O_PATH, 0)?;
    let stat = at::fstat(&source)?;
    match at::file_type(&stat) {
        SFlag::S_IFDIR => {
            let how = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
            at::mkdirat(target, name, 0o700)?;
            copy_directory(&at::reopen_directory(&source)?, &at::openat(target, name, how, 0)?, procfs, depth - 1)
        }
        SFlag::S_IFREG => {
            let from = procfs.reopen(&source, OFlag::O_RDONLY)?;
            let to = at::openat(target, name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o600)?;
            let (mut from, mut to) = (File::from(from), File::from(to));
            std::io::copy(&mut from, &mut to).map_err(|error| Error::from_io("copy", &error, quoted(name)))?;
            copy_attributes(&from.into(), &to.into())
        }
        SFlag::S_IFLNK => {
            at::symlinkat(at::readlink_fd(&source)?, target, name)?;
            at::fchownat(target, name, stat.st_uid, stat.st_gid)
        }
        kind => {
            let mode = stat.st_mode & 0o7777;
            at::mknodat(target, name, kind, mode, stat.st_rdev)?;
            at::fchownat(target, name, stat.st_uid, stat.st_gid)?;
            procfs.chmod(&at::openat(target, name, OFlag::O_PATH, 0)?, mode)
        }
    }
}

/// Owner first: a change of it clears setuid bits and file capabilities.
fn copy_attributes(source: &OwnedFd, target: &OwnedFd) -> Result<()> {
    let stat = at::fstat(source)?;
    at::fchown(target, stat.st_uid, stat.st_gid)?;
    at::fchmod(target, stat.st_mode & 0o7777)?;
    for name in at::flistxattr(source)? {
        // Overlayfs shows its own bookkeeping to nobody; what belongs to the image is copied.
        let Some(value) = at::fgetxattr(source, &name)? else { continue };
        match at::fsetxattr(target, &name, &value) {
            Err(error) if error.is(Errno::EOPNOTSUPP) => {}
            set => set?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    use super::*;
    use crate::rootfd::RootFd;

    /// The one that everybody has will do here.
    fn procfs() -> ProcFd {
        ProcFd::from_fd(File::open("/proc").unwrap().into()).unwrap()
    }

    #[test]
    fn a_copy_has_what_the_tree_has_and_links_stay_links() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to, outside) = (dir.path().join("from"), dir.path().join("to"), dir.path().join("outside"));
        for path in [from.join("sub"), to.clone(), outside.clone()] {
            std::fs::create_dir_all(path).unwrap();
        }
        std::fs::copy("/proc/self/comm", from.join("sub/file")).unwrap();
        std::fs::set_permissions(from.join("sub/file"), PermissionsExt::from_mode(0o4640)).unwrap();
        std::fs::set_permissions(from.join("sub"), PermissionsExt::from_mode(0o1750)).unwrap();
        std::fs::set_permissions(&from, PermissionsExt::from_mode(0o711)).unwrap();
        symlink(&outside, from.join("link")).unwrap();
        nix::unistd::mkfifo(&from.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o604)).unwrap();
        let root = RootFd::open(dir.path()).unwrap();
        let open = |path: &str| root.open_path(Path::new(path)).unwrap();
        copy_content(&open("/from"), &open("/to"), &procfs()).unwrap();
        let mode = |path: &str| std::fs::symlink_metadata(to.join(path)).unwrap().mode();
        assert_eq!(std::fs::read(to.join("sub/file")).unwrap(), std::fs::read(from.join("sub/file")).unwrap());
        assert_eq!([mode("sub/file"), mode("sub"), mode("."), mode("fifo")], [0o104640, 0o41750, 0o40711, 0o10604]);
        assert_eq!(std::fs::read_link(to.join("link")).unwrap(), outside);
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn a_tree_that_is_too_deep_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut deep = dir.path().join("from");
        for _ in 0..300 {
            deep.push("d");
        }
        std::fs::create_dir_all(deep).unwrap();
        std::fs::create_dir(dir.path().join("to")).unwrap();
        let root = RootFd::open(dir.path()).unwrap();
        let open = |path: &str| root.open_path(Path::new(path)).unwrap();
        assert!(copy_content(&open("/from"), &open("/to"), &procfs()).unwrap_err().is(Errno::ELOOP));
    }
}
