//! What is told of a pod: its phase, its conditions, its containers.
//!
//! [`generate`] is a pure function, made of [`containers`] (statuses), [`phase`] and [`conditions`], each upstream's rules
//! (`generateAPIPodStatus`). [`patch`] says what a status changes; the [`writer`] tells the API server.

mod conditions;
mod containers;
mod patch;
mod phase;
mod resources;
#[cfg(test)]
mod tests;
pub mod writer;

pub(crate) use phase::is_final;

use crate::node::Facts;
use crate::plan::Waiting;
use crate::pod::Pod;
use crate::probes;
use crate::runtime::{Container, ContainerState, ObservedPod};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// All that a status is made of.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The newest version of the pod.
    pub pod: &'a Pod,
    /// What the runtime has of it.
    pub observed: &'a ObservedPod,
    /// What stands in a container's way, by its name.
    pub notes: &'a BTreeMap<String, Waiting>,
    /// What the probes of a container say, by its id. Asked only about containers that run and have probes.
    pub probes: &'a dyn Fn(&str) -> probes::State,
    /// The scheme of container ids: the runtime's name.
    pub runtime_name: &'a str,
    /// Our machine's addresses.
    pub facts: &'a Facts,
    /// The status that was generated before; the object's own at first.
    pub previous: &'a PodStatus,
    /// Why the pod ends, if it does.
    pub termination: Option<&'a Termination>,
    /// Termination messages that were read, by container id.
    pub termination_messages: &'a BTreeMap<String, String>,
    /// The time of conditions that change now.
    pub now: Timestamp,
}

/// Why a pod ends for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Termination {
    /// It was not admitted: phase Failed, nothing was run.
    Rejected {
        /// `OutOfcpu`, `NodeAffinity`, ….
        reason: String,
        /// The message after `Pod was rejected: `.
        message: String,
    },
    /// The node ran short of something: phase Failed, reason Evicted.
    Evicted {
        /// What it ran short of.
        message: String,
    },
    /// `activeDeadlineSeconds` is over: phase Failed, reason DeadlineExceeded.
    DeadlineExceeded,
    /// All that was to run has run, or an init container failed for good; what is left (sidecars) is ended.
    Completed,
    /// The object is being deleted, or is gone. The phase follows from the containers once all have ended.
    Deleted,
}

/// The status of a pod.
///
/// A phase that is final is never left, and never said while a container may run.
pub fn generate(inputs: &Inputs) -> PodStatus {
    if let Some(Termination::Rejected { reason, message }) = inputs.termination {
        return rejected(inputs, reason, message);
    }
    let over = inputs.termination.is_some() && !may_run(inputs.observed);
    let mut status = PodStatus {
        qos_class: Some(inputs.pod.qos().as_str().to_owned()),
        observed_generation: generation(inputs.pod).max(inputs.previous.observed_generation),
        start_time: inputs.previous.start_time.clone().or(Some(Time(second(inputs.now)))),
        init_container_statuses: none_if_empty(containers::init(inputs)),
        container_statuses: Some(containers::regular(inputs)),
        ephemeral_container_statuses: none_if_empty(containers::ephemeral(inputs)),
        allocated_resources: resources::allocated(inputs.pod),
        resources: Some(resources::in_force(inputs.pod, inputs.previous.phase.as_deref() == Some("Running"))),
        ..unowned(inputs)
    };
    let phase = phase::phase(inputs, &status, over);
    phase::set(inputs, &mut status, phase);
    if over {
        containers::settle(inputs.pod, &mut status);
        phase::settle(inputs.pod, &mut status);
    }
    status.conditions = Some(conditions::conditions(inputs, &status));
    phase::hold_back(inputs, &mut status);
    addresses(inputs, &mut status);
    status
}

/// What a pod that was not admitted shows: nothing of it ran, so there is nothing else to say.
fn rejected(inputs: &Inputs, reason: &str, message: &str) -> PodStatus {
    PodStatus {
        phase: Some("Failed".to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(format!("Pod was rejected: {message}")),
        qos_class: Some(inputs.pod.qos().as_str().to_owned()),
        observed_generation: generation(inputs.pod).max(inputs.previous.observed_generation),
        start_time: inputs.previous.start_time.clone().or(Some(Time(second(inputs.now)))),
        conditions: Some(conditions::unowned(inputs)),
        ..unowned(inputs)
    }
}

/// The fields of a status that others write: they stay as the API server has them.
fn unowned(inputs: &Inputs) -> PodStatus {
    let theirs = inputs.pod.object().status.as_ref();
    PodStatus {
        nominated_node_name: theirs.and_then(|status| status.nominated_node_name.clone()),
        resource_claim_statuses: theirs.and_then(|status| status.resource_claim_statuses.clone()),
        extended_resource_claim_status: theirs.and_then(|status| status.extended_resource_claim_status.clone()),
        node_allocatable_resource_claim_statuses: theirs
            .and_then(|status| status.node_allocatable_resource_claim_statuses.clone()),
        ..PodStatus::default()
    }
}

/// Host and pod addresses. A pod whose sandbox is gone keeps the addresses that it had.
fn addresses(inputs: &Inputs, status: &mut PodStatus) {
    let host = &inputs.facts.host_ips;
    status.host_ip = host.first().map(ToString::to_string);
    status.host_ips = none_if_empty(host.iter().map(|ip| HostIP { ip: ip.to_string() }).collect());
    let ips: Vec<IpAddr> = if inputs.pod.host_network() {
        host.clone()
    } else {
        let ready = inputs.observed.sandboxes.first().filter(|sandbox| sandbox.ready);
        ready.map(|sandbox| preferred(&sandbox.ips, host)).unwrap_or_default()
    };
    if ips.is_empty() {
        status.pod_ip = inputs.previous.pod_ip.clone();
        status.pod_ips = inputs.previous.pod_ips.clone();
        return;
    }
    status.pod_ip = ips.first().map(ToString::to_string);
    status.pod_ips = Some(ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect());
}

/// The first address of the family of the node's primary address, then the first of the other.
pub(crate) fn preferred(ips: &[IpAddr], host: &[IpAddr]) -> Vec<IpAddr> {
    let primary_v4 = host.first().is_none_or(IpAddr::is_ipv4);
    let first = ips.iter().find(|ip| ip.is_ipv4() == primary_v4);
    let second = ips.iter().find(|ip| ip.is_ipv4() != primary_v4);
    first.into_iter().chain(second).copied().collect()
}

/// Whether a container runs, or may run for all that the runtime knows.
fn may_run(observed: &ObservedPod) -> bool {
    observed
        .containers
        .iter()
        .any(|container| matches!(container.state, ContainerState::Running { .. } | ContainerState::Unknown))
}

/// The containers of this name, newest first.
fn named<'a>(observed: &'a ObservedPod, name: &'a str) -> impl Iterator<Item = &'a Container> {
    observed.containers.iter().filter(move |container| container.name == name)
}

/// `metadata.generation`, which a static pod doesn't have.
fn generation(pod: &Pod) -> Option<i64> {
    pod.object().metadata.generation.filter(|generation| *generation > 0)
}

/// The API server keeps times in whole seconds; what is finer would differ from what it answers.
fn second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn none_if_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
