//! The pod itself: its namespaces, which are the shim's own, its shared memory and its reaper.

use crate::shared_memory::SharedMemory;
use shim_protocol::{Process, Sandbox, SandboxProcess};
use std::os::fd::OwnedFd;
use sys::process::PidFd;

/// Where the sandbox is in its life.
///
/// ```text
/// Fresh ──StartSandbox──▶ Starting ──▶ Running ──StopSandbox──▶ Over
///   └──── nobody came ────────┴── it could not be started ───────▲
/// ```
///
/// A shim that could not start its sandbox has entered half of its namespaces: it ends, and the daemon starts another.
#[derive(Debug)]
pub(crate) enum Lifecycle {
    /// Nobody asked yet.
    Fresh,
    /// The shim is in the pod's namespaces; a stage child sets sysctls and starts the reaper.
    Starting(Box<(Sandbox, Option<SharedMemory>)>),
    /// It is there.
    Running(Box<RunningSandbox>),
    /// The shim is about to end.
    Over,
}

/// A sandbox that was started.
#[derive(Debug)]
pub(crate) struct RunningSandbox {
    /// What was asked for.
    pub(crate) config: Sandbox,
    /// What came of it.
    pub(crate) processes: SandboxProcess,
    /// The first process of the shared PID namespace, while it lives.
    pub(crate) reaper: Option<Reaper>,
    /// The pod's `/dev/shm`.
    pub(crate) shared_memory: Option<SharedMemory>,
    /// StopSandbox was asked for: nothing new is started, and the shim ends with the last process.
    pub(crate) stopping: bool,
}

/// The living reaper.
#[derive(Debug)]
pub(crate) struct Reaper {
    /// Our child.
    pub(crate) process: Process,
    /// The same, as an fd.
    pub(crate) pidfd: PidFd,
    /// It ends when this is closed, so that it never outlives the shim.
    pub(crate) _lifeline: OwnedFd,
}

impl RunningSandbox {
    /// Whether a container may be created: its reaper lives, if it is to have one.
    pub(crate) fn is_ready(&self) -> bool {
        !self.stopping && (self.config.reaper.is_none() || self.reaper.is_some())
    }
}
