//! `pids.max` (Documentation/admin-guide/cgroup-v2.rst, "PID").

use nix::errno::Errno;

use crate::dir::Dir;
use crate::{PidsStats, Result, v1};

/// Sets the limit, in the same file and words as v1. No limit is what a cgroup without the controller has.
pub(super) fn apply(dir: &Dir, limit: Option<i64>) -> Result<()> {
    match v1::pids::apply(dir, limit) {
        Err(error) if limit.is_some_and(|limit| limit < 0) && error.errno() == Some(Errno::ENOENT) => Ok(()),
        result => result,
    }
}

/// Reads count and limit; `None` without the controller.
pub(super) fn read(dir: &Dir) -> Result<Option<PidsStats>> {
    match dir.read_if_there("pids.current")? {
        Some(_) => v1::pids::read(dir).map(Some),
        None => Ok(None),
    }
}
