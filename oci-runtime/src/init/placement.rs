//! When and where the process runs: on which CPUs, how it is scheduled, from which nodes its memory comes.

use sys::Errno;
use sys::process;

use crate::error::{Error, Step};
use crate::launch::Channel;
use crate::plan::{CpuAffinity, MemoryPolicy, ProcessPlan};

/// Gives the first process all CPUs of its cpuset, in which it is by now: those of its creator are none of its business, and
/// CPUs that the cpuset gets later would stay closed to it.
pub(super) fn reset_affinity(channel: &Channel) {
    if let Err(error) = process::reset_affinity() {
        // As runc: the container runs all the same.
        channel.warn(&format!("resetting the CPU affinity failed: {error}"));
    }
}

/// `execCPUAffinity` of a process that has joined the cgroup.
pub(crate) fn set_final_affinity(affinity: &CpuAffinity, channel: &Channel) -> Result<(), Error> {
    match (&affinity.initial, &affinity.last) {
        (_, Some(cpus)) => process::set_affinity(cpus).step(|| "set process.execCPUAffinity.final".to_owned()),
        (Some(_), None) => Ok(()),
        (None, None) => {
            reset_affinity(channel);
            Ok(())
        }
    }
}

/// `execCPUAffinity.initial`, for the creator of a process that it then inherits.
///
/// # Errors
/// None of the CPUs is there for us.
pub(crate) fn begin_on(affinity: &CpuAffinity) -> Result<OwnCpus, Error> {
    let step = || "set process.execCPUAffinity.initial".to_owned();
    let Some(cpus) = &affinity.initial else { return Ok(OwnCpus(None)) };
    let own = process::affinity().step(step)?;
    process::set_affinity(cpus).step(step)?;
    Ok(OwnCpus(Some(own)))
}

/// The creator's CPUs, which it has again when this is dropped.
pub(crate) struct OwnCpus(Option<Vec<u64>>);

impl Drop for OwnCpus {
    fn drop(&mut self) {
        if let Some(cpus) = &self.0 {
            // They may have been taken away meanwhile: then the kernel has given it others.
            let _ = process::set_affinity(cpus);
        }
    }
}

/// Scheduling, I/O priority, execution domain, memory policy. From here on the process makes no other but its startContainer
/// hooks: one with a deadline can't, unless its flags reset that in a child (sched(7)).
pub(super) fn place(plan: &ProcessPlan) -> Result<(), Error> {
    if let Some(scheduling) = &plan.scheduling {
        process::set_scheduling(scheduling).map_err(explain_real_time).step(|| "set process.scheduler".to_owned())?;
    }
    if let Some(io) = plan.io_priority {
        process::set_io_priority(io.class, io.priority).step(|| "set process.ioPriority".to_owned())?;
    }
    if let Some(persona) = plan.personality {
        process::set_personality(persona).step(|| "set linux.personality".to_owned())?;
    }
    if let Some(policy) = &plan.memory_policy {
        set_memory_policy(policy)?;
    }
    Ok(())
}

/// A cgroup of v1 has no real-time budget unless it is given one, and one with CPUs of its own has none for deadlines.
fn explain_real_time(error: sys::Error) -> sys::Error {
    match error.errno() {
        Errno::EPERM => error.with_detail(
            "it takes CAP_SYS_NICE; for a real-time policy on cgroup v1 linux.resources.cpu.realtimeRuntime too; and for \
             SCHED_DEADLINE no linux.resources.cpu.cpus",
        ),
        _ => error,
    }
}

fn set_memory_policy(policy: &MemoryPolicy) -> Result<(), Error> {
    let name = &policy.name;
    process::set_memory_policy(policy.mode, &policy.nodes)
        .map_err(|error| match (error.errno(), name.as_str()) {
            (Errno::ENOSYS, _) => error.with_detail("the kernel has no NUMA (CONFIG_NUMA)"),
            (Errno::EINVAL, "MPOL_PREFERRED_MANY") => {
                error.with_detail("it takes nodes of this machine, and Linux 5.15")
            }
            (Errno::EINVAL, "MPOL_WEIGHTED_INTERLEAVE") => {
                error.with_detail("it takes nodes of this machine, and Linux 6.9")
            }
            (Errno::EINVAL, _) => error.with_detail("it takes nodes of this machine that the cpuset allows"),
            _ => error,
        })
        .step(|| format!("set linux.memoryPolicy {name}"))
}
