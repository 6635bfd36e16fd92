//! emptyDir: a folder that is empty when the pod starts, on the node's disk or in memory. The other kinds keep their
//! content in one.

use super::error::SetUpError;
use super::layout::PodFolder;
use super::ownership;
use crate::pod::Pod;
use crate::spec::{quantity, resources};
use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use sys::Errno;
use sys::at;
use sys::mount::{Fs, MountFlags};
use sys::rootfd::RootFd;

/// `TMPFS_MAGIC` of linux/magic.h.
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// What others than root may do above a volume: pass through, if they are in root's group.
const FOLDER_MODE: u32 = 0o750;

/// What a volume's folder lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Medium {
    /// The node's disk.
    Disk,
    /// A tmpfs of its own, of at most so many bytes; half of the memory without a size.
    Memory {
        /// Bytes.
        size: Option<u64>,
    },
}

/// The medium of an emptyDir, its size from [`memory_size`].
pub(super) fn medium(source: &EmptyDirVolumeSource, pod: &Pod, allocatable: &BTreeMap<String, Quantity>) -> Medium {
    match source.medium.as_deref() {
        Some("Memory") => Medium::Memory { size: memory_size(pod, allocatable, source.size_limit.as_ref()) },
        _ => Medium::Disk,
    }
}

/// The size of a tmpfs of the pod: the least of what the node can give, the pod's memory limit, and the volume's limit.
pub(super) fn memory_size(
    pod: &Pod,
    allocatable: &BTreeMap<String, Quantity>,
    size_limit: Option<&Quantity>,
) -> Option<u64> {
    let memory_limit = resources::pod_memory(pod).and_then(|limit| u64::try_from(limit).ok());
    let limits = [allocatable.get("memory").and_then(bytes), memory_limit, size_limit.and_then(bytes)];
    limits.into_iter().flatten().min()
}

/// A positive amount.
fn bytes(quantity: &Quantity) -> Option<u64> {
    quantity::units(quantity).ok().and_then(|units| u64::try_from(units).ok()).filter(|&units| units > 0)
}

/// Sets up an emptyDir, once: a mark beside it says that it is done, and its content is the pod's from then on.
pub(super) fn set_up(
    folder: &PodFolder,
    name: &str,
    path: &Path,
    medium: Medium,
    fs_group: Option<u32>,
) -> Result<(), SetUpError> {
    let mark = folder.ready_mark(name);
    if mark.exists() && is_there(path, medium) {
        return Ok(());
    }
    let volume = make(path, medium)?;
    if let Some(group) = fs_group {
        ownership::apply(&volume, group, false)?;
    }
    make_folders(mark.parent().unwrap_or(&mark))?;
    Ok(sys::fs::atomic_write(&mark, b"", sys::fs::Durability::Rename, 0o640)?)
}

/// Whether `path` is a folder on its medium; a tmpfs is gone after a reboot.
fn is_there(path: &Path, medium: Medium) -> bool {
    match (RootFd::open(path), medium) {
        (Ok(_), Medium::Disk) => true,
        (Ok(folder), Medium::Memory { .. }) => is_own_tmpfs(&folder, path).unwrap_or(false),
        (Err(_), _) => false,
    }
}

/// Makes a folder that every user may write to, and mounts a tmpfs on it where it shall lie in memory. What is there
/// stays.
pub(super) fn make(path: &Path, medium: Medium) -> sys::Result<RootFd> {
    make_folders(path.parent().unwrap_or(path))?;
    let directory = make_open_folder(path)?;
    let Medium::Memory { size } = medium else { return Ok(directory) };
    if is_own_tmpfs(&directory, path)? {
        return Ok(directory);
    }
    sys::mount::move_mount(&tmpfs(size)?, &directory)?;
    RootFd::open(path) // the mount, no longer the folder below it
}

/// Makes the folders above a volume.
pub(super) fn make_folders(path: &Path) -> sys::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(path)
        .map_err(|error| sys::Error::from_io("mkdir", &error, sys::error::quoted(path)))
}

fn make_open_folder(path: &Path) -> sys::Result<RootFd> {
    let parent = RootFd::open(path.parent().unwrap_or(path))?;
    let name = path.file_name().unwrap_or_default();
    match at::mkdirat(&parent, name, 0o777) {
        Err(error) if !error.is(Errno::EEXIST) => return Err(error),
        _ => {}
    }
    let directory = at::openat(&parent, name, at::OFlag::O_PATH | at::OFlag::O_DIRECTORY, 0)?;
    let mode = at::fstat(&directory)?.st_mode & 0o7777;
    if mode & 0o777 != 0o777 {
        at::fchmod(&directory, mode | 0o777)?; // past the umask
    }
    Ok(RootFd::from_fd(directory))
}

