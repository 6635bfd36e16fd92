//! `cpuset.cpus`, `cpuset.mems` (Documentation/admin-guide/cgroup-v2.rst, "Cpuset").
//!
//! Unlike on v1, an empty one has its parent's. Partitions (`cpuset.cpus.partition`) are the administrator's and left
//! alone.

use crate::dir::Dir;
use crate::{Cpuset, Result, v1};

/// Whether nothing is asked for.
pub(super) fn is_empty(cpuset: &Cpuset) -> bool {
    [&cpuset.cpus, &cpuset.mems].into_iter().all(|list| list.as_deref().unwrap_or_default().is_empty())
}

/// Sets what was asked for, in the same files and words as v1.
pub(super) fn apply(dir: &Dir, cpuset: &Cpuset) -> Result<()> {
    v1::cpuset::apply(dir, cpuset)
}
