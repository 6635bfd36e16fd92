//! Opening a container's log. Anything below `/var/log/pods` may have been planted: a pod that mounts `/var/log` can
//! replace a log, or the folder it lies in, by a link to a file of the host, and `kubectl logs` would read it aloud.
//! So no link is followed below that folder, and nothing but a regular file is opened.

use nix::fcntl::OFlag;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use sys::rootfd::RootFd;

/// Where a log lies: a folder that we trust, and a plain path below it that we do not.
#[derive(Debug, Clone)]
pub(super) struct Location {
    /// `/var/log/pods`.
    pub(super) root: PathBuf,
    /// `<namespace>_<pod>_<uid>/<container>/<restarts>.log`.
    pub(super) path: PathBuf,
}

impl Location {
    /// Opens the log as it is now.
    pub(super) fn open(&self) -> io::Result<File> {
        let root = RootFd::open(&self.root).map_err(io::Error::other)?;
        let handle = root.open_path_no_symlinks(&self.path).map_err(io::Error::other)?;
        if sys::at::file_type(&sys::at::fstat(&handle).map_err(io::Error::other)?) != nix::sys::stat::SFlag::S_IFREG {
            return Err(io::Error::other("not a regular file"));
        }
        let how = OFlag::O_RDONLY | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
        Ok(File::from(sys::at::reopen(&handle, how).map_err(io::Error::other)?))
    }

    /// The log under its name if that is another file than `current` by now: it was rotated.
    pub(super) fn successor(&self, current: &File) -> Option<File> {
        let newer = self.open().ok()?;
        let same = sys::at::same_file(current, &newer).unwrap_or(true);
        (!same).then_some(newer)
    }

    /// The whole path, for a message.
    pub(super) fn display(&self) -> String {
        self.root.join(&self.path).display().to_string()
    }
}

/// Whether a name is one plain component of a path.
pub(super) fn is_component(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']) && Path::new(name).is_relative()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::symlink;

    const LOG: &str = "ns_pod_uid/c/0.log";

    fn fill(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// A folder of logs with one log, and beside it a host with a secret at a path of the same form.
    fn fixture() -> (tempfile::TempDir, Location) {
        let dir = tempfile::tempdir().unwrap();
        fill(&dir.path().join("host/c/0.log"), "secret of the host");
        fill(&dir.path().join("pods").join(LOG), "mine");
        let root = dir.path().join("pods");
        (dir, Location { root, path: LOG.into() })
    }

    fn read(location: &Location) -> io::Result<String> {
        let mut text = String::new();
        location.open()?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn a_plain_log_is_read() {
        assert_eq!(read(&fixture().1).unwrap(), "mine");
    }

    #[test]
    fn a_link_in_the_place_of_the_log_is_not_followed() {
        for target in ["../../../host/c/0.log", "../../ns_other_uid/c/0.log", "/ns_other_uid/c/0.log"] {
            let (dir, location) = fixture();
            fill(&dir.path().join("pods/ns_other_uid/c/0.log"), "secret of a neighbour");
            let log = dir.path().join("pods").join(LOG);
            std::fs::remove_file(&log).unwrap();
            symlink(target, &log).unwrap();
            assert!(read(&location).is_err(), "{target}");
        }
    }

    #[test]
    fn a_link_in_the_place_of_a_folder_is_not_followed() {
        for planted in ["ns_pod_uid/c", "ns_pod_uid"] {
            let (dir, location) = fixture();
            let folder = dir.path().join("pods").join(planted);
            std::fs::rename(&folder, dir.path().join("moved")).unwrap();
            let target = if planted.ends_with("/c") { "host/c" } else { "host" };
            symlink(dir.path().join(target), &folder).unwrap();
            assert!(read(&location).is_err(), "{planted}");
        }
    }

    #[test]
    fn a_fifo_does_not_block_us() {
        let (dir, location) = fixture();
        let log = dir.path().join("pods").join(LOG);
        std::fs::remove_file(&log).unwrap();
        nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read(&location).is_err());
    }

    #[test]
    fn a_rotated_log_has_a_successor() {
        let (dir, location) = fixture();
        let current = location.open().unwrap();
        assert!(location.successor(&current).is_none());
        let log = dir.path().join("pods").join(LOG);
        std::fs::rename(&log, log.with_extension("log.1")).unwrap();
        assert!(location.successor(&current).is_none());
        fill(&log, "new");
        assert!(location.successor(&current).is_some());
    }

    #[test]
    fn only_single_components_make_a_path() {
        for name in ["", ".", "..", "a/b", "/", "a\0"] {
            assert!(!is_component(name), "{name:?}");
        }
        assert!(is_component("ns_pod-1.2_uid"));
    }
}
