//! MemoryPressure, DiskPressure, PIDPressure and Ready.

use super::Observed;
use crate::clock::Now;
use crate::config::duration;
use crate::runtime::Health;
use k8s_openapi::api::core::v1::{NodeCondition, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;
use tokio::time::Instant;

/// How long the runtime may be silent before it is down.
const RUNTIME_THRESHOLD: Duration = Duration::from_secs(30);
/// How long listing pods may fail, or hang.
const RELIST_THRESHOLD: Duration = Duration::from_secs(180);
/// Resources that a node can't be used without.
const REQUIRED: [&str; 4] = ["cpu", "memory", "pods", "ephemeral-storage"];

/// A condition in its two states: reason, message and event.
struct Words {
    kind: &'static str,
    good: [&'static str; 3],
    bad: [&'static str; 3],
}

const MEMORY: Words = Words {
    kind: "MemoryPressure",
    good: ["KubeletHasSufficientMemory", "kubelet has sufficient memory available", "NodeHasSufficientMemory"],
    bad: ["KubeletHasInsufficientMemory", "kubelet has insufficient memory available", "NodeHasInsufficientMemory"],
};
const DISK: Words = Words {
    kind: "DiskPressure",
    good: ["KubeletHasNoDiskPressure", "kubelet has no disk pressure", "NodeHasNoDiskPressure"],
    bad: ["KubeletHasDiskPressure", "kubelet has disk pressure", "NodeHasDiskPressure"],
};
const PID: Words = Words {
    kind: "PIDPressure",
    good: ["KubeletHasSufficientPID", "kubelet has sufficient PID available", "NodeHasSufficientPID"],
    bad: ["KubeletHasInsufficientPID", "kubelet has insufficient PID available", "NodeHasInsufficientPID"],
};

/// All conditions of a node whose other status is `status` already, and the events of those that changed.
pub(super) fn conditions(
    status: &NodeStatus,
    observed: &Observed<'_>,
    now: Now,
) -> (Vec<NodeCondition>, Vec<&'static str>) {
    let mut list = status.conditions.clone().unwrap_or_default();
    let mut events = Vec::new();
    let pressures = observed.pressures;
    for (words, pressed) in [(MEMORY, pressures.memory), (DISK, pressures.disk), (PID, pressures.pid)] {
        let [reason, message, event] = if pressed { words.bad } else { words.good };
        if set(&mut list, words.kind, pressed, reason, message, now) != Before::Same {
            events.push(event);
        }
    }
    let missing: Vec<&str> =
        REQUIRED.into_iter().filter(|name| !status.capacity.iter().any(|of| of.contains_key(*name))).collect();
    let mut errors: Vec<String> =
        unready(observed.health, now.mono).iter().map(|why| why.words(observed.health, now.mono)).collect();
    if !missing.is_empty() {
        errors.push(format!("missing node capacity for resources: {}", missing.join(", ")));
    }
    let (reason, message, event) = match aggregate(&errors) {
        None => ("KubeletReady", "kubelet is posting ready status".to_owned(), "NodeReady"),
        Some(message) => ("KubeletNotReady", message, "NodeNotReady"),
    };
    // A new node has not become ready or unready: it is what it is.
    if set(&mut list, "Ready", errors.is_empty(), reason, &message, now) == Before::Other {
        events.push(event);
    }
    (list, events)
}

/// What a condition was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Same,
    Other,
    Missing,
}

fn set(list: &mut Vec<NodeCondition>, kind: &str, is: bool, reason: &str, message: &str, now: Now) -> Before {
    let status = if is { "True" } else { "False" };
    let time = Some(Time(now.wall));
    let at = list.iter().position(|condition| condition.type_ == kind);
    let (before, since) = match at {
        Some(at) if list[at].status == status => (Before::Same, list[at].last_transition_time.clone()),
        Some(_) => (Before::Other, time.clone()),
        None => (Before::Missing, time.clone()),
    };
    let condition = NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: time,
        last_transition_time: since,
    };
    match at {
        Some(at) => list[at] = condition,
        None => list.push(condition),
    }
    before
}

/// Why the runtime is given no pods. Equal for as long as it is the same: how long it has been so is no news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node) enum Unready {
    /// It has never said that it is ready.
    Unknown,
    /// It has not said so for [`RUNTIME_THRESHOLD`].
    Down,
    /// Its pods have never been listed.
    NeverListed,
    /// They have not been listed for [`RELIST_THRESHOLD`].
    NotListed,
    /// It has said nothing of its network.
    NetworkUnknown,
    /// A condition of its own is not true; in the form that upstream gives it.
    Condition(String),
}

/// What keeps the runtime from being given pods.
pub(in crate::node) fn unready(health: &Health, now: Instant) -> Vec<Unready> {
    let mut all = Vec::new();
    match health.last_ready {
        None => all.push(Unready::Unknown),
        Some(at) if now - at >= RUNTIME_THRESHOLD => all.push(Unready::Down),
        Some(_) => {}
    }
    match health.last_relist {
        None => all.push(Unready::NeverListed),
        Some(at) if now - at > RELIST_THRESHOLD => all.push(Unready::NotListed),
        Some(_) => {}
    }
    if health.status.is_some() {
        let conditions = [
            untrue(health, "RuntimeReady", "container runtime not ready"),
            untrue(health, "NetworkReady", "container runtime network not ready"),
        ];
        all.extend(conditions.into_iter().flatten().map(Unready::Condition));
    } else if health.last_ready.is_none() {
        all.push(Unready::NetworkUnknown);
    }
    all
}

impl Unready {
    /// In upstream's words. Where listing pods hangs, the call and the pod that it hangs in are named.
    fn words(&self, health: &Health, now: Instant) -> String {
        let blocked = health.blocked_by.as_ref().map(|call| format!(", blocked by {call}")).unwrap_or_default();
        match self {
            Unready::Unknown => "container runtime status check may not have completed yet".to_owned(),
            Unready::Down => "container runtime is down".to_owned(),
            Unready::NeverListed => format!("PLEG is not healthy: pleg has yet to be successful{blocked}"),
            Unready::NotListed => {
                let age = health.last_relist.map(|at| now - at).unwrap_or_default();
                format!(
                    "PLEG is not healthy: pleg was last seen active {} ago; threshold is {}{blocked}",
                    duration::format(Duration::from_secs(age.as_secs())),
                    duration::format(RELIST_THRESHOLD)
                )
            }
            Unready::NetworkUnknown => "network state unknown".to_owned(),
            Unready::Condition(text) => text.clone(),
        }
    }
}

/// A condition of the runtime that is not true.
fn untrue(health: &Health, kind: &str, what: &str) -> Option<String> {
    match health.condition(kind) {
        Some(condition) if condition.status => None,
        Some(condition) => {
            Some(format!("{what}: {kind}=false reason:{} message:{}", condition.reason, condition.message))
        }
        None => Some(format!("{what}: <nil>")),
    }
}

/// Several errors as one, as Go's `errors.Aggregate` prints them: each once.
fn aggregate(errors: &[String]) -> Option<String> {
    let mut seen: Vec<&str> = Vec::new();
    for error in errors {
        if !seen.contains(&error.as_str()) {
            seen.push(error);
        }
    }
    match seen[..] {
        [] => None,
        [one] => Some(one.to_owned()),
        _ => Some(format!("[{}]", seen.join(", "))),
    }
}
