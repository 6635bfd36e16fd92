//! Logs of containers: the links by which log collectors find them, and which start the next one is.

use crate::pod::Pod;
use std::io;
use std::path::{Path, PathBuf};

/// The longest name of a link: a file name ends at 255 bytes, and `.log` belongs to it.
const MAX_STEM: usize = 251;

/// The link's path: `<folder>/<pod>_<namespace>_<container>-<id>.log`.
fn link_path(folder: &Path, pod: &Pod, container: &str, id: &str) -> PathBuf {
    let mut stem = format!("{}_{}_{container}-{id}", pod.name(), pod.namespace());
    stem.truncate(stem.floor_char_boundary(MAX_STEM));
    folder.join(format!("{stem}.log"))
}

/// Links a container's log. A log that is not there yet is not linked: the link would lead nowhere.
///
/// # Errors
/// The link can't be made.
pub(crate) fn link(folder: &Path, pod: &Pod, container: &str, id: &str, log: &Path) -> io::Result<()> {
    if !log.try_exists().unwrap_or(true) {
        return Ok(());
    }
    match std::os::unix::fs::symlink(log, link_path(folder, pod, container, id)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// The number after that of the newest log in a container's log folder; 0 if there is none.
pub(crate) fn next_restart_count(folder: &Path) -> u32 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    // `3.log`, and rotated ones: `3.log.20260101-000000`, `3.log.….gz`.
    let counts = names.filter_map(|name| name.split_once(".log")?.0.parse::<u32>().ok());
    counts.max().map_or(0, |newest| newest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn the_newest_log_says_which_start_is_next() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(next_restart_count(&folder.path().join("none")), 0);
        assert_eq!(next_restart_count(folder.path()), 0);
        for name in ["0.log", "2.log.20260101-000000.gz", "1.log", "other", "9.txt"] {
            File::create(folder.path().join(name)).unwrap();
        }
        assert_eq!(next_restart_count(folder.path()), 3);
    }
}
