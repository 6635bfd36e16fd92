//! The v1 controllers: one file each, pure against a directory.
//!
//! This file is the table of which controller takes part in what.

mod blkio;
pub(crate) mod cpu;
pub(crate) mod cpuacct;
pub(crate) mod cpuset;
pub(crate) mod devices;
pub(crate) mod memory;
pub(crate) mod pids;

use crate::dir::Dir;
use crate::{Details, Error, Kind, Layout, Resources, Result, Stats};

/// Refuses what no write is needed to see: nothing has been changed yet.
pub(crate) fn validate(layout: &Layout, resources: &Resources) -> Result<()> {
    validate_interior(layout, resources)?;
    crate::devices::outcome(&resources.devices)?;
    // A container that could open every device must not start, whether or not rules were given.
    require(layout, "devices")
}

/// The same for a cgroup that holds cgroups, which has no device rules.
pub(crate) fn validate_interior(layout: &Layout, resources: &Resources) -> Result<()> {
    if let Some(name) = resources.unified.keys().next() {
        // The first words are runc's.
        let reason = format!("invalid configuration: cannot use unified on cgroup v1 ({name})");
        return Err(Error::BadValue { field: "unified", reason });
    }
    cpu::validate(&resources.cpu)?;
    memory::validate(&resources.memory)?;
    let wanted = [
        ("cpu", resources.cpu != crate::Cpu::default()),
        ("cpuset", resources.cpuset != crate::Cpuset::default()),
        ("memory", resources.memory != crate::Memory::default()),
        ("pids", resources.pids.is_some_and(|limit| limit >= 0)),
    ];
    wanted.iter().filter(|(_, wanted)| *wanted).try_for_each(|(controller, _)| require(layout, controller))
}

fn require(layout: &Layout, controller: &'static str) -> Result<()> {
    if v1_has(layout, controller) {
        return Ok(());
    }
    let missing = format!("the v1 {controller} controller is not mounted");
    Err(Error::Missing { field: controller, missing })
}

fn v1_has(layout: &Layout, controller: &str) -> bool {
    layout.hierarchies().iter().any(|hierarchy| hierarchy.kind.controls(controller))
}

/// Sets what may be set at any time.
pub(crate) fn apply(kind: &Kind, dir: &Dir, resources: &Resources) -> Result<()> {
    if kind.controls("cpu") {
        cpu::apply(dir, &resources.cpu)?;
    }
    if kind.controls("cpuset") {
        cpuset::apply(dir, &resources.cpuset)?;
    }
    if kind.controls("memory") {
        memory::apply(dir, &resources.memory)?;
    }
    if kind.controls("pids") {
        pids::apply(dir, resources.pids)?;
    }
    Ok(())
}

/// Sets what is set once, before the first process.
pub(crate) fn apply_at_creation(kind: &Kind, dir: &Dir, resources: &Resources) -> Result<()> {
    if kind.controls("devices") {
        devices::apply(dir, &resources.devices)?;
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