/// Whether a tmpfs is mounted on this very folder, not merely somewhere above it.
fn is_own_tmpfs(directory: &RootFd, path: &Path) -> sys::Result<bool> {
    let parent = RootFd::open(path.parent().unwrap_or(path))?;
    let mounted = at::fstat(directory)?.st_dev != at::fstat(&parent)?.st_dev;
    Ok(mounted && sys::mount::filesystem_magic(directory)? == TMPFS_MAGIC)
}

/// A detached tmpfs. Its pages are never written to a swap device where the kernel can promise that (Linux 6.4): a
/// Secret in it would be on the disk then.
fn tmpfs(size: Option<u64>) -> sys::Result<std::os::fd::OwnedFd> {
    let fs = Fs::open("tmpfs")?;
    fs.set_string("source", "tmpfs")?;
    if let Some(size) = size {
        fs.set_string("size", &size.to_string())?;
    }
    match fs.set_flag("noswap") {
        Err(error) if !error.is(Errno::EINVAL) => return Err(error), // EINVAL: the kernel does not know it
        _ => {}
    }
    fs.mount(MountFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::pod_of;
    use serde_json::json;
    use std::os::unix::fs::MetadataExt;

    fn check(spec: serde_json::Value, size_limit: Option<&str>, expected: u64) {
        let allocatable = BTreeMap::from([("memory".to_owned(), Quantity("1000".into()))]);
        let limit = size_limit.map(|limit| Quantity(limit.into()));
        assert_eq!(
            memory_size(&pod_of(spec.clone()), &allocatable, limit.as_ref()),
            Some(expected),
            "{spec} {size_limit:?}"
        );
    }

    #[test]
    fn a_tmpfs_is_as_large_as_the_least_limit() {
        let with = |memory: &str| json!({ "name": "c", "resources": { "limits": { "memory": memory } } });
        let without = json!({ "name": "c" });
        check(json!({ "containers": [without] }), None, 1000);
        check(json!({ "containers": [with("100"), with("50")] }), None, 150);
        check(json!({ "containers": [with("100"), without] }), None, 1000);
        check(json!({ "containers": [with("5000")] }), None, 1000);
        check(json!({ "containers": [with("100")] }), Some("70"), 70);
        check(json!({ "containers": [with("100")] }), Some("200"), 100);
        check(json!({ "containers": [with("100")] }), Some("0"), 100);
        check(json!({ "containers": [with("100")], "initContainers": [with("400")] }), None, 400);
        check(json!({ "containers": [with("100")], "initContainers": [without] }), None, 1000);
        let sidecar = json!({ "name": "s", "restartPolicy": "Always", "resources": { "limits": { "memory": "30" } } });
        check(json!({ "containers": [with("100")], "initContainers": [sidecar, with("80")] }), None, 130);
        check(json!({ "containers": [without], "resources": { "limits": { "memory": "60" } } }), None, 60);
        check(json!({ "containers": [with("100")], "overhead": { "memory": "7" } }), None, 107);
    }

    #[test]
    fn an_empty_dir_is_open_to_all_and_set_up_once() {
        let root = tempfile::tempdir().unwrap();
        let folder = PodFolder(root.path().join("pods/u"));
        let path = folder.volume(super::super::layout::Kind::EmptyDir, "v");
        set_up(&folder, "v", &path, Medium::Disk, None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o777);
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o750);
        assert!(root.path().join("pods/u/plugins/kubernetes.io~empty-dir/v/ready").exists());
        // What the pod did to it since stays.
        std::fs::File::create(path.join("file")).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        set_up(&folder, "v", &path, Medium::Disk, None).unwrap();
        assert!(path.join("file").exists());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_volume_that_was_deleted_under_its_mark_is_made_again() {
        let root = tempfile::tempdir().unwrap();
        let folder = PodFolder(root.path().join("pods/u"));
        let path = folder.volume(super::super::layout::Kind::EmptyDir, "v");
        set_up(&folder, "v", &path, Medium::Disk, None).unwrap();
        std::fs::remove_dir(&path).unwrap();
        set_up(&folder, "v", &path, Medium::Disk, None).unwrap();
        assert!(path.is_dir());
    }
}
