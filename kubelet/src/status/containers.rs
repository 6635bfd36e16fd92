//! The statuses of a pod's containers (upstream's `convertToAPIContainerStatuses`).
//!
//! A status is made of what the runtime has (the newest container is the state, the one before it the last state), of what
//! was told before (a container that the runtime lost was not forgotten by everyone), and of what stands in its way.

use super::phase::restarts;
use super::{Inputs, named, none_if_empty, resources, second};
use crate::pod::{Pod, Role};
use crate::runtime::{ContainerState as Observed, Exit, ObservedPod};
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, LinuxContainerUser, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The most that the termination messages of all containers of a pod may take, in bytes.
const TERMINATION_MESSAGES: usize = 12 * 1024;

/// The init containers, in the order of the spec.
pub(super) fn init(inputs: &Inputs) -> Vec<ContainerStatus> {
    let previous = inputs.previous.init_container_statuses.as_deref().unwrap_or_default();
    let init = inputs.pod.containers().filter(|(role, _)| *role != Role::Regular);
    init.map(|(role, container)| status(inputs, role, container, previous)).collect()
}

/// The containers, by name.
pub(super) fn regular(inputs: &Inputs) -> Vec<ContainerStatus> {
    let previous = inputs.previous.container_statuses.as_deref().unwrap_or_default();
    let regular = inputs.pod.containers().filter(|(role, _)| *role == Role::Regular);
    let mut all: Vec<_> = regular.map(|(role, container)| status(inputs, role, container, previous)).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Ephemeral containers: `kubectl debug` adds them to a pod that runs. They are not built, so they say why they wait.
pub(super) fn ephemeral(inputs: &Inputs) -> Vec<ContainerStatus> {
    let all = inputs.pod.spec().ephemeral_containers.iter().flatten();
    let message = "spec.ephemeralContainers is not supported by this kubelet";
    all.map(|container| ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(waiting("PodFeatureUnsupported", Some(message.to_owned()))),
        last_state: Some(ContainerState::default()),
        ..ContainerStatus::default()
    })
    .collect()
}

fn status(inputs: &Inputs, role: Role, container: &Container, previous: &[ContainerStatus]) -> ContainerStatus {
    let old = previous.iter().find(|status| status.name == container.name);
    let mut runs = named(inputs.observed, &container.name);
    let mut status = match runs.next() {
        None => unobserved(inputs, container, old),
        Some(newest) => {
            let mut status = observed(inputs, container, newest, old);
            if let Some(before) = runs.next() {
                status.last_state = observed(inputs, container, before, old).state;
            }
            status
        }
    };
    if finished_unseen(inputs, role, &status) {
        status.state = Some(ended_unseen());
    } else {
        wait(inputs, role, container, &mut status);
    }
    judge(inputs, role, container, &mut status);
    status
}

/// The status of a container that the runtime has nothing of.
fn unobserved(inputs: &Inputs, container: &Container, old: Option<&ContainerStatus>) -> ContainerStatus {
    if let Some(old) = old.filter(|old| terminated(&old.state).is_some()) {
        return old.clone();
    }
    let reason = match inputs.pod.spec().init_containers.as_deref() {
        None | Some([]) => "ContainerCreating",
        Some(_) => "PodInitializing",
    };
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(waiting(reason, None)),
        last_state: Some(ContainerState::default()),
        volume_mounts: none_if_empty(mounts(container, &[])),
        ..ContainerStatus::default()
    };
    let Some(old) = old else { return status };
    status.restart_count = old.restart_count;
    status.last_state = Some(old.last_state.clone().unwrap_or_default());
    let ran = old.state.as_ref().is_some_and(|state| state.running.is_some());
    if ran && terminated(&old.last_state).is_none() {
        // It ran and is gone: that it failed is the one thing to say, or the pod would be pending again.
        status.last_state = Some(lost(
            "The container could not be located when the pod was deleted.  The container used to be Running",
        ));
        status.restart_count += i32::from(inputs.pod.object().metadata.deletion_timestamp.is_none());
    }
    status
}

