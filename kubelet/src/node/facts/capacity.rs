//! Capacity and allocatable: what the machine has, less what is set aside.

use super::super::amount::{binary, decimal};
use super::super::pressure::Threshold;
use super::FactsError;
use crate::config::Limits;
use crate::spec::quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// What the machine has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) cpus: u32,
    /// In bytes.
    pub(super) memory: u64,
    /// Size of the kubelet's file system in bytes.
    pub(super) storage: u64,
    /// Page size in bytes → number of pages.
    pub(super) huge_pages: BTreeMap<u64, u64>,
}

type Resources = BTreeMap<String, Quantity>;

/// `Node.status.capacity` and `.allocatable`.
pub(super) fn resources(machine: &Machine, limits: &Limits) -> Result<(Resources, Resources), FactsError> {
    let cpu = u64::from(machine.cpus) * 1000;
    let pods = match limits.pods_per_core {
        0 => limits.max_pods,
        per_core => limits.max_pods.min(per_core.saturating_mul(machine.cpus)),
    };
    let pods = decimal(u64::from(pods) * 1000);
    let huge: Vec<(String, u64)> = machine
        .huge_pages
        .iter()
        .map(|(size, number)| (format!("hugepages-{}", binary(*size).0), size * number))
        .collect();
    let of = |cpu, memory, storage| -> Resources {
        let fixed = [
            ("cpu".to_owned(), decimal(cpu)),
            ("memory".to_owned(), binary(memory)),
            ("ephemeral-storage".to_owned(), binary(storage)),
            ("pods".to_owned(), pods.clone()),
        ];
        let huge = huge.iter().map(|(name, bytes)| (name.clone(), binary(*bytes)));
        fixed.into_iter().chain(huge).collect()
    };
    let memory = machine.memory.saturating_sub(set_aside(limits, "memory", "memory.available", machine.memory)?);
    // Memory that only huge pages can use is not there for anybody else.
    let memory = memory.saturating_sub(huge.iter().map(|(_, bytes)| bytes).sum());
    let storage =
        machine.storage.saturating_sub(set_aside(limits, "ephemeral-storage", "nodefs.available", machine.storage)?);
    let allocatable = of(cpu.saturating_sub(reserved(limits, "cpu", quantity::milli)?), memory, storage);
    Ok((of(cpu, machine.memory, machine.storage), allocatable))
}

/// What the system, the kubelet and hard eviction keep from pods.
fn set_aside(limits: &Limits, resource: &str, signal: &str, capacity: u64) -> Result<u64, FactsError> {
    let kept = match limits.eviction_hard.get(signal) {
        None => 0,
        Some(value) => {
            Threshold::parse(value).ok_or_else(|| not_a_quantity("evictionHard", signal, value))?.quantity(capacity)
        }
    };
    Ok(kept.saturating_add(reserved(limits, resource, quantity::units)?))
}

fn reserved(
    limits: &Limits,
    resource: &str,
    read: impl Fn(&Quantity) -> Result<i64, quantity::QuantityError>,
) -> Result<u64, FactsError> {
    let mut sum = 0_u64;
    for (field, map) in [("kubeReserved", &limits.kube_reserved), ("systemReserved", &limits.system_reserved)] {
        let Some(value) = map.get(resource) else { continue };
        let amount = read(&Quantity(value.clone())).ok().and_then(|amount| u64::try_from(amount).ok());
        sum = sum.saturating_add(amount.ok_or_else(|| not_a_quantity(field, resource, value))?);
    }
    Ok(sum)
}

fn not_a_quantity(field: &'static str, key: &str, value: &str) -> FactsError {
    FactsError::Quantity { field, key: key.to_owned(), value: value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn limits(reserved: &[(&str, &str)], hard: &[(&str, &str)]) -> Limits {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        Limits {
            max_pods: 110,
            pods_per_core: 0,
            pod_pids: None,
            kube_reserved: map(reserved),
            system_reserved: BTreeMap::new(),
            eviction_hard: map(hard),
            eviction_soft: BTreeMap::new(),
            eviction_soft_grace: BTreeMap::new(),
            pressure_transition: Duration::ZERO,
            cgroup_root: "/".to_owned(),
            enforce_allocatable: true,
            cpu_quota: true,
            cpu_quota_period: Duration::from_millis(100),
            cgroups_per_qos: true,
        }
    }

    fn machine() -> Machine {
        Machine { cpus: 4, memory: 8 << 30, storage: 100_000_000_000, huge_pages: BTreeMap::new() }
    }

    #[track_caller]
    fn check(machine: &Machine, limits: &Limits, capacity: &[(&str, &str)], allocatable: &[(&str, &str)]) {
        let (has, gives) = resources(machine, limits).unwrap();
        for (of, wanted) in [(has, capacity), (gives, allocatable)] {
            for (name, value) in wanted {
                assert_eq!(of.get(*name).map(|quantity| quantity.0.as_str()), Some(*value), "{name}");
            }
        }
    }

    #[test]
    fn allocatable_is_capacity_less_what_is_set_aside() {
        let nothing = limits(&[], &[]);
        let all = [("cpu", "4"), ("memory", "8Gi"), ("ephemeral-storage", "97656250Ki"), ("pods", "110")];
        check(&machine(), &nothing, &all, &all);
        let some = limits(
            &[("cpu", "100m"), ("memory", "1Gi"), ("ephemeral-storage", "1G")],
            &[("memory.available", "100Mi"), ("nodefs.available", "10%"), ("imagefs.available", "15%")],
        );
        // 10 % is a 32-bit float upstream: 10 000 000 149 bytes.
        check(&machine(), &some, &all, &[("cpu", "3900m"), ("memory", "7068Mi"), ("ephemeral-storage", "88999999851")]);
    }

    #[test]
    fn nothing_is_less_than_zero() {
        let greedy = limits(&[("cpu", "5"), ("memory", "9Gi")], &[]);
        check(&machine(), &greedy, &[], &[("cpu", "0"), ("memory", "0")]);
    }

    #[test]
    fn huge_pages_are_not_there_for_others() {
        let machine = Machine { huge_pages: BTreeMap::from([(2 << 20, 512), (1 << 30, 0)]), ..machine() };
        let huge = [("hugepages-2Mi", "1Gi"), ("hugepages-1Gi", "0")];
        check(&machine, &limits(&[], &[]), &huge, &huge);
        check(&machine, &limits(&[], &[]), &[("memory", "8Gi")], &[("memory", "7Gi")]);
    }

    #[test]
    fn pods_are_limited_by_the_node_and_by_processor() {
        for (per_core, expected) in [(0, "110"), (10, "40"), (1000, "110")] {
            let limits = Limits { pods_per_core: per_core, ..limits(&[], &[]) };
            check(&machine(), &limits, &[("pods", expected)], &[("pods", expected)]);
        }
    }

    #[test]
    fn a_reservation_that_is_no_quantity_is_named() {
        for limits in [limits(&[("cpu", "much")], &[]), limits(&[], &[("memory.available", "-1")])] {
            assert!(matches!(resources(&machine(), &limits), Err(FactsError::Quantity { .. })));
        }
    }
}
