//! One pass: what the runtime, the cgroups and the machine say now.

use super::Inputs;
use super::build::number;
use super::machine::{self, Machine};
use super::snapshot::{ContainerReading, FsReading, PodReading, Snapshot};
use crate::cgroups::Cgroups;
use crate::runtime::{ContainerState, Result};
use crate::table::Entry;
use proto::{ContainerStats, FilesystemUsage, LinuxPodSandboxStats, UInt64Value};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use sys::rootfd::RootFd;

/// How many files of a container's logs are counted; rotation keeps a handful.
const LOG_FILES: u64 = 1000;
/// Readings closer together than this say little about a rate, in nanoseconds.
const SHORTEST: i64 = 500_000_000;
/// The machine among [`Rates`]: no container has this id.
const MACHINE: &str = "/";

/// The CPU time of everything at the last pass, to derive how many cores are in use.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<String, Reading>>);

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: i64,
    total_ns: u64,
    nano_cores: Option<u64>,
}

impl Rates {
    /// Billionths of a core in use since the reading before; none at the first.
    fn nano_cores(&self, id: &str, at: i64, total_ns: u64) -> Option<u64> {
        let mut readings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = readings.get(id).copied();
        let nano_cores = match before {
            Some(before) if at > before.at && at - before.at < SHORTEST => return before.nano_cores,
            // After the clock was set back it is a first reading.
            Some(before) if at > before.at => {
                let spent = u128::from(total_ns.saturating_sub(before.total_ns));
                let elapsed = u128::from((at - before.at).unsigned_abs());
                u64::try_from(spent * 1_000_000_000 / elapsed).ok()
            }
            _ => None,
        };
        readings.insert(id.to_owned(), Reading { at, total_ns, nano_cores });
        nano_cores
    }

    /// Forgets what was not read since `at`.
    fn forget_older(&self, at: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, reading| reading.at >= at);
    }
}

/// Looks at everything.
pub(super) async fn run(inputs: &Inputs, rates: &Rates) -> Snapshot {
    let now = inputs.clock.now();
    let runtime = &inputs.runtime;
    let (containers, sandboxes, images) =
        tokio::join!(runtime.container_stats(), runtime.sandbox_stats(), runtime.image_fs());
    let images = images.unwrap_or_default();
    let error = containers.as_ref().err().map(|error| error.message.clone());
    let found = Found {
        entries: inputs.table.list(),
        containers: by_id(containers),
        sandboxes: sandboxes
            .unwrap_or_default()
            .into_iter()
            .filter_map(|s| Some((s.attributes?.id, s.linux?)))
            .collect(),
        images: images.image_filesystems.into_iter().next(),
        layers: images.container_filesystems.into_iter().next(),
        root: inputs.root.clone(),
        pod_logs: inputs.pod_logs.clone(),
        cgroups: inputs.cgroups.clone(),
    };
    // Files of /proc are quick; those of a disk may not be.
    let read = tokio::task::spawn_blocking(move || found.read()).await;
    let Ok(mut read) = read else { return empty(now, "the machine could not be read".to_owned()) };
    let at = i64::try_from(now.wall.as_nanosecond()).unwrap_or_default();
    let nano_cores = read.machine.cpu_ns.and_then(|total| rates.nano_cores(MACHINE, at, total));
    for pod in &mut read.pods {
        fill_rates(pod, rates);
    }
    rates.forget_older(at - 600 * 1_000_000_000);
    Snapshot {
        at: now.wall,
        mono: now.mono,
        machine: read.machine,
        nano_cores,
        node_fs: read.node_fs,
        images: read.images,
        containers: read.containers,
        all_pods: read.all_pods,
        pods: read.pods,
        error,
    }
}

fn empty(now: crate::clock::Now, error: String) -> Snapshot {
    Snapshot {
        at: now.wall,
        mono: now.mono,
        machine: Machine::default(),
        nano_cores: None,
        node_fs: None,
        images: None,
        containers: None,
        all_pods: None,
        pods: Vec::new(),
        error: Some(error),
    }
}

fn by_id(stats: Result<Vec<ContainerStats>>) -> HashMap<String, ContainerStats> {
    let stats = stats.unwrap_or_default().into_iter();
    stats.filter_map(|one| Some((one.attributes.as_ref()?.id.clone(), one))).collect()
}

/// A runtime need not derive rates; then we do.
fn fill_rates(pod: &mut PodReading, rates: &Rates) {
    let of_pod =
        pod.sandbox.as_mut().and_then(|sandbox| sandbox.cpu.as_mut()).map(|cpu| (format!("pod/{}", pod.uid), cpu));
    let of_containers =
        pod.containers.iter_mut().filter_map(|one| Some((format!("container/{}", one.id), one.stats.cpu.as_mut()?)));
    for (id, cpu) in of_pod.into_iter().chain(of_containers) {
        let Some(total) = number(cpu.usage_core_nano_seconds) else { continue };
        let rate = rates.nano_cores(&id, cpu.timestamp, total);
        cpu.usage_nano_cores = cpu.usage_nano_cores.or(rate.map(|value| UInt64Value { value }));
    }
}

