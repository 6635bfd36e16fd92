//! `linux.resources` → [`cgroup::Resources`], and the refusal of what has no counterpart there.

use cgroup::{Cpu, Cpuset, HugetlbLimit, Memory, Resources};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources};

use super::{PlanError, invalid, unsupported};

/// The least memory that a container starts with: below it the kernel kills its first process before it can say why.
pub const LEAST_MEMORY: i64 = 512 * 1024;

/// The limits of a config, or of an update. Device rules are the caller's: a config's are completed with those that
/// every container needs, an update's are left alone.
///
/// # Errors
/// The first field that is not built, or whose value makes no sense.
pub fn limits(resources: &LinuxResources) -> Result<Resources, PlanError> {
    refuse_block_io(resources.block_io().as_ref())?;
    refuse_network(resources.network().as_ref())?;
    if resources.rdma().as_ref().is_some_and(|rdma| !rdma.is_empty()) {
        return Err(unsupported("linux.resources.rdma", "not built yet"));
    }
    let pids = resources.pids().as_ref().map(|pids| pids.limit());
    Ok(Resources {
        cpu: resources.cpu().as_ref().map(cpu).transpose()?.unwrap_or_default(),
        cpuset: resources.cpu().as_ref().map(cpuset).unwrap_or_default(),
        memory: resources.memory().as_ref().map(memory).transpose()?.unwrap_or_default(),
        pids,
        devices: Vec::new(),
        hugetlb: hugetlb(resources)?,
        unified: resources.unified().clone().unwrap_or_default().into_iter().collect(),
    })
}

fn cpu(cpu: &LinuxCpu) -> Result<Cpu, PlanError> {
    let realtime = cpu.realtime_runtime().unwrap_or(0) != 0 || cpu.realtime_period().unwrap_or(0) != 0;
    if realtime {
        return Err(unsupported("linux.resources.cpu.realtimeRuntime", "realtime groups are not built yet"));
    }
    Ok(Cpu { shares: cpu.shares(), quota: cpu.quota(), period: cpu.period(), burst: cpu.burst(), idle: cpu.idle() })
}

fn cpuset(cpu: &LinuxCpu) -> Cpuset {
    let some = |list: &Option<String>| list.clone().filter(|list| !list.is_empty());
    Cpuset { cpus: some(cpu.cpus()), mems: some(cpu.mems()) }
}

fn memory(memory: &LinuxMemory) -> Result<Memory, PlanError> {
    if let Some(limit @ 1..LEAST_MEMORY) = memory.limit() {
        return Err(invalid(
            "linux.resources.memory.limit",
            format!("{limit} bytes is below the {} KiB that a container needs to start", LEAST_MEMORY / 1024),
        ));
    }
    if memory.kernel_tcp().unwrap_or(0) > 0 {
        return Err(unsupported("linux.resources.memory.kernelTCP", "not built yet"));
    }
    if memory.check_before_update().unwrap_or(false) {
        return Err(unsupported("linux.resources.memory.checkBeforeUpdate", "not built yet"));
    }
    // `kernel` is ignored as in runc: the kernel itself dropped the limit. `useHierarchy` is always on.
    Ok(Memory {
        limit: memory.limit(),
        reservation: memory.reservation(),
        swap: memory.swap(),
        swappiness: memory.swappiness(),
        disable_oom_killer: memory.disable_oom_killer(),
    })
}

fn hugetlb(resources: &LinuxResources) -> Result<Vec<HugetlbLimit>, PlanError> {
    let mut limits = Vec::new();
    for (index, entry) in resources.hugepage_limits().iter().flatten().enumerate() {
        if entry.limit() != 0 {
            let field = format!("linux.resources.hugepageLimits[{index}]");
            return Err(unsupported(field, "limits above 0 are not built yet"));
        }
        limits.push(HugetlbLimit { page_size: entry.page_size().clone(), limit: 0 });
    }
    Ok(limits)
}

fn refuse_block_io(block_io: Option<&LinuxBlockIo>) -> Result<(), PlanError> {
    let Some(block_io) = block_io else { return Ok(()) };
    let weights = block_io.weight().unwrap_or(0) != 0 || block_io.leaf_weight().unwrap_or(0) != 0;
    let throttles = [
        block_io.throttle_read_bps_device(),
        block_io.throttle_write_bps_device(),
        block_io.throttle_read_iops_device(),
        block_io.throttle_write_iops_device(),
    ];
    let listed = throttles.into_iter().flatten().any(|list| !list.is_empty())
        || block_io.weight_device().as_ref().is_some_and(|list| !list.is_empty());
    match weights || listed {
        true => Err(unsupported("linux.resources.blockIO", "not built yet")),
        false => Ok(()),
    }
}

fn refuse_network(network: Option<&LinuxNetwork>) -> Result<(), PlanError> {
    let Some(network) = network else { return Ok(()) };
    let used =
        network.class_id().unwrap_or(0) != 0 || network.priorities().as_ref().is_some_and(|list| !list.is_empty());
    match used {
        true => Err(unsupported("linux.resources.network", "not built yet")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: Result<Resources, &str>) {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        assert_eq!(limits(&resources).map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{json}");
    }

    #[test]
    fn limits_are_carried_over_in_the_kernels_units() {
        check(
            r#"{"cpu":{"shares":512,"quota":20000,"period":100000,"cpus":"0-1","mems":""},
                "memory":{"limit":67108864,"swap":-1},"pids":{"limit":100},
                "hugepageLimits":[{"pageSize":"2MB","limit":0}],"blockIO":{"weight":0}}"#,
            Ok(Resources {
                cpu: Cpu { shares: Some(512), quota: Some(20_000), period: Some(100_000), ..Cpu::default() },
                cpuset: Cpuset { cpus: Some("0-1".to_owned()), mems: None },
                memory: Memory { limit: Some(64 << 20), swap: Some(-1), ..Memory::default() },
                pids: Some(100),
                hugetlb: vec![HugetlbLimit { page_size: "2MB".to_owned(), limit: 0 }],
                ..Resources::default()
            }),
        );
    }

    #[test]
    fn a_memory_limit_that_nothing_can_start_in_is_refused_before_the_fork() {
        // `memory: 3000m` in a pod means three bytes.
        check(
            r#"{"memory":{"limit":3}}"#,
            Err("linux.resources.memory.limit: 3 bytes is below the 512 KiB that a container needs to start"),
        );
        check(
            r#"{"memory":{"limit":0}}"#,
            Ok(Resources { memory: Memory { limit: Some(0), ..Memory::default() }, ..Resources::default() }),
        );
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        for (json, field) in [
            (r#"{"blockIO":{"weight":10}}"#, "linux.resources.blockIO"),
            (r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}]}}"#, "linux.resources.blockIO"),
            (r#"{"network":{"classID":1}}"#, "linux.resources.network"),
            (r#"{"rdma":{"mlx":{"hcaHandles":1}}}"#, "linux.resources.rdma"),
            (r#"{"cpu":{"realtimeRuntime":1}}"#, "linux.resources.cpu.realtimeRuntime"),
            (r#"{"memory":{"kernelTCP":1}}"#, "linux.resources.memory.kernelTCP"),
            (r#"{"hugepageLimits":[{"pageSize":"2MB","limit":1}]}"#, "linux.resources.hugepageLimits[0]"),
        ] {
            let resources: LinuxResources = serde_json::from_str(json).unwrap();
            let error = limits(&resources).unwrap_err();
            assert!(matches!(&error, PlanError::Unsupported { field: name, .. } if name == field), "{json}: {error}");
        }
    }
}
