//! `linux.resources` → [`cgroup::Resources`]. Whether this host can keep them is seen where they are set.

use std::collections::BTreeMap;

use cgroup::{BlockIo, Cpu, Cpuset, DeviceWeight, HugetlbLimit, Memory, Network, Rdma, Resources, Throttle, Throttled};
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources, LinuxThrottleDevice, LinuxWeightDevice,
};

use super::{PlanError, invalid};

/// The least memory that a container starts with: below it the kernel kills its first process before it can say why.
pub const LEAST_MEMORY: i64 = 512 * 1024;

/// The limits of a config, or of an update. Device rules are the caller's: a config's are completed with those that
/// every container needs, an update's are left alone.
///
/// # Errors
/// The first field whose value makes no sense.
pub fn limits(resources: &LinuxResources) -> Result<Resources, PlanError> {
    let pids = resources.pids().as_ref().map(|pids| pids.limit());
    Ok(Resources {
        cpu: resources.cpu().as_ref().map(cpu).unwrap_or_default(),
        cpuset: resources.cpu().as_ref().map(cpuset).unwrap_or_default(),
        memory: resources.memory().as_ref().map(memory).transpose()?.unwrap_or_default(),
        pids,
        devices: Vec::new(),
        hugetlb: hugetlb(resources)?,
        block_io: resources.block_io().as_ref().map(block_io).transpose()?.unwrap_or_default(),
        network: resources.network().as_ref().map(network).transpose()?.unwrap_or_default(),
        rdma: rdma(resources)?,
        unified: resources.unified().clone().unwrap_or_default().into_iter().collect(),
    })
}

fn cpu(cpu: &LinuxCpu) -> Cpu {
    Cpu {
        shares: cpu.shares(),
        quota: cpu.quota(),
        period: cpu.period(),
        burst: cpu.burst(),
        idle: cpu.idle(),
        realtime_runtime: cpu.realtime_runtime(),
        realtime_period: cpu.realtime_period(),
    }
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
    // `kernel` is ignored as in runc: the kernel itself dropped the limit. `useHierarchy` is always on.
    Ok(Memory {
        limit: memory.limit(),
        reservation: memory.reservation(),
        swap: memory.swap(),
        swappiness: memory.swappiness(),
        disable_oom_killer: memory.disable_oom_killer(),
        kernel_tcp: memory.kernel_tcp(),
        check_before_update: memory.check_before_update().unwrap_or(false),
    })
}

fn hugetlb(resources: &LinuxResources) -> Result<Vec<HugetlbLimit>, PlanError> {
    let mut limits = Vec::new();
    for (index, entry) in resources.hugepage_limits().iter().flatten().enumerate() {
        let limit = u64::try_from(entry.limit()).map_err(|_| {
            let field = format!("linux.resources.hugepageLimits[{index}].limit");
            invalid(field, format!("{} is not a number of bytes", entry.limit()))
        })?;
        limits.push(HugetlbLimit { page_size: entry.page_size().clone(), limit });
    }
    Ok(limits)
}

