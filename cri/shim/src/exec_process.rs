//! A process run in a container beside its first one.

use crate::supervisor::Shim;
use crate::verbs;
use shim_protocol::Process;
use std::fs::File;
use std::os::fd::OwnedFd;
use sys::process::PidFd;

/// One exec'd process; it is forgotten when it ends.
#[derive(Debug)]
pub(crate) struct ExecProcess {
    /// Unique among all things of this shim.
    pub(crate) key: u64,
    /// The daemon's id for it.
    pub(crate) id: String,
    /// How far it is.
    pub(crate) life: ExecLife,
}

/// How far an exec'd process is. It is our child, so until we reap it its number is its own.
#[derive(Debug)]
pub(crate) enum ExecLife {
    /// A stage child makes it.
    Beginning,
    /// Its program is not executed yet.
    Starting {
        /// It.
        process: Process,
        /// The same, as an fd.
        pidfd: PidFd,
        /// Says whether the program runs.
        status: File,
        /// The terminal's master, for the daemon.
        terminal: Option<OwnedFd>,
    },
    /// Its program can't be run, which was told; its process is about to end.
    Refused {
        /// It.
        process: Process,
    },
    /// Its program runs.
    Running {
        /// It.
        process: Process,
        /// The same, as an fd.
        pidfd: PidFd,
        /// When it was executed, nanoseconds since 1970.
        started_at: i64,
    },
}

impl ExecProcess {
    /// A process that a stage child is about to make.
    pub(crate) fn beginning(key: u64, id: String) -> Self {
        Self { key, id, life: ExecLife::Beginning }
    }

    /// The process, once there is one.
    pub(crate) fn process(&self) -> Option<Process> {
        match &self.life {
            ExecLife::Beginning => None,
            ExecLife::Starting { process, .. } | ExecLife::Refused { process } | ExecLife::Running { process, .. } => {
                Some(*process)
            }
        }
    }
}

impl Shim {
    /// Reads whether an exec's program runs, and answers.
    pub(crate) fn hear_exec_status(&mut self, key: u64) {
        let Some(exec) = self.execs.iter_mut().find(|exec| exec.key == key) else { return };
        let ExecLife::Starting { status, .. } = &mut exec.life else { return };
        let Some(result) = crate::status::read(status, &mut self.buffer) else { return };
        verbs::exec::started(self, key, result);
    }
}
