//! Volumes: what a pod's volumes hold, where they lie, and how they go away again.
//!
//! Upstream's layout below `<root>/pods/<uid>/`: `volumes/kubernetes.io~<kind>/<name>` and, for subPaths,
//! `volume-subpaths/<volume>/<container>/<index>`. It is given the pods, and the API for the objects that they refer
//! to; it never asks the CRI. Nothing but tokens is kept in memory: what is set up is seen on disk.
//!
//! | module | holds |
//! |---|---|
//! | [`source`] | which kind a volume is; what is refused |
//! | [`empty_dir`], [`host_path`], [`config_map`], [`secret`], [`downward_api`], [`projected`] | one kind each |
//! | [`content`], [`payload`] | what the files of a kind hold |
//! | [`token`] | service account tokens |
//! | [`atomic_writer`], [`ownership`], [`nested`] | files on disk: at once, for the pod's group, with mount points |
//! | [`mounts`], [`subpath`] | what a container mounts |
//! | [`teardown`], [`usage`] | the end; the size |
//! | [`layout`] | where it all lies |
//! | [`stages`] | blocking work, watched |

mod atomic_writer;
mod config_map;
mod content;
mod downward_api;
mod empty_dir;
mod error;
mod host_path;
mod layout;
mod mounts;
mod nested;
mod ownership;
mod payload;
mod projected;
mod secret;
mod source;
mod stages;
mod subpath;
mod teardown;
mod token;
mod usage;

pub use source::unsupported;

use crate::api::Api;
use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::pod::{Pod, PodUid};
use atomic_writer::Written;
use content::{Content, Inputs};
use empty_dir::Medium;
use error::{SetUpError, chain};
use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{Container, HostPathVolumeSource, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use layout::PodFolder;
use mounts::{Given, Plan};
use payload::Payload;
use source::Source;
use stages::{Stages, Work};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use subpath::SubPathError;
use sys::rootfd::RootFd;
use token::Tokens;

/// A volume that could not be set up, mounted or taken down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct VolumeError {
    /// The volume's name in the pod; empty where it is about none in particular.
    pub volume: String,
    /// `FailedMount`, `FailedUnmount`; from [`Volumes::container_mounts`] `CreateContainerConfigError`.
    pub reason: &'static str,
    /// The event's text, upstream's where upstream has one.
    pub message: String,
}

impl VolumeError {
    fn set_up(volume: &str, error: &SetUpError) -> VolumeError {
        // Two spaces' worth of nothing before the colon: upstream's format has an empty detail there.
        let message = format!("MountVolume.SetUp failed for volume \"{volume}\" : {}", chain(error));
        VolumeError { volume: volume.to_owned(), reason: "FailedMount", message }
    }

    fn container(volume: &str, message: String) -> VolumeError {
        VolumeError { volume: volume.to_owned(), reason: "CreateContainerConfigError", message }
    }

    fn folder(uid: &PodUid, reason: &'static str, error: &dyn std::error::Error) -> VolumeError {
        VolumeError { volume: String::new(), reason, message: format!("volumes of pod {uid}: {}", chain(error)) }
    }
}

/// How full one volume is, and how full the pod's own files are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodUsage {
    /// Every volume that lies in the pod's folder, by name.
    pub volumes: Vec<VolumeUsage>,
    /// /etc/hosts and termination messages: files of the node's disk that containers can write (CVE-2020-8557).
    pub files: Used,
}

/// How full one volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUsage {
    /// The volume's name.
    pub name: String,
    /// What it holds.
    pub used: Used,
    /// The file system that it lies on.
    pub filesystem: sys::fs::Usage,
    /// Whether it takes from the node's disk, and so counts as the pod's ephemeral storage; tmpfs does not.
    pub on_disk: bool,
}

/// Space taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Bytes allocated.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
    /// False if there was more than we were willing to count: the numbers are a lower bound.
    pub complete: bool,
}

/// The volumes of all pods. Cheap to clone.
#[derive(Clone)]
pub struct Volumes {
    root: Arc<Path>,
    api: Arc<dyn Api>,
    clock: Clock,
    tokens: Tokens,
    stages: Stages,
    metrics: Metrics,
    /// The hostPaths that were checked: once is enough, and on a dead server each look costs a thread.
    host_paths: Arc<Mutex<BTreeSet<(PodUid, String)>>>,
}

impl Volumes {
    /// Works below `config.root`.
    pub fn new(config: &Config, api: Arc<dyn Api>, clock: Clock, metrics: Metrics) -> Volumes {
        Volumes::below(&config.root, api, clock, metrics)
    }

