//! The pods of a running daemon, for `orlop ps`: plain CRI, so that it lists those of any runtime.

use super::{Client, ClientError};
use proto::runtime_service_client::RuntimeServiceClient;
use proto::{ContainerState, ListContainerStatsRequest, ListContainersRequest, ListPodSandboxRequest, PodSandboxState};
use std::collections::HashMap;

/// A pod sandbox with its containers, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPod {
    /// The sandbox.
    pub id: String,
    /// The pod's.
    pub name: String,
    /// The pod's.
    pub namespace: String,
    /// The pod's.
    pub uid: String,
    /// Which sandbox of the pod it is, from 0.
    pub attempt: u32,
    /// Whether its namespaces are alive.
    pub alive: bool,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Its containers, dead ones among them.
    pub containers: Vec<ListedContainer>,
}

/// A container as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedContainer {
    /// Its id.
    pub id: String,
    /// Its name in the pod.
    pub name: String,
    /// How often it was started again.
    pub attempt: u32,
    /// What it is doing.
    pub state: ContainerState,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// What it used when it was last measured.
    pub usage: Option<Usage>,
}

/// CPU and memory of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// When it was measured, in nanoseconds since the epoch.
    pub at: i64,
    /// CPU time since its start, in nanoseconds.
    pub cpu_ns: u64,
    /// The working set, in bytes.
    pub memory: u64,
}

impl Client {
    /// Every pod, with its containers and what they use.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn pods(&self) -> Result<Vec<ListedPod>, ClientError> {
        let runtime = || RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(crate::MAX_MESSAGE);
        let (mut pods, mut containers, mut stats) = (runtime(), runtime(), runtime());
        let (pods, containers, stats) = tokio::try_join!(
            pods.list_pod_sandbox(ListPodSandboxRequest::default()),
            containers.list_containers(ListContainersRequest::default()),
            stats.list_container_stats(ListContainerStatsRequest::default()),
        )?;
        let usage: HashMap<String, Usage> = stats.into_inner().stats.into_iter().filter_map(usage).collect();
        let mut of_pod: HashMap<String, Vec<ListedContainer>> = HashMap::new();
        for container in containers.into_inner().containers {
            let usage = usage.get(&container.id).copied();
            of_pod.entry(container.pod_sandbox_id.clone()).or_default().push(listed(container, usage));
        }
        Ok(pods.into_inner().items.into_iter().map(|sandbox| pod(sandbox, &mut of_pod)).collect())
    }
}

fn pod(sandbox: proto::PodSandbox, of_pod: &mut HashMap<String, Vec<ListedContainer>>) -> ListedPod {
    let metadata = sandbox.metadata.unwrap_or_default();
    let mut containers = of_pod.remove(&sandbox.id).unwrap_or_default();
    containers.sort_by_key(|container| container.created_at);
    ListedPod {
        alive: sandbox.state == i32::from(PodSandboxState::SandboxReady),
        id: sandbox.id,
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        attempt: metadata.attempt,
        created_at: sandbox.created_at,
        containers,
    }
}

fn listed(container: proto::Container, usage: Option<Usage>) -> ListedContainer {
    let state = container.state();
    let metadata = container.metadata.unwrap_or_default();
    ListedContainer {
        id: container.id,
        name: metadata.name,
        attempt: metadata.attempt,
        state,
        created_at: container.created_at,
        usage,
    }
}

fn usage(stats: proto::ContainerStats) -> Option<(String, Usage)> {
    let cpu = stats.cpu?;
    let memory = stats.memory.and_then(|memory| memory.working_set_bytes).map_or(0, |bytes| bytes.value);
    let cpu_ns = cpu.usage_core_nano_seconds.map_or(0, |time| time.value);
    Some((stats.attributes?.id, Usage { at: cpu.timestamp, cpu_ns, memory }))
}
