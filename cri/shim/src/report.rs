//! What a stage child tells the shim: reports, which are datagrams on a socket pair that the shim polls, and notes,
//! lines in a pipe that it reads only if the stage fails. So a verb that goes well wakes the shim twice, however many
//! stages it has.

use crate::failure::internal;
use crate::stage::Reporter;
use oci_runtime::plan::ContainerWide;
use oci_runtime::resctrl::{self, Groups};
use serde::{Deserialize, Serialize};
use shim_protocol::{Failure, Process};
use std::path::PathBuf;

/// One line in the pipe.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// The next stage begins.
    Stage {
        /// For example `open volume /mnt/nfs/data`.
        name: String,
        /// Microseconds since the stage child was started for.
        at: u64,
    },
    /// Where the container that is being created will be, told before anything of it is made, so that what a killed
    /// stage child leaves behind can be found.
    Place(Place),
    /// A group of resctrl is about to be made for the container.
    Group(PathBuf),
    /// The cgroup at that place is the container's: it was made, or was there and unused. Not before, or what is there
    /// may be a stranger's.
    CgroupMade,
}

/// One datagram.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// A process was cloned and is being set up; it is not the shim's to use before the outcome. Fd: its pidfd.
    Born,
    /// The verb's stage succeeded; nothing follows.
    Done(Outcome),
    /// The verb's stage failed; nothing follows.
    Failed(Failure),
}

/// What the shim has to know of a container's spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// As in OCI's `linux.cgroupsPath`.
    pub(crate) cgroup: Option<String>,
    /// It has a PID namespace of its own: when its first process ends, the kernel kills the others.
    pub(crate) own_pid_namespace: bool,
    /// Its groups there, once it has been made.
    pub(crate) resctrl: Groups,
    /// Those that a stage child which failed was making, by its notes.
    #[serde(skip)]
    pub(crate) announced: Groups,
    /// What holds for the processes that join it.
    pub(crate) for_all: Box<ContainerWide>,
    /// Where its spec is for its hooks, if it has any.
    pub(crate) bundle: Option<PathBuf>,
}

impl Place {
    /// Gives back what a container without a cgroup still has, and tells its hooks. For stage children.
    pub(crate) fn leave(&self, container: &str, reporter: &Reporter) -> Result<(), Failure> {
        self.leave_groups()?;
        if let Some(bundle) = &self.bundle {
            reporter.stage("run poststop hooks");
            crate::hooks::poststop(container, bundle);
        }
        Ok(())
    }

    /// Removes its groups of resctrl.
    pub(crate) fn leave_groups(&self) -> Result<(), Failure> {
        resctrl::remove_unused(&self.announced)
            .and_then(|()| resctrl::remove(&self.resctrl))
            .map_err(|error| internal("remove a group", &error))
    }
}

/// What came of a stage, with the fds that lie beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// Nothing to tell; no fd.
    Done,
    /// A container waits behind its gate. Fds: pidfd, gate, status, then those that are told, in this order.
    Created(NewContainer),
    /// A process runs in a container. Fds: pidfd, status, then the terminal's master if there is one.
    Executed {
        /// The process.
        process: Process,
        /// Whether it has a terminal.
        terminal: bool,
    },
    /// Sysctls are set and the reaper, if there is one, runs. Fds: pidfd and lifeline of the reaper.
    Sandbox {
        /// The reaper.
        reaper: Option<Process>,
    },
    /// A log file was opened. Fd: the file.
    Log,
}

/// See [`Outcome::Created`]. The fields of type `bool` are fds, in the order of the fields.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NewContainer {
    /// Its first process.
    pub(crate) process: Process,
    /// Where it runs.
    pub(crate) place: Place,
    /// The terminal's master; then there is no `streams`.
    pub(crate) terminal: bool,
    /// The read ends of standard output and standard error: two fds.
    pub(crate) streams: bool,
    /// The write end of standard input.
    pub(crate) stdin: bool,
    /// The log file.
    pub(crate) log: bool,
    /// The OOM watch.
    pub(crate) oom: bool,
}
