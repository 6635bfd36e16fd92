//! Trees that are no longer wanted leave their place at once, by a rename, and their disk space a little later.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};

/// The folder of dying trees, and the thread that empties it. The thread ends when this is dropped.
pub(super) struct Trash {
    folder: PathBuf,
    next: AtomicU64,
    queue: Sender<OsString>,
}

impl Trash {
    /// Starts emptying `folder`, beginning with what a predecessor left.
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        let root = sys::rootfd::RootFd::open(&folder)?;
        let left: Vec<OsString> =
            fs::read_dir(&folder)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
        let highest = left.iter().filter_map(|name| name.to_str()?.parse::<u64>().ok()).max().unwrap_or(0);
        let (queue, incoming) = channel::<OsString>();
        std::thread::Builder::new().name("trash".into()).spawn(move || {
            for name in left.into_iter().chain(incoming) {
                if let Err(error) = sys::remove::remove_all(&root, &name) {
                    tracing::warn!(%error, "a removed layer keeps its space until the next start");
                }
            }
        })?;
        Ok(Self { folder, next: AtomicU64::new(highest + 1), queue })
    }

    /// Takes `path` (on the same file system) out of the way. What is not there is fine.
    pub(super) fn take(&self, path: &Path) {
        let name = OsString::from(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        match fs::rename(path, self.folder.join(&name)) {
            Ok(()) => drop(self.queue.send(name)), // without its thread, the next start removes it
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "a removed layer stays until the next start"),
        }
    }
}
