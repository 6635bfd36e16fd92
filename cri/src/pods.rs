//! Everything that the RPCs share: the pods in memory, their records, and the parts that do the work.
//!
//! Lists and statuses read memory only. A verb that changes something holds the thing's gate, acts, writes the record,
//! and only then answers.

use crate::config::Config;
use crate::container::{Container, ContainerRecord, Ended, Life};
use crate::creations::Creations;
use crate::events::Events;
use crate::failure::{Failure, Result, chain};
use crate::index::Index;
use crate::records::Records;
use crate::sandbox::{Sandbox, SandboxRecord};
use crate::seccomp_cache::Programs;
use crate::spec::Host;
use crate::stats::CpuSamples;
use crate::status;
use crate::usage::Usage;
use proto::{ContainerEventResponse, ContainerEventType, CreateContainerRequest, RunPodSandboxRequest};
use shim_protocol::Exit;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The daemon's state and its tools.
pub(crate) struct Pods {
    pub(crate) config: Config,
    pub(crate) host: Host,
    pub(crate) shim: crate::shim::Program,
    pub(crate) images: image::Store,
    pub(crate) networks: cni::client::Networks,
    pub(crate) layout: cgroup::Layout,
    pub(crate) sandboxes: Index<Sandbox>,
    pub(crate) containers: Index<Container>,
    pub(crate) sandbox_records: Records<SandboxRecord>,
    pub(crate) container_records: Records<ContainerRecord>,
    pub(crate) sandbox_creations: Creations<String, RunPodSandboxRequest>,
    pub(crate) container_creations: Creations<String, CreateContainerRequest>,
    pub(crate) programs: Programs,
    pub(crate) events: Events,
    pub(crate) usage: Usage,
    pub(crate) cpu: CpuSamples,
    /// Exits of containers that are not in memory yet: their creation picks them up.
    pub(crate) early_exits: Mutex<HashMap<String, Exit>>,
}

impl std::fmt::Debug for Pods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pods").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The one door for work that blocks: mounts, plugins, files.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    crate::stages::enter(what);
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Failure::internal(what, &error)),
    }
}

impl Pods {
    /// The containers of a sandbox.
    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        let mut containers = self.containers.all();
        containers.retain(|container| container.sandbox == sandbox);
        containers
    }

    /// Writes a sandbox's record as it is by then; a failure is logged where the verb has happened anyway.
    pub(crate) async fn keep_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let (pods, sandbox) = (Arc::clone(self), Arc::clone(sandbox));
        blocking("keep a sandbox's record", move || {
            let _order = sandbox.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let record = sandbox.record();
            pods.sandbox_records.put(&record.id, &record).map_err(|error| Failure::internal("keep sandbox", &error))
        })
        .await
    }

    /// Writes a container's record as it is by then.
    pub(crate) async fn keep_container(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let (pods, container) = (Arc::clone(self), Arc::clone(container));
        blocking("keep a container's record", move || {
            let _order = container.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let record = container.record();
            pods.container_records.put(&record.id, &record).map_err(|error| Failure::internal("keep container", &error))
        })
        .await
    }

    /// A shim told how a container ended.
    pub(crate) async fn container_exited(self: &Arc<Self>, id: &str, exit: Exit) {
        self.lock_early_exits().insert(id.to_owned(), exit);
        // In this order, and the reverse one in the creation: one of the two sees the other's.
        if let Ok(Some(container)) = self.containers.find(id) {
            self.apply_early_exit(&container).await;
        }
    }

    /// Applies an exit that was told before the container was in memory, or just now.
    pub(crate) async fn apply_early_exit(self: &Arc<Self>, container: &Arc<Container>) {
        let exit = self.lock_early_exits().remove(&container.id);
        if let Some(exit) = exit {
            self.end_container(container, Ended::from_exit(&exit)).await;
        }
    }

    /// Nobody will ask for it.
    pub(crate) fn forget_early_exit(&self, id: &str) {
        self.lock_early_exits().remove(id);
    }

    fn lock_early_exits(&self) -> std::sync::MutexGuard<'_, HashMap<String, Exit>> {
        self.early_exits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container's program runs since then, in nanoseconds since 1970. Told once, by whoever hears of it first.
    pub(crate) fn begin_container(&self, container: &Container, since: i64) {
        let _order = container.telling.lock().unwrap_or_else(PoisonError::into_inner);
        let Life::Created(process) = container.life() else { return };
        container.change(|record| record.started_at = since);
        container.live(Life::Running(process));
        self.tell(&container.id, &container.sandbox, ContainerEventType::ContainerStartedEvent);
    }

    /// A container has ended: recorded first, then told.
    pub(crate) async fn end_container(self: &Arc<Self>, container: &Arc<Container>, ended: Ended) {
        if matches!(container.life(), Life::Exited(_)) {
            return;
        }
        if ended.started_at > 0 {
            // Whoever started it may not have come to say so.
            self.begin_container(container, ended.started_at);
        }
        container.change(|record| record.ended = Some(ended.clone()));
        if let Err(failure) = self.keep_container(container).await {
            tracing::error!(container = container.id, error = chain(&failure), "an exit is not recorded");
        }
        let _order = container.telling.lock().unwrap_or_else(PoisonError::into_inner);
        if container.live(Life::Exited(ended)) {
            self.cpu.forget(&container.id);
            self.tell(&container.id, &container.sandbox, ContainerEventType::ContainerStoppedEvent);
        }
    }

    /// Tells subscribers what happened to a container or, with its own id, to a sandbox.
    pub(crate) fn tell(&self, id: &str, sandbox: &str, kind: ContainerEventType) {
        self.events.tell(|| {
            let sandbox_record = self.sandboxes.get(sandbox).ok().map(|sandbox| sandbox.record());
            let containers = self.containers_of(sandbox);
            ContainerEventResponse {
                container_id: id.to_owned(),
                container_event_type: kind.into(),
                created_at: crate::host::now(),
                pod_sandbox_status: sandbox_record.map(|record| status::sandbox(&record)),
                containers_statuses: containers
                    .iter()
                    .map(|container| status::container(&container.record(), &container.life()))
                    .collect(),
            }
        });
    }
}
