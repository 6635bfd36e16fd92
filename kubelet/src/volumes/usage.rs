//! How full a pod's volumes are, and the files that its containers can write beside them.

use super::atomic_writer::names;
use super::layout::{PLUGINS, SUBPATHS, VOLUMES};
use super::{PodUsage, Used, VolumeUsage};
use std::ffi::OsStr;
use std::path::Path;
use sys::Errno;
use sys::at::{self, SFlag};
use sys::rootfd::RootFd;

/// How many files of one volume are counted: a walk of a few seconds.
const MAX_ENTRIES: u64 = 1_000_000;

/// Looks at everything in a pod's folder. A pod without one takes nothing.
pub(super) fn of(folder: &Path) -> sys::Result<PodUsage> {
    match RootFd::open(folder) {
        // What the pod's containers write beside the volumes counts whatever the volumes are like.
        Ok(root) => Ok(PodUsage { files: files(&root)?, volumes: volumes(&root)? }),
        Err(error) if error.is(Errno::ENOENT) => Ok(PodUsage::default()),
        Err(error) => Err(error),
    }
}

fn volumes(root: &RootFd) -> sys::Result<Vec<VolumeUsage>> {
    let mut volumes = Vec::new();
    for kind in names_or_none(root, Path::new(VOLUMES))? {
        let kind = Path::new(VOLUMES).join(kind);
        let parent = match root.open_path_no_symlinks(&kind).and_then(|kind| at::fstat(&kind)) {
            Ok(parent) => parent,
            Err(error) if error.is(Errno::ENOENT) => continue, // its last volume was taken down just now
            Err(error) => return Err(error),
        };
        for name in names_or_none(root, &kind)? {
            let path = kind.join(&name);
            match volume(root, &path, &name, parent.st_dev) {
                Ok(usage) => volumes.push(usage),
                Err(error) if error.is(Errno::ENOENT) => {} // taken down just now
                // The others count: one volume that can't be read must not hide them.
                Err(error) => {
                    tracing::debug!(volume = ?name, error = &error as &dyn std::error::Error, "a volume is not counted");
                }
            }
        }
    }
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(volumes)
}

fn volume(root: &RootFd, path: &Path, name: &OsStr, parent_device: u64) -> sys::Result<VolumeUsage> {
    let directory = root.open_path_no_symlinks(path)?;
    let filesystem = sys::fs::usage(&directory)?;
    let on_disk = at::fstat(&directory)?.st_dev == parent_device;
    let used = if on_disk { tree(&directory)? } else { whole(&filesystem) };
    Ok(VolumeUsage { name: name.to_string_lossy().into_owned(), used, filesystem, on_disk })
}

/// A volume that is a file system of its own knows what it holds.
fn whole(filesystem: &sys::fs::Usage) -> Used {
    Used {
        bytes: filesystem.bytes.saturating_sub(filesystem.bytes_available),
        inodes: filesystem.inodes.saturating_sub(filesystem.inodes_free),
        complete: true,
    }
}

fn tree(directory: &impl std::os::fd::AsFd) -> sys::Result<Used> {
    let usage = sys::usage::of_tree(directory, MAX_ENTRIES)?;
    Ok(Used { bytes: usage.bytes, inodes: usage.inodes, complete: usage.complete })
}

/// Everything in the folder that is no volume: /etc/hosts, termination messages.
fn files(root: &RootFd) -> sys::Result<Used> {
    let mut sum = Used { complete: true, ..Used::default() };
    for name in names(root, Path::new(""))? {
        if [VOLUMES, SUBPATHS, PLUGINS].iter().any(|other| name == *other) {
            continue;
        }
        let stat = match at::fstatat(root, &name) {
            Ok(stat) => stat,
            Err(error) if error.is(Errno::ENOENT) => continue,
            Err(error) => return Err(error),
        };
        let used = match at::file_type(&stat) {
            SFlag::S_IFDIR => tree(&root.open_path_no_symlinks(Path::new(&name))?)?,
            _ => Used { bytes: u64::try_from(stat.st_blocks).unwrap_or(0) * 512, inodes: 1, complete: true },
        };
        sum.bytes += used.bytes;
        sum.inodes += used.inodes;
        sum.complete &= used.complete;
    }
    Ok(sum)
}

fn names_or_none(root: &RootFd, path: &Path) -> sys::Result<Vec<std::ffi::OsString>> {
    match names(root, path) {
        Err(error) if error.is(Errno::ENOENT) => Ok(Vec::new()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use sys::fs::{Durability, atomic_write};

    /// CVE-2020-8557: a pod that writes to its /etc/hosts fills the node's disk. Mutant: `files` left out.
    #[test]
    fn volumes_are_told_one_by_one_and_the_pods_own_files_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let pod = directory.path().join("pods/u");
        let volume = pod.join("volumes/kubernetes.io~empty-dir/scratch");
        fs::create_dir_all(&volume).unwrap();
        fs::create_dir_all(pod.join("containers/main")).unwrap();
        fs::create_dir_all(pod.join("plugins/kubernetes.io~empty-dir/scratch")).unwrap();
        for (path, size) in [
            (volume.join("file"), 100_000),
            (pod.join("etc-hosts"), 200_000),
            (pod.join("containers/main/0"), 300_000),
            (pod.join("plugins/kubernetes.io~empty-dir/scratch/ready"), 400_000),
        ] {
            atomic_write(&path, &vec![1; size], Durability::Rename, 0o600).unwrap();
        }
        let usage = of(&pod).unwrap();
        let [scratch] = usage.volumes.as_slice() else { panic!("{usage:?}") };
        assert_eq!((scratch.name.as_str(), scratch.used.inodes, scratch.on_disk), ("scratch", 2, true));
        assert!((100_000..200_000).contains(&scratch.used.bytes), "{scratch:?}");
        assert!(scratch.filesystem.bytes > 0 && scratch.used.complete);
        assert!((500_000..700_000).contains(&usage.files.bytes), "{usage:?}");
        assert_eq!((usage.files.inodes, usage.files.complete), (4, true), "etc-hosts, containers, main, 0");
    }

    #[test]
    fn a_volume_that_can_not_be_read_hides_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let kind = directory.path().join("volumes/kubernetes.io~empty-dir");
        fs::create_dir_all(kind.join("scratch")).unwrap();
        std::os::unix::fs::symlink("/", kind.join("broken")).unwrap();
        atomic_write(directory.path().join("etc-hosts"), &[1; 10_000], Durability::Rename, 0o600).unwrap();
        let usage = of(directory.path()).unwrap();
        assert_eq!(usage.volumes.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(), ["scratch"]);
        assert!(usage.files.bytes >= 10_000, "{usage:?}");
    }

    #[test]
    fn a_pod_without_a_folder_takes_nothing() {
        assert_eq!(of(Path::new("/nonexistent/pod")).unwrap(), PodUsage::default());
    }
}
