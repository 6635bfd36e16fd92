//! Shares, quotas, limits, oom_score_adj: from requests and limits to what the kernel takes.
//!
//! Amounts are added up in billionths, and rounded up once, where a number for the kernel is made of them.

use super::{Machine, quantity};
use crate::config::Limits;
use crate::pod::{Pod, QosClass, Role};
use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// The least and the most CPU shares that the kernel takes.
const SHARES: std::ops::RangeInclusive<i128> = 2..=262_144;
/// The least quota, in microseconds.
const LEAST_QUOTA: i128 = 1000;

/// A resource list with amounts in billionths of the resource's unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amounts(BTreeMap<String, i128>);

impl Amounts {
    /// From a list of the API. What is no quantity does not count: the API server lets no such thing pass.
    pub fn of(list: Option<&BTreeMap<String, Quantity>>) -> Amounts {
        let entries = list.into_iter().flatten();
        Amounts(entries.filter_map(|(name, amount)| Some((name.clone(), quantity::nano(amount).ok()?))).collect())
    }

    /// Thousandths, rounded up; `None` if the resource is not in the list.
    pub fn milli(&self, name: &str) -> Option<i64> {
        self.rounded(name, 1_000_000)
    }

    /// Whole units, rounded up; `None` if the resource is not in the list.
    pub fn units(&self, name: &str) -> Option<i64> {
        self.rounded(name, 1_000_000_000)
    }

    /// Names and amounts in billionths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i128)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    fn rounded(&self, name: &str, unit: i128) -> Option<i64> {
        let amount = *self.0.get(name)?;
        let rounded = amount.div_euclid(unit) + i128::from(amount.rem_euclid(unit) != 0);
        Some(i64::try_from(rounded).unwrap_or(i64::MAX))
    }

    fn is_zero(&self, name: &str) -> bool {
        self.0.get(name).is_none_or(|amount| *amount == 0)
    }

    fn add(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_default() += amount;
        }
    }

    fn raise(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            let own = self.0.entry(name.clone()).or_insert(*amount);
            *own = (*own).max(*amount);
        }
    }
}

/// Which half of the resources.
#[derive(Clone, Copy)]
enum Half {
    Requests,
    Limits,
}

/// Requests or limits. A limit without a request is a request too: the API server writes it down, for a static pod
/// nobody may have.
fn half(resources: Option<&ResourceRequirements>, half: Half) -> Amounts {
    let limits = Amounts::of(resources.and_then(|resources| resources.limits.as_ref()));
    match half {
        Half::Limits => limits,
        Half::Requests => {
            let mut amounts = limits;
            amounts.0.extend(Amounts::of(resources.and_then(|resources| resources.requests.as_ref())).0);
            amounts
        }
    }
}

/// What a pod has at a time, at most: all regular containers and sidecars together, or one init container with the
/// sidecars before it, whichever is more (KEP-753). `each` sees every such sum.
fn aggregate(pod: &Pod, which: Half, mut each: impl FnMut(&Amounts)) -> Amounts {
    let (mut together, mut sidecars, mut init) = (Amounts::default(), Amounts::default(), Amounts::default());
    for (role, container) in pod.containers() {
        let own = half(container.resources.as_ref(), which);
        match role {
            Role::Regular => {
                each(&own);
                together.add(&own);
            }
            Role::Sidecar => {
                together.add(&own);
                sidecars.add(&own);
                each(&sidecars);
                init.raise(&sidecars);
            }
            Role::Init => {
                let mut sum = own;
                sum.add(&sidecars);
                each(&sum);
                init.raise(&sum);
            }
        }
    }
    together.raise(&init);
    together
}

/// Resources that a pod may set as a whole.
fn pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

fn pod_half(pod: &Pod, which: Half) -> Amounts {
    let mut amounts = half(pod.spec().resources.as_ref(), which);
    amounts.0.retain(|name, _| pod_level(name));
    amounts
}

/// What a pod requests, its overhead included: what the scheduler counted.
pub fn pod_requests(pod: &Pod) -> Amounts {
    let mut requests = requests_without_overhead(pod);
    requests.add(&Amounts::of(pod.spec().overhead.as_ref()));
    requests
}

fn requests_without_overhead(pod: &Pod) -> Amounts {
    let mut requests = aggregate(pod, Half::Requests, |_| ());
    requests.0.extend(pod_half(pod, Half::Requests).0);
    requests
}

fn limits_without_overhead(pod: &Pod) -> Amounts {
    let mut limits = aggregate(pod, Half::Limits, |_| ());
    limits.0.extend(pod_half(pod, Half::Limits).0);
    limits
}

