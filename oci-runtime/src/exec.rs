//! Running another process in a running container.

use std::convert::Infallible;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;

use cgroup::{Cgroup, Layout};
use sys::Errno;
use sys::namespace::Kind;
use sys::process::{CloneArgs, CloneFlags, Fork, Pid, PidFd, Process, Signal};
use sys::procfs::ProcFd;

use crate::agent;
use crate::create::{finish, unknown, without_null};
use crate::error::{Error, Step};
use crate::host;
use crate::init::{self, Settings};
use crate::inputs::{Created, ExecInputs, StdioFds, Target};
use crate::launch::{Asked, Channel, Launch, launch};
use crate::own_image;
use crate::plan::{IdMaps, ProcessPlan};
use crate::resctrl::{self, Prepared};
use crate::state::Status;
use crate::status::Request;
use crate::user_namespace;

/// Runs a process in the container of `target`; on success its program was executed.
///
/// The container is entered by a process outside its PID namespace, through one pidfd, whose process was compared with the
/// start time: a number that was taken again is never entered. That process makes, last of all, the one that goes on: what
/// the container can see was born with the container's root and mounts, with no file of the host and few capabilities. A
/// neighbour with CAP_SYS_PTRACE can stop it at its first instruction and look.
///
/// # Errors
/// [`Error::NotRunning`] if the target is gone; else the process could not be set up, or its program not be run.
pub fn exec(plan: ProcessPlan, target: &Target, inputs: ExecInputs<'_>) -> Result<Created, Error> {
    let process = Process { pid: Pid::from_raw(target.pid), start_time: target.start_time };
    let first = process.open().map_err(|source| {
        let is_gone = source.is(Errno::ESRCH);
        let error = Error::Step { step: format!("open process {}", target.pid), source };
        if is_gone { Error::NotRunning(Box::new(error)) } else { error }
    })?;
    // Whatever fails in a container that ends meanwhile fails because it ends.
    enter_and_run(plan, target, &first, inputs).map_err(|error| match is_ending(process) || has_ended(&first) {
        true => Error::NotRunning(Box::new(error)),
        false => error,
    })
}

fn has_ended(process: &PidFd) -> bool {
    matches!(sys::poll::is_readable(process), Ok(true))
}

/// Its namespaces can't be joined any more (ESRCH) some time before its pidfd says that it has ended.
fn is_ending(process: Process) -> bool {
    sys::process::stat(process.pid).is_ok_and(|stat| stat.start_time == process.start_time && stat.is_ending)
}

fn enter_and_run(
    plan: ProcessPlan,
    target: &Target,
    first: &PidFd,
    mut inputs: ExecInputs<'_>,
) -> Result<Created, Error> {
    let listener = inputs.seccomp.as_ref().and_then(|filter| filter.listener.clone());
    let procfs = ProcFd::open().step(|| "open a private procfs".to_owned())?;
    init::refuse_without_selinux("process.selinuxLabel", plan.selinux_label.as_ref(), &procfs)?;
    let own_cpus = init::begin_on(&plan.exec_cpu_affinity)?;
    let cgroup = match &target.cgroup {
        Some(path) => Some(open_cgroup(path, inputs.cgroups.take(), &inputs.below, target.pid, &procfs)?),
        None => None,
    };
    let container = Container { target, first, cgroup: cgroup.as_ref() };
    let join = Join::prepare(plan, container, &mut inputs, &procfs)?;
    (inputs.progress)("join the container");
    let how =
        Launch { namespaces: CloneFlags::empty(), cgroup: cgroup.as_ref(), pid_namespace: None, parent: inputs.parent };
    let joiner = launch(&how, |channel| join.run(channel))?;
    drop(own_cpus);
    // Each in its turn is the one to kill should the caller be killed now.
    joiner.announce(inputs.born.as_deref_mut());
    let mut launched = joiner.follow(&procfs, &mut inputs.progress)?;
    launched.announce(inputs.born.as_deref_mut());
    let mut attend = |asked: Asked<'_>| match (asked.request, &listener) {
        (Request::Listener(number), Some(listener)) => {
            agent::hand_over(listener, &asked, number, inputs.identity.state(Status::Running, target.pid))
        }
        _ => Err(unknown(&asked)),
    };
    let console = launched.hear(&mut inputs.progress, &mut attend)?;
    finish(launched.start(&procfs)?, console, false)
}

/// The maps of the container's user namespace, if it is not our own.
fn user_namespace_of(target: &Target, first: &PidFd, procfs: &ProcFd) -> Result<Option<IdMaps>, Error> {
    if is_ours(target, Kind::User)? {
        return Ok(None);
    }
    let maps = user_namespace::maps_of(procfs, Pid::from_raw(target.pid))?;
    // What was read by number is about the process that the pidfd is about if that lives by now.
    match has_ended(first) {
        true => Err(Error::Refused(format!("process {} has ended", target.pid))),
        false => Ok(Some(maps)),
    }
}

/// A namespace that we are in can't be entered again (setns(2)), if it is of users.
fn is_ours(target: &Target, kind: Kind) -> Result<bool, Error> {
    let own = sys::namespace::current(kind);
    own.and_then(|own| sys::namespace::same(&own, &sys::namespace::of(Pid::from_raw(target.pid), kind)?))
        .step(|| format!("compare {} namespaces", kind.file_name()))
}

