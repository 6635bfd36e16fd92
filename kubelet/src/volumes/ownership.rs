//! fsGroup: everything in a volume belongs to the pod's group, which may do what the owner may.
//!
//! `fsGroupChangePolicy` has no say: it is about volumes that outlive a pod, and for these kinds every kubelet
//! applies the group when content is written.

use super::atomic_writer::{UNCHANGED, names};
use std::path::PathBuf;
use sys::at::{self, OFlag, SFlag};
use sys::rootfd::RootFd;

/// `g+rw`, or `g+r` for a volume that pods don't write to.
fn file_bits(read_only: bool) -> u32 {
    if read_only { 0o440 } else { 0o660 }
}

/// A directory's also gets search permission, and setgid: what is made in it belongs to the group too.
fn mode_of(kind: SFlag, mode: u32, read_only: bool) -> u32 {
    let directory = if kind == SFlag::S_IFDIR { 0o2110 } else { 0 };
    (mode & 0o7777) | file_bits(read_only) | directory
}

/// Gives `root` and all below it to `group`. Links are given, not followed.
pub(super) fn apply(root: &RootFd, group: u32, read_only: bool) -> sys::Result<()> {
    give(&root.open_path(PathBuf::new().as_path())?, group, read_only)?;
    let mut directories = vec![PathBuf::new()];
    while let Some(path) = directories.pop() {
        let directory = root.open_path_no_symlinks(&path)?;
        for name in names(root, &path)? {
            let entry = at::openat(&directory, &name, OFlag::O_PATH, 0)?;
            if give(&entry, group, read_only)? == SFlag::S_IFDIR {
                directories.push(path.join(name));
            }
        }
    }
    Ok(())
}

/// Gives one file to the group, and says what it is.
fn give(file: &impl std::os::fd::AsFd, group: u32, read_only: bool) -> sys::Result<SFlag> {
    let stat = at::fstat(file)?;
    let kind = at::file_type(&stat);
    at::fchown(file, UNCHANGED, group)?; // clears setuid and setgid of a file: the mode comes after
    if kind != SFlag::S_IFLNK {
        at::fchmod(file, mode_of(kind, stat.st_mode, read_only))?;
    }
    Ok(kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn the_group_may_do_what_the_owner_may() {
        assert_eq!(mode_of(SFlag::S_IFREG, 0o100_600, true), 0o640);
        assert_eq!(mode_of(SFlag::S_IFREG, 0o100_600, false), 0o660);
        assert_eq!(mode_of(SFlag::S_IFREG, 0o104_755, false), 0o4775);
        assert_eq!(mode_of(SFlag::S_IFDIR, 0o040_777, false), 0o2777);
        assert_eq!(mode_of(SFlag::S_IFDIR, 0o040_755, true), 0o2755);
    }

    #[test]
    fn a_tree_is_given_to_the_group_and_nothing_behind_a_link_is() {
        let (tree, canary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = |name: &str| tree.path().join(name);
        fs::create_dir_all(place("d/e")).unwrap();
        let secret = canary.path().join("secret");
        for path in [&place("d/e/f"), &secret] {
            fs::File::create(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        symlink(&secret, place("link")).unwrap();
        symlink(canary.path(), place("d/folder")).unwrap();
        // A group that we may give files to whoever we are: our own.
        let group = fs::metadata(tree.path()).unwrap().gid();
        apply(&RootFd::open(tree.path()).unwrap(), group, true).unwrap();
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&place("d/e/f")), 0o640);
        assert_eq!(mode(&place("d/e")) & 0o2550, 0o2550);
        assert_eq!(mode(tree.path()) & 0o2550, 0o2550);
        assert_eq!(mode(&secret), 0o600);
        assert_eq!(mode(canary.path()) & 0o2000, 0);
    }
}
