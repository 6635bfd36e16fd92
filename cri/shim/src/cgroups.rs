//! Cgroups as stage children use them: opened by path, each time anew.

use crate::failure::internal;
use oci_runtime::cgroup::{Cgroup, Layout};
use shim_protocol::Failure;

/// What the host has mounted.
pub(crate) fn layout() -> Result<Layout, Failure> {
    Layout::detect().map_err(|error| internal("find the host's cgroups", &error))
}

/// The cgroup at `path`, as in OCI's `linux.cgroupsPath`; one that does not exist is empty.
pub(crate) fn open(path: &str) -> Result<Cgroup, Failure> {
    Cgroup::open(&layout()?, path).map_err(|error| internal(format_args!("open cgroup {path}"), &error))
}

/// Removes the cgroup at `path`, if it exists.
pub(crate) fn delete(path: &str) -> Result<(), Failure> {
    open(path)?.delete().map_err(|error| internal(format_args!("remove cgroup {path}"), &error))
}
