//! What is written into the tree: pure, from configuration and pods.

use crate::config::Limits;
use crate::pod::{Pod, QosClass};
use crate::spec::resources::{self, Amounts};
use cgroup::{Cpu, HugetlbLimit, Memory, Resources};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// Controllers beyond cpu and memory, without which a kubelet still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Optional {
    pub(super) pids: bool,
    pub(super) hugetlb: bool,
}

/// All pods together: what the machine has, less what is set aside where that is enforced. Thresholds of eviction are
/// not taken off: pods are evicted before the kernel has to kill.
pub(super) fn node(
    settings: &Limits,
    capacity: &BTreeMap<String, Quantity>,
    pid_max: Option<u64>,
    optional: Optional,
) -> Resources {
    let mut amounts = capacity.clone();
    if let Some(pid_max) = pid_max {
        amounts.insert("pid".to_owned(), Quantity(pid_max.to_string()));
    }
    let capacity = Amounts::of(Some(&amounts));
    let reserved = |list: &BTreeMap<String, String>| {
        Amounts::of(Some(&list.iter().map(|(name, amount)| (name.clone(), Quantity(amount.clone()))).collect()))
    };
    let (kube, system) = (reserved(&settings.kube_reserved), reserved(&settings.system_reserved));
    let left = |name: &str, read: fn(&Amounts, &str) -> Option<i64>| {
        let whole = read(&capacity, name)?;
        let set_aside = [&kube, &system].iter().filter_map(|list| read(list, name)).fold(0, i64::saturating_add);
        Some(if settings.enforce_allocatable { whole.saturating_sub(set_aside).max(0) } else { whole })
    };
    Resources {
        cpu: Cpu { shares: left("cpu", Amounts::milli).map(resources::shares), ..Cpu::default() },
        memory: Memory { limit: left("memory", Amounts::units), ..Memory::default() },
        pids: left("pid", Amounts::units).filter(|_| optional.pids),
        ..Resources::default()
    }
}

/// The class of pods without requests, and the one of those with some.
pub(super) fn class(shares: u64) -> Resources {
    Resources { cpu: Cpu { shares: Some(shares), ..Cpu::default() }, ..Resources::default() }
}

/// The shares of Burstable pods: those of what they request together.
pub(super) fn burstable_shares(pods: &[Pod]) -> u64 {
    let burstable = pods.iter().filter(|pod| pod.qos() == QosClass::Burstable);
    let requests = burstable.filter_map(|pod| resources::pod_requests(pod).milli("cpu"));
    resources::shares(requests.fold(0, i64::saturating_add))
}

/// One pod.
pub(super) fn pod(pod: &Pod, settings: &Limits, optional: Optional) -> Resources {
    let limits = resources::pod_cgroup(pod, settings);
    let pages = limits.huge_pages.into_iter().filter(|_| optional.hugetlb);
    Resources {
        cpu: Cpu {
            shares: Some(limits.shares),
            quota: limits.cpu.map(|(quota, _)| quota),
            period: limits.cpu.map(|(_, period)| period),
            ..Cpu::default()
        },
        memory: Memory { limit: limits.memory, ..Memory::default() },
        pids: settings.pod_pids.filter(|_| optional.pids).map(|limit| i64::try_from(limit).unwrap_or(i64::MAX)),
        hugetlb: pages.map(|(page_size, limit)| HugetlbLimit { page_size, limit }).collect(),
        ..Resources::default()
    }
}