/// The container's cgroup, or the one asked for below it; where the former takes no process any more, the one that the first
/// process is in.
fn open_cgroup(
    path: &str,
    layout: Option<Layout>,
    below: &[(Option<String>, String)],
    first: i32,
    procfs: &ProcFd,
) -> Result<Cgroup, Error> {
    let layout = layout.map_or_else(Layout::detect, Ok).step(|| "look for cgroups".to_owned())?;
    let cgroup = Cgroup::open(&layout, path).step(|| format!("open cgroup {path}"))?;
    if !below.is_empty() {
        return below.iter().try_fold(cgroup, |cgroup, (controller, sub)| {
            cgroup.below(controller.as_deref(), sub).step(|| format!("open cgroup {sub} below {path}"))
        });
    }
    if !cgroup.is_interior().step(|| format!("look at cgroup {path}"))? {
        return Ok(cgroup);
    }
    let groups = procfs.read(&format!("{first}/cgroup")).step(|| format!("find the cgroup of process {first}"))?;
    cgroup.below_with(&layout, &groups).step(|| format!("join cgroup {path}"))
}

/// What is joined.
struct Container<'a> {
    target: &'a Target,
    first: &'a PidFd,
    cgroup: Option<&'a Cgroup>,
}

/// What the joining process works through. It has the caller's PID namespace, so that nothing in the container sees it.
struct Join<'a> {
    plan: ProcessPlan,
    settings: Settings,
    stdio: StdioFds,
    null: Option<OwnedFd>,
    target: &'a PidFd,
    cgroup: Option<&'a Cgroup>,
    resctrl: Prepared,
    procfs: &'a ProcFd,
    /// Of the container's user namespace, if it has one of its own.
    maps: Option<IdMaps>,
    /// Whether it has a time namespace of its own.
    own_time: bool,
}

impl<'a> Join<'a> {
    fn prepare(
        plan: ProcessPlan,
        container: Container<'a>,
        inputs: &mut ExecInputs<'_>,
        procfs: &'a ProcFd,
    ) -> Result<Join<'a>, Error> {
        let Container { target, first, cgroup } = container;
        if is_ours(target, Kind::Mount)? {
            // Its root is no namespace's: who joins would find the host's.
            let text = "the container shares its mount namespace with the runtime: no process can join it";
            return Err(Error::Refused(text.to_owned()));
        }
        let maps = user_namespace_of(target, first, procfs)?;
        if let Some(maps) = &maps {
            maps.check_process(&plan).map_err(|error| Error::Refused(error.to_string()))?;
        }
        let settings = Settings {
            seccomp: inputs.seccomp.take(),
            best_effort_oom_score: inputs.best_effort_oom_score,
            best_effort_rlimits: inputs.best_effort_rlimits,
            preserve_fds: inputs.preserve_fds,
            keep_keyring: inputs.keep_keyring,
            own_image: own_image::stat()?,
            program_at_start: false,
        };
        let stdio = without_null(std::mem::take(&mut inputs.stdio))?;
        let null = stdio.needs_null().then(host::open_null).transpose()?;
        let reopen = |null| procfs.reopen(&null, sys::at::OFlag::O_RDWR).step(|| "open /dev/null".to_owned());
        Ok(Join {
            stdio,
            null: null.map(reopen).transpose()?,
            plan,
            settings,
            target: first,
            cgroup,
            resctrl: resctrl::open(&target.resctrl)?,
            procfs,
            own_time: !is_ours(target, Kind::Time)?,
            maps,
        })
    }

    fn run(self, channel: &Channel) -> Result<Infallible, Error> {
        let Join { plan, settings, stdio, null, target, cgroup, resctrl, procfs, maps, own_time } = self;
        // Its numbers are closed below, all at once: no owner may close them again.
        let (mut stdio, null) = (ManuallyDrop::new(stdio), ManuallyDrop::new(null));
        init::reset_signals()?;
        let alone = sys::process::require_single_thread().step(|| "count threads".to_owned())?;
        // Before its namespaces: these files are the host's.
        if let Some(cgroup) = cgroup {
            cgroup.join_self().step(|| format!("join cgroup {}", cgroup.path()))?;
        }
        resctrl.join_self()?;
        init::set_final_affinity(&plan.exec_cpu_affinity, channel)?;
        init::set_oom_score(&plan, &settings, procfs)?;
        init::raise_hard_limits(&plan, &settings)?;
        init::label_keys(&plan, procfs)?;
        init::label_program(&plan, procfs)?;
        if let Some(maps) = &maps {
            init::prepare_for_user_namespace(maps, &stdio)?;
        }
        let more = [(Kind::User, maps.is_some()), (Kind::Time, own_time)];
        let more = more.into_iter().filter_map(|(kind, own)| own.then_some(kind));
        let standing = init::enter(&plan, target, null.as_ref(), procfs, more)?;
        let prepared = init::prepare(&plan, &mut stdio, standing)?;
        init::keep_only(&settings, &prepared, channel)?;
        init::shed_capabilities(&plan, &settings)?;
        let arguments =
            CloneArgs { flags: CloneFlags::CLONE_PARENT, into_cgroup: None, exit_signal: None, pidfd: true };
        // The exit signal is this process's own, the parent its parent.
        let forked = sys::process::clone3_alone(&arguments, &alone);
        match forked.step(|| "clone the process inside the container".to_owned())? {
            Fork::Child => {
                init::start_session(&settings)?;
                init::become_program(&plan, &settings, prepared, channel)
            }
            Fork::Parent(child) => {
                let told = child.pidfd.as_ref().is_some_and(|pidfd| channel.born(pidfd));
                if let (false, Some(pidfd)) = (told, &child.pidfd) {
                    // Nobody is left to want it.
                    let _ = pidfd.send_signal(Signal::SIGKILL);
                }
                sys::process::exit_now(0)
            }
        }
    }
}
