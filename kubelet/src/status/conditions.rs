//! The conditions of a pod (upstream's `status/generate.go`).

use super::containers::terminated;
use super::phase::find;
use super::{Inputs, Termination, second};
use crate::pod::Role;
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The types that are the kubelet's to write; `DisruptionTarget` it shares with others.
pub(super) const OWNED: [&str; 8] = [
    "PodScheduled",
    "Ready",
    "Initialized",
    "ContainersReady",
    "PodResizeInProgress",
    "PodResizePending",
    "PodReadyToStartContainers",
    "AllContainersRestarting",
];

const UNKNOWN: &str = "UnknownContainerStatuses";
const COMPLETED: &str = "PodCompleted";
const FAILED: &str = "PodFailed";

/// What a condition says.
struct Says {
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Says {
    fn yes() -> Says {
        Says { status: true, reason: None, message: None }
    }

    fn no(reason: &'static str) -> Says {
        Says { status: false, reason: Some(reason), message: None }
    }

    fn because(reason: &'static str, message: String) -> Says {
        Says { status: false, reason: Some(reason), message: Some(message) }
    }
}

/// All conditions: first those of others, as the API server has them.
pub(super) fn conditions(inputs: &Inputs, status: &PodStatus) -> Vec<PodCondition> {
    let mut all = unowned(inputs);
    disruption(inputs, &mut all);
    let sandbox = if sandbox_is_fit(inputs) { Says::yes() } else { Says { status: false, ..Says::yes() } };
    let ready = ready(inputs, &all, status);
    all.push(condition(inputs, "PodReadyToStartContainers", sandbox));
    all.push(condition(inputs, "Initialized", initialized(inputs, status)));
    all.push(condition(inputs, "Ready", ready));
    all.push(condition(inputs, "ContainersReady", containers_ready(inputs, status)));
    all.push(condition(inputs, "PodScheduled", Says::yes()));
    all
}

/// Conditions that others wrote.
pub(super) fn unowned(inputs: &Inputs) -> Vec<PodCondition> {
    let theirs = inputs.pod.object().status.as_ref().and_then(|status| status.conditions.as_ref());
    theirs.into_iter().flatten().filter(|condition| !OWNED.contains(&condition.type_.as_str())).cloned().collect()
}

fn condition(inputs: &Inputs, kind: &str, says: Says) -> PodCondition {
    let status = if says.status { "True" } else { "False" };
    let old = inputs.previous.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: says.reason.map(str::to_owned),
        message: says.message,
        observed_generation: super::generation(inputs.pod),
        last_transition_time: since.or(Some(Time(second(inputs.now)))),
        last_probe_time: None,
    }
}

/// That the kubelet evicted the pod, for those who count disruptions.
fn disruption(inputs: &Inputs, all: &mut Vec<PodCondition>) {
    const KIND: &str = "DisruptionTarget";
    let told = inputs.previous.conditions.iter().flatten().find(|condition| condition.type_ == KIND).cloned();
    let now = match inputs.termination {
        Some(Termination::Evicted { message }) => {
            let says = Says { reason: Some("TerminationByKubelet"), message: Some(message.clone()), ..Says::yes() };
            Some(condition(inputs, KIND, says))
        }
        _ => told,
    };
    let Some(now) = now else { return };
    all.retain(|condition| condition.type_ != KIND);
    all.push(now);
}

/// Whether no new sandbox is needed (upstream's `PodSandboxChanged`).
fn sandbox_is_fit(inputs: &Inputs) -> bool {
    let Some(newest) = inputs.observed.sandboxes.first() else { return false };
    let ready = inputs.observed.sandboxes.iter().filter(|sandbox| sandbox.ready).count();
    let host_network = inputs.pod.host_network();
    newest.ready && ready == 1 && newest.host_network == host_network && (host_network || !newest.ips.is_empty())
}

fn initialized(inputs: &Inputs, status: &PodStatus) -> Says {
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for (role, container) in inputs.pod.containers().filter(|(role, _)| *role != Role::Regular) {
        match find(status, &container.name) {
            None => unknown.push(container.name.as_str()),
            Some(found) if role == Role::Sidecar && found.started == Some(true) => {}
            Some(found) if role == Role::Init && found.ready => {}
            Some(_) => incomplete.push(container.name.as_str()),
        }
    }
    if status.phase.as_deref() == Some("Succeeded") && unknown.is_empty() {
        return Says { reason: Some(COMPLETED), ..Says::yes() };
    }
    let began = |container: &ContainerStatus| {
        terminated(&container.state).is_some() || container.state.as_ref().is_some_and(|state| state.running.is_some())
    };
    if status.container_statuses.iter().flatten().any(began) {
        return Says::yes();
    }
    let told = inputs.previous.conditions.iter().flatten().any(|c| c.type_ == "Initialized" && c.status == "True");
    match list(&[("unknown", &unknown), ("incomplete", &incomplete)]) {
        Some(message) if !told => Says::because("ContainersNotInitialized", message),
        _ => Says::yes(),
    }
}

fn containers_ready(inputs: &Inputs, status: &PodStatus) -> Says {
    if status.container_statuses.is_none() {
        return Says::no(UNKNOWN);
    }
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    for (_, container) in inputs.pod.containers().filter(|(role, _)| *role != Role::Init) {
        match find(status, &container.name) {
            None => unknown.push(container.name.as_str()),
            Some(found) if !found.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    match status.phase.as_deref() {
        Some("Succeeded") if unknown.is_empty() => return Says::no(COMPLETED),
        Some("Failed") => return Says::no(FAILED),
        _ => {}
    }
    match list(&[("unknown", &unknown), ("unready", &unready)]) {
        Some(message) => Says::because("ContainersNotReady", message),
        None => Says::yes(),
    }
}

/// Ready: all containers are, and every readiness gate is open.
fn ready(inputs: &Inputs, others: &[PodCondition], status: &PodStatus) -> Says {
    let containers = containers_ready(inputs, status);
    if !containers.status {
        return containers;
    }
    let closed = |gate: &k8s_openapi::api::core::v1::PodReadinessGate| {
        let kind = &gate.condition_type;
        match others.iter().find(|condition| condition.type_ == *kind) {
            None => Some(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
            Some(condition) if condition.status != "True" => {
                Some(format!("the status of pod readiness gate {kind:?} is not \"True\", but {}", condition.status))
            }
            Some(_) => None,
        }
    };
    let messages: Vec<_> = inputs.pod.spec().readiness_gates.iter().flatten().filter_map(closed).collect();
    if messages.is_empty() { containers } else { Says::because("ReadinessGatesNotReady", messages.join(", ")) }
}

/// `containers with unready status: [a b]`, for each list that has something.
fn list(groups: &[(&str, &[&str])]) -> Option<String> {
    let some = groups.iter().filter(|(_, names)| !names.is_empty());
    let texts: Vec<_> =
        some.map(|(what, names)| format!("containers with {what} status: [{}]", names.join(" "))).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}
