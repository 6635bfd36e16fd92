//! Limits: the CRI's numbers, where zero means "not said", in the runtime-spec's terms.

use crate::failure::{Failure, Result};
use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxHugepageLimitBuilder, LinuxMemoryBuilder, LinuxResources, LinuxResourcesBuilder,
};
use proto::{ContainerConfig, LinuxContainerResources};

/// Below this the kernel kills a container's first process before it can say why.
const LEAST_MEMORY: i64 = 512 * 1024;

/// The runtime-spec's resources, without device rules.
///
/// # Errors
/// A limit that no container could start with, or that is no number of its kind.
pub(crate) fn to_oci(resources: &LinuxContainerResources) -> Result<LinuxResources> {
    check(resources)?;
    let mut oci = LinuxResourcesBuilder::default();
    let mut cpu = LinuxCpuBuilder::default();
    if resources.cpu_period > 0 {
        cpu = cpu.period(resources.cpu_period.cast_unsigned());
    }
    if resources.cpu_quota != 0 {
        cpu = cpu.quota(resources.cpu_quota);
    }
    if resources.cpu_shares > 0 {
        cpu = cpu.shares(resources.cpu_shares.cast_unsigned());
    }
    if !resources.cpuset_cpus.is_empty() {
        cpu = cpu.cpus(resources.cpuset_cpus.as_str());
    }
    if !resources.cpuset_mems.is_empty() {
        cpu = cpu.mems(resources.cpuset_mems.as_str());
    }
    oci = oci.cpu(cpu.build().expect("complete"));
    let mut memory = LinuxMemoryBuilder::default();
    if resources.memory_limit_in_bytes != 0 {
        memory = memory.limit(resources.memory_limit_in_bytes);
    }
    if resources.memory_swap_limit_in_bytes != 0 {
        memory = memory.swap(resources.memory_swap_limit_in_bytes);
    }
    oci = oci.memory(memory.build().expect("complete"));
    let mut pages = Vec::with_capacity(resources.hugepage_limits.len());
    for limit in &resources.hugepage_limits {
        let bytes = i64::try_from(limit.limit)
            .map_err(|_| Failure::invalid(format!("hugepage_limits: {} of {}", limit.limit, limit.page_size)))?;
        let page = LinuxHugepageLimitBuilder::default().page_size(limit.page_size.as_str()).limit(bytes).build();
        pages.push(page.expect("complete"));
    }
    oci = oci.hugepage_limits(pages);
    if !resources.unified.is_empty() {
        oci = oci.unified(resources.unified.clone().into_iter().collect::<std::collections::HashMap<_, _>>());
    }
    Ok(oci.build().expect("complete"))
}

fn check(resources: &LinuxContainerResources) -> Result<()> {
    let memory = resources.memory_limit_in_bytes;
    if (1..LEAST_MEMORY).contains(&memory) {
        return Err(Failure::invalid(format!(
            "memory_limit_in_bytes: {memory} bytes is below the {} KB needed to start",
            LEAST_MEMORY / 1024
        )));
    }
    let swap = resources.memory_swap_limit_in_bytes;
    if memory > 0 && swap > 0 && swap < memory {
        return Err(Failure::invalid(format!(
            "memory_swap_limit_in_bytes: {swap} includes the memory limit, {memory}, and is below it"
        )));
    }
    for (field, value) in
        [("cpu_period", resources.cpu_period), ("cpu_shares", resources.cpu_shares), ("memory_limit_in_bytes", memory)]
    {
        if value < 0 && !(field == "memory_limit_in_bytes" && value == -1) {
            return Err(Failure::invalid(format!("{field}: {value} is negative")));
        }
    }
    Ok(())
}

/// `oom_score_adj`; always said, because zero is a value.
pub(super) fn oom_score(config: &ContainerConfig) -> Result<Option<i32>> {
    let Some(resources) = config.linux.as_ref().and_then(|linux| linux.resources.as_ref()) else { return Ok(None) };
    match i32::try_from(resources.oom_score_adj) {
        Ok(score @ -1000..=1000) => Ok(Some(score)),
        _ => Err(Failure::invalid(format!("oom_score_adj: {} is not in -1000..1000", resources.oom_score_adj))),
    }
}

