//! A container and where it is in its life.
//!
//! ```text
//! Creating ──▶ Created ──▶ Starting ──▶ Running ──▶ Ending ──▶ Exited ──▶ (forgotten)
//!    │            │            └──▶ Refused ──────────▲           │
//!    ▼            └──────────────────────────────────┘           │
//! Abandoned ──▶ (forgotten)                       exit record on disk, then everyone is told
//! ```
//!
//! A container whose creation failed is forgotten at once if nothing is left of it. Otherwise it is `Abandoned` until a
//! stage child has cleaned up: it counts as alive and its id stays taken, so that nothing new is mistaken for it.
//!
//! `Ending` begins when the first process is reaped. It lasts until all that shares its cgroup is dead and all output
//! is in the log.

use crate::report::Place;
use crate::stdio::Stdio;
use shim_protocol::{ContainerState, Exit, Failure, Process};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Instant;
use sys::process::PidFd;

/// One container of the pod.
#[derive(Debug)]
pub(crate) struct Container {
    /// Unique among all things of this shim.
    pub(crate) key: u64,
    /// The daemon's id for it.
    pub(crate) id: String,
    /// Where it is in its life.
    pub(crate) life: Life,
    /// Where it runs; `None` until the stage child that creates it has told.
    pub(crate) place: Option<Place>,
    /// The cgroup at its place is its own: it was found unused.
    pub(crate) has_cgroup: bool,
    /// Its log file's path.
    pub(crate) log_path: Option<PathBuf>,
    /// Its standard streams.
    pub(crate) stdio: Stdio,
    /// Tells when the kernel's OOM killer was at work in its cgroup.
    pub(crate) oom: Option<oci_runtime::cgroup::OomWatch>,
}

/// The container's first process, which is our child: until we reap it, its pid is its own.
#[derive(Debug)]
pub(crate) struct FirstProcess {
    /// Pid and start time.
    pub(crate) process: Process,
    /// The same, as an fd.
    pub(crate) pidfd: PidFd,
}

/// Where a container is in its life.
#[derive(Debug)]
pub(crate) enum Life {
    /// A stage child makes it.
    Creating,
    /// It could not be created; what is left of it is being removed.
    Abandoned {
        /// That has ended, without success: what is left waits for a delete or the sandbox's end.
        given_up: bool,
    },
    /// It waits behind its gate.
    Created {
        /// Who waits.
        first: FirstProcess,
        /// One byte opens it.
        gate: OwnedFd,
        /// Then says whether the program runs.
        status: File,
    },
    /// The gate is open, the program not executed yet.
    Starting {
        /// Who executes it.
        first: FirstProcess,
        /// Says whether the program runs.
        status: File,
    },
    /// The program can't be run; the process is about to end.
    Refused {
        /// Who ends.
        first: FirstProcess,
        /// Why.
        failure: Failure,
    },
    /// The program runs.
    Running {
        /// It.
        first: FirstProcess,
        /// When it was executed, nanoseconds since 1970.
        started_at: i64,
    },
    /// The first process was reaped.
    Ending(Ending),
    /// All is told.
    Exited(Exit),
}

/// An end that is not told yet.
#[derive(Debug)]
pub(crate) struct Ending {
    /// What will be told, but for `oom_killed`.
    pub(crate) exit: Exit,
    /// Why the program was never run.
    pub(crate) failure: Option<Failure>,
    /// What is still missing.
    pub(crate) missing: Missing,
}

/// What keeps an ended container from being told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Others in its cgroup may live: a stage child kills them.
    Deaths,
    /// A terminal's output may still come, at most until then.
    Output {
        /// The end of our patience.
        until: Instant,
    },
}

impl Container {
    /// A container that a stage child is about to make.
    pub(crate) fn creating(key: u64, id: String, log_path: Option<PathBuf>) -> Self {
        Self {
            key,
            id,
            life: Life::Creating,
            place: None,
            has_cgroup: false,
            log_path,
            stdio: Stdio::default(),
            oom: None,
        }
    }

    /// Its first process, while there is one.
    pub(crate) fn first(&self) -> Option<&FirstProcess> {
        match &self.life {
            Life::Created { first, .. }
            | Life::Starting { first, .. }
            | Life::Refused { first, .. }
            | Life::Running { first, .. } => Some(first),
            Life::Creating | Life::Abandoned { .. } | Life::Ending(_) | Life::Exited(_) => None,
        }
    }

    /// What the daemon is told; nothing before it exists.
    pub(crate) fn told(&self) -> Option<ContainerState> {
        match &self.life {
            Life::Creating | Life::Abandoned { .. } => None,
            Life::Created { first, .. } | Life::Starting { first, .. } | Life::Refused { first, .. } => {
                Some(ContainerState::Created(first.process))
            }
            Life::Running { first, .. } => Some(ContainerState::Running(first.process)),
            // Until its record is on disk the end is not told to anyone.
            Life::Ending(ending) => Some(ContainerState::Running(ending.exit.process)),
            Life::Exited(exit) => Some(ContainerState::Exited(exit.clone())),
        }
    }

    /// Its cgroup's path.
    pub(crate) fn cgroup(&self) -> Option<&str> {
        self.place.as_ref()?.cgroup.as_deref()
    }

    /// Nothing of it lives and all is told, or nothing more can be done about it but to try again.
    pub(crate) fn has_exited(&self) -> bool {
        matches!(self.life, Life::Exited(_) | Life::Abandoned { given_up: true })
    }
}
