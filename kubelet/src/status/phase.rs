//! The phase of a pod (upstream's `getPhase`), and what may be said of it.

use super::{Inputs, Termination, may_run};
use crate::pod::{Pod, Role};
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, PodStatus};

/// What a container contributes to the phase.
enum Is<'a> {
    Running,
    /// It ended.
    Stopped(&'a ContainerStateTerminated),
    /// It ended, and waits for its next start.
    Restarting(&'a ContainerStateTerminated),
    /// It never ran.
    Waiting,
    /// There is no status of it.
    Unknown,
}

impl<'a> Is<'a> {
    fn of(status: &'a PodStatus, name: &str) -> Is<'a> {
        let Some(container) = find(status, name) else { return Is::Unknown };
        let state = container.state.as_ref();
        if state.is_some_and(|state| state.running.is_some()) {
            return Is::Running;
        }
        let last = container.last_state.as_ref();
        match state.and_then(|state| state.terminated.as_ref()) {
            Some(end) => Is::Stopped(end),
            None => match last.and_then(|last| last.terminated.as_ref()) {
                Some(end) => Is::Restarting(end),
                None => Is::Waiting,
            },
        }
    }
}

/// How many containers are what.
#[derive(Default)]
struct Count {
    init_pending: u32,
    init_failed_for_good: u32,
    sidecars_pending: u32,
    running: u32,
    waiting: u32,
    unknown: u32,
    stopped: u32,
    stopped_for_good: u32,
    succeeded: u32,
}

impl Count {
    fn of(pod: &Pod, status: &PodStatus) -> Count {
        let mut count = Count::default();
        for (role, container) in pod.containers() {
            let is = Is::of(status, &container.name);
            match role {
                Role::Init => count.init(pod, container, is),
                Role::Sidecar => count.sidecar(is, find(status, &container.name)),
                Role::Regular => count.regular(pod, container, is),
            }
        }
        count
    }

    fn init(&mut self, pod: &Pod, container: &Container, is: Is) {
        match is {
            Is::Stopped(end) | Is::Restarting(end) if end.exit_code == 0 => {}
            Is::Stopped(end) | Is::Restarting(end) => {
                self.init_failed_for_good += u32::from(!restarts(pod, container, end.exit_code));
            }
            Is::Running | Is::Waiting | Is::Unknown => self.init_pending += 1,
        }
    }

    /// One that ended says nothing: it is started again, or ended with the pod.
    fn sidecar(&mut self, is: Is, status: Option<&ContainerStatus>) {
        match is {
            Is::Running => {
                self.sidecars_pending += u32::from(status.and_then(|status| status.started) != Some(true));
                self.running += 1;
            }
            Is::Stopped(_) | Is::Restarting(_) => {}
            Is::Waiting => {
                self.sidecars_pending += 1;
                self.waiting += 1;
            }
            Is::Unknown => self.unknown += 1,
        }
    }

    fn regular(&mut self, pod: &Pod, container: &Container, is: Is) {
        match is {
            Is::Running => self.running += 1,
            Is::Waiting => self.waiting += 1,
            Is::Unknown => self.unknown += 1,
            Is::Stopped(end) => {
                self.stopped += 1;
                self.stopped_for_good += u32::from(!restarts(pod, container, end.exit_code));
                self.succeeded += u32::from(end.exit_code == 0);
            }
            Is::Restarting(end) => {
                self.stopped += 1;
                self.stopped_for_good += u32::from(!restarts(pod, container, end.exit_code));
            }
        }
    }
}

/// The phase that the containers make; `over` says that nothing runs and nothing will.
pub(super) fn phase(inputs: &Inputs, status: &PodStatus, over: bool) -> &'static str {
    let count = Count::of(inputs.pod, status);
    if count.init_failed_for_good > 0 {
        return "Failed";
    }
    let initialised = has_started(inputs);
    if count.init_pending > 0 || (count.sidecars_pending > 0 && !initialised) || count.waiting > 0 {
        return "Pending";
    }
    if count.unknown > 0 {
        return "Pending";
    }
    if count.running > 0 {
        return "Running";
    }
    if count.stopped == 0 {
        return "Pending";
    }
    let all_succeeded = count.stopped == count.succeeded;
    let may_restart = count.stopped != count.stopped_for_good;
    match (over && !inputs.pod.is_static(), may_restart, all_succeeded) {
        (true, _, true) | (false, false, true) => "Succeeded",
        (true, _, false) | (false, false, false) => "Failed",
        (false, true, _) => "Running",
    }
}

/// Whether a regular container was made in the newest sandbox: the pod was initialised then, and sidecars that start
/// again don't make it pending.
fn has_started(inputs: &Inputs) -> bool {
    let Some(sandbox) = inputs.observed.sandboxes.first() else { return false };
    inputs.observed.containers.iter().any(|container| {
        container.sandbox_id == sandbox.id && matches!(inputs.pod.container(&container.name), Some((Role::Regular, _)))
    })
}

/// Whether a container that ended so is started again.
pub(super) fn restarts(pod: &Pod, container: &Container, code: i32) -> bool {
    let policy = container.restart_policy.as_deref().or(pod.spec().restart_policy.as_deref());
    match policy {
        Some("Never") => false,
        Some("OnFailure") => code != 0,
        _ => true,
    }
}

/// Writes phase, reason and message. A final phase that was told stays; so do reason and message while the phase does.
pub(super) fn set(inputs: &Inputs, status: &mut PodStatus, phase: &str) {
    let theirs = inputs.pod.object().status.as_ref();
    let told = [theirs, Some(inputs.previous)].into_iter().flatten().find(|status| is_final(status));
    let phase = match told {
        Some(told) => told.phase.as_deref().unwrap_or(phase),
        None => phase,
    };
    status.phase = Some(phase.to_owned());
    if status.phase == inputs.previous.phase {
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        status.reason = filled(&inputs.previous.reason).or_else(|| theirs.and_then(|theirs| filled(&theirs.reason)));
        status.message = filled(&inputs.previous.message).or_else(|| theirs.and_then(|theirs| filled(&theirs.message)));
    }
    if told.is_some() {
        return;
    }
    let (reason, message) = match inputs.termination {
        Some(Termination::Evicted { message }) => ("Evicted", message.as_str()),
        Some(Termination::DeadlineExceeded) => {
            ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        }
        _ => return,
    };
    status.phase = Some("Failed".to_owned());
    status.reason = Some(reason.to_owned());
    status.message = Some(message.to_owned());
}

/// A pod that is over has a final phase: what did not succeed has failed. A static pod only pauses, in upstream's eyes:
/// its mirror keeps the phase that its containers make.
pub(super) fn settle(pod: &Pod, status: &mut PodStatus) {
    if !is_final(status) && !pod.is_static() {
        status.phase = Some("Failed".to_owned());
    }
}

/// Others take what a pod holds when its phase is final, so it is not said while a container may still run.
pub(super) fn hold_back(inputs: &Inputs, status: &mut PodStatus) {
    if is_final(status) && !is_final(inputs.previous) && may_run(inputs.observed) {
        status.phase = inputs.previous.phase.clone().or(Some("Pending".to_owned()));
        status.reason = inputs.previous.reason.clone();
        status.message = inputs.previous.message.clone();
    }
}

/// Whether this phase is never left.
pub(crate) fn is_final(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"))
}

/// The status of the container of this name, init or regular.
pub(super) fn find<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    all.into_iter().find(|container| container.name == name)
}
