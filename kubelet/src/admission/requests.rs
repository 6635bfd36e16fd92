//! What a pod requests and is limited to as a whole (upstream's `resourcehelper.PodRequests` and `PodLimits`).
//!
//! Regular containers and sidecars run at once; each init container runs with the sidecars before it. Pod-level resources,
//! where given, replace what the containers add up to; the runtime class's overhead comes on top.

use crate::spec::quantity;
use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

type Amounts = BTreeMap<String, Quantity>;
/// In billionths: exact for every quantity.
type Nanos = BTreeMap<String, i128>;

/// The requests of a pod.
pub(crate) fn requests(spec: &PodSpec) -> Amounts {
    let mut all = total(spec, |resources| resources.requests.as_ref());
    pod_level(&mut all, spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    add(&mut all, spec.overhead.as_ref());
    texts(all)
}

/// The limits of a pod: of what some container limits.
pub(crate) fn limits(spec: &PodSpec) -> Amounts {
    let mut all = total(spec, |resources| resources.limits.as_ref());
    pod_level(&mut all, spec.resources.as_ref().and_then(|resources| resources.limits.as_ref()));
    for (name, amount) in nanos(spec.overhead.as_ref()) {
        if let Some(limit) = all.get_mut(&name).filter(|limit| **limit != 0) {
            *limit += amount;
        }
    }
    texts(all)
}

/// Whether every container, or the pod itself, limits this resource: then its cgroup can.
pub(crate) fn all_limit(spec: &PodSpec, name: &str) -> bool {
    let limits = |resources: Option<&ResourceRequirements>| {
        resources.and_then(|resources| resources.limits.as_ref()).is_some_and(|limits| limits.contains_key(name))
    };
    limits(spec.resources.as_ref())
        || spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
            .all(|container| limits(container.resources.as_ref()))
}

fn total(spec: &PodSpec, of: fn(&ResourceRequirements) -> Option<&Amounts>) -> Nanos {
    let amounts = |container: &Container| nanos(container.resources.as_ref().and_then(of));
    let mut all = Nanos::new();
    for container in &spec.containers {
        plus(&mut all, amounts(container));
    }
    let (mut sidecars, mut most) = (Nanos::new(), Nanos::new());
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            plus(&mut all, amounts(container));
            plus(&mut sidecars, amounts(container));
            maximum(&mut most, &sidecars);
        } else {
            let mut now = sidecars.clone();
            plus(&mut now, amounts(container));
            maximum(&mut most, &now);
        }
    }
    maximum(&mut all, &most);
    all
}

fn pod_level(all: &mut Nanos, given: Option<&Amounts>) {
    let supported = |name: &str| matches!(name, "cpu" | "memory") || name.starts_with("hugepages-");
    all.extend(nanos(given).into_iter().filter(|(name, _)| supported(name)));
}

fn add(all: &mut Nanos, more: Option<&Amounts>) {
    plus(all, nanos(more));
}

fn plus(all: &mut Nanos, more: Nanos) {
    for (name, amount) in more {
        *all.entry(name).or_default() += amount;
    }
}

fn maximum(all: &mut Nanos, other: &Nanos) {
    for (name, amount) in other {
        let most = all.entry(name.clone()).or_default();
        *most = (*most).max(*amount);
    }
}

/// Amounts that can be read; the API server lets no other through.
fn nanos(list: Option<&Amounts>) -> Nanos {
    list.into_iter().flatten().filter_map(|(name, amount)| Some((name.clone(), quantity::nano(amount).ok()?))).collect()
}

fn texts(all: Nanos) -> Amounts {
    all.into_iter().map(|(name, amount)| (name.clone(), text(&name, amount))).collect()
}

/// A canonical text: CPU in thousandths, bytes with the largest binary suffix that divides them.
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

    fn container(cpu: &str, sidecar: bool) -> Container {
        let list = [("cpu".to_owned(), Quantity(cpu.to_owned()))].into();
        Container {
            restart_policy: sidecar.then(|| "Always".to_owned()),
            resources: Some(ResourceRequirements { requests: Some(list), ..ResourceRequirements::default() }),
            ..Container::default()
        }
    }

    fn check(init: &[(&str, bool)], regular: &[&str], expected: &str) {
        let spec = PodSpec {
            init_containers: Some(init.iter().map(|(cpu, sidecar)| container(cpu, *sidecar)).collect()),
            containers: regular.iter().map(|cpu| container(cpu, false)).collect(),
            ..PodSpec::default()
        };
        assert_eq!(requests(&spec)["cpu"].0, expected, "{init:?} {regular:?}");
    }

    #[test]
    fn a_pod_requests_the_most_that_runs_at_once() {
        check(&[], &["100m", "0.2"], "300m");
        check(&[("1", false)], &["100m"], "1");
        check(&[("200m", true)], &["100m"], "300m");
        check(&[("200m", true), ("1", false)], &["100m"], "1200m");
        check(&[("1", false), ("200m", true)], &["100m"], "1");
    }

    #[test]
    fn bytes_keep_a_suffix_that_people_read() {
        assert_eq!(text("memory", 134_217_728_000_000_000).0, "128Mi");
        assert_eq!(text("memory", 1_000_000_000_000).0, "1000");
        assert_eq!(text("cpu", 1_500_000_000).0, "1500m");
        assert_eq!(text("pods", 1024_000_000_000).0, "1024");
    }
}