fn block_io(block_io: &LinuxBlockIo) -> Result<BlockIo, PlanError> {
    let mut devices = Vec::new();
    for (index, device) in block_io.weight_device().iter().flatten().enumerate() {
        devices.push(device_weight(device, &format!("linux.resources.blockIO.weightDevice[{index}]"))?);
    }
    let mut throttle = Vec::new();
    for (name, of, list) in [
        ("throttleReadBpsDevice", Throttled::ReadBytes, block_io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", Throttled::WriteBytes, block_io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", Throttled::Reads, block_io.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", Throttled::Writes, block_io.throttle_write_iops_device()),
    ] {
        for (index, device) in list.iter().flatten().enumerate() {
            throttle.push(throttled(device, of, &format!("linux.resources.blockIO.{name}[{index}]"))?);
        }
    }
    // Engines send 0 for "none".
    let given = |weight: Option<u16>| weight.filter(|&weight| weight != 0);
    Ok(BlockIo { weight: given(block_io.weight()), leaf_weight: given(block_io.leaf_weight()), devices, throttle })
}

fn device_weight(device: &LinuxWeightDevice, field: &str) -> Result<DeviceWeight, PlanError> {
    Ok(DeviceWeight {
        major: number(device.major(), field, "major")?,
        minor: number(device.minor(), field, "minor")?,
        weight: device.weight(),
        leaf_weight: device.leaf_weight(),
    })
}

fn throttled(device: &LinuxThrottleDevice, of: Throttled, field: &str) -> Result<Throttle, PlanError> {
    let (major, minor) = (number(device.major(), field, "major")?, number(device.minor(), field, "minor")?);
    Ok(Throttle { major, minor, of, rate: device.rate() })
}

fn number(value: i64, field: &str, name: &str) -> Result<u32, PlanError> {
    u32::try_from(value).map_err(|_| invalid(format!("{field}.{name}"), format!("{value} is not a device number")))
}

fn network(network: &LinuxNetwork) -> Result<Network, PlanError> {
    let mut priorities = BTreeMap::new();
    for (index, entry) in network.priorities().iter().flatten().enumerate() {
        let name = word(entry.name(), || format!("linux.resources.network.priorities[{index}].name"))?;
        priorities.insert(name, entry.priority());
    }
    Ok(Network { class_id: network.class_id(), priorities })
}

fn rdma(resources: &LinuxResources) -> Result<BTreeMap<String, Rdma>, PlanError> {
    let mut limits = BTreeMap::new();
    for (device, entry) in resources.rdma().iter().flatten() {
        let device = word(device, || "linux.resources.rdma".to_owned())?;
        limits.insert(device, Rdma { hca_handles: entry.hca_handles(), hca_objects: entry.hca_objects() });
    }
    Ok(limits)
}

/// A name that becomes the first word of a line in a control file.
fn word(name: &str, field: impl Fn() -> String) -> Result<String, PlanError> {
    match name.is_empty() || name.contains(|character: char| character.is_whitespace() || character.is_control()) {
        true => Err(invalid(field(), format!("{name:?} is not the name of a device"))),
        false => Ok(name.to_owned()),
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
    fn block_io_networks_and_rdma_are_carried_over() {
        check(
            r#"{"blockIO":{"weight":10,"leafWeight":20,"weightDevice":[{"major":8,"minor":0,"weight":500}],
                    "throttleReadBpsDevice":[{"major":8,"minor":16,"rate":600}],
                    "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":300}]},
                "network":{"classID":7,"priorities":[{"name":"eth0","priority":500}]},
                "rdma":{"mlx5_1":{"hcaHandles":3}},
                "cpu":{"realtimeRuntime":950000,"realtimePeriod":1000000},
                "memory":{"kernelTCP":-1,"checkBeforeUpdate":true},
                "hugepageLimits":[{"pageSize":"2MB","limit":2097152}],
                "unified":{"memory.high":"max"}}"#,
            Ok(Resources {
                block_io: BlockIo {
                    weight: Some(10),
                    leaf_weight: Some(20),
                    devices: vec![DeviceWeight { major: 8, minor: 0, weight: Some(500), leaf_weight: None }],
                    throttle: vec![
                        Throttle { major: 8, minor: 16, of: Throttled::ReadBytes, rate: 600 },
                        Throttle { major: 8, minor: 0, of: Throttled::Writes, rate: 300 },
                    ],
                },
                network: Network { class_id: Some(7), priorities: [("eth0".to_owned(), 500)].into() },
                rdma: [("mlx5_1".to_owned(), Rdma { hca_handles: Some(3), hca_objects: None })].into(),
                cpu: Cpu { realtime_runtime: Some(950_000), realtime_period: Some(1_000_000), ..Cpu::default() },
                memory: Memory { kernel_tcp: Some(-1), check_before_update: true, ..Memory::default() },
                hugetlb: vec![HugetlbLimit { page_size: "2MB".to_owned(), limit: 2 << 20 }],
                unified: [("memory.high".to_owned(), "max".to_owned())].into(),
                ..Resources::default()
            }),
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (json, error) in [
            (
                r#"{"blockIO":{"throttleReadIOPSDevice":[{"major":-1,"minor":0,"rate":1}]}}"#,
                "linux.resources.blockIO.throttleReadIOPSDevice[0].major: -1 is not a device number",
            ),
            (
                r#"{"network":{"priorities":[{"name":"a b","priority":1}]}}"#,
                "linux.resources.network.priorities[0].name: \"a b\" is not the name of a device",
            ),
            (r#"{"rdma":{"":{"hcaHandles":1}}}"#, "linux.resources.rdma: \"\" is not the name of a device"),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":-1}]}"#,
                "linux.resources.hugepageLimits[0].limit: -1 is not a number of bytes",
            ),
        ] {
            check(json, Err(error));
        }
    }
}