/// `update` over `now`: what is not said stays.
pub(crate) fn merge(now: &LinuxContainerResources, update: &LinuxContainerResources) -> LinuxContainerResources {
    let number = |new: i64, old: i64| if new == 0 { old } else { new };
    let text = |new: &String, old: &String| if new.is_empty() { old.clone() } else { new.clone() };
    // Where swap was never told apart from memory, a new memory limit moves both: kept as it was, it would be refused as
    // lower than the memory, or silently allow swap.
    let swap_follows = now.memory_swap_limit_in_bytes == now.memory_limit_in_bytes && update.memory_limit_in_bytes != 0;
    let old_swap = if swap_follows { update.memory_limit_in_bytes } else { now.memory_swap_limit_in_bytes };
    LinuxContainerResources {
        cpu_period: number(update.cpu_period, now.cpu_period),
        cpu_quota: number(update.cpu_quota, now.cpu_quota),
        cpu_shares: number(update.cpu_shares, now.cpu_shares),
        memory_limit_in_bytes: number(update.memory_limit_in_bytes, now.memory_limit_in_bytes),
        memory_swap_limit_in_bytes: number(update.memory_swap_limit_in_bytes, old_swap),
        oom_score_adj: now.oom_score_adj,
        cpuset_cpus: text(&update.cpuset_cpus, &now.cpuset_cpus),
        cpuset_mems: text(&update.cpuset_mems, &now.cpuset_mems),
        hugepage_limits: if update.hugepage_limits.is_empty() {
            now.hugepage_limits.clone()
        } else {
            update.hugepage_limits.clone()
        },
        unified: now.unified.clone().into_iter().chain(update.unified.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_limit_that_equals_the_memory_limit_follows_it() {
        let of = |memory, swap| LinuxContainerResources {
            memory_limit_in_bytes: memory,
            memory_swap_limit_in_bytes: swap,
            ..LinuxContainerResources::default()
        };
        for (now, update, want) in [
            (of(100, 100), of(200, 0), of(200, 200)),
            (of(100, 100), of(200, 300), of(200, 300)),
            (of(100, 150), of(120, 0), of(120, 150)),
            (of(100, 100), of(0, 0), of(100, 100)),
        ] {
            assert_eq!(merge(&now, &update), want, "{now:?} with {update:?}");
        }
    }

    #[test]
    fn impossible_limits_are_refused_by_name() {
        let of = |memory, swap, shares| LinuxContainerResources {
            memory_limit_in_bytes: memory,
            memory_swap_limit_in_bytes: swap,
            cpu_shares: shares,
            ..LinuxContainerResources::default()
        };
        for (resources, want) in [
            (of(3, 0, 0), "3 bytes is below the 512 KB needed to start"),
            (of(1 << 20, 1 << 19, 0), "memory_swap_limit_in_bytes"),
            (of(0, 0, -2), "cpu_shares: -2 is negative"),
            (of(-5, 0, 0), "memory_limit_in_bytes: -5"),
        ] {
            let error = to_oci(&resources).unwrap_err();
            assert_eq!(error.code, tonic::Code::InvalidArgument);
            assert!(error.message.contains(want), "{error}");
        }
        to_oci(&of(-1, 0, 2)).unwrap();
    }

    #[test]
    fn what_is_not_said_is_not_sent() {
        let oci = to_oci(&LinuxContainerResources::default()).unwrap();
        let json = serde_json::to_value(oci).unwrap();
        assert_eq!(json["memory"], serde_json::json!({}));
        assert_eq!(json["cpu"], serde_json::json!({}));
    }

    #[test]
    fn an_update_changes_what_it_says_and_keeps_the_rest() {
        let now = LinuxContainerResources {
            cpu_shares: 100,
            memory_limit_in_bytes: 1 << 30,
            oom_score_adj: 5,
            cpuset_cpus: "0".into(),
            ..LinuxContainerResources::default()
        };
        let update = LinuxContainerResources { cpu_shares: 200, cpu_quota: -1, ..LinuxContainerResources::default() };
        let merged = merge(&now, &update);
        assert_eq!((merged.cpu_shares, merged.cpu_quota, merged.memory_limit_in_bytes), (200, -1, 1 << 30));
        assert_eq!((merged.oom_score_adj, merged.cpuset_cpus.as_str()), (5, "0"));
    }
}