/// The status of a container that the runtime has.
fn observed(
    inputs: &Inputs,
    container: &Container,
    run: &crate::runtime::Container,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let id = format!("{}://{}", inputs.runtime_name, run.id);
    let mut status = ContainerStatus {
        name: run.name.clone(),
        image: run.image.clone(),
        image_id: run.image_ref.clone(),
        restart_count: i32::try_from(run.restart_count).unwrap_or(i32::MAX),
        state: Some(state(inputs, run, &id, old)),
        last_state: Some(last_state(&id, old)),
        container_id: Some(id),
        volume_mounts: none_if_empty(mounts(container, &run.mounts)),
        allocated_resources: container.resources.as_ref().and_then(|resources| resources.requests.clone()),
        resources: Some(resources::of_container(container, run)),
        user: run.user.as_ref().map(user),
        ..ContainerStatus::default()
    };
    if let Some(old) = old {
        status.restart_count = status.restart_count.max(old.restart_count);
        let was_running = old.state.as_ref().is_some_and(|state| state.running.is_some());
        if run.state == Observed::Unknown && was_running {
            status.restart_count = old.restart_count + 1;
        }
    }
    status
}

fn state(inputs: &Inputs, run: &crate::runtime::Container, id: &str, old: Option<&ContainerStatus>) -> ContainerState {
    match &run.state {
        Observed::Running { started_at } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(second(*started_at))) }),
            ..ContainerState::default()
        },
        Observed::Exited(exit) => ContainerState {
            terminated: Some(end(inputs, exit, id, inputs.termination_messages.get(&run.id))),
            ..ContainerState::default()
        },
        Observed::Unknown if old.is_some_and(|old| old.state.as_ref().is_some_and(|s| s.running.is_some())) => {
            lost("The container could not be located when the pod was terminated")
        }
        Observed::Created | Observed::Unknown => {
            ContainerState { waiting: Some(ContainerStateWaiting::default()), ..ContainerState::default() }
        }
    }
}

fn end(inputs: &Inputs, exit: &Exit, id: &str, last_words: Option<&String>) -> ContainerStateTerminated {
    let containers = inputs.pod.containers().count().max(1);
    let message = last_words.filter(|words| !words.is_empty()).unwrap_or(&exit.message);
    let limit = message.floor_char_boundary(TERMINATION_MESSAGES / containers);
    ContainerStateTerminated {
        exit_code: exit.code,
        reason: Some(exit.reason.clone()).filter(|reason| !reason.is_empty()),
        message: Some(message[..limit].to_owned()).filter(|message| !message.is_empty()),
        started_at: exit.started_at.map(|at| Time(second(at))),
        finished_at: Some(Time(second(exit.finished_at))),
        container_id: Some(id.to_owned()),
        ..ContainerStateTerminated::default()
    }
}

/// How the run before this one ended, as it was told: the runtime may have removed it.
fn last_state(id: &str, old: Option<&ContainerStatus>) -> ContainerState {
    let Some(old) = old else { return ContainerState::default() };
    if old.container_id.as_deref() != Some(id) && terminated(&old.state).is_some() {
        return old.state.clone().unwrap_or_default();
    }
    old.last_state.clone().unwrap_or_default()
}

/// An init container that the runtime removed long ago, of a pod that went on to its regular containers: it succeeded.
fn finished_unseen(inputs: &Inputs, role: Role, status: &ContainerStatus) -> bool {
    role == Role::Init
        && named(inputs.observed, &status.name).next().is_none()
        && status.state.as_ref().is_some_and(|state| state.waiting.is_some())
        && regular_created(inputs.pod, inputs.observed)
}

