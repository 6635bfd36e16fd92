//! Creating a container: everything but running its program.

use std::cell::RefCell;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use cgroup::{Cgroup, Layout};
use sys::credentials::CapabilitySets;
use sys::process::CloneFlags;
use sys::procfs::ProcFd;

use crate::agent;
use crate::error::{Error, Step};
use crate::hooks::{self, Series};
use crate::host::{self, Host};
use crate::init::{self, Init, Settings};
use crate::inputs::{Created, Gate, Inputs, StdioFds};
use crate::launch::{Asked, Launch, Launched, launch};
use crate::net_devices;
use crate::own_image;
use crate::plan::{Hooks, Namespace, Plan};
use crate::resctrl::{self, Groups, Prepared};
use crate::seccomp_filter::{Filter, Listener};
use crate::state::{Identity, State, Status};
use crate::status::Request;

/// Creates the container: on success its first process waits behind [`Inputs::gate`], ready to run the program.
///
/// The plan has to name a cgroup, which has to be new or empty; it is made here with its limits.
///
/// # Errors
/// Nothing is left of a container that could not be created: its process is dead and its cgroup removed.
pub fn create(plan: Plan, mut inputs: Inputs<'_>) -> Result<Created, Error> {
    let mut told = inputs.group_announced.take();
    let mut announce = |group: &Path| told.iter_mut().for_each(|told| told(group));
    let prepared = resctrl::prepare(plan.intel_rdt.as_ref(), &inputs.identity.id, &mut announce)?;
    let groups = prepared.as_ref().map(|prepared| prepared.groups.clone()).unwrap_or_default();
    let made = prepared.as_ref().map(Prepared::all_made).unwrap_or_default();
    match create_in(plan, inputs, prepared) {
        Ok(created) => Ok(Created { resctrl: groups, ..created }),
        Err(error) => {
            // The error that led here is the one to tell.
            let _ = resctrl::remove(&made);
            Err(error)
        }
    }
}

fn create_in(plan: Plan, mut inputs: Inputs<'_>, resctrl: Option<Prepared>) -> Result<Created, Error> {
    let settings = Settings {
        seccomp: match (inputs.seccomp.take(), &plan.seccomp) {
            (None, Some(profile)) => Some(Filter::compile(profile)?),
            (given, _) => given,
        },
        best_effort_oom_score: inputs.best_effort_oom_score,
        best_effort_rlimits: inputs.best_effort_rlimits,
        preserve_fds: inputs.preserve_fds,
        keep_keyring: inputs.keep_keyring,
        own_image: own_image::stat()?,
        program_at_start: inputs.program_at_start,
    };
    refuse_missing_capabilities(&plan)?;
    let stdio = without_null(std::mem::take(&mut inputs.stdio))?;
    let layout = inputs.cgroups.take().map_or_else(Layout::detect, Ok).step(|| "look for cgroups".to_owned())?;
    let path = plan.cgroup.as_ref().ok_or_else(|| Error::Refused("linux.cgroupsPath: none given".to_owned()))?;
    let path = layout.locate(path).step(|| format!("find the place of cgroup {path}"))?;
    (inputs.progress)("make cgroup");
    let cgroup = Cgroup::create(&layout, &path.to_string(), &plan.resources).step(|| format!("make cgroup {path}"))?;
    if let Some(made) = inputs.cgroup_made.take() {
        made();
    }
    let memory_limit = plan.resources.memory.limit.filter(|limit| *limit > 0);
    let created = Host::open(&plan, &mut inputs, &layout, &cgroup)
        .and_then(|host| start(plan, inputs, Host { resctrl, ..host }, &cgroup, stdio, settings));
    created.map_err(|error| {
        let error = with_hint(error, &cgroup, memory_limit);
        // The error that led here is the one to tell.
        let _ = cgroup.delete();
        error
    })
}

fn start(
    plan: Plan,
    mut inputs: Inputs<'_>,
    mut host: Host,
    cgroup: &Cgroup,
    stdio: StdioFds,
    settings: Settings,
) -> Result<Created, Error> {
    // A PID namespace has to be made in the user namespace that shall own it: by one who has joined that.
    let forerunner = host.user.is_some() && plan.namespaces.pid.is_private();
    let mut namespaces = CloneFlags::empty();
    namespaces.set(CloneFlags::CLONE_NEWPID, !forerunner && plan.namespaces.pid == Namespace::New);
    let pid_namespace = if forerunner { None } else { host.pid_namespace.take() };
    let how = Launch {
        namespaces,
        cgroup: Some(cgroup),
        pid_namespace: pid_namespace.as_ref().map(AsFd::as_fd),
        parent: inputs.parent,
    };
    // For the creator, who has none of what moves into the container's process.
    let procfs = if forerunner { Some(duplicate(&host.procfs)?) } else { None };
    (inputs.progress)("clone the container's process");
    let listener = settings.seccomp.as_ref().and_then(|filter| filter.listener.clone());
    let net_devices = plan.net_devices.clone();
    let hooks = plan.hooks.clone();
    let identity = std::mem::take(&mut inputs.identity);
    let init = Init { plan, host, cgroup, stdio, settings, identity: identity.clone() };
    let mut launched = launch(&how, |channel| init::run(init, channel))?;
    launched.announce(inputs.born.as_deref_mut());
    if let Some(procfs) = procfs {
        launched = launched.follow(&procfs, &mut inputs.progress)?;
        launched.announce(inputs.born.take());
    }
    let creator = Creator { hooks, identity, environment: std::mem::take(&mut inputs.environment), listener };
    let progress = RefCell::new(inputs.progress);
    let mut moved = None;
    let mut attend = |asked: Asked<'_>| match asked {
        Asked { request: Request::NetDevices, fd: Some(namespace), .. } => {
            moved = Some(net_devices::move_all(&net_devices, namespace)?);
            Ok(())
        }
        asked => creator.attend(&asked, &mut |stage| (progress.borrow_mut())(stage)),
    };
    let console = launched.hear(&mut |stage| (progress.borrow_mut())(stage), &mut attend);
    let created = console.and_then(|console| finish(launched, console, inputs.gate == Gate::Pipe));
    created.inspect_err(|_| moved.iter().for_each(net_devices::Moved::undo))
}

