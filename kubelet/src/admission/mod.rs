//! May a pod run on this node?
//!
//! The scheduler has said yes already, or was not asked: what it looked at may have changed, and a static pod has met no
//! scheduler. Each check is a pure function in a file of its own; the first that fails rejects the pod for good, with
//! upstream's reason and words. A pod that runs already when the kubelet starts is not asked: it keeps what it has.

mod affinity;
mod apparmor;
mod fit;
mod ports;
mod sysctls;
mod taints;
#[cfg(test)]
mod tests;
mod unsupported;

pub use apparmor::enabled as apparmor_enabled;
pub use unsupported::unsupported;

use crate::node::{Facts, Pressures};
use crate::pod::{Pod, QosClass};
use crate::runtime::RuntimeStatus;
use crate::spec::resources::critical;
use crate::table::Entry;
use k8s_openapi::api::core::v1::{Node, Taint};

/// Why a pod may not run here: the reason of its failed status and event, and the message after `Pod was rejected: `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// `OutOfcpu`, `NodeAffinity`, `PodFeatureUnsupported`, ….
    pub reason: String,
    /// What is wrong, in upstream's words where it has some.
    pub message: String,
}

impl Rejection {
    fn new(reason: impl Into<String>, message: impl Into<String>) -> Rejection {
        Rejection { reason: reason.into(), message: message.into() }
    }

    /// One of the scheduler's predicates.
    fn predicate(name: &str, failure: &str) -> Rejection {
        Rejection::new(name, format!("Predicate {name} failed: {failure}"))
    }
}

/// What a pod is to fit on.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The pods that are here; those that are not active don't count.
    pub others: &'a [Entry],
    /// Capacity.
    pub facts: &'a Facts,
    /// Labels and taints.
    pub node: &'a Node,
    /// What the node runs short of.
    pub pressures: Pressures,
    /// Sysctl patterns that are allowed beyond the safe ones.
    pub allowed_sysctls: &'a [String],
    /// Handlers and conditions.
    pub runtime: &'a RuntimeStatus,
    /// Whether the kernel enforces AppArmor profiles.
    pub apparmor: bool,
}

/// Whether `pod` may run on `place`.
///
/// # Errors
/// The first reason why it may not.
pub fn admit(pod: &Pod, place: &Place) -> Result<(), Rejection> {
    pressure(pod, place.pressures)?;
    sysctls::check(pod, place.allowed_sysctls)?;
    operating_system(pod)?;
    supplemental_groups(pod, place.runtime)?;
    fit::check(pod, place)?;
    affinity::check(pod, place.node)?;
    ports::check(pod, place.others)?;
    taints::check(pod, place.node)?;
    apparmor::check(pod, place.apparmor)?;
    unsupported(pod).map_or(Ok(()), Err)
}

/// A node that runs short of something takes no more pods, but those that it can't do without. Memory alone still lets in
/// whatever has asked for its share of it.
fn pressure(pod: &Pod, pressures: Pressures) -> Result<(), Rejection> {
    let conditions =
        [(pressures.memory, "MemoryPressure"), (pressures.disk, "DiskPressure"), (pressures.pid, "PIDPressure")];
    let now: Vec<_> = conditions.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    if now.is_empty() || critical(pod) {
        return Ok(());
    }
    let taint = Taint {
        key: "node.kubernetes.io/memory-pressure".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    if now == ["MemoryPressure"] && (pod.qos() != QosClass::BestEffort || taints::tolerates(pod, &taint)) {
        return Ok(());
    }
    Err(Rejection::new("Evicted", format!("The node had condition: [{}]. ", now.join(" "))))
}

fn operating_system(pod: &Pod) -> Result<(), Rejection> {
    let label = pod.object().metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    if label.is_some_and(|label| label != "linux") {
        return Err(Rejection::new(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        ));
    }
    match &pod.spec().os {
        Some(os) if os.name != "linux" => {
            Err(Rejection::new("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"))
        }
        _ => Ok(()),
    }
}

fn supplemental_groups(pod: &Pod, runtime: &RuntimeStatus) -> Result<(), Rejection> {
    let policy = pod.spec().security_context.as_ref().and_then(|own| own.supplemental_groups_policy.as_deref());
    if policy == Some("Strict") && !runtime.supplemental_groups_policy {
        return Err(Rejection::new(
            "SupplementalGroupsPolicyNotSupported",
            "SupplementalGroupsPolicy=Strict is not supported in this node",
        ));
    }
    Ok(())
}
