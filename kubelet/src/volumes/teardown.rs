//! Takes a pod's volumes down from what is on disk alone: the object may be gone, and the kubelet may be a new process.
//!
//! First everything that is mounted below the pod's folder goes, the innermost first, whoever mounted it; then the
//! trees, by fd, links never followed and no mount ever entered (CVE-2017-1002102). What fails stays, is named, and
//! does not stop the rest; doing it again goes on where it ended.

use super::layout::{PLUGINS, SUBPATHS, VOLUMES};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use sys::Errno;
use sys::at;
use sys::mountinfo::MountInfo;
use sys::rootfd::RootFd;

/// Everything that could not be taken down.
#[derive(Debug, thiserror::Error)]
pub(super) struct TeardownError(Vec<Failure>);

impl fmt::Display for TeardownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failures: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&failures.join("; "))
    }
}

/// One thing that stays.
#[derive(Debug)]
struct Failure {
    path: PathBuf,
    cause: sys::Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.cause)
    }
}

/// A process that uses a mount.
#[derive(Debug, PartialEq, Eq)]
struct Holder {
    pid: u32,
    command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.command)
    }
}

/// How many of them a warning names.
const MAX_HOLDERS: usize = 5;

/// Takes down all volumes of the pod whose folder this is. A folder that is not there is fine.
pub(super) fn take_down(folder: &Path) -> Result<(), TeardownError> {
    let fail = |cause| TeardownError(vec![Failure { path: folder.to_owned(), cause }]);
    let folder = match std::fs::canonicalize(folder) {
        Ok(folder) => folder, // as the mount table names it
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(sys::Error::from_io("realpath", &error, sys::error::quoted(folder)))),
    };
    let root = RootFd::open(&folder).map_err(fail)?;
    let mut failures = unmount_all(&root, &folder).map_err(fail)?;
    // Volumes lie two folders deep (`kind/name`), bound subPaths three (`volume/container/index`).
    for (path, depth) in [(SUBPATHS, 3), (VOLUMES, 2), (PLUGINS, 2)] {
        remove(&root, &folder, Path::new(path), depth, &mut failures);
    }
    if failures.is_empty() { Ok(()) } else { Err(TeardownError(failures)) }
}

/// The mounts of the pod's folder, innermost first.
fn unmount_all(root: &RootFd, folder: &Path) -> sys::Result<Vec<Failure>> {
    let mounts = sys::mountinfo::read()?;
    let failed = in_rounds(order(&mounts, folder), |path| unmount(root, folder, path));
    let failures = failed.into_iter().map(|(path, cause)| {
        if cause.is(Errno::EBUSY) {
            // For whoever runs the node: the text of the failure goes to the pod's owner.
            let holders: Vec<_> = holders(path).iter().map(ToString::to_string).collect();
            tracing::warn!(path = %path.display(), "a mount is in use, held by {}", holders.join(", "));
        }
        Failure { path: path.to_owned(), cause }
    });
    Ok(failures.collect())
}

/// Does something with each path, and again with those where it failed for as long as that helps: a mount that was moved
/// stands in the table where its number puts it, perhaps before what lies on it.
fn in_rounds<E>(mut paths: Vec<&Path>, mut unmount: impl FnMut(&Path) -> Result<(), E>) -> Vec<(&Path, E)> {
    loop {
        let tried = paths.len();
        let failed: Vec<_> = paths.into_iter().filter_map(|path| Some((path, unmount(path).err()?))).collect();
        if failed.is_empty() || failed.len() == tried {
            return failed;
        }
        paths = failed.into_iter().map(|(path, _)| path).collect();
    }
}

/// Later mounts lie on or in earlier ones, so the table's order backwards is safe.
fn order<'a>(mounts: &'a [MountInfo], folder: &Path) -> Vec<&'a Path> {
    let below = |mount: &&MountInfo| mount.is_under(folder) && mount.mount_point != folder;
    mounts.iter().rev().filter(below).map(|mount| mount.mount_point.as_path()).collect()
}

fn unmount(root: &RootFd, folder: &Path, path: &Path) -> sys::Result<()> {
    let relative = path.strip_prefix(folder).unwrap_or(path);
    let parent = relative.parent().unwrap_or(Path::new(""));
    let name = relative.file_name().unwrap_or_default();
    // No link on the way: a mount point inside of a volume has a path that the pod could change.
    match root.open_path_no_symlinks(parent).and_then(|parent| sys::mount::umount_idle_at(&parent, name)) {
        Err(error) if matches!(error.errno(), Errno::EINVAL | Errno::ENOENT) => Ok(()), // gone by itself
        result => result,
    }
}

/// Removes the trees that lie `depth` folders below `path`, each for itself, and then the folders that are empty.
fn remove(root: &RootFd, folder: &Path, path: &Path, depth: u32, failures: &mut Vec<Failure>) {
    if let Err(cause) = try_remove(root, folder, path, depth, failures) {
        failures.push(Failure { path: folder.join(path), cause });
    }
}

