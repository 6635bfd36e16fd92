//! Quality of service classes.

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// How a pod's resources are promised; decides its place in the cgroup tree and its oom_score_adj.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QosClass {
    /// Every container has equal requests and limits of CPU and memory.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl QosClass {
    /// The class of a pod, as upstream's `GetPodQOS` computes it. Pod-level resources, where given, decide alone.
    pub fn of(spec: &PodSpec) -> QosClass {
        if let Some(resources) = &spec.resources {
            return of_all(std::iter::once(Some(resources)));
        }
        of_all(
            spec.init_containers.iter().flatten().chain(&spec.containers).map(|container| container.resources.as_ref()),
        )
    }

    /// `status.qosClass`.
    pub fn as_str(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }
}

fn of_all<'a>(all: impl Iterator<Item = Option<&'a ResourceRequirements>>) -> QosClass {
    let (mut anything, mut guaranteed) = (false, true);
    for resources in all {
        let limits = resources.and_then(|resources| resources.limits.as_ref());
        let requests = resources.and_then(|resources| resources.requests.as_ref());
        for name in ["cpu", "memory"] {
            let (limit, request) = (amount(limits, name), amount(requests, name));
            anything |= limit.is_some() || request.is_some();
            // The API server's defaulting copies a limit to a request that is not given.
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (anything, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

/// A quantity that is there and above zero, in a form that compares: `1` and `1000m` are the same.
fn amount(list: Option<&BTreeMap<String, Quantity>>, name: &str) -> Option<i128> {
    let amount = crate::spec::quantity::nano(list?.get(name)?).ok()?;
    (amount > 0).then_some(amount)
}
