//! What a pod needs of the machine beside the runtime: folders, cgroup, volumes, images, configs.

use crate::pod::{Pod, PodUid, Role};
use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::Container;
use std::net::IpAddr;
use tokio::time::Instant;

/// Why something a pod needs is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// The waiting reason of the container, or the reason of the pod's event.
    pub(crate) reason: &'static str,
    /// The sentence beside it.
    pub(crate) message: String,
    /// When trying again makes sense, where that is known.
    pub(crate) retry_at: Option<Instant>,
}

/// The result of a verb.
pub(crate) type Result<T> = std::result::Result<T, Obstacle>;

/// The verbs. Two things implement it: this machine, and the fake of the tests.
pub(crate) trait Host: Send + Sync + 'static {
    /// Makes the pod's cgroup and folders; the config of its sandbox.
    fn sandbox_config<'a>(&'a self, pod: &'a Pod, attempt: u32) -> BoxFuture<'a, Result<proto::PodSandboxConfig>>;
    /// Mounts its volumes, and brings those that are mounted up to date. Idempotent.
    fn mount<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<()>>;
    /// Has a container's image, and tells in events what had to be done for it.
    fn image<'a>(
        &'a self,
        pod: &'a Pod,
        role: Role,
        container: &'a Container,
        sandbox: &'a proto::PodSandboxConfig,
    ) -> BoxFuture<'a, Result<proto::Image>>;
    /// Makes the files of one start of a container; its config. Without a `restart_count` the logs on disk say which start
    /// it is.
    fn container_config<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
        image: &'a proto::Image,
        restart_count: Option<u32>,
        pod_ips: &'a [IpAddr],
    ) -> BoxFuture<'a, Result<proto::ContainerConfig>>;
    /// A container was started: its log is linked where log collectors look.
    fn link_log(&self, pod: &Pod, container: &str, id: &str, log: &str);
    /// A container's last words.
    fn last_words<'a>(&'a self, container: &'a crate::runtime::Container) -> BoxFuture<'a, String>;
    /// Takes the pod's volumes and cgroup down. Idempotent; the pod's object may be gone.
    fn release<'a>(&'a self, uid: &'a PodUid) -> BoxFuture<'a, Result<()>>;
    /// Forgets what is remembered of a pod: pull back-offs.
    fn forget(&self, uid: &PodUid);
}
