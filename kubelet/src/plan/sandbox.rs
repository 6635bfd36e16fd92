//! Has the pod a sandbox that can be used, and if not: what has to go, and is a new one needed at all?

use super::{Action, Desired, End, Memory, Plan, restarts_on_failure, terminate};
use crate::clock::Now;
use crate::pod::{Pod, Role};
use crate::runtime::{ContainerState, ObservedPod};

/// The id of the sandbox that the pod's containers go into; `None` if there is none or it is broken.
pub(super) fn usable<'a>(pod: &Pod, observed: &'a ObservedPod) -> Option<&'a str> {
    let newest = observed.sandboxes.first().filter(|newest| newest.ready)?;
    // Two that are ready: an earlier kubelet was interrupted. Nobody knows which one the containers are in.
    let alone = observed.sandboxes.iter().filter(|sandbox| sandbox.ready).count() == 1;
    let has_network = pod.host_network() || !newest.ips.is_empty();
    (alone && has_network && newest.host_network == pod.host_network()).then_some(newest.id.as_str())
}

/// The plan of a pod without a usable sandbox.
pub(super) fn plan(desired: &Desired<'_>, observed: &ObservedPod, memory: &Memory, now: Now, plan: &mut Plan) {
    let newest = observed.sandboxes.first();
    let attempt = newest.map_or(0, |newest| newest.attempt + 1);
    if !needed(desired.pod, observed, attempt) {
        plan.end = Some(End::Completed);
        return;
    }
    plan.actions = terminate::stop_everything(desired.pod, observed, now.mono, super::grace_period(desired.pod), now);
    // Whoever has to wait does nothing but end what runs: a plan that always has something to do is never slept on.
    if let Some(at) = memory.sandbox_retry_at.filter(|at| *at > now.mono) {
        plan.wake_at_the_latest(at);
        return;
    }
    // One that broke still holds its network.
    let broken = newest.filter(|newest| !newest.ready);
    plan.actions.extend(broken.map(|broken| Action::StopSandbox { id: broken.id.clone() }));
    // In a new sandbox everything begins again: an init container of the old one must not count as done.
    let is_init = |name: &str| desired.pod.container(name).is_some_and(|(role, _)| role != Role::Regular);
    let stale = observed.containers.iter().filter(|container| is_init(&container.name));
    plan.actions.extend(stale.map(|container| Action::RemoveContainer { id: container.id.clone() }));
    plan.actions.push(Action::CreateSandbox { attempt, replaces: newest.is_some() });
}

/// Whether anything is left to run in a new sandbox.
fn needed(pod: &Pod, observed: &ObservedPod, attempt: u32) -> bool {
    // Containers that are not started again ran, or died with their sandbox.
    if !restarts_on_failure(pod) && attempt != 0 && !observed.containers.is_empty() {
        return false;
    }
    let newest = |name: &str| observed.containers.iter().find(|container| container.name == name);
    let once = pod.spec().restart_policy.as_deref() == Some("OnFailure");
    let succeeded = |name: &str| {
        newest(name).is_some_and(|container| matches!(&container.state, ContainerState::Exited(exit) if exit.code == 0))
    };
    let any_left = pod.spec().containers.iter().any(|container| !(once && succeeded(&container.name)));
    let was_initialized =
        pod.spec().containers.iter().any(|container| {
            newest(&container.name).is_some_and(|container| container.state != ContainerState::Unknown)
        });
    any_left || !was_initialized
}
