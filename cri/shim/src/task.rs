//! Verbs that are under way: who asked, until when, and what they wait for.

use crate::stage::StageChild;
use crate::stages::Stages;
use std::time::Instant;
use sys::process::PidFd;

/// A verb, or a piece of the shim's own work, that takes more than a turn of the loop.
#[derive(Debug)]
pub(crate) struct Task {
    /// Unique among all things of this shim.
    pub(crate) key: u64,
    /// Who gets the reply; `None` for the shim's own work.
    pub(crate) call: Option<Call>,
    /// When it is given up.
    pub(crate) deadline: Instant,
    /// What it did so far.
    pub(crate) stages: Stages,
    /// What it waits for.
    pub(crate) step: Step,
    /// What its stage child has cloned and not handed over yet: nobody else would end it.
    pub(crate) born: Option<PidFd>,
}

/// A request, by the keys of those who wait for its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// The connection that it came on.
    pub(crate) connection: u64,
    /// The request's own id.
    pub(crate) request: u64,
}

/// What a task waits for. Containers and execs are named by key.
#[derive(Debug)]
pub(crate) enum Step {
    /// A stage child's last report, of which `Job` says what to do with it.
    Stage(StageChild, Job),
    /// A container's program runs, or its first process has ended.
    Starting(u64),
    /// An exec's program runs, or its process has ended.
    Executing(u64),
    /// A container that is to be deleted has ended.
    Deleting(u64),
    /// All containers and the reaper have ended.
    Stopping,
}

/// What a stage child's outcome is for. Containers and execs are named by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// The sandbox: sysctls and reaper.
    StartSandbox,
    /// A container up to its gate.
    Create(u64),
    /// A process in a container.
    Exec(u64),
    /// A log file.
    ReopenLog(u64),
    /// Something whose outcome is only "done": update, kill all.
    Plain,
    /// The death of all that shares the cgroup of an ended container.
    Sweep(u64),
    /// The death of all that is left of a container that could not be created, and the removal of its cgroup.
    Abandon(u64),
    /// The hooks that follow the start of a container's program.
    Poststart(u64),
    /// The removal of an ended container's cgroup.
    Delete(u64),
    /// The removal of what a sandbox that could not be started has left.
    Undo,
    /// The removal of all cgroups of the sandbox.
    StopSandbox,
}
