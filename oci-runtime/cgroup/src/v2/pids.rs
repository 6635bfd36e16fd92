//! `pids.max` (Documentation/admin-guide/cgroup-v2.rst, "PID").

use crate::dir::Dir;
use crate::{PidsStats, Result, v1};

/// Sets the limit, in the same file and words as v1.
pub(super) fn apply(dir: &Dir, limit: Option<i64>) -> Result<()> {
    v1::pids::apply(dir, limit)
}

/// Reads count and limit; `None` without the controller.
pub(super) fn read(dir: &Dir) -> Result<Option<PidsStats>> {
    match dir.read_if_there("pids.current")? {
        Some(_) => v1::pids::read(dir).map(Some),
        None => Ok(None),
    }
}
