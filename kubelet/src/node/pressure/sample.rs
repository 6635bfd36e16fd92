//! What is left of memory, disk and process ids.

use super::{Reading, Sample, Signal};
use crate::cgroups::Cgroups;
use crate::runtime::Runtime;
use futures_util::future::BoxFuture;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the runtime may take to say where images are: one that is slow for want of memory must not hide that.
const RUNTIME_DEADLINE: Duration = Duration::from_secs(2);

/// Reads what is left. The machine does; tests say what they want.
pub(in crate::node) trait Sampler: Send + Sync + 'static {
    /// One round.
    fn sample(&self) -> BoxFuture<'_, Sample>;
}

/// This machine.
pub(in crate::node) struct MachineSampler {
    /// The kubelet's folder: nodefs is the file system that it is on.
    pub(in crate::node) root: PathBuf,
    /// Where images are.
    pub(in crate::node) images: ImageStore,
    /// Know what is used.
    pub(in crate::node) cgroups: Arc<Cgroups>,
    /// Memory of the machine in bytes.
    pub(in crate::node) memory_bytes: u64,
}

impl Sampler for MachineSampler {
    fn sample(&self) -> BoxFuture<'_, Sample> {
        Box::pin(async {
            let images = self.images.mountpoint().await;
            let (root, cgroups, memory) = (self.root.clone(), Arc::clone(&self.cgroups), self.memory_bytes);
            let read = tokio::task::spawn_blocking(move || read(&root, images.as_deref(), &cgroups, memory));
            // A panic in there leaves this round without readings; it was reported where it happened.
            read.await.unwrap_or_default()
        })
    }
}

/// Where images are, as the runtime says.
pub(in crate::node) struct ImageStore {
    runtime: Arc<dyn Runtime>,
    /// Its last answer, for while it gives none.
    last: Mutex<Option<PathBuf>>,
}

impl ImageStore {
    /// That of this runtime.
    pub(in crate::node) fn new(runtime: Arc<dyn Runtime>) -> ImageStore {
        ImageStore { runtime, last: Mutex::default() }
    }

    async fn mountpoint(&self) -> Option<PathBuf> {
        let answer = tokio::time::timeout(RUNTIME_DEADLINE, self.runtime.image_fs()).await;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(Ok(info)) => {
                *last = info.image_filesystems.into_iter().next().and_then(|fs| Some(fs.fs_id?.mountpoint.into()));
            }
            Ok(Err(error)) => tracing::debug!(%error, "the runtime does not say where images are"),
            Err(_) => tracing::debug!("the runtime does not say in time where images are"),
        }
        last.clone()
    }
}

fn read(root: &Path, images: Option<&Path>, cgroups: &Cgroups, memory: u64) -> Sample {
    let mut sample = Sample::new();
    if let Some(usage) = cgroups.node_usage() {
        let available = memory.saturating_sub(usage.working_set);
        sample.insert(Signal::Memory, Reading { available, capacity: memory });
    }
    if let Some(usage) = cgroups.pods_usage()
        && let Some(limit) = usage.memory_limit.filter(|limit| *limit <= memory)
    {
        let available = limit.saturating_sub(usage.working_set);
        sample.insert(Signal::AllocatableMemory, Reading { available, capacity: limit });
    }
    storage(&mut sample, root, Signal::NodeStorage, Signal::NodeInodes);
    if let Some(images) = images {
        storage(&mut sample, images, Signal::ImageStorage, Signal::ImageInodes);
    }
    let knob = |path| sys::fs::read_knob(path).ok();
    if let Some(reading) =
        pids(knob("/proc/sys/kernel/pid_max"), knob("/proc/sys/kernel/threads-max"), knob("/proc/loadavg"))
    {
        sample.insert(Signal::Pids, reading);
    }
    sample
}

fn storage(sample: &mut Sample, path: &Path, bytes: Signal, inodes: Signal) {
    let usage = std::fs::File::open(path)
        .map_err(|error| error.to_string())
        .and_then(|folder| sys::fs::usage(&folder).map_err(|error| error.to_string()));
    let usage = match usage {
        Ok(usage) => usage,
        Err(error) => {
            tracing::warn!(path = %path.display(), error, "a file system could not be measured");
            return;
        }
    };
    sample.insert(bytes, Reading { available: usage.bytes_available, capacity: usage.bytes });
    // Some file systems don't count inodes: they never run out.
    if usage.inodes > 0 {
        sample.insert(inodes, Reading { available: usage.inodes_free, capacity: usage.inodes });
    }
}

/// Process ids: the smaller one of the kernel's two limits, less the tasks that `loadavg` counts (`0.0 0.0 0.0 1/234 567`).
fn pids(pid_max: Option<String>, threads_max: Option<String>, loadavg: Option<String>) -> Option<Reading> {
    let limit = |text: Option<String>| text?.trim().parse::<u64>().ok();
    let capacity = limit(pid_max)?.min(limit(threads_max).unwrap_or(u64::MAX));
    let tasks: u64 = loadavg?.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some(Reading { available: capacity.saturating_sub(tasks), capacity })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::fakes::runtime::FakeRuntime;

    #[test]
    fn process_ids_are_limited_twice() {
        let some = |text: &str| Some(text.to_owned());
        let load = || some("0.20 0.18 0.12 1/80 11206\n");
        let left = |available, capacity| Some(Reading { available, capacity });
        assert_eq!(pids(some("32768\n"), some("1000\n"), load()), left(920, 1000));
        assert_eq!(pids(some("100\n"), None, load()), left(20, 100));
        assert_eq!(pids(some("50\n"), None, load()), left(0, 50));
        assert_eq!(pids(None, None, load()), None);
        assert_eq!(pids(some("1"), None, some("nonsense")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_hangs_holds_up_a_round_for_a_moment_only_and_images_stay_where_they_were() {
        let runtime = FakeRuntime::new(Clock::system());
        let fs_id = Some(proto::FilesystemIdentifier { mountpoint: "/images".to_owned() });
        let usage = proto::FilesystemUsage { fs_id, ..Default::default() };
        runtime.state().image_fs.image_filesystems.push(usage);
        let images = ImageStore::new(Arc::new(runtime.clone()));
        assert_eq!(images.mountpoint().await, Some("/images".into()));
        runtime.state().stats_hang = true;
        let began = tokio::time::Instant::now();
        assert_eq!(images.mountpoint().await, Some("/images".into()));
        assert_eq!(began.elapsed().as_secs(), RUNTIME_DEADLINE.as_secs());
    }

    #[test]
    fn a_file_system_is_measured_and_a_missing_one_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut sample = Sample::new();
        storage(&mut sample, folder.path(), Signal::NodeStorage, Signal::NodeInodes);
        let reading = sample[&Signal::NodeStorage];
        assert!(reading.capacity > 0 && reading.available <= reading.capacity, "{reading:?}");
        storage(&mut sample, &folder.path().join("none"), Signal::ImageStorage, Signal::ImageInodes);
        assert!(!sample.contains_key(&Signal::ImageStorage));
    }
}
