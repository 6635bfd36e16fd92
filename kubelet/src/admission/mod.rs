//! May a pod run on this node?

pub(crate) mod requests;

use crate::config::Config;
use crate::node::{Facts, Pressures};
use crate::pod::Pod;
use crate::runtime::RuntimeStatus;
use crate::table::Entry;
use k8s_openapi::api::core::v1::Node;

/// Why a pod may not run here: the reason of its failed status and event, and the message after `Pod was rejected: `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// `OutOfcpu`, `NodeAffinity`, `PodFeatureUnsupported`, ….
    pub reason: String,
    /// What is wrong, in upstream's words where it has some.
    pub message: String,
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
    /// Allowed sysctls.
    pub config: &'a Config,
    /// Handlers and conditions.
    pub runtime: &'a RuntimeStatus,
}

/// Whether `pod` may run on `place`.
pub fn admit(pod: &Pod, place: &Place) -> Result<(), Rejection> {
    let _ = (pod, place);
    todo!()
}

/// The first field of `pod` that asks for something that is not built: it is never run without it.
pub fn unsupported(pod: &Pod) -> Option<Rejection> {
    let _ = pod;
    todo!()
}
