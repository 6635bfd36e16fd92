//! What a config says once for all processes of its container.

use oci_spec::runtime::{
    ExecCPUAffinity, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain, Process, Scheduler,
    Spec,
};
use serde::{Deserialize, Serialize};

use super::{PlanError, unsupported};

/// What holds for the processes that join a container as well as for its first one. In the runtime-spec's own form, so that
/// it can be kept between the two: `linux.personality` and `linux.memoryPolicy`, and of the config's process what counts
/// for another one that doesn't say it itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerWide {
    /// `linux.personality`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<LinuxPersonality>,
    /// `linux.memoryPolicy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<LinuxMemoryPolicy>,
    /// `process.scheduler`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// `process.ioPriority`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<LinuxIOPriority>,
    /// `process.execCPUAffinity`.
    #[serde(rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<ExecCPUAffinity>,
}

impl ContainerWide {
    /// That of a config.
    pub fn from_spec(spec: &Spec) -> ContainerWide {
        let linux = spec.linux().as_ref();
        let process = spec.process().as_ref();
        ContainerWide {
            personality: linux.and_then(|linux| linux.personality().clone()),
            memory_policy: linux.and_then(|linux| linux.memory_policy().clone()),
            scheduler: process.and_then(|process| process.scheduler().clone()),
            io_priority: process.and_then(|process| *process.io_priority()),
            exec_cpu_affinity: process.and_then(|process| process.exec_cpu_affinity().clone()),
        }
    }

    /// With what a process object says itself in its place.
    pub(super) fn or_of(&self, process: &Process) -> ContainerWide {
        ContainerWide {
            personality: self.personality.clone(),
            memory_policy: self.memory_policy.clone(),
            scheduler: process.scheduler().clone().or_else(|| self.scheduler.clone()),
            io_priority: process.io_priority().or(self.io_priority),
            exec_cpu_affinity: process.exec_cpu_affinity().clone().or_else(|| self.exec_cpu_affinity.clone()),
        }
    }
}

/// `PER_*` of linux/personality.h.
pub(super) fn personality(personality: &LinuxPersonality) -> Result<u32, PlanError> {
    if let Some(flag) = personality.flags().iter().flatten().next() {
        return Err(unsupported("linux.personality.flags", format!("{flag:?}: the runtime-spec defines none")));
    }
    Ok(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}