/// What is known before files are read.
struct Found {
    entries: Vec<Entry>,
    containers: HashMap<String, ContainerStats>,
    sandboxes: HashMap<String, LinuxPodSandboxStats>,
    images: Option<FilesystemUsage>,
    layers: Option<FilesystemUsage>,
    root: PathBuf,
    pod_logs: PathBuf,
    cgroups: Option<Arc<Cgroups>>,
}

/// What is known after.
struct Read {
    machine: Machine,
    node_fs: Option<sys::fs::Usage>,
    images: Option<FsReading>,
    containers: Option<FsReading>,
    all_pods: Option<crate::cgroups::Usage>,
    pods: Vec<PodReading>,
}

impl Found {
    fn read(mut self) -> Read {
        let logs = RootFd::open(&self.pod_logs).ok();
        let entries = std::mem::take(&mut self.entries);
        Read {
            machine: machine::read(),
            node_fs: filesystem(&self.root),
            images: self.images.as_ref().map(fs_reading),
            containers: self.layers.as_ref().map(fs_reading),
            all_pods: self.cgroups.as_ref().and_then(|tree| tree.pods_usage()),
            pods: entries.iter().filter_map(|entry| self.pod(entry, logs.as_ref())).collect(),
        }
    }

    /// A pod that has something running.
    fn pod(&mut self, entry: &Entry, logs: Option<&RootFd>) -> Option<PodReading> {
        let sandbox = entry.observed.sandboxes.first()?;
        let containers = self.running(entry, logs);
        if containers.is_empty() && !sandbox.ready {
            return None;
        }
        let stats = self.sandboxes.remove(&sandbox.id);
        let measured = stats.as_ref().is_some_and(|stats| stats.cpu.is_some() && stats.memory.is_some());
        let cgroup = self.cgroups.as_ref().filter(|_| !measured).and_then(|tree| tree.pod_usage(entry.pod.uid()));
        Some(PodReading {
            namespace: entry.pod.namespace().to_owned(),
            name: entry.pod.name().to_owned(),
            uid: entry.pod.uid().clone(),
            started: sandbox.created_at,
            sandbox: stats,
            cgroup,
            containers,
        })
    }

    /// Read only for a container that has a quota: as with cAdvisor, others have no such series.
    fn throttling(&self, entry: &Entry, container: &crate::runtime::Container) -> Option<cgroup::Throttling> {
        let (_, spec) = entry.pod.container(&container.name)?;
        spec.resources.as_ref()?.limits.as_ref()?.get("cpu")?;
        self.cgroups.as_ref()?.throttling(entry.pod.uid(), &container.id)
    }

    fn running(&mut self, entry: &Entry, logs: Option<&RootFd>) -> Vec<ContainerReading> {
        let mut readings = Vec::new();
        for container in &entry.observed.containers {
            let ContainerState::Running { started_at } = container.state else { continue };
            let Some(stats) = self.containers.remove(&container.id) else { continue };
            let folder = format!("{}_{}_{}", entry.pod.namespace(), entry.pod.name(), entry.pod.uid());
            readings.push(ContainerReading {
                name: container.name.clone(),
                id: container.id.clone(),
                image: container.image.clone(),
                created: container.created_at,
                started: started_at,
                stats,
                throttling: self.throttling(entry, container),
                logs: logs.and_then(|logs| log_usage(logs, &Path::new(&folder).join(&container.name))),
            });
        }
        readings
    }
}

/// What the logs of a container take. A pod that mounts /var/log may have put a link there: it is not followed.
fn log_usage(logs: &RootFd, folder: &Path) -> Option<sys::usage::Usage> {
    if !sys::rootfd::is_plain_relative(folder) {
        return None;
    }
    let folder = logs.open_path_no_symlinks(folder).ok()?;
    sys::usage::of_tree(&folder, LOG_FILES).ok()
}

fn fs_reading(usage: &FilesystemUsage) -> FsReading {
    FsReading {
        whole: usage.fs_id.as_ref().and_then(|id| filesystem(Path::new(&id.mountpoint))),
        used_bytes: number(usage.used_bytes),
        inodes_used: number(usage.inodes_used),
    }
}

fn filesystem(path: &Path) -> Option<sys::fs::Usage> {
    let directory = std::fs::File::open(path).ok()?;
    sys::fs::usage(&directory).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_readings_some_time_apart() {
        let rates = Rates::default();
        let second = 1_000_000_000;
        assert_eq!(rates.nano_cores("c", 10 * second, 5_000_000_000), None);
        assert_eq!(rates.nano_cores("c", 10 * second + 1, 5_100_000_000), None);
        assert_eq!(rates.nano_cores("c", 12 * second, 6_000_000_000), Some(500_000_000));
        assert_eq!(rates.nano_cores("c", 12 * second + 1, 9_000_000_000), Some(500_000_000));
        // Another container under the same id starts at zero again.
        assert_eq!(rates.nano_cores("c", 13 * second, 0), Some(0));
        // The clock was set back.
        assert_eq!(rates.nano_cores("c", 3 * second, 1_000_000_000), None);
        assert_eq!(rates.nano_cores("c", 5 * second, 2_000_000_000), Some(500_000_000));
        rates.forget_older(14 * second);
        assert_eq!(rates.nano_cores("c", 20 * second, 1), None);
    }
}
