//! How a pod ends: regular containers at once, then sidecars one by one in reverse order, then the sandbox.

use super::{Action, Kill};
use crate::clock::Now;
use crate::pod::{Pod, Role};
use crate::runtime::{Container, ContainerState, ObservedPod};
use std::time::Duration;
use tokio::time::Instant;

/// Nobody gets less time than this to end, not even in a forced deletion.
pub(super) const MINIMUM_GRACE: Duration = Duration::from_secs(2);
/// The grace period of a pod that names none.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);
/// Nobody needs more: 68 years. The API server takes any number of seconds, and clocks do not.
pub(super) const LONGEST_GRACE: Duration = Duration::from_secs(i32::MAX as u64);

/// The time that a pod's containers have to end: what its deletion asks for, or its spec.
pub fn grace_period(pod: &Pod) -> Duration {
    let deletion = pod.object().metadata.deletion_grace_period_seconds;
    let seconds = deletion.or(pod.spec().termination_grace_period_seconds);
    let grace = seconds.map_or(DEFAULT_GRACE, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    grace.min(LONGEST_GRACE)
}

/// What has to happen for a pod to end that began to end at `since`. Nothing, once no container runs and no sandbox is
/// ready.
pub fn terminate(pod: &Pod, observed: &ObservedPod, since: Instant, grace: Duration, now: Now) -> Vec<Action> {
    stop_everything(pod, observed, since, grace, now)
}

pub(super) fn stop_everything(
    pod: &Pod,
    observed: &ObservedPod,
    since: Instant,
    grace: Duration,
    now: Now,
) -> Vec<Action> {
    let until = (since + grace).max(now.mono + MINIMUM_GRACE);
    let may_run =
        |container: &&Container| matches!(container.state, ContainerState::Running { .. } | ContainerState::Unknown);
    let kill = |container: &Container| Kill {
        id: container.id.clone(),
        name: container.name.clone(),
        message: format!("Stopping container {}", container.name),
        until,
    };
    let sidecar = |name: &str| matches!(pod.container(name), Some((Role::Sidecar, _)));
    let running = || observed.containers.iter().filter(may_run);
    let at_once: Vec<Kill> = running().filter(|container| !sidecar(&container.name)).map(kill).collect();
    let sidecars: Vec<&str> = pod
        .containers()
        .filter(|(role, _)| *role == Role::Sidecar)
        .map(|(_, container)| container.name.as_str())
        .collect();
    let one_by_one = sidecars
        .iter()
        .rev()
        .map(|name| running().filter(|container| container.name == *name).map(kill).collect::<Vec<_>>());
    let kills = std::iter::once(at_once).chain(one_by_one).filter(|kills| !kills.is_empty()).map(Action::Kill);
    let sandboxes = observed.sandboxes.iter().filter(|sandbox| sandbox.ready);
    kills.chain(sandboxes.map(|sandbox| Action::StopSandbox { id: sandbox.id.clone() })).collect()
}
