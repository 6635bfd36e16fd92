//! The CRI: the verbs that the kubelet needs, and what it observes through them.

mod cri;
mod health;
pub(crate) mod last_words;
mod observe;
pub(crate) mod relist;

pub use cri::Cri;
pub use health::Health;
pub(crate) use health::watch_health;
pub(crate) use relist::News;

use crate::pod::PodUid;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use std::net::IpAddr;
use std::time::Duration;

/// Keys of labels and annotations by which the kubelet knows its containers again. Upstream's names: other programs on
/// a node read them.
pub mod keys {
    /// Label: the pod's name.
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    /// Label: the pod's namespace.
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    /// Label: the pod's UID.
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    /// Label: the container's name.
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    /// Annotation: a hash of the container's spec; another one means another container.
    pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
    /// Annotation: how often it was started before.
    pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    /// Annotation: where the container writes its termination message.
    pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    /// Annotation: `File` or `FallbackToLogsOnError`.
    pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    /// Annotation: the container's ports as JSON.
    pub const PORTS: &str = "io.kubernetes.container.ports";
    /// Annotation: the pod's grace period in seconds, for a pod whose object is gone.
    pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
}

/// What the runtime has of one pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ObservedPod {
    /// Sandboxes, newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Containers, newest first.
    pub containers: Vec<Container>,
}

/// A pod that the runtime has, with the names it was given: its API object may be gone.
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimePod {
    /// From the label.
    pub uid: PodUid,
    /// From the label.
    pub name: String,
    /// From the label.
    pub namespace: String,
    /// Its sandboxes and containers.
    pub observed: ObservedPod,
}

/// A sandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether it is SANDBOX_READY.
    pub ready: bool,
    /// The pod's addresses, the primary one first; empty for a pod in the host's network.
    pub ips: Vec<IpAddr>,
    /// Whether it is in the host's network namespace.
    pub host_network: bool,
}

/// A container.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// The runtime's id, without scheme.
    pub id: String,
    /// The sandbox it is in.
    pub sandbox_id: String,
    /// From the label.
    pub name: String,
    /// Restart count, from the annotation.
    pub restart_count: u32,
    /// From the annotation.
    pub hash: String,
    /// The image as it was asked for.
    pub image: String,
    /// The image as the runtime resolved it, usually a digest.
    pub image_ref: String,
    /// The image's id in the runtime.
    pub image_id: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// What it does.
    pub state: ContainerState,
    /// The log, an absolute path.
    pub log_path: String,
    /// The termination message's file on the host, found among the mounts.
    pub termination_message: Option<TerminationMessage>,
    /// The uid, gid and groups of its first process, where the runtime tells.
    pub user: Option<proto::ContainerUser>,
    /// Limits that are in force, where the runtime tells.
    pub resources: Option<proto::LinuxContainerResources>,
    /// Mounts as the runtime tells them.
    pub mounts: Vec<proto::Mount>,
    /// The pod's grace period in seconds, from the annotation: what is left to go by when the pod's object is gone.
    pub grace_period: Option<u64>,
}

/// Where a container's last words are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminationMessage {
    /// The file on the host.
    pub host_path: String,
    /// Whether the end of the log stands in for an empty file after a failure.
    pub fallback_to_logs: bool,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Runs.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// Ended.
    Exited(Exit),
    /// The runtime does not know.
    Unknown,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Exit {
    /// When it was started; `None` if it never was.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// The exit code, 128 + n for signal n.
    pub code: i32,
    /// The runtime's word: `Completed`, `Error`, `OOMKilled`, `StartError`.
    pub reason: String,
    /// The runtime's sentence, or the termination message.
    pub message: String,
}

/// What `GetContainerEvents` says: something of this pod changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// Whose.
    pub uid: PodUid,
    /// The container or sandbox.
    pub id: String,
    /// What happened to it.
    pub kind: proto::ContainerEventType,
}

/// The runtime's name, versions and abilities.
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeInfo {
    /// For example `orlop`: the scheme of container ids.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What the runtime says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuntimeStatus {
    /// RuntimeReady and NetworkReady, with reasons and messages.
    pub conditions: Vec<proto::RuntimeCondition>,
    /// Handlers and what each can do.
    pub handlers: Vec<proto::RuntimeHandler>,
    /// Whether it knows the Strict supplemental groups policy.
    pub supplemental_groups_policy: bool,
}