fn ended_unseen() -> ContainerState {
    let message = "Unable to get init container status from container runtime and pod has been initialized, treat it \
                   as exited normally";
    let terminated = ContainerStateTerminated {
        reason: Some("Completed".to_owned()),
        message: Some(message.to_owned()),
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

fn regular_created(pod: &Pod, observed: &ObservedPod) -> bool {
    observed.containers.iter().any(|container| {
        container.state != Observed::Unknown && matches!(pod.container(&container.name), Some((Role::Regular, _)))
    })
}

/// A container that is to be started and has a reason not to be: it waits, and its end becomes its last state.
fn wait(inputs: &Inputs, role: Role, container: &Container, status: &mut ContainerStatus) {
    let Some(note) = inputs.notes.get(&container.name) else { return };
    if !should_start(inputs, role, container) {
        return;
    }
    if terminated(&status.state).is_some() {
        status.last_state = status.state.take();
    }
    status.state = Some(waiting(note.reason, Some(note.message.clone())));
}

/// Upstream's `ShouldContainerBeRestarted`.
fn should_start(inputs: &Inputs, role: Role, container: &Container) -> bool {
    if inputs.pod.object().metadata.deletion_timestamp.is_some() {
        return false;
    }
    match named(inputs.observed, &container.name).next().map(|run| &run.state) {
        None | Some(Observed::Created | Observed::Unknown) => true,
        Some(Observed::Running { .. }) => false,
        Some(Observed::Exited(exit)) if role == Role::Init && exit.code == 0 => false,
        Some(Observed::Exited(exit)) => restarts(inputs.pod, container, exit.code),
    }
}

/// `started` and `ready`.
fn judge(inputs: &Inputs, role: Role, container: &Container, status: &mut ContainerStatus) {
    let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
    let newest = named(inputs.observed, &container.name).next().filter(|_| running);
    let verdict = |probe: bool, says: fn(&crate::probes::State) -> bool| {
        newest.is_some_and(|run| !probe || says(&(inputs.probes)(&run.id)))
    };
    let started = verdict(container.startup_probe.is_some(), |state| state.started);
    let ready = match role {
        Role::Init => terminated(&status.state).is_some_and(|end| end.exit_code == 0),
        Role::Sidecar | Role::Regular => started && verdict(container.readiness_probe.is_some(), |state| state.ready),
    };
    status.started = Some(started);
    status.ready = ready;
}

/// Says of every container of a pod that is over how it ended. What the runtime lost has failed; what was never reached
/// after a failed initialisation still waits (upstream's `TerminatePod`).
pub(super) fn settle(pod: &Pod, status: &mut PodStatus) {
    let reached = initialised(pod, status);
    let regular = status.container_statuses.iter_mut().flatten().filter(|_| reached);
    for container in regular {
        settle_one(container);
    }
    let init = status.init_container_statuses.as_deref_mut().unwrap_or_default();
    let tried = |status: &ContainerStatus| {
        status.state.as_ref().is_none_or(|state| state.waiting.is_none()) || terminated(&status.last_state).is_some()
    };
    let count = init.iter().rposition(tried).map_or(1, |last| last + 1).min(init.len());
    init[..count].iter_mut().for_each(settle_one);
}

fn settle_one(status: &mut ContainerStatus) {
    if terminated(&status.state).is_none() {
        status.state = Some(lost("The container could not be located when the pod was terminated"));
        status.started = Some(false);
        status.ready = false;
    }
}

/// Whether the regular containers of a pod were reached.
fn initialised(pod: &Pod, status: &PodStatus) -> bool {
    let Some(last) = pod.spec().init_containers.as_deref().and_then(<[Container]>::last) else { return true };
    let ran = |status: &ContainerStatus| {
        terminated(&status.last_state).is_some() || status.state.as_ref().is_none_or(|state| state.waiting.is_none())
    };
    if status.container_statuses.iter().flatten().any(ran) {
        return true;
    }
    let Some(status) = status.init_container_statuses.iter().flatten().find(|status| status.name == last.name) else {
        return false;
    };
    if last.restart_policy.as_deref() == Some("Always") {
        return status.started == Some(true);
    }
    [&status.last_state, &status.state].into_iter().any(|state| terminated(state).is_some_and(|end| end.exit_code == 0))
}

fn mounts(container: &Container, actual: &[proto::Mount]) -> Vec<VolumeMountStatus> {
    let status = |mount: &k8s_openapi::api::core::v1::VolumeMount| {
        let read_only = mount.read_only.unwrap_or(false);
        let recursive =
            actual.iter().any(|actual| actual.container_path == mount.mount_path && actual.recursive_read_only);
        let mode = if recursive { "Enabled" } else { "Disabled" };
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| mode.to_owned()),
            ..VolumeMountStatus::default()
        }
    };
    container.volume_mounts.iter().flatten().map(status).collect()
}

fn user(user: &proto::ContainerUser) -> ContainerUser {
    let linux = user.linux.as_ref().map(|linux| LinuxContainerUser {
        uid: linux.uid,
        gid: linux.gid,
        supplemental_groups: none_if_empty(linux.supplemental_groups.clone()),
    });
    ContainerUser { linux }
}

pub(super) fn terminated(state: &Option<ContainerState>) -> Option<&ContainerStateTerminated> {
    state.as_ref()?.terminated.as_ref()
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let message = message.filter(|message| !message.is_empty());
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    }
}

/// The end of a container that nobody saw.
fn lost(message: &str) -> ContainerState {
    let terminated = ContainerStateTerminated {
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some(message.to_owned()),
        exit_code: 137,
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}
