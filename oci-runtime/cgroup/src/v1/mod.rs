//! The v1 controllers: one file each, pure against a directory.
//!
//! This file is the table of which controller takes part in what.

mod blkio;
pub(crate) mod cpu;
pub(crate) mod cpuacct;
pub(crate) mod cpuset;
pub(crate) mod devices;
pub(crate) mod memory;
mod network;
pub(crate) mod pids;

use crate::dir::Dir;
use crate::error::in_field;
use crate::{Details, Error, Kind, Layout, Resources, Result, Stats, rdma};

/// Refuses what no write is needed to see: nothing has been changed yet.
pub(crate) fn validate(layout: &Layout, resources: &Resources) -> Result<()> {
    let has = |controller: &str| has(layout, controller);
    validate_limits(&has, resources)?;
    crate::devices::outcome(&resources.devices)?;
    // A container that could open every device must not start, whether or not rules were given.
    require(&has, "devices", "devices")
}

/// The same for limits alone: of a cgroup that holds cgroups, which has no device rules, and for an update, which leaves
/// them. `has` tells whether there is a v1 controller.
pub(crate) fn validate_limits(has: &dyn Fn(&str) -> bool, resources: &Resources) -> Result<()> {
    if let Some(name) = resources.unified.keys().next() {
        // The first words are runc's.
        let reason = format!("invalid configuration: cannot use unified on cgroup v1 ({name})");
        return Err(Error::BadValue { field: "unified", reason });
    }
    cpu::validate(&resources.cpu)?;
    memory::validate(&resources.memory)?;
    let network = &resources.network;
    for (wanted, controller, field) in [
        (resources.cpu != crate::Cpu::default(), "cpu", "cpu"),
        (resources.cpuset != crate::Cpuset::default(), "cpuset", "cpu.cpus"),
        (resources.memory != crate::Memory::default(), "memory", "memory"),
        (resources.pids.is_some_and(|limit| limit >= 0), "pids", "pids"),
        (resources.block_io != crate::BlockIo::default(), "blkio", "blockIO"),
        (network.class_id.unwrap_or(0) != 0, "net_cls", "network.classID"),
        (!network.priorities.is_empty(), "net_prio", "network.priorities"),
        (!resources.rdma.is_empty(), "rdma", "rdma"),
    ] {
        if wanted {
            require(has, controller, field)?;
        }
    }
    Ok(())
}

/// Whether limits of a v1 controller can be set; RDMA's are the same where v2 holds it beside v1.
pub(crate) fn has(layout: &Layout, controller: &str) -> bool {
    let mut hierarchies = layout.hierarchies().iter();
    hierarchies.any(|hierarchy| hierarchy.kind.controls(controller)) || (controller == "rdma" && layout.has(controller))
}

fn require(has: &dyn Fn(&str) -> bool, controller: &'static str, field: &'static str) -> Result<()> {
    match has(controller) {
        true => Ok(()),
        false => Err(Error::Missing { field, missing: format!("the v1 {controller} controller is not mounted") }),
    }
}

/// Sets what may be set at any time.
pub(crate) fn apply(kind: &Kind, dir: &Dir, resources: &Resources) -> Result<()> {
    if kind.controls("cpu") {
        cpu::apply(dir, &resources.cpu).map_err(in_field("cpu"))?;
    }
    if kind.controls("cpuset") {
        cpuset::apply(dir, &resources.cpuset).map_err(in_field("cpu"))?;
    }
    if kind.controls("memory") {
        memory::apply(dir, &resources.memory).map_err(in_field("memory"))?;
    }
    if kind.controls("pids") {
        pids::apply(dir, resources.pids).map_err(in_field("pids"))?;
    }
    if kind.controls("blkio") {
        blkio::apply(dir, &resources.block_io).map_err(in_field("blockIO"))?;
    }
    if kind.controls("net_cls") {
        network::apply_class(dir, &resources.network).map_err(in_field("network.classID"))?;
    }
    if kind.controls("net_prio") {
        network::apply_priorities(dir, &resources.network).map_err(in_field("network.priorities"))?;
    }
    if kind.controls("rdma") {
        rdma::apply(dir, &resources.rdma).map_err(in_field("rdma"))?;
    }
    Ok(())
}

/// Sets what is set once, before the first process.
pub(crate) fn apply_at_creation(kind: &Kind, dir: &Dir, resources: &Resources) -> Result<()> {
    if kind.controls("devices") {
        devices::apply(dir, &resources.devices).map_err(in_field("devices"))?;
    }
    Ok(())
}

/// Reads what this hierarchy knows.
pub(crate) fn read(kind: &Kind, dir: &Dir, stats: &mut Stats) -> Result<()> {
    if kind.controls("cpuacct") {
        stats.cpu.get_or_insert_default().usage_ns = cpuacct::usage_ns(dir)?;
    }
    if kind.controls("cpu") {
        stats.cpu.get_or_insert_default().throttling = cpu::throttling(dir)?;
    }
    if kind.controls("memory") {
        stats.memory = Some(memory::read(dir)?);
    }
    if kind.controls("pids") {
        stats.pids = Some(pids::read(dir)?);
    }
    Ok(())
}

/// Reads the long form of it.
pub(crate) fn read_details(kind: &Kind, dir: &Dir, details: &mut Details) -> Result<()> {
    if kind.controls("cpuacct") {
        cpuacct::read_details(dir, &mut details.cpu)?;
    }
    if kind.controls("cpu") {
        cpu::read_bursts(dir, &mut details.cpu)?;
    }
    if kind.controls("cpuset") {
        details.cpuset = Some(cpuset::read(dir)?);
    }
    if kind.controls("memory") {
        details.memory = Some(memory::read_details(dir)?);
    }
    if kind.controls("blkio") {
        details.io = blkio::read(dir)?;
    }
    Ok(())
}