/// A call that failed: what was asked, and the runtime's answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct RuntimeError {
    /// The RPC, for example `RunPodSandbox`.
    pub call: &'static str,
    /// The gRPC code.
    pub code: tonic::Code,
    /// `rpc error: code = Unknown desc = …`, the form in which every kubelet shows it.
    pub message: String,
}

impl RuntimeError {
    /// The runtime's own words, without code: what upstream tells of a container that can't be made or started.
    pub fn description(&self) -> &str {
        self.message.split_once(" desc = ").map_or(&self.message, |(_, description)| description)
    }
}

/// The result of a verb.
pub type Result<T> = std::result::Result<T, RuntimeError>;

/// The verbs of a CRI runtime. Each has a deadline of its own and ends when it is dropped.
///
/// Two things implement it: a gRPC connection, and the fake of the tests.
pub trait Runtime: Send + Sync + 'static {
    /// Name and version.
    fn version(&self) -> BoxFuture<'_, Result<RuntimeInfo>>;
    /// Conditions and handlers.
    fn status(&self) -> BoxFuture<'_, Result<RuntimeStatus>>;
    /// The cgroup driver; `None` where the runtime has no such call.
    fn cgroup_driver(&self) -> BoxFuture<'_, Result<Option<proto::CgroupDriver>>>;
    /// Tells the pod CIDR.
    fn set_pod_cidr<'a>(&'a self, cidr: &'a str) -> BoxFuture<'a, Result<()>>;
    /// Every pod that the runtime has.
    fn list_pods(&self) -> BoxFuture<'_, Result<Vec<RuntimePod>>>;
    /// One pod; empty if there is nothing of it.
    fn observe<'a>(&'a self, uid: &'a PodUid) -> BoxFuture<'a, Result<ObservedPod>>;
    /// Changes as they happen. The stream ends when the connection does; an error says that there is no such call.
    fn events(&self) -> BoxFuture<'_, Result<BoxStream<'static, Result<Changed>>>>;
    /// RunPodSandbox; returns the sandbox's id.
    fn run_sandbox<'a>(
        &'a self,
        config: &'a proto::PodSandboxConfig,
        handler: &'a str,
    ) -> BoxFuture<'a, Result<String>>;
    /// StopPodSandbox.
    fn stop_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    /// RemovePodSandbox.
    fn remove_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    /// CreateContainer; returns the container's id.
    fn create_container<'a>(
        &'a self,
        sandbox: &'a str,
        config: &'a proto::ContainerConfig,
        sandbox_config: &'a proto::PodSandboxConfig,
    ) -> BoxFuture<'a, Result<String>>;
    /// StartContainer.
    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    /// StopContainer: returns when it has ended, `grace` and a bit at the latest.
    fn stop_container<'a>(&'a self, id: &'a str, grace: Duration) -> BoxFuture<'a, Result<()>>;
    /// RemoveContainer.
    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    /// ReopenContainerLog.
    fn reopen_log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    /// ExecSync.
    fn exec_sync<'a>(
        &'a self,
        id: &'a str,
        command: &'a [String],
        timeout: Duration,
    ) -> BoxFuture<'a, Result<proto::ExecSyncResponse>>;
    /// The image of a reference, if it is there.
    fn image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<proto::Image>>>;
    /// Pulls; returns the image's reference.
    fn pull_image<'a>(
        &'a self,
        reference: &'a str,
        auth: Option<&'a proto::AuthConfig>,
        sandbox_config: &'a proto::PodSandboxConfig,
    ) -> BoxFuture<'a, Result<String>>;
    /// All images.
    fn list_images(&self) -> BoxFuture<'_, Result<Vec<proto::Image>>>;
    /// The file systems of images and containers.
    fn image_fs(&self) -> BoxFuture<'_, Result<proto::ImageFsInfoResponse>>;
    /// Usage of every container.
    fn container_stats(&self) -> BoxFuture<'_, Result<Vec<proto::ContainerStats>>>;
    /// Usage of every sandbox.
    fn sandbox_stats(&self) -> BoxFuture<'_, Result<Vec<proto::PodSandboxStats>>>;
}
