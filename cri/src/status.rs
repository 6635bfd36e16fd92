//! What is told of a sandbox or a container, derived from its record and its life each time it is asked for.

use crate::container::{ContainerRecord, Life};
use crate::sandbox::{Phase, SandboxRecord};
use crate::spec::{namespaces, signal};
use proto::{
    Container, ContainerResources, ContainerState, ContainerStatus, ContainerUser, ImageSpec, LinuxPodSandboxStatus,
    Namespace, PodIp, PodSandbox, PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus,
};

pub(crate) fn sandbox_state(phase: Phase) -> PodSandboxState {
    match phase {
        Phase::Ready => PodSandboxState::SandboxReady,
        Phase::Creating | Phase::Dead | Phase::Stopped => PodSandboxState::SandboxNotready,
    }
}

pub(crate) fn sandbox(record: &SandboxRecord) -> PodSandboxStatus {
    PodSandboxStatus {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: sandbox_state(record.phase).into(),
        created_at: record.created_at,
        network: Some(network(record)),
        linux: Some(LinuxPodSandboxStatus {
            namespaces: Some(Namespace { options: Some(namespaces::options(&record.config)) }),
        }),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.runtime_handler.clone(),
    }
}

/// On the host's network a pod has no address of its own; a stopped one has none any more.
fn network(record: &SandboxRecord) -> PodSandboxNetworkStatus {
    let ips = match (&record.network, record.phase) {
        (Some(network), Phase::Ready) => network.ips.as_slice(),
        _ => &[],
    };
    let Some((first, further)) = ips.split_first() else { return PodSandboxNetworkStatus::default() };
    PodSandboxNetworkStatus {
        ip: first.clone(),
        additional_ips: further.iter().map(|ip| PodIp { ip: ip.clone() }).collect(),
    }
}

pub(crate) fn listed_sandbox(record: &SandboxRecord) -> PodSandbox {
    PodSandbox {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: sandbox_state(record.phase).into(),
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.runtime_handler.clone(),
    }
}

pub(crate) fn container_state(life: &Life) -> ContainerState {
    match life {
        Life::Created(_) => ContainerState::ContainerCreated,
        Life::Running(_) => ContainerState::ContainerRunning,
        Life::Exited(_) => ContainerState::ContainerExited,
    }
}

pub(crate) fn container(record: &ContainerRecord, life: &Life) -> ContainerStatus {
    let resources = record.config.linux.as_ref().and_then(|linux| linux.resources.clone());
    let mut status = ContainerStatus {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: container_state(life).into(),
        created_at: record.created_at,
        started_at: record.started_at,
        image: Some(image(record)),
        image_ref: record.image_ref.clone(),
        image_id: record.image_id.clone(),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        mounts: record.config.mounts.clone(),
        log_path: record.log_path.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        resources: Some(ContainerResources { linux: Some(resources.unwrap_or_default()), windows: None }),
        user: Some(ContainerUser { linux: Some(record.user.clone()) }),
        stop_signal: signal::to_cri(record.stop_signal).into(),
        ..ContainerStatus::default()
    };
    if let Life::Exited(ended) = life {
        status.started_at = if ended.started_at == 0 { record.started_at } else { ended.started_at };
        status.finished_at = ended.finished_at;
        status.exit_code = ended.code;
        status.reason = ended.reason.clone();
        status.message = ended.message.clone();
    }
    status
}

/// The image as it was asked for, never empty: a kubelet refuses a status without it.
fn image(record: &ContainerRecord) -> ImageSpec {
    let mut image = record.config.image.clone().unwrap_or_default();
    if !image.user_specified_image.is_empty() {
        image.image = image.user_specified_image.clone();
    }
    image
}

pub(crate) fn listed_container(record: &ContainerRecord, life: &Life) -> Container {
    Container {
        id: record.id.clone(),
        pod_sandbox_id: record.sandbox.clone(),
        metadata: record.config.metadata.clone(),
        image: Some(image(record)),
        image_ref: record.image_ref.clone(),
        image_id: record.image_id.clone(),
        state: container_state(life).into(),
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{Ended, tests::record};
    use proto::{LinuxContainerResources, Mount};

    #[test]
    fn a_status_echoes_mounts_and_resources_and_tells_how_it_ended() {
        let mut web = record("c");
        web.started_at = 5;
        web.config.mounts = vec![Mount { container_path: "/a".into(), host_path: "/h".into(), ..Mount::default() }];
        let resources = LinuxContainerResources { cpu_shares: 7, ..LinuxContainerResources::default() };
        web.config.linux =
            Some(proto::LinuxContainerConfig { resources: Some(resources.clone()), security_context: None });
        let ended = Ended { code: 3, reason: "Error".into(), message: "m".into(), started_at: 5, finished_at: 9 };
        let status = container(&web, &Life::Exited(ended));
        assert_eq!(status.mounts, web.config.mounts);
        assert_eq!(status.resources.unwrap().linux.unwrap(), resources);
        assert_eq!((status.exit_code, status.reason.as_str(), status.finished_at), (3, "Error", 9));
        assert_eq!(status.state, i32::from(ContainerState::ContainerExited));
    }
}
