//! Cgroups as stage children use them: opened by path, each time anew, in hierarchies that the shim has found at its start.
//! A node has a thousand mounts, and to look through them for each verb would take longer than the verb.

use crate::failure::internal;
use oci_runtime::cgroup::{Cgroup, Layout};
use shim_protocol::Failure;
use std::time::Duration;

/// The host's hierarchies.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups(Layout);

impl Cgroups {
    /// Finds them.
    pub(crate) fn find() -> oci_runtime::cgroup::Result<Self> {
        Layout::detect().map(Self)
    }

    /// What the host has mounted.
    pub(crate) fn layout(&self) -> &Layout {
        &self.0
    }

    /// The cgroup at `path`, as in OCI's `linux.cgroupsPath`; one that does not exist is empty.
    pub(crate) fn open(&self, path: &str) -> Result<Cgroup, Failure> {
        Cgroup::open(&self.0, path).map_err(|error| internal(format_args!("open cgroup {path}"), &error))
    }

    /// Removes the cgroup at `path`, if it exists.
    pub(crate) fn delete(&self, path: &str) -> Result<(), Failure> {
        Cgroup::delete_at(&self.0, path).map_err(|error| internal(format_args!("remove cgroup {path}"), &error))
    }

    /// Kills all in the cgroup at `path` and waits for it to be empty.
    pub(crate) fn kill_all(&self, path: &str, deadline: Duration) -> Result<(), Failure> {
        let killed = self.open(path)?.kill(deadline);
        killed.map_err(|error| internal(format_args!("kill all in cgroup {path}"), &error))
    }
}
