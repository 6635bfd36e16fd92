//! The v2 controllers: one file each, pure against a directory.
//!
//! This file is the table of which file takes part in what.

pub(crate) mod controllers;
mod cpu;
mod cpuset;
pub(crate) mod devices;
mod io;
mod memory;
mod pids;
mod unified;

use controllers::Controllers;

use crate::dir::Dir;
use crate::error::in_field;
use crate::{CgroupPath, Details, Error, Network, Resources, Result, Stats, hugetlb, rdma};

pub(crate) use cpu::Weights;

/// Refuses what no write is needed to see: nothing has been changed yet.
pub(crate) fn validate(resources: &Resources) -> Result<()> {
    crate::devices::outcome(&resources.devices)?;
    cpu::validate(&resources.cpu)?;
    memory::validate(&resources.memory)?;
    io::validate(&resources.block_io)?;
    refuse_network(&resources.network)?;
    unified::validate(&resources.unified)
}

/// v2 marks no packets: BPF programs and iptables' cgroup match by path have taken the place of that.
fn refuse_network(network: &Network) -> Result<()> {
    let missing =
        |field, controller| Err(Error::Missing { field, missing: format!("cgroup v2 has no {controller} controller") });
    match network {
        Network { class_id: Some(1..), .. } => missing("network.classID", "net_cls"),
        Network { priorities, .. } if !priorities.is_empty() => missing("network.priorities", "net_prio"),
        _ => Ok(()),
    }
}

/// Sets up a new container's cgroup at `path`: controllers, limits, device rules.
pub(crate) fn limit_container(root: &Dir, path: &CgroupPath, dir: &Dir, resources: &Resources) -> Result<()> {
    controllers::refuse_unusable(dir)?;
    let controllers = Controllers::pass_down(root, path, dir)?;
    apply_with(dir, &controllers, resources, Weights::Containers)?;
    devices::apply(dir, &resources.devices)
}

/// Sets what may be set at any time. What is absent stays as it is.
pub(crate) fn apply(dir: &Dir, resources: &Resources, weights: Weights) -> Result<()> {
    validate(resources)?;
    apply_with(dir, &Controllers::of(dir)?, resources, weights)
}

fn apply_with(dir: &Dir, controllers: &Controllers, resources: &Resources, weights: Weights) -> Result<()> {
    require_all(controllers, resources)?;
    memory::refuse_below_usage(dir, &resources.memory)?;
    cpu::apply(dir, &resources.cpu, weights).map_err(in_field("cpu"))?;
    cpuset::apply(dir, &resources.cpuset).map_err(in_field("cpu"))?;
    memory::apply(dir, &resources.memory).map_err(in_field("memory"))?;
    pids::apply(dir, resources.pids).map_err(in_field("pids"))?;
    io::apply(dir, &resources.block_io).map_err(in_field("blockIO"))?;
    hugetlb::apply(Some(hugetlb::At::V2(dir)), &resources.hugetlb).map_err(in_field("hugepageLimits"))?;
    rdma::apply(dir, &resources.rdma).map_err(in_field("rdma"))?;
    // Last: it is the raw word, and may correct what was converted.
    unified::apply(dir, &resources.unified).map_err(in_field("unified"))
}

/// Every limit has its controller.
fn require_all(controllers: &Controllers, resources: &Resources) -> Result<()> {
    let pages = resources.hugetlb.iter().any(|limit| limit.limit != 0);
    for (wanted, controller, field) in [
        (!cpu::is_empty(&resources.cpu), "cpu", "cpu"),
        (!cpuset::is_empty(&resources.cpuset), "cpuset", "cpu.cpus"),
        (!memory::is_empty(&resources.memory), "memory", "memory"),
        (resources.pids.is_some_and(|limit| limit >= 0), "pids", "pids"),
        (!io::is_empty(&resources.block_io), "io", "blockIO"),
        (pages, "hugetlb", "hugepageLimits"),
        (!resources.rdma.is_empty(), "rdma", "rdma"),
    ] {
        if wanted {
            controllers.require(controller, field)?;
        }
    }
    unified::controllers(&resources.unified).try_for_each(|controller| controllers.require(controller, "unified"))
}

/// Reads what no v1 hierarchy has told, from the files that are there.
pub(crate) fn read(dir: &Dir, stats: &mut Stats) -> Result<()> {
    if stats.cpu.is_none() {
        stats.cpu = cpu::read(dir)?;
    }
    if stats.memory.is_none() {
        stats.memory = memory::read(dir)?;
    }
    if stats.pids.is_none() {
        stats.pids = pids::read(dir)?;
    }
    Ok(())
}

/// Reads the long form of it.
pub(crate) fn read_details(dir: &Dir, details: &mut Details) -> Result<()> {
    cpu::read_details(dir, &mut details.cpu)?;
    details.memory = memory::read_details(dir)?;
    details.io = io::read(dir)?;
    Ok(())
}

/// The number after a key, in a file of `key number` lines.
pub(crate) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}