/// What a pod is limited to, its overhead included where there is a limit.
pub fn pod_limits(pod: &Pod) -> Amounts {
    let mut limits = limits_without_overhead(pod);
    for (name, overhead) in Amounts::of(pod.spec().overhead.as_ref()).0 {
        if let Some(limit) = limits.0.get_mut(&name).filter(|limit| **limit != 0) {
            *limit += overhead;
        }
    }
    limits
}

/// CPU shares of so many thousandths of a CPU.
pub fn shares(milli_cpu: i64) -> u64 {
    let shares = i128::from(milli_cpu) * 1024 / 1000;
    u64::try_from(shares.clamp(*SHARES.start(), *SHARES.end())).expect("shares are above zero")
}

/// Microseconds of each `period_us` for so many thousandths of a CPU; 0, no limit, for none.
pub fn quota(milli_cpu: i64, period_us: u64) -> i64 {
    if milli_cpu <= 0 {
        return 0;
    }
    let quota = (i128::from(milli_cpu) * i128::from(period_us) / 1000).max(LEAST_QUOTA);
    i64::try_from(quota).unwrap_or(i64::MAX)
}

/// The limits of a pod's own cgroup; a limit that not every container has is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodLimits {
    /// CPU shares.
    pub shares: u64,
    /// Quota and period in microseconds; a quota of -1 or 0 is no limit.
    pub cpu: Option<(i64, u64)>,
    /// Memory in bytes.
    pub memory: Option<i64>,
    /// Huge pages: size as in the kernel's files, and bytes.
    pub huge_pages: BTreeMap<String, u64>,
}

/// The limit of a pod's memory in bytes, as its cgroup has it.
pub fn pod_memory(pod: &Pod) -> Option<i64> {
    pod_limits(pod).units("memory").filter(|_| is_limited(pod, "memory"))
}

/// Whether the pod as a whole has a limit, or every one of its containers.
fn is_limited(pod: &Pod, resource: &str) -> bool {
    let mut every_container = true;
    aggregate(pod, Half::Limits, |limits| every_container &= !limits.is_zero(resource));
    pod.qos() != QosClass::BestEffort && (every_container || !pod_half(pod, Half::Limits).is_zero(resource))
}

/// The limits of a pod's cgroup, by its class.
pub fn pod_cgroup(pod: &Pod, settings: &Limits) -> PodLimits {
    let (requests, limits) = (pod_requests(pod), pod_limits(pod));
    let period = period_us(settings);
    let quota = if settings.cpu_quota { quota(limits.milli("cpu").unwrap_or(0), period) } else { -1 };
    let class = pod.qos();
    PodLimits {
        shares: match class {
            QosClass::BestEffort => 2,
            _ => shares(requests.milli("cpu").unwrap_or(0)),
        },
        cpu: is_limited(pod, "cpu").then_some((quota, period)),
        memory: pod_memory(pod),
        huge_pages: huge_pages(&requests),
    }
}

fn period_us(settings: &Limits) -> u64 {
    u64::try_from(settings.cpu_quota_period.as_micros()).unwrap_or(100_000)
}

/// Resources of one container.
pub(super) fn container(
    pod: &Pod,
    container: &Container,
    settings: &Limits,
    machine: &Machine,
) -> proto::LinuxContainerResources {
    let requests = half(container.resources.as_ref(), Half::Requests);
    let mut limits = half(container.resources.as_ref(), Half::Limits);
    for (name, amount) in pod_half(pod, Half::Limits).0 {
        if limits.is_zero(&name) {
            limits.0.insert(name, amount);
        }
    }
    let mut resources = linux(&requests, &limits, settings, machine);
    resources.oom_score_adj = oom_score_adj(pod, container, machine.memory_bytes);
    let pages = huge_pages(&limits);
    resources.hugepage_limits = machine
        .huge_page_sizes
        .iter()
        .map(|size| proto::HugepageLimit { page_size: size.clone(), limit: pages.get(size).copied().unwrap_or(0) })
        .collect();
    no_swap(&mut resources, machine);
    resources
}

/// What a sandbox is told of its pod: all containers together, and the overhead apart.
pub(super) fn sandbox(
    pod: &Pod,
    settings: &Limits,
    machine: &Machine,
) -> (proto::LinuxContainerResources, proto::LinuxContainerResources) {
    let resources = linux(&requests_without_overhead(pod), &limits_without_overhead(pod), settings, machine);
    let overhead = Amounts::of(pod.spec().overhead.as_ref());
    let overhead = match pod.spec().overhead {
        Some(_) => linux(&overhead, &overhead, settings, machine),
        None => proto::LinuxContainerResources::default(),
    };
    (resources, overhead)
}

