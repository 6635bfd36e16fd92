//! Running another process in a running container.

use std::convert::Infallible;
use std::os::fd::OwnedFd;

use cgroup::{Cgroup, Layout};
use sys::process::{CloneFlags, Pid, Process};
use sys::procfs::ProcFd;

use crate::create::{finish, without_null};
use crate::error::{Error, Step};
use crate::host;
use crate::init::{self, Settings};
use crate::inputs::{Created, ExecInputs, StdioFds, Target};
use crate::launch::{Channel, Launch, launch};
use crate::own_image;
use crate::plan::ProcessPlan;
use crate::seccomp_filter;

/// Runs a process in the container of `target`; on success its program was executed.
///
/// It is born in the container's PID namespace and cgroup, and enters the other namespaces at once through one pidfd, whose
/// process was compared with the start time: a number that was taken again is never entered.
///
/// # Errors
/// The target is gone, or the process could not be set up, or its program not be run.
pub fn exec(plan: ProcessPlan, target: &Target, mut inputs: ExecInputs<'_>) -> Result<Created, Error> {
    let settings = Settings {
        seccomp: seccomp_filter::load(inputs.seccomp.take(), None)?,
        best_effort_oom_score: inputs.best_effort_oom_score,
        best_effort_rlimits: inputs.best_effort_rlimits,
        preserve_fds: inputs.preserve_fds,
        own_image: own_image::stat()?,
        program_at_start: false,
    };
    let process = Process { pid: Pid::from_raw(target.pid), start_time: target.start_time };
    let pidfd: OwnedFd = process.open().step(|| format!("open process {}", target.pid))?.into();
    let cgroup = target.cgroup.as_deref().map(open_cgroup).transpose()?;
    let join = Join {
        stdio: without_null(std::mem::take(&mut inputs.stdio))?,
        null: host::open_null()
            .and_then(|null| sys::at::reopen(&null, sys::at::OFlag::O_RDWR).step(|| "open /dev/null".to_owned()))?,
        procfs: ProcFd::open().step(|| "open a private procfs".to_owned())?,
        plan,
        settings,
    };
    (inputs.progress)("join the container");
    let how = Launch {
        namespaces: CloneFlags::empty(),
        cgroup: cgroup.as_ref(),
        pid_namespace: Some(std::os::fd::AsFd::as_fd(&pidfd)),
        parent: inputs.parent,
    };
    let launched = launch(&how, |channel| join.run(&pidfd, cgroup.as_ref(), channel))?;
    launched.announce(inputs.born.take());
    let console = launched.hear(&mut inputs.progress)?;
    let created = finish(launched.start()?, console, false)?;
    Ok(created)
}

fn open_cgroup(path: &str) -> Result<Cgroup, Error> {
    let layout = Layout::detect().step(|| "look for cgroups".to_owned())?;
    Cgroup::open(&layout, path).step(|| format!("open cgroup {path}"))
}

/// What the joining process works through.
struct Join {
    plan: ProcessPlan,
    settings: Settings,
    stdio: StdioFds,
    procfs: ProcFd,
    null: OwnedFd,
}

impl Join {
    fn run(mut self, target: &OwnedFd, cgroup: Option<&Cgroup>, channel: &Channel) -> Result<Infallible, Error> {
        init::start_clean()?;
        // Before its namespaces: the cgroup's files are the host's.
        if let Some(cgroup) = cgroup {
            cgroup.join_self().step(|| format!("join cgroup {}", cgroup.path()))?;
        }
        let standing = init::join(&self.plan, target, self.null, &self.settings, &self.procfs)?;
        init::become_program(&self.plan, &mut self.stdio, &self.settings, &self.procfs, standing, channel)
    }
}