    fn below(root: &Path, api: Arc<dyn Api>, clock: Clock, metrics: Metrics) -> Volumes {
        Volumes {
            root: root.into(),
            api,
            tokens: Tokens::new(clock.clone()),
            clock,
            stages: Stages::default(),
            metrics,
            host_paths: Arc::default(),
        }
    }

    /// Sets up every volume that a container of `pod` mounts, and brings the content of those that have some up to
    /// date. Call it at each sync: it does only what is missing. `allocatable` is the node's.
    ///
    /// All volumes are tried, side by side; the error is that of the first one in the spec that failed.
    pub async fn mount(&self, pod: &Pod, allocatable: &BTreeMap<String, Quantity>) -> Result<(), VolumeError> {
        let volumes = source::mounted(pod.spec()).map(|volume| async move {
            let started = Instant::now();
            let result = self.set_up(pod, volume, allocatable).await;
            if let Ok(source) = Source::of(volume) {
                self.metrics.storage_operation("volume_mount", source.plugin(), started.elapsed(), result.is_ok());
            }
            result.map_err(|error| VolumeError::set_up(&volume.name, &error))
        });
        join_all(volumes).await.into_iter().collect()
    }

    async fn set_up(
        &self,
        pod: &Pod,
        volume: &Volume,
        allocatable: &BTreeMap<String, Quantity>,
    ) -> Result<(), SetUpError> {
        let source = Source::of(volume).map_err(SetUpError::Unsupported)?;
        match source {
            Source::HostPath(source) => self.set_up_host_path(pod, &volume.name, source).await,
            Source::EmptyDir(source) => {
                self.set_up_empty_dir(pod, &volume.name, empty_dir::medium(source, pod, allocatable)).await
            }
            _ => {
                let inputs = Inputs { pod, api: &*self.api, tokens: &self.tokens, allocatable };
                let Some(payload) = content::payload(source, &inputs).await? else { return Ok(()) };
                self.write(pod, &volume.name, source, content::medium(source, &inputs), payload).await
            }
        }
    }

    async fn set_up_host_path(&self, pod: &Pod, name: &str, source: &HostPathVolumeSource) -> Result<(), SetUpError> {
        let key = (pod.uid().clone(), name.to_owned());
        if self.checked().contains(&key) {
            return Ok(());
        }
        let (path, owned) = (PathBuf::from(&source.path), source.clone());
        self.stages
            .run(pod.uid(), Work::on(name), "check hostPath", &path, move || host_path::set_up(&owned))
            .await??;
        self.checked().insert(key);
        Ok(())
    }

    async fn set_up_empty_dir(&self, pod: &Pod, name: &str, medium: Medium) -> Result<(), SetUpError> {
        let folder = self.folder(pod.uid());
        let path = folder.volume(layout::Kind::EmptyDir, name);
        let group = fs_group(pod);
        let (owned_name, owned_path) = (name.to_owned(), path.clone());
        let work = move || empty_dir::set_up(&folder, &owned_name, &owned_path, medium, group);
        self.stages.run(pod.uid(), Work::on(name), "make emptyDir", &path, work).await?
    }

    /// Writes the content of a volume where it has changed.
    async fn write(
        &self,
        pod: &Pod,
        name: &str,
        source: Source<'_>,
        medium: Medium,
        payload: Payload,
    ) -> Result<(), SetUpError> {
        let path = self.folder(pod.uid()).mounted(&source, name);
        let content = Content {
            path: path.clone(),
            medium,
            mount_points: nested::points(pod, name)?,
            payload,
            group: fs_group(pod),
            now: self.clock.now().wall,
        };
        let written =
            self.stages.run(pod.uid(), Work::on(name), "write volume", &path, move || content.write()).await??;
        if written == Written::Replaced {
            tracing::debug!(pod = %pod.uid(), volume = name, "a volume has new content");
        }
        Ok(())
    }

