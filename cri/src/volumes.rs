//! The directories that back an image's volumes: filled with what the image has at their paths, owners, modes and
//! extended attributes included.
//!
//! Both sides are the image's to shape, so that every step goes by fd: the source through [`RootFd`], each entry by its
//! name in an open directory, links never followed (CVE-2022-23648).

use crate::failure::{Failure, Result};
use crate::spec::mounts::Volume;
use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::SFlag;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use sys::Errno;
use sys::at;
use sys::rootfd::RootFd;

/// How deep a volume's content may be.
const MAX_DEPTH: u32 = 256;

/// Makes and fills the directories. Blocks.
pub(crate) fn fill(volumes: &[Volume], rootfs: &RootFd) -> Result<()> {
    for volume in volumes {
        let failure = |error: &sys::Error| Failure::internal(format!("volume {}", volume.target.display()), error);
        std::fs::create_dir_all(&volume.source)
            .map_err(|error| Failure::internal(format!("make {}", volume.source.display()), &error))?;
        let source = match rootfs.open_dir(&volume.target) {
            Ok(source) => source,
            // Nothing of the image is there: the volume is empty.
            Err(error) if error.is(Errno::ENOENT) || error.is(Errno::ENOTDIR) => continue,
            Err(error) => return Err(failure(&error)),
        };
        let target = open_dir(&volume.source).map_err(|error| failure(&error))?;
        copy_dir(&source, &target, MAX_DEPTH).map_err(|error| failure(&error))?;
    }
    Ok(())
}

fn open_dir(path: &Path) -> sys::Result<OwnedFd> {
    RootFd::open(path)?.open_dir(Path::new("/"))
}

fn copy_dir(source: &OwnedFd, target: &OwnedFd, depth: u32) -> sys::Result<()> {
    if depth == 0 {
        return Err(sys::Error::new("copy", Errno::ELOOP, format_args!("more than {MAX_DEPTH} directories deep")));
    }
    let listing = at::reopen(source, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    let mut entries =
        Dir::from_fd(listing).map_err(|errno| sys::Error::new("fdopendir", errno, "a volume's directory"))?;
    for entry in entries.iter() {
        let entry = entry.map_err(|errno| sys::Error::new("readdir", errno, "a volume's directory"))?;
        let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            copy_entry(source, target, name, depth)?;
        }
    }
    copy_attributes(source, target)
}

fn copy_entry(source: &OwnedFd, target: &OwnedFd, name: &std::ffi::OsStr, depth: u32) -> sys::Result<()> {
    let stat = at::fstatat(source, name)?;
    let mode = stat.st_mode & 0o7777;
    match at::file_type(&stat) {
        SFlag::S_IFDIR => {
            at::mkdirat(target, name, 0o700)?;
            let how = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            copy_dir(&at::openat(source, name, how, 0)?, &at::openat(target, name, how, 0)?, depth - 1)
        }
        SFlag::S_IFREG => {
            let from = at::openat(source, name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK, 0)?;
            let how = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
            let to = at::openat(target, name, how, 0o600)?;
            let (mut from, mut to) = (File::from(from), File::from(to));
            std::io::copy(&mut from, &mut to)
                .map_err(|error| sys::Error::from_io("copy", &error, name.to_string_lossy()))?;
            copy_attributes(&from.into(), &to.into())
        }
        SFlag::S_IFLNK => {
            at::symlinkat(at::readlinkat(source, name)?, target, name)?;
            at::fchownat(target, name, stat.st_uid, stat.st_gid)
        }
        kind => {
            at::mknodat(target, name, kind, mode, stat.st_rdev)?;
            at::fchownat(target, name, stat.st_uid, stat.st_gid)?;
            at::fchmodat(target, name, mode)
        }
    }
}

/// Owner first: a change of it clears setuid bits and file capabilities.
fn copy_attributes(source: &OwnedFd, target: &OwnedFd) -> sys::Result<()> {
    let stat = at::fstat(source)?;
    at::fchown(target, stat.st_uid, stat.st_gid)?;
    at::fchmod(target, stat.st_mode & 0o7777)?;
    for name in at::flistxattr(source)? {
        // Overlayfs shows its own bookkeeping to nobody; what belongs to the image is copied.
        if let Some(value) = at::fgetxattr(source, &name)? {
            at::fsetxattr(target, &name, &value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_volume_begins_with_what_the_image_has_there_and_a_link_leads_nowhere_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        for path in [root.join("data/sub"), root.join("real"), outside.clone()] {
            std::fs::create_dir_all(path).unwrap();
        }
        let write =
            |path: &Path, text: &str| std::io::Write::write_all(&mut File::create(path).unwrap(), text.as_bytes());
        write(&outside.join("secret"), "secret").unwrap();
        write(&root.join("data/sub/file"), "content").unwrap();
        std::fs::set_permissions(root.join("data/sub/file"), std::fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&outside, root.join("data/link")).unwrap();
        symlink(&outside, root.join("stolen")).unwrap();
        symlink("../../../../outside", root.join("climb")).unwrap();
        let volume = |target: &str, source: &str| Volume { target: target.into(), source: dir.path().join(source) };
        let volumes = ["/data", "/stolen", "/climb", "/absent"].map(|target| volume(target, &target[1..]));
        fill(&volumes, &RootFd::open(&root).unwrap()).unwrap();
        let copy = dir.path().join("data/sub/file");
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), "content");
        assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_link(dir.path().join("data/link")).unwrap(), outside);
        for empty in ["stolen", "climb", "absent"] {
            assert_eq!(std::fs::read_dir(dir.path().join(empty)).unwrap().count(), 0, "{empty}");
        }
    }
}
