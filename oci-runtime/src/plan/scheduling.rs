//! `process.scheduler`, `process.ioPriority`, `process.execCPUAffinity`: when and where a process runs.

use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, LinuxIOPriority, LinuxSchedulerFlag, LinuxSchedulerPolicy, Scheduler,
};
use sys::process::Scheduling;

use super::{PlanError, invalid, number_list};

/// I/O scheduling class and priority (`ioprio_set(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoPriority {
    /// 1 real-time, 2 best effort, 3 idle.
    pub class: u16,
    /// 0, the highest, to 7.
    pub priority: u16,
}

/// The CPUs of a process that joins a container, as masks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuAffinity {
    /// Until it is in the container's cgroup.
    pub initial: Option<Vec<u64>>,
    /// From there on; without it the kernel makes what it can of `initial`.
    pub last: Option<Vec<u64>>,
}

/// The rules are runc's: what the kernel would silently make nothing of is refused.
pub(super) fn scheduler(scheduler: &Scheduler) -> Result<Scheduling, PlanError> {
    use LinuxSchedulerPolicy as Policy;
    let policy = *scheduler.policy();
    let nice = scheduler.nice().unwrap_or(0);
    if matches!(policy, Policy::SchedOther | Policy::SchedBatch) && !(-20..=19).contains(&nice) {
        return Err(invalid("process.scheduler.nice", format!("{nice} is not between -20 and 19")));
    }
    let priority = scheduler.priority().unwrap_or(0);
    if priority != 0 && !matches!(policy, Policy::SchedFifo | Policy::SchedRr) {
        return Err(invalid("process.scheduler.priority", "is for SCHED_FIFO and SCHED_RR only"));
    }
    let priority = u32::try_from(priority).ok().filter(|priority| *priority <= 99);
    let priority = priority.ok_or_else(|| invalid("process.scheduler.priority", "is not between 0 and 99"))?;
    let time = |field: &str, value: Option<u64>| match value.unwrap_or(0) {
        value if value != 0 && policy != Policy::SchedDeadline => {
            Err(invalid(format!("process.scheduler.{field}"), "is for SCHED_DEADLINE only"))
        }
        value => Ok(value),
    };
    Ok(Scheduling {
        policy: policy_number(policy),
        flags: scheduler.flags().iter().flatten().fold(0, |all, flag| all | flag_bit(*flag)),
        nice,
        priority,
        runtime: time("runtime", *scheduler.runtime())?,
        deadline: time("deadline", *scheduler.deadline())?,
        period: time("period", *scheduler.period())?,
    })
}

/// `SCHED_*` of linux/sched.h.
fn policy_number(policy: LinuxSchedulerPolicy) -> u32 {
    match policy {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    }
}

/// `SCHED_FLAG_*` of linux/sched.h.
fn flag_bit(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

pub(super) fn io_priority(io: &LinuxIOPriority) -> Result<IoPriority, PlanError> {
    let class = match io.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u16::try_from(io.priority()) {
        Ok(priority) if priority <= 7 => Ok(IoPriority { class, priority }),
        _ => Err(invalid("process.ioPriority.priority", format!("{} is not between 0 and 7", io.priority()))),
    }
}

pub(super) fn cpu_affinity(affinity: &ExecCPUAffinity) -> Result<CpuAffinity, PlanError> {
    let cpus = |field: &str, list: &Option<String>| match list.as_deref() {
        None | Some("") => Ok(None),
        Some(list) => {
            let mask = number_list::parse(list);
            mask.map(Some).map_err(|reason| invalid(format!("process.execCPUAffinity.{field}"), reason))
        }
    };
    Ok(CpuAffinity {
        initial: cpus("initial", affinity.initial())?,
        last: cpus("final", affinity.cpu_affinity_final())?,
    })
}