fn try_remove(root: &RootFd, folder: &Path, path: &Path, depth: u32, failures: &mut Vec<Failure>) -> sys::Result<()> {
    let parent = match root.open_path_no_symlinks(path.parent().unwrap_or(Path::new(""))) {
        Err(error) if error.is(Errno::ENOENT) => return Ok(()),
        parent => parent?,
    };
    let name = path.file_name().unwrap_or_default();
    match at::fstatat(&parent, name) {
        Ok(stat) if depth > 0 && at::file_type(&stat) == at::SFlag::S_IFDIR => {}
        Ok(_) => return sys::remove::remove_all(&parent, name),
        Err(error) if error.is(Errno::ENOENT) => return Ok(()),
        Err(error) => return Err(error),
    }
    let before = failures.len();
    for name in super::atomic_writer::names(root, path)? {
        remove(root, folder, &path.join(name), depth - 1, failures);
    }
    if failures.len() > before { Ok(()) } else { at::rmdirat(&parent, name) }
}

/// The processes that have a file, their working directory or their root below a mount point. Reads links only: a stat
/// could hang on the very mount.
fn holders(mount_point: &Path) -> Vec<Holder> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let pids = processes.filter_map(|entry| number(entry.ok()?)).filter(|&pid| uses(pid, mount_point));
    pids.take(MAX_HOLDERS).map(|pid| Holder { pid, command: command(pid) }).collect()
}

fn uses(pid: u32, mount_point: &Path) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let files = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
    let links = ["cwd", "root", "exe"].map(|name| process.join(name));
    links.into_iter().chain(files).any(|link| std::fs::read_link(link).is_ok_and(|to| to.starts_with(mount_point)))
}

fn command(pid: u32) -> String {
    let name = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    sys::error::quoted(OsStr::from_bytes(name.trim_ascii_end())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A pod's folder with one volume, beside a canary that must stay.
    fn fixture() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let (pod, canary) = (directory.path().join("pods/u"), directory.path().join("canary"));
        fs::create_dir_all(pod.join("volumes/kubernetes.io~empty-dir/v/deep/er")).unwrap();
        fs::create_dir_all(pod.join("plugins/kubernetes.io~empty-dir/v")).unwrap();
        fs::create_dir_all(pod.join("volume-subpaths/v/c/0")).unwrap();
        fs::create_dir_all(pod.join("containers/c")).unwrap();
        fs::create_dir_all(canary.join("dir")).unwrap();
        fs::File::create(canary.join("file")).unwrap();
        (directory, pod, canary)
    }

    fn names(path: &Path) -> Vec<String> {
        let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn volumes_go_and_the_pods_other_files_stay() {
        let (_keep, pod, _) = fixture();
        take_down(&pod).unwrap();
        assert_eq!(names(&pod), ["containers"]);
        take_down(&pod).unwrap();
        take_down(&pod.join("never")).unwrap();
    }

    /// SYM: a link wherever the kubelet deletes as root. Mutant: `remove_all` follows, or `names` of a link is listed.
    #[test]
    fn what_links_in_a_volume_lead_to_stays() {
        let (_keep, pod, canary) = fixture();
        for kind in ["empty-dir", "secret", "configmap", "projected", "downward-api"] {
            let volume = pod.join(format!("volumes/kubernetes.io~{kind}/w"));
            fs::create_dir_all(&volume).unwrap();
            symlink(&canary, volume.join("..data")).unwrap();
            symlink(canary.join("file"), volume.join("key")).unwrap();
            symlink(&canary, pod.join(format!("volumes/kubernetes.io~{kind}/link"))).unwrap();
        }
        symlink(&canary, pod.join("volumes/kubernetes.io~nfs")).unwrap();
        symlink(&canary, pod.join("volume-subpaths/v/c/1")).unwrap();
        symlink(&canary, pod.join("volume-subpaths/w")).unwrap();
        take_down(&pod).unwrap();
        assert_eq!(names(&canary), ["dir", "file"]);
        assert_eq!(names(&pod), ["containers"]);
    }

    #[test]
    fn mounts_go_innermost_first_and_only_those_of_the_pod() {
        let line = |id: u32, path: &str| format!("{id} 1 0:1 / {path} rw - tmpfs tmpfs rw\n");
        let paths = ["/pods/u/v", "/pods/u2/v", "/pods/u", "/pods/u/v/inner", "/pods/u/v", "/elsewhere"];
        let table: String = (1..).zip(paths).map(|(id, path)| line(id, path)).collect();
        let mounts = sys::mountinfo::parse(table.as_bytes()).unwrap();
        let expected = ["/pods/u/v", "/pods/u/v/inner", "/pods/u/v"].map(Path::new);
        assert_eq!(order(&mounts, Path::new("/pods/u")), expected);
    }

    #[test]
    fn what_is_in_the_way_of_another_is_tried_again_once_that_is_gone() {
        let paths = ["/outer", "/inner", "/stuck"].map(Path::new);
        let mut tries = Vec::new();
        let failed = in_rounds(paths.to_vec(), |path| {
            let inner_is_there = !tries.contains(&"/inner".to_owned());
            tries.push(path.display().to_string());
            match path.to_str() {
                Some("/outer") if inner_is_there => Err("busy"),
                Some("/stuck") => Err("stuck"),
                _ => Ok(()),
            }
        });
        assert_eq!(failed, [(Path::new("/stuck"), "stuck")]);
        assert_eq!(tries, ["/outer", "/inner", "/stuck", "/outer", "/stuck", "/stuck"]);
    }

    #[test]
    fn a_process_with_an_open_file_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(directory.path()).unwrap();
        assert_eq!(holders(&path), []);
        let _file = fs::File::create(path.join("file")).unwrap();
        let holders = holders(&path);
        assert_eq!(holders.iter().map(|holder| holder.pid).collect::<Vec<_>>(), [std::process::id()]);
        assert!(!holders[0].command.is_empty());
    }
}