fn duplicate(procfs: &ProcFd) -> Result<ProcFd, Error> {
    sys::fd::duplicate(procfs).and_then(ProcFd::from_fd).step(|| "keep the private procfs".to_owned())
}

/// What the creator needs for what the process that it made may ask for.
struct Creator {
    hooks: Hooks,
    identity: Identity,
    /// For hooks without one of their own.
    environment: Vec<CString>,
    listener: Option<Listener>,
}

impl Creator {
    fn attend(&self, asked: &Asked<'_>, progress: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let state = self.identity.state(Status::Creating, asked.process.pid.as_raw());
        match (asked.request, &self.listener) {
            (Request::Listener(number), Some(listener)) => agent::hand_over(listener, asked, number, state),
            (Request::Hooks, _) => self.run_hooks(&state, progress),
            _ => Err(unknown(asked)),
        }
    }

    /// Those of the creator's own namespaces.
    fn run_hooks(&self, state: &State<'_>, progress: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let alone = hooks::alone()?;
        let lists = [("prestart", &self.hooks.prestart), ("createRuntime", &self.hooks.create_runtime)];
        let bundle = hooks::open_bundle(state);
        lists.into_iter().try_for_each(|(kind, hooks)| {
            Series::of_caller(kind, hooks, bundle.as_ref(), &self.environment).run(state, &alone, progress)
        })
    }
}

/// Nobody asks for what is in no plan.
pub(crate) fn unknown(asked: &Asked<'_>) -> Error {
    let Asked { request, process, fd } = asked;
    Error::Refused(format!("process {} asks for {request:?} with {fd:?}, which nobody planned", process.pid))
}

/// What the caller gets of a process that is ready.
pub(crate) fn finish(launched: Launched, console: Option<OwnedFd>, gated: bool) -> Result<Created, Error> {
    let start = match gated {
        true => sys::fd::duplicate(&launched.status).map(Some).step(|| "make the start fd".to_owned()),
        false => Ok(None),
    };
    match start {
        Ok(start) => Ok(Created {
            pid: launched.child.pid.as_raw(),
            start_time: launched.start_time,
            pidfd: launched.child.pidfd.map(Into::into),
            start,
            status: launched.status,
            console,
            resctrl: Groups::default(),
            warnings: launched.warnings,
        }),
        Err(error) => {
            launched.end();
            Err(error)
        }
    }
}

/// A stream that is the host's null device is replaced by the container's: its mode is not the container's to change.
pub(crate) fn without_null(stdio: StdioFds) -> Result<StdioFds, Error> {
    let keep = |stream: Option<OwnedFd>| match stream {
        Some(stream) => {
            let null = host::is_null(&stream).step(|| "look at a standard stream".to_owned())?;
            Ok::<_, Error>((!null).then_some(stream))
        }
        None => Ok(None),
    };
    Ok(StdioFds { stdin: keep(stdio.stdin)?, stdout: keep(stdio.stdout)?, stderr: keep(stdio.stderr)? })
}

/// What we don't have we can't give; the kernel would only say EPERM. In a user namespace of its own a process has them all.
fn refuse_missing_capabilities(plan: &Plan) -> Result<(), Error> {
    if plan.namespaces.user.is_private() {
        return Ok(());
    }
    let sets = &plan.process.capabilities;
    let own = CapabilitySets::current().step(|| "read the own capabilities".to_owned())?;
    let missing = (sets.permitted | sets.effective) & !own.permitted;
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Error::Refused(format!(
            "process.capabilities: {missing:?} can't be given: the runtime does not have it"
        ))),
    }
}

/// A process that died without a word was most likely killed for its memory.
fn with_hint(error: Error, cgroup: &Cgroup, memory_limit: Option<i64>) -> Error {
    let Error::Silent { stage, .. } = error else { return error };
    let kills = cgroup.oom_watch().ok().flatten().and_then(|watch| watch.kills().ok().flatten());
    let hint = match (kills, memory_limit) {
        (Some(kills), Some(limit)) if kills > 0 => {
            format!(": the memory limit of {limit} bytes is below what it needs to start")
        }
        (Some(kills), None) if kills > 0 => ": it was killed for lack of memory".to_owned(),
        _ => String::new(),
    };
    Error::Silent { stage, hint }
}
