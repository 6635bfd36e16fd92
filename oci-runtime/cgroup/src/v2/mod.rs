//! The v2 controllers as far as cgroups that hold cgroups need them: pure against a directory.

mod cpu;
mod memory;
mod pids;

use crate::dir::Dir;
use crate::{Resources, Result, Stats, hugetlb};

/// Sets what a cgroup above containers may have. What is absent stays as it is.
pub(crate) fn apply(dir: &Dir, resources: &Resources) -> Result<()> {
    cpu::apply(dir, &resources.cpu)?;
    memory::apply(dir, &resources.memory)?;
    pids::apply(dir, resources.pids)?;
    hugetlb::apply(Some(hugetlb::At::V2(dir)), &resources.hugetlb)?;
    resources.unified.iter().try_for_each(|(file, value)| dir.write(file, value))
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

/// The number after a key, in a file of `key number` lines.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}