fn linux(requests: &Amounts, limits: &Amounts, settings: &Limits, machine: &Machine) -> proto::LinuxContainerResources {
    let limit = limits.milli("cpu").unwrap_or(0);
    let period = period_us(settings);
    let mut resources = proto::LinuxContainerResources {
        cpu_shares: shares(requests.milli("cpu").unwrap_or(limit)).cast_signed(),
        memory_limit_in_bytes: limits.units("memory").unwrap_or(0),
        ..proto::LinuxContainerResources::default()
    };
    if settings.cpu_quota {
        resources.cpu_period = period.cast_signed();
        resources.cpu_quota = quota(limit, period);
    }
    if machine.cgroup_v2 {
        // All processes of a container end with the one that the kernel picks: half a container is of no use.
        resources.unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    resources
}

/// `swapBehavior: NoSwap`, the default: on v1 the sum of memory and swap is limited to the memory's limit.
fn no_swap(resources: &mut proto::LinuxContainerResources, machine: &Machine) {
    match (machine.swap_accounting, machine.cgroup_v2) {
        (false, _) => {}
        (true, false) => resources.memory_swap_limit_in_bytes = resources.memory_limit_in_bytes,
        (true, true) => {
            resources.unified.insert("memory.swap.max".to_owned(), "0".to_owned());
        }
    }
}

/// Huge pages of a list by the size's name in the kernel's files.
fn huge_pages(amounts: &Amounts) -> BTreeMap<String, u64> {
    let mut pages: BTreeMap<String, u64> = BTreeMap::new();
    for (name, _) in amounts.iter() {
        let Some(size) = name.strip_prefix("hugepages-") else { continue };
        let size = quantity::units(&Quantity(size.to_owned())).ok().and_then(|bytes| u64::try_from(bytes).ok());
        let bytes = amounts.units(name).and_then(|bytes| u64::try_from(bytes).ok());
        if let (Some(size), Some(bytes)) = (size, bytes) {
            let sum = pages.entry(page_size_name(size)).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }
    pages
}

/// `2MB` for 2097152.
pub(super) fn page_size_name(bytes: u64) -> String {
    let units = ["B", "KB", "MB", "GB", "TB"];
    let mut rest = (bytes, 0);
    while rest.0 >= 1024 && rest.0.is_multiple_of(1024) && rest.1 < units.len() - 1 {
        rest = (rest.0 / 1024, rest.1 + 1);
    }
    format!("{}{}", rest.0, units[rest.1])
}

/// How likely the kernel kills a container's processes when the machine has no memory left.
///
/// A Burstable container that asks for a tenth of the machine gets 900, so that one within its request scores below one
/// beyond its own; a sidecar is not killed before the containers that it serves.
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_bytes: u64) -> i64 {
    const GUARANTEED: i64 = -997;
    const BEST_EFFORT: i64 = 1000;
    match pod.qos() {
        _ if node_critical(pod) => return GUARANTEED,
        QosClass::Guaranteed => return GUARANTEED,
        QosClass::BestEffort => return BEST_EFFORT,
        QosClass::Burstable => {}
    }
    let memory =
        |container: &Container| half(container.resources.as_ref(), Half::Requests).units("memory").unwrap_or(0);
    let share = shared_memory_request(pod);
    let score = |request: i64| {
        1000 - 1000_i64.saturating_mul(request.saturating_add(share))
            / i64::try_from(memory_bytes.max(1)).unwrap_or(i64::MAX)
    };
    let mut adjusted = score(memory(container));
    if pod.container(&container.name).is_some_and(|(role, _)| role == Role::Sidecar) {
        let least = pod.spec().containers.iter().map(memory).min().unwrap_or(0);
        adjusted = adjusted.min(score(least));
    }
    adjusted.clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
}

/// What the pod as a whole requests beyond its containers, divided among them.
fn shared_memory_request(pod: &Pod) -> i64 {
    let of_pod = pod_half(pod, Half::Requests).units("memory").unwrap_or(0);
    if of_pod == 0 {
        return 0;
    }
    let of_containers = aggregate(pod, Half::Requests, |_| ()).units("memory").unwrap_or(0);
    let containers = i64::try_from(pod.containers().count()).unwrap_or(1).max(1);
    of_pod.saturating_sub(of_containers) / containers
}

fn node_critical(pod: &Pod) -> bool {
    pod.spec().priority_class_name.as_deref() == Some("system-node-critical") && critical(pod)
}

/// Whether a pod may take another's place: a static one, a mirror, or one of the system's priorities.
pub fn critical(pod: &Pod) -> bool {
    pod.is_static()
        || pod.annotation("kubernetes.io/config.mirror").is_some()
        || pod.spec().priority.is_some_and(|priority| priority >= 2_000_000_000)
}

#[cfg(test)]
mod tests;
