//! Resources in a status: what was allocated, and what is in force.
//!
//! Pods are not resized in place yet, so both say what the spec says, except where the runtime tells other limits of a
//! container that runs.

use crate::pod::Pod;
use crate::runtime::ContainerState;
use crate::spec::quantity;
use crate::spec::resources::{Amounts, pod_limits, pod_requests};
use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// The smallest CPU shares, and so the smallest request that can be read back, in milli-CPU.
const MIN_SHARES: i64 = 2;
/// The smallest CPU limit that can be read back, in milli-CPU.
const MIN_CPU_LIMIT: i64 = 10;

/// `status.allocatedResources`: the requests of the whole pod.
pub(super) fn allocated(pod: &Pod) -> Option<BTreeMap<String, Quantity>> {
    filled(quantities(&pod_requests(pod)))
}

/// `status.resources`: as allocated before the pod runs; then what its cgroup holds, which limits a resource only if
/// every container does.
pub(super) fn in_force(pod: &Pod, running: bool) -> ResourceRequirements {
    let mut requests = quantities(&pod_requests(pod));
    let mut limits = quantities(&pod_limits(pod));
    if running {
        let of_cgroup = |name: &String| matches!(name.as_str(), "cpu" | "memory");
        requests.retain(|name, _| of_cgroup(name));
        limits.retain(|name, _| of_cgroup(name) && all_limit(pod, name));
    }
    ResourceRequirements { claims: None, requests: filled(requests), limits: filled(limits) }
}

/// Whether every container, or the pod itself, limits this resource.
fn all_limit(pod: &Pod, name: &str) -> bool {
    let limits = |resources: Option<&ResourceRequirements>| {
        resources.and_then(|resources| resources.limits.as_ref()).is_some_and(|limits| limits.contains_key(name))
    };
    limits(pod.spec().resources.as_ref()) || pod.containers().all(|(_, container)| limits(container.resources.as_ref()))
}

/// `resources` of a container: the spec's, with what the runtime says of one that runs.
pub(super) fn of_container(container: &Container, run: &crate::runtime::Container) -> ResourceRequirements {
    let mut resources = container.resources.clone().unwrap_or_default();
    resources.claims = None;
    let (ContainerState::Running { .. }, Some(actual)) = (&run.state, &run.resources) else { return resources };
    if let Some(limits) = &mut resources.limits {
        if actual.cpu_quota > 0 && actual.cpu_period > 0 {
            cpu(limits, actual.cpu_quota * 1000 / actual.cpu_period, MIN_CPU_LIMIT);
        }
        if actual.memory_limit_in_bytes > 0 {
            replace(limits, "memory", actual.memory_limit_in_bytes, quantity::units, |bytes| bytes.to_string());
        }
    }
    if let Some(requests) = &mut resources.requests
        && actual.cpu_shares > 0
    {
        // Upstream's rounding: 100m are 102 shares, which are 100m again.
        cpu(requests, (actual.cpu_shares * 1000 + 1023) / 1024, MIN_SHARES);
    }
    resources
}

/// Writes a CPU amount, unless it and the one that is there are both too small to be told apart.
fn cpu(list: &mut BTreeMap<String, Quantity>, milli: i64, smallest: i64) {
    let told = list.get("cpu").and_then(|told| quantity::milli(told).ok()).unwrap_or(0);
    if milli > smallest || told > smallest {
        replace(list, "cpu", milli, quantity::milli, |milli| match milli % 1000 {
            0 => (milli / 1000).to_string(),
            _ => format!("{milli}m"),
        });
    }
}

/// Writes an amount, but keeps the text of an equal one.
fn replace(
    list: &mut BTreeMap<String, Quantity>,
    name: &str,
    amount: i64,
    read: fn(&Quantity) -> Result<i64, quantity::QuantityError>,
    text: fn(i64) -> String,
) {
    if list.get(name).and_then(|told| read(told).ok()) != Some(amount) {
        list.insert(name.to_owned(), Quantity(text(amount)));
    }
}

fn filled(list: BTreeMap<String, Quantity>) -> Option<BTreeMap<String, Quantity>> {
    (!list.is_empty()).then_some(list)
}

fn quantities(amounts: &Amounts) -> BTreeMap<String, Quantity> {
    amounts.iter().map(|(name, nanos)| (name.to_owned(), text(name, nanos))).collect()
}

/// A canonical text: thousandths where there are some, bytes with the largest binary suffix that divides them.
fn text(name: &str, nanos: i128) -> Quantity {
    let milli = nanos.div_euclid(1_000_000) + i128::from(nanos.rem_euclid(1_000_000) != 0);
    if milli % 1000 != 0 {
        return Quantity(format!("{milli}m"));
    }
    let units = milli / 1000;
    let binary = name == "memory" || name == "ephemeral-storage" || name.starts_with("hugepages-");
    let suffixes = [(60, "Ei"), (50, "Pi"), (40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
    let fit = suffixes.iter().find(|(bits, _)| binary && units != 0 && units % (1 << bits) == 0);
    Quantity(match fit {
        Some((bits, suffix)) => format!("{}{suffix}", units >> bits),
        None => units.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_a_suffix_that_people_read() {
        assert_eq!(text("memory", 134_217_728_000_000_000).0, "128Mi");
        assert_eq!(text("memory", 1_000_000_000_000).0, "1000");
        assert_eq!(text("cpu", 1_500_000_000).0, "1500m");
        assert_eq!(text("cpu", 2_000_000_000).0, "2");
        assert_eq!(text("pods", 1_024_000_000_000).0, "1024");
    }
}
