//! What the writable layers take on disk: counted in the background, read from memory.

use crate::pods::Pods;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// One count of one writable layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// When it was counted, nanoseconds since 1970.
    pub(crate) timestamp: i64,
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// The last counts, by container.
#[derive(Debug, Default)]
pub(crate) struct Usage(Mutex<HashMap<String, Taken>>);

impl Usage {
    /// The last count; a container that was not counted yet has an empty layer, as of its creation.
    pub(crate) fn of(&self, container: &str, created_at: i64) -> Taken {
        let usage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        usage.get(container).copied().unwrap_or(Taken { timestamp: created_at, ..Taken::default() })
    }

    /// All of them together.
    pub(crate) fn total(&self) -> Taken {
        let usage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        usage.values().fold(Taken::default(), |sum, taken| Taken {
            timestamp: sum.timestamp.max(taken.timestamp),
            bytes: sum.bytes + taken.bytes,
            inodes: sum.inodes + taken.inodes,
        })
    }

    pub(crate) fn forget(&self, container: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(container);
    }

    fn set(&self, container: &str, taken: Taken) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(container.to_owned(), taken);
    }
}

/// Counts all writable layers again and again, one after the other, for as long as the daemon runs.
pub(crate) async fn count(pods: Arc<Pods>) {
    let mut tick = tokio::time::interval(pods.config.usage_interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let counter = Arc::clone(&pods);
        let counted = tokio::task::spawn_blocking(move || {
            for container in counter.containers.all() {
                let layer = counter.container_records.dir_of(&container.id).join("fs");
                let mut taken = Taken { timestamp: crate::host::now(), ..Taken::default() };
                walk(&layer, &mut taken);
                counter.usage.set(&container.id, taken);
                // It may have been removed while we walked.
                if counter.containers.get(&container.id).is_err() {
                    counter.usage.forget(&container.id);
                }
            }
        });
        if let Err(error) = counted.await {
            tracing::error!(error = crate::failure::chain(&error), "count writable layers");
        }
    }
}

/// Adds what is below `dir`; what vanishes meanwhile does not count. Links are not followed.
fn walk(dir: &Path, taken: &mut Taken) {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            taken.bytes += metadata.blocks() * 512;
            taken.inodes += 1;
            if metadata.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_directories_are_counted_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::io::Write::write_all(&mut std::fs::File::create(dir.path().join("a/b")).unwrap(), &[1; 8192]).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("usr")).unwrap();
        let mut taken = Taken::default();
        walk(dir.path(), &mut taken);
        assert_eq!(taken.inodes, 3);
        assert!((8192..1_000_000).contains(&taken.bytes), "{taken:?}");
    }
}
