//! This machine: volumes, images, cgroups and configs by the parts that make them.

use super::host::{Host, Obstacle, Result};
use crate::api::Api;
use crate::api::events::{Kind, Recorder};
use crate::cgroups::Cgroups;
use crate::config::Config;
use crate::gc::logs;
use crate::images::Images;
use crate::metrics::Metrics;
use crate::node::Facts;
use crate::pod::{Pod, PodUid, Role};
use crate::runtime::{Health, last_words};
use crate::spec::{self, ContainerInputs, EnvInputs, Machine, SandboxInputs, SpecError, dns, files};
use crate::volumes::{VolumeError, Volumes};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::Container;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

/// This machine. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ThisHost {
    pub(crate) config: Arc<Config>,
    pub(crate) facts: Arc<Facts>,
    pub(crate) machine: Arc<Machine>,
    pub(crate) api: Arc<dyn Api>,
    pub(crate) images: Arc<Images>,
    pub(crate) volumes: Volumes,
    pub(crate) cgroups: Arc<Cgroups>,
    pub(crate) recorder: Recorder,
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) metrics: Metrics,
}

impl From<SpecError> for Obstacle {
    fn from(error: SpecError) -> Self {
        Obstacle { reason: error.reason, message: error.message, retry_at: None }
    }
}

impl From<VolumeError> for Obstacle {
    fn from(error: VolumeError) -> Self {
        Obstacle { reason: error.reason, message: error.message, retry_at: None }
    }
}

/// Runs what blocks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| {
        Err(Obstacle { reason: "CreateContainerConfigError", message: panic.to_string(), retry_at: None })
    })
}

/// An error with all that it stems from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

impl ThisHost {
    /// What of the sandbox's config needs files. Blocks.
    fn make_sandbox_config(&self, pod: &Pod, attempt: u32) -> Result<proto::PodSandboxConfig> {
        let started = Instant::now();
        let cgroup_parent = self.cgroups.ensure_pod(pod).map_err(|error| Obstacle {
            reason: "FailedToCreatePodContainer",
            message: format!("unable to ensure pod container exists: {}", chain(&error)),
            retry_at: None,
        })?;
        self.metrics.cgroup("create", started.elapsed());
        files::prepare_sandbox(&self.config, pod)?;
        let host = dns::read(self.config.dns.resolv_conf.as_deref())?;
        let dns = dns::pod_dns(&self.config.dns, pod, &host);
        for warning in dns.warnings {
            self.recorder.pod(pod, Kind::Warning, warning.reason, warning.message);
        }
        let inputs = SandboxInputs {
            config: &self.config,
            machine: &self.machine,
            pod,
            attempt,
            cgroup_parent: &cgroup_parent,
            dns: &dns.config,
        };
        Ok(spec::sandbox_config(&inputs)?)
    }

    /// Whether the runtime makes read-only mounts read-only all the way down.
    fn recursive_read_only(&self) -> bool {
        let health = self.health.borrow();
        let handlers = health.known.iter().flat_map(|status| &status.handlers);
        handlers
            .filter(|handler| handler.name.is_empty())
            .any(|handler| handler.features.is_some_and(|features| features.recursive_read_only_mounts))
    }
}

impl Host for ThisHost {
    fn sandbox_config<'a>(&'a self, pod: &'a Pod, attempt: u32) -> BoxFuture<'a, Result<proto::PodSandboxConfig>> {
        let (host, pod) = (self.clone(), pod.clone());
        blocking(move || host.make_sandbox_config(&pod, attempt)).boxed()
    }

    fn mount<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<()>> {
        async move { Ok(self.volumes.mount(pod, &self.facts.allocatable).await?) }.boxed()
    }

    fn image<'a>(
        &'a self,
        pod: &'a Pod,
        role: Role,
        container: &'a Container,
        sandbox: &'a proto::PodSandboxConfig,
    ) -> BoxFuture<'a, Result<proto::Image>> {
        async move {
            self.images.ensure(pod, role, container, sandbox).await.map_err(|error| Obstacle {
                reason: error.reason,
                message: error.message,
                retry_at: self.images.retry_at(pod, container),
            })
        }
        .boxed()
    }

    fn container_config<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
        image: &'a proto::Image,
        restart_count: Option<u32>,
        pod_ips: &'a [IpAddr],
    ) -> BoxFuture<'a, Result<proto::ContainerConfig>> {
        async move {
            let (host_ips, allocatable) = (self.facts.host_ips.as_slice(), &self.facts.allocatable);
            let env =
                spec::environment(&*self.api, &EnvInputs { pod, container, pod_ips, host_ips, allocatable }).await?;
            let recursive_read_only = self.recursive_read_only();
            let mounts = self.volumes.container_mounts(pod, container, &env, recursive_read_only).await?;
            let (host, pod, container, image) = (self.clone(), pod.clone(), container.clone(), image.clone());
            let ips = if pod.host_network() { host_ips.to_vec() } else { pod_ips.to_vec() };
            blocking(move || {
                let folder = spec::sandbox::log_directory(&host.config, &pod).join(&container.name);
                let restart_count = restart_count.unwrap_or_else(|| logs::next_restart_count(&folder));
                let files = files::prepare_container(&host.config, &pod, &container, &ips)?;
                let inputs = ContainerInputs {
                    config: &host.config,
                    machine: &host.machine,
                    pod: &pod,
                    container: &container,
                    image: &image,
                    restart_count,
                    env: &env,
                    mounts,
                    files: &files,
                };
                Ok(spec::container_config(&inputs)?)
            })
            .await
        }
        .boxed()
    }

    fn link_log(&self, pod: &Pod, container: &str, id: &str, log: &str) {
        let target = spec::sandbox::log_directory(&self.config, pod).join(log);
        if let Err(error) = logs::link(&self.config.container_logs, pod, container, id, &target) {
            tracing::warn!(%pod, container, error = chain(&error), "the log is not linked");
        }
    }

    fn last_words<'a>(&'a self, container: &'a crate::runtime::Container) -> BoxFuture<'a, String> {
        let (config, container) = (self.config.clone(), container.clone());
        async move {
            let read = move || last_words::read(&config.root, &config.pod_logs, &container);
            tokio::task::spawn_blocking(read).await.unwrap_or_default()
        }
        .boxed()
    }

    fn release<'a>(&'a self, uid: &'a PodUid) -> BoxFuture<'a, Result<()>> {
        async move {
            self.volumes.unmount(uid).await?;
            let started = Instant::now();
            let (cgroups, owned) = (self.cgroups.clone(), uid.clone());
            blocking(move || {
                cgroups.remove_pod(&owned).map_err(|error| Obstacle {
                    reason: "FailedKillPod",
                    message: chain(&error),
                    retry_at: None,
                })
            })
            .await?;
            self.metrics.cgroup("destroy", started.elapsed());
            Ok(())
        }
        .boxed()
    }

    fn forget(&self, uid: &PodUid) {
        self.images.forget(uid);
    }
}
