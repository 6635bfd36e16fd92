//! Logs that grew too large: renamed, the runtime told to begin a new one, older ones compressed, the oldest removed.
//!
//! Names are upstream's: `0.log` is written to, `0.log.20260101-120000` was before it, `0.log.20260101-110000.gz` before
//! that. Everything is done below the folder of the logs, by names in a folder that is open: who can write to logs can't
//! make us rename something else.

use super::Collector;
use crate::runtime::{ContainerState, RuntimeError};
use crate::table::Entry;
use flate2::Compression;
use flate2::write::GzEncoder;
use nix::dir::Dir;
use std::io;
use std::path::Path;
use sys::at::{self, RenameFlags};
use sys::rootfd::RootFd;

/// What an unfinished compression is called.
const UNFINISHED: &str = ".tmp";

/// Why a log was not rotated.
#[derive(Debug, thiserror::Error)]
enum RotateError {
    #[error("{0}")]
    File(#[from] sys::Error),
    #[error("compress {name}")]
    Compress {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Reopen(#[from] RuntimeError),
}

/// A container's log that is too large.
struct Large {
    /// Its folder.
    folder: RootFd,
    /// `0.log`.
    name: String,
}

impl Collector {
    /// Rotates the logs of running containers that are larger than they may be.
    pub(super) async fn rotate(&self) {
        for (id, log) in self.large_logs().await {
            let name = log.name.clone();
            if let Err(error) = self.rotate_one(&id, log).await {
                tracing::warn!(container = id, log = name, %error, "the log is not rotated");
            }
        }
    }

    /// The running containers whose logs are too large, by one look at all of them.
    async fn large_logs(&self) -> Vec<(String, Large)> {
        let running = |entry: Entry| {
            let containers = entry.observed.containers.iter();
            let running = containers.filter(|it| matches!(it.state, ContainerState::Running { .. }));
            running.map(|it| (it.id.clone(), it.log_path.clone())).collect::<Vec<_>>()
        };
        let logs: Vec<(String, String)> = self.table.list().into_iter().flat_map(running).collect();
        let (folder, limit) = (self.config.pod_logs.clone(), self.config.container_log_max_size);
        let look = move || {
            let found = logs.into_iter().map(|(id, path)| (id, large(&folder, Path::new(&path), limit), path));
            let large = found.filter_map(|(id, found, path)| match found {
                Ok(found) => found.map(|large| (id, large)),
                Err(error) => {
                    tracing::warn!(log = path, %error, "the log's size is not known");
                    None
                }
            });
            Ok(large.collect())
        };
        join(tokio::task::spawn_blocking(look).await).unwrap_or_default()
    }

    async fn rotate_one(&self, id: &str, large: Large) -> Result<(), RotateError> {
        let (keep, now) = (self.config.container_log_max_files, self.clock.now().wall);
        let clear = move || make_room(&large, keep).map(|()| large);
        let large = join(tokio::task::spawn_blocking(clear).await)?;
        let rotated = format!("{}.{}", large.name, now.strftime("%Y%m%d-%H%M%S"));
        let swap =
            |from: &str, to: &str| at::renameat(&large.folder, from, &large.folder, to, RenameFlags::RENAME_NOREPLACE);
        swap(&large.name, &rotated)?;
        if let Err(error) = self.runtime.reopen_log(id).await {
            // The runtime goes on writing to the file that it has: it gets its name back.
            swap(&rotated, &large.name)?;
            return Err(error.into());
        }
        Ok(())
    }
}

fn join<T>(outcome: Result<Result<T, RotateError>, tokio::task::JoinError>) -> Result<T, RotateError> {
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// The log, if it is larger than `limit`. Blocks.
fn large(logs: &Path, log: &Path, limit: u64) -> Result<Option<Large>, RotateError> {
    // A log elsewhere is not ours to rotate.
    let Ok(below) = log.strip_prefix(logs) else { return Ok(None) };
    let (Some(parent), Some(name)) = (below.parent(), below.file_name().and_then(|name| name.to_str())) else {
        return Ok(None);
    };
    let folder = RootFd::from_fd(RootFd::open(logs)?.open_dir(parent)?);
    match folder.symlink_metadata(Path::new(name)) {
        Ok(found) if found.is_file() && found.len() > limit => Ok(Some(Large { folder, name: name.to_owned() })),
        Ok(_) => Ok(None),
        Err(error) if error.is(sys::Errno::ENOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes the oldest and compresses what is not compressed, so that with the new one and the one that is rotated now
/// there are `keep` files at most. Blocks.
fn make_room(log: &Large, keep: u32) -> Result<(), RotateError> {
    let mut rotated = rotated(log)?;
    for unfinished in rotated.extract_if(.., |name| name.ends_with(UNFINISHED)) {
        log.folder.remove_file(Path::new(&unfinished))?;
    }
    let room = usize::try_from(keep.saturating_sub(2)).unwrap_or(usize::MAX);
    let excess = rotated.len().saturating_sub(room);
    for oldest in rotated.drain(..excess) {
        log.folder.remove_file(Path::new(&oldest))?;
    }
    for plain in rotated.iter().filter(|name| !name.ends_with(".gz")) {
        compress(&log.folder, plain).map_err(|source| RotateError::Compress { name: plain.clone(), source })?;
    }
    Ok(())
}

/// Rotated files of this log, oldest first: their names begin with the time.
fn rotated(log: &Large) -> Result<Vec<String>, RotateError> {
    let prefix = format!("{}.", log.name);
    let mut names: Vec<String> = names(&log.folder)?.into_iter().filter(|name| name.starts_with(&prefix)).collect();
    names.sort();
    Ok(names)
}

/// The names in an open folder.
fn names(folder: &RootFd) -> Result<Vec<String>, sys::Error> {
    let listed = |errno| sys::Error::new("getdents64", errno, sys::error::fd(folder));
    let listing = Dir::from_fd(folder.open_dir(Path::new("."))?).map_err(listed)?;
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.map_err(listed)?;
        names.extend(entry.file_name().to_str().map(str::to_owned).ok());
    }
    Ok(names)
}

fn compress(folder: &RootFd, name: &str) -> io::Result<()> {
    let unfinished = format!("{name}{UNFINISHED}");
    let finished = format!("{name}.gz");
    let mut plain = folder.open_read(Path::new(name))?;
    let target = folder.create_file(Path::new(&unfinished), 0o640)?;
    let mut encoder = GzEncoder::new(target, Compression::default());
    io::copy(&mut plain, &mut encoder)?;
    encoder.finish()?;
    at::renameat(folder, &*unfinished, folder, &*finished, RenameFlags::empty())?;
    folder.remove_file(Path::new(name))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    fn log(folder: &Path, files: &[&str]) -> Large {
        for name in files {
            File::create(folder.join(name)).unwrap().write_all(name.as_bytes()).unwrap();
        }
        Large { folder: RootFd::open(folder).unwrap(), name: "0.log".to_owned() }
    }

    /// The files that are left when room was made for one more.
    fn left(files: &[&str], keep: u32) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path(), files);
        make_room(&log, keep).unwrap();
        let mut left = names(&log.folder).unwrap();
        left.retain(|name| !matches!(name.as_str(), "." | ".."));
        left.sort();
        left
    }

    #[test]
    fn the_oldest_go_and_the_others_are_compressed() {
        let files = ["0.log", "0.log.20260101-000000.gz", "0.log.20260102-000000", "0.log.20260103-000000", "1.log"];
        let expected = ["0.log", "0.log.20260102-000000.gz", "0.log.20260103-000000.gz", "1.log"];
        assert_eq!(left(&files, 4), expected);
        assert_eq!(left(&files, 2), ["0.log", "1.log"]);
    }

    #[test]
    fn an_unfinished_compression_is_begun_again() {
        let files = ["0.log", "0.log.20260102-000000", "0.log.20260102-000000.tmp"];
        assert_eq!(left(&files, 5), ["0.log", "0.log.20260102-000000.gz"]);
    }

    #[test]
    fn what_is_compressed_is_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path(), &["0.log.1"]);
        compress(&log.folder, "0.log.1").unwrap();
        let mut text = String::new();
        let file = File::open(folder.path().join("0.log.1.gz")).unwrap();
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        assert_eq!(text, "0.log.1");
    }

    #[test]
    fn only_a_file_that_is_too_large_is_rotated_and_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path();
        std::fs::create_dir(logs.join("web")).unwrap();
        File::create(logs.join("web/0.log")).unwrap().write_all(&[0; 100]).unwrap();
        std::os::unix::fs::symlink("0.log", logs.join("web/1.log")).unwrap();
        let is_large = |name: &str, limit| large(logs, &logs.join(name), limit).unwrap().is_some();
        assert!(is_large("web/0.log", 99));
        assert!(!is_large("web/0.log", 100));
        assert!(!is_large("web/1.log", 99), "a link");
        assert!(!is_large("web/2.log", 0), "not there");
        assert!(large(logs, Path::new("/etc/passwd"), 0).unwrap().is_none(), "elsewhere");
    }
}
