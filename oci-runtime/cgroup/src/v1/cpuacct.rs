//! CPU time used (Documentation/admin-guide/cgroup-v1/cpuacct.rst).

use crate::Result;
use crate::dir::Dir;

/// Nanoseconds on all CPUs together.
pub(crate) fn usage_ns(dir: &Dir) -> Result<u64> {
    dir.number("cpuacct.usage")
}