    /// What the CRI shall mount into `container` for its `volumeMounts`, subPaths bound and ready. `environment` is the
    /// container's, for `subPathExpr`; `recursive_read_only` says whether the runtime handler can do that.
    ///
    /// Call it before each creation of the container, after [`mount`](Self::mount): subPaths are looked up anew.
    pub async fn container_mounts(
        &self,
        pod: &Pod,
        container: &Container,
        environment: &BTreeMap<String, String>,
        recursive_read_only: bool,
    ) -> Result<Vec<proto::Mount>, VolumeError> {
        let folder = self.folder(pod.uid());
        let given = Given {
            folder: &folder,
            volumes: pod.spec().volumes.as_deref().unwrap_or_default(),
            container: &container.name,
            environment,
            recursive_read_only,
        };
        let mut mounts = Vec::new();
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let plan = mounts::plan(mount, &given).map_err(|message| VolumeError::container(&mount.name, message))?;
            let target = folder.subpath(&plan.volume, &container.name, index);
            mounts.push(self.ready(pod, &container.name, plan, target).await?);
        }
        Ok(mounts)
    }

    /// Binds the subPath of a mount, if it has one.
    async fn ready(
        &self,
        pod: &Pod,
        container: &str,
        plan: Plan,
        target: PathBuf,
    ) -> Result<proto::Mount, VolumeError> {
        let Plan { volume, path, sub_path: Some(sub_path), mount } = plan else { return Ok(plan.mount) };
        let host_path = target.to_string_lossy().into_owned();
        let work = move || subpath::bind(&path, &sub_path, &target);
        let bound = self.stages.run(pod.uid(), Work::on(&volume), "bind subPath", Path::new(&host_path), work).await;
        match bound {
            Ok(Ok(())) => Ok(proto::Mount { host_path, ..mount }),
            Ok(Err(error)) => Err(self.sub_path_failed(pod, container, &volume, &error)),
            Err(stalled) => Err(VolumeError::container(&volume, stalled.to_string())),
        }
    }

    /// The pod's owner is told which mount failed, and no more: the cause speaks of the host.
    fn sub_path_failed(&self, pod: &Pod, container: &str, volume: &str, error: &SubPathError) -> VolumeError {
        tracing::warn!(pod = %pod.uid(), container, volume, error = chain(error), "a subPath is not mounted");
        VolumeError::container(volume, format!("{error} for volumeMount {volume:?} of container {container:?}"))
    }

    /// Takes all volumes of a pod down: unmounts, deletes. From what is on disk alone: the object may be gone.
    /// Idempotent.
    pub async fn unmount(&self, uid: &PodUid) -> Result<(), VolumeError> {
        let failed = |error: &dyn std::error::Error| VolumeError::folder(uid, "FailedUnmount", error);
        let folder = self.folder(uid).0;
        self.stages.settled(uid, &folder).await.map_err(|stalled| failed(&stalled))?;
        self.tokens.forget(uid);
        self.checked().retain(|(pod, _)| pod != uid);
        let path = folder.clone();
        let result = self.stages.run(uid, Work::TakeDown, "take down", &path, move || teardown::take_down(&folder));
        result.await.map_err(|stalled| failed(&stalled))?.map_err(|error| failed(&error))
    }

    /// The pods that have a folder.
    pub async fn pods_on_disk(&self) -> Result<Vec<PodUid>, VolumeError> {
        let path = self.root.join("pods");
        let listed = match tokio::task::spawn_blocking(move || pods_in(&path)).await {
            Ok(listed) => listed,
            Err(failed) => stages::joined(failed).await,
        };
        listed.map_err(|error| VolumeError { volume: String::new(), reason: "FailedUnmount", message: chain(&error) })
    }

    /// How full the pod's volumes and files are. Walks trees: ask for it from a background task, not for each request.
    pub async fn usage(&self, uid: &PodUid) -> Result<PodUsage, VolumeError> {
        let failed = |error: &dyn std::error::Error| VolumeError::folder(uid, "FailedStats", error);
        let folder = self.folder(uid).0;
        let path = folder.clone();
        let counted = self.stages.run(uid, Work::Measure, "measure", &path, move || usage::of(&folder)).await;
        counted.map_err(|stalled| failed(&stalled))?.map_err(|error| failed(&error))
    }

    fn folder(&self, uid: &PodUid) -> PodFolder {
        PodFolder::of(&self.root, uid)
    }

    fn checked(&self) -> std::sync::MutexGuard<'_, BTreeSet<(PodUid, String)>> {
        self.host_paths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The group that a pod's volumes belong to.
fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod.spec().security_context.as_ref().and_then(|context| context.fs_group);
    group.and_then(|group| u32::try_from(group).ok())
}

/// The UIDs in `<root>/pods`; other names there are not ours.
fn pods_in(path: &Path) -> sys::Result<Vec<PodUid>> {
    let root = match RootFd::open(path) {
        Err(error) if error.is(sys::Errno::ENOENT) => return Ok(Vec::new()),
        root => root?,
    };
    let names = atomic_writer::names(&root, Path::new(""))?;
    Ok(names.iter().filter_map(|name| PodUid::parse(name.to_str()?).ok()).collect())
}

#[cfg(test)]
mod tests;
