//! `Create`: a container up to the point where only its program is missing.

use super::{Begun, Request, read_document};
use crate::attach::Inlet;
use crate::cgroups::Cgroups;
use crate::container::{Container, FirstProcess, Life};
use crate::ending::SWEEP;
use crate::failure::{chain, failure, internal, note};
use crate::hooks;
use crate::log::{LogFile, Stream};
use crate::progress::{Ended, Order, Result};
use crate::report::{NewContainer, Note, Outcome, Place, Report};
use crate::sandbox::Lifecycle;
use crate::stage::{LAST_CALL, Reporter, Work, see_off};
use crate::state_dir::is_plain_name;
use crate::stdio::{Output, Stdio};
use crate::supervisor::Shim;
use crate::task::Job;
use oci_runtime::hooks::own_environment;
use oci_runtime::plan::{ContainerWide, Hooks, Namespace};
use oci_runtime::resctrl::Groups;
use oci_runtime::{Created, Gate, Inputs, Parent, Plan, Root, StdioFds};
use oci_spec::runtime::Spec;
use shim_protocol::{Answer, Create, ErrorKind, Failure, Process};
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use sys::process::PidFd;

/// The most containers of one pod: [`shim_protocol::State`] tells them all in one message.
pub(super) const CONTAINERS_LIMIT: usize = 200;

pub(super) fn begin(shim: &mut Shim, request: Request, create: Create) -> Begun {
    check(shim, &create)?;
    let Request { call, deadline, mut fds } = request;
    let shared_memory = match (&create.shm, &shim.lifecycle) {
        (None, _) => None,
        (Some(_), Lifecycle::Running(sandbox)) if sandbox.shared_memory.is_some() => sandbox.shared_memory.as_ref(),
        (Some(path), _) => {
            let message = format!("nothing to mount at {}: the pod has no /dev/shm of its own", path.display());
            return Err(failure(ErrorKind::Invalid, message));
        }
    };
    if let Some(shared_memory) = shared_memory {
        fds.push(sys::fd::duplicate(shared_memory).map_err(|error| internal("take the pod's /dev/shm", &error))?);
    }
    let key = shim.new_key();
    let mut container = Container::creating(key, create.container.clone(), create.log_path.clone());
    container.stdio.stdin_once = create.stdin_once;
    shim.containers.push(container);
    let order = Order::new(call, deadline, Job::Create(key));
    let bundle = shim.dir.bundle(&create.container);
    let begun = shim.begin_stage(order, fds, move |fds, reporter| make(&create, &bundle, fds, reporter));
    if begun.is_err() {
        shim.containers.retain(|container| container.key != key);
    }
    begun.map(|()| None)
}

fn check(shim: &Shim, create: &Create) -> std::result::Result<(), Failure> {
    let id = &create.container;
    match &shim.lifecycle {
        Lifecycle::Running(sandbox) if sandbox.is_ready() => {}
        Lifecycle::Running(_) | Lifecycle::Over => {
            let message = format_args!("create container {id}: the sandbox has ended");
            return Err(failure(ErrorKind::NotRunning, message));
        }
        Lifecycle::Fresh | Lifecycle::Starting(_) => {
            let message = format_args!("create container {id}: the sandbox was not started");
            return Err(failure(ErrorKind::NotRunning, message));
        }
    }
    if !is_plain_name(id) {
        return Err(failure(ErrorKind::Invalid, format_args!("{id:?} can't be a container's id")));
    }
    if shim.containers.iter().any(|container| container.id == *id) {
        return Err(failure(ErrorKind::Exists, format_args!("container {id} exists")));
    }
    if shim.containers.len() >= CONTAINERS_LIMIT {
        let message = format_args!("create container {id}: the pod has {CONTAINERS_LIMIT} containers, the most it can");
        return Err(failure(ErrorKind::Invalid, message));
    }
    Ok(())
}

/// The stage child's work.
fn make(create: &Create, bundle: &Path, fds: Vec<OwnedFd>, reporter: &Reporter) -> Work {
    let mut fds = fds.into_iter();
    let [Some(spec), Some(rootfs)] = [fds.next(), fds.next()] else { return Err(super::too_few_fds()) };
    let seccomp = create.seccomp.then(|| fds.next()).flatten();
    let shared_memory = create.shm.clone().zip(fds.next());

    reporter.stage("read spec");
    let document = read_document("the spec", &spec)?;
    let (spec, plan) = plan(&document)?;
    let terminal = plan.process.terminal;
    let mut place = place(&spec, &plan, bundle)?;
    reporter.note(&Note::Place(place.clone()));
    crate::sources::prepare(&create.sources, reporter)?;
    let log = create.log_path.as_ref().map(|path| {
        reporter.stage(&format!("open log {}", path.display()));
        crate::log::open(path)
    });
    let log = log.transpose()?;
    let mut pipes = Pipes::new(terminal, create.stdin)?;

    let mut progress = |name: &str| reporter.stage(name);
    let mut born = |_: i32, pidfd: BorrowedFd<'_>| reporter.send(&Report::Born, &[pidfd]);
    let mut cgroup_made = || {
        reporter.note(&Note::CgroupMade);
    };
    let mut group_announced = |group: &Path| {
        reporter.note(&Note::Group(group.to_owned()));
    };
    let mut inputs = Inputs::new(Root::Mount(rootfs), &mut progress);
    inputs.identity = hooks::identity(&create.container, bundle, &spec);
    inputs.cgroups = Some(reporter.cgroups.layout().clone());
    inputs.cgroup_made = Some(&mut cgroup_made);
    inputs.group_announced = Some(&mut group_announced);
    inputs.stdio = std::mem::take(&mut pipes.theirs);
    inputs.seccomp = super::filter(seccomp, &create.filter)?;
    inputs.parent = Parent::CallersParent;
    inputs.gate = Gate::Pipe;
    inputs.shared_memory = shared_memory;
    inputs.best_effort_oom_score = create.best_effort_oom_score;
    inputs.best_effort_rlimits = create.best_effort_rlimits;
    inputs.program_at_start = true;
    inputs.born = Some(&mut born);
    if place.bundle.is_some() {
        hooks::make_bundle(bundle, &document)?;
        inputs.environment = own_environment();
        inputs.root_at = Some(hooks::root(bundle));
    }
    let mut created = oci_runtime::create(plan, inputs).map_err(|error| {
        if place.bundle.is_some() {
            reporter.stage("run poststop hooks");
            hooks::poststop(&create.container, bundle);
        }
        super::runtime_failure(&error)
    })?;
    place.resctrl = std::mem::take(&mut created.resctrl);
    created.warnings.iter().for_each(|warning| note(format_args!("{warning}")));
    hand_over(&create.container, created, place, (pipes, log), reporter)
}

/// What the shim is told of the container, and given.
fn hand_over(id: &str, created: Created, place: Place, output: (Pipes, Option<File>), reporter: &Reporter) -> Work {
    let (pipes, log) = output;
    let process = Process { pid: created.pid, start_time: created.start_time };
    let gate = created.start.ok_or_else(|| failure(ErrorKind::Internal, "the runtime made no gate"));
    let held = super::pidfd(created.pidfd, created.pid).and_then(|pidfd| Ok((pidfd, gate?)));
    let (pidfd, gate) = held.inspect_err(|_| undo(id, &place, reporter))?;
    let oom = watch_oom(&place, &reporter.cgroups);
    let told = NewContainer {
        process,
        place,
        terminal: created.console.is_some(),
        streams: pipes.stdout.is_some(),
        stdin: pipes.stdin.is_some(),
        log: log.is_some(),
        oom: oom.is_some(),
    };
    let mut fds = vec![pidfd, gate, created.status];
    fds.extend(created.console);
    fds.extend(pipes.stdout);
    fds.extend(pipes.stderr);
    fds.extend(pipes.stdin);
    fds.extend(log.map(OwnedFd::from));
    fds.extend(oom.into_iter().flatten());
    Ok((Outcome::Created(told), fds))
}

/// Removes a container that nobody will hear of. Best effort: the failure that led here is the one to tell.
fn undo(id: &str, place: &Place, reporter: &Reporter) {
    if let Some(cgroup) = &place.cgroup {
        let _ = reporter.cgroups.kill_all(cgroup, SWEEP).and_then(|()| reporter.cgroups.delete(cgroup));
    }
    let _ = place.leave(id, reporter);
}

fn plan(document: &[u8]) -> std::result::Result<(Spec, Plan), Failure> {
    let invalid = |error: &dyn std::error::Error| failure(ErrorKind::Invalid, chain(error));
    let (spec, warnings) = oci_runtime::config::parse(document).map_err(|error| invalid(&error))?;
    warnings.iter().for_each(|warning| note(format_args!("{warning}")));
    let plan = Plan::from_spec(&spec, None).map_err(|error| super::plan_failure(&error))?;
    plan.warnings.iter().for_each(|warning| note(format_args!("{warning}")));
    Ok((spec, plan))
}

/// What the shim has to know of the spec.
fn place(spec: &Spec, plan: &Plan, bundle: &Path) -> std::result::Result<Place, Failure> {
    let cgroup = plan.cgroup.as_ref().map(ToString::to_string);
    if cgroup.is_none() {
        return Err(failure(ErrorKind::Invalid, "linux.cgroupsPath: missing"));
    }
    let bundle = (plan.hooks != Hooks::default()).then(|| bundle.to_owned());
    Ok(Place {
        cgroup,
        own_pid_namespace: plan.namespaces.pid == Namespace::New,
        resctrl: Groups::default(),
        announced: Groups::default(),
        for_all: Box::new(ContainerWide::from_spec(spec)),
        bundle,
    })
}

/// The pipes of a container without a terminal.
#[derive(Default)]
struct Pipes {
    theirs: StdioFds,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Pipes {
    fn new(terminal: bool, stdin: bool) -> std::result::Result<Self, Failure> {
        let mut pipes = Self::default();
        if terminal {
            return Ok(pipes);
        }
        let pipe = || sys::fd::pipe().map_err(|error| internal("make a container's pipes", &error));
        let (read, write) = pipe()?;
        (pipes.stdout, pipes.theirs.stdout) = (Some(read), Some(write));
        let (read, write) = pipe()?;
        (pipes.stderr, pipes.theirs.stderr) = (Some(read), Some(write));
        if stdin {
            let (read, write) = pipe()?;
            (pipes.stdin, pipes.theirs.stdin) = (Some(write), Some(read));
        }
        Ok(pipes)
    }
}

/// Without a watch the container still runs; only the reason of an OOM kill would be missing.
fn watch_oom(place: &Place, cgroups: &Cgroups) -> Option<[OwnedFd; 2]> {
    let cgroup = cgroups.open(place.cgroup.as_deref()?).ok()?;
    match cgroup.oom_watch() {
        Ok(watch) => watch.map(|watch| watch.into_fds()),
        Err(error) => {
            note(format_args!("watch for out of memory: {}", chain(&error)));
            None
        }
    }
}

/// The stage child has made the container, or not.
pub(super) fn finish(shim: &mut Shim, key: u64, mut ended: Ended, result: Result) {
    let result = match result {
        Ok((Outcome::Created(told), fds)) => {
            let adopted = adopt(shim, key, &told, fds);
            if let (Err(_), Some(container)) = (&adopted, shim.container_of(key)) {
                // What was made is there all the same, and has to be removed.
                container.has_cgroup = true;
                container.place = Some(told.place);
            }
            adopted.map(|()| told.process)
        }
        Ok(_) => Err(super::unexpected()),
        Err(failure) => Err(failure),
    };
    match result {
        Ok(process) => {
            shim.answer(ended, Ok(Answer::Process(process)));
            shim.claim(process);
        }
        Err(failure) => {
            if !ended.is_clean {
                ended.kill_born();
            }
            let child = ended.child.take();
            abandon(shim, key, ended.is_clean, child);
            shim.answer(ended, Err(failure));
        }
    }
}

/// Takes over what the stage child has made.
fn adopt(shim: &mut Shim, key: u64, told: &NewContainer, fds: Vec<OwnedFd>) -> std::result::Result<(), Failure> {
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or_else(super::too_few_fds);
    let pidfd = PidFd::from_fd(next()?);
    let gate = next()?;
    let status = super::nonblocking(next()?)?;
    let mut stdio = Stdio::default();
    if told.terminal {
        let master = super::nonblocking(next()?)?;
        let writer = master.try_clone().map_err(|error| internal("keep a terminal", &error))?;
        stdio.inlet = Some(Inlet::new(writer));
        stdio.outputs.push(Output::new(Stream::Stdout, master, true));
    }
    if told.streams {
        stdio.outputs.push(Output::new(Stream::Stdout, super::nonblocking(next()?)?, false));
        stdio.outputs.push(Output::new(Stream::Stderr, super::nonblocking(next()?)?, false));
    }
    if told.stdin {
        stdio.inlet = Some(Inlet::new(super::nonblocking(next()?)?));
    }
    if told.log {
        stdio.log = Some(LogFile::new(File::from(next()?)));
    }
    let oom = if told.oom { Some([next()?, next()?]) } else { None };
    if let Some(container) = shim.container_of(key) {
        stdio.stdin_once = container.stdio.stdin_once;
        container.has_cgroup = true;
        container.place = Some(told.place.clone());
        container.stdio = stdio;
        container.oom = oom.map(oci_runtime::cgroup::OomWatch::from_fds);
        container.life = Life::Created { first: FirstProcess { process: told.process, pidfd }, gate, status };
    }
    Ok(())
}

/// Gives up a container that could not be created. A stage child that failed has cleaned up; one that was killed has
/// left what [`Place`] tells, and its container waits behind a gate that nobody can open, or hangs.
fn abandon(shim: &mut Shim, key: u64, is_clean: bool, child: Option<PidFd>) {
    let Some(container) = shim.container_of(key) else { return };
    let Some(cgroup) = container.cgroup().filter(|_| !is_clean).map(str::to_owned) else { return forget(shim, key) };
    let is_its_own = container.has_cgroup;
    let (id, place) = (container.id.clone(), container.place.clone());
    container.life = Life::Abandoned { given_up: false };
    let order = Order::own(LAST_CALL + SWEEP + Duration::from_secs(1), Job::Abandon(key));
    let child = child.map(OwnedFd::from).into_iter().collect();
    let begun = shim.begin_stage(order, child, move |child, stage| {
        let seen_off = see_off(child);
        if is_its_own {
            stage.cgroups.kill_all(&cgroup, SWEEP)?;
            stage.cgroups.delete(&cgroup)?;
            place.map_or(Ok(()), |place| place.leave(&id, stage))?;
        } else {
            // What was made of it has nobody in it. If somebody is in there, it is a stranger's and stays.
            let _ = stage.cgroups.delete(&cgroup);
            place.map_or(Ok(()), |place| place.leave_groups())?;
        }
        seen_off.map(|()| (Outcome::Done, Vec::new()))
    });
    if let Err(failure) = begun {
        cleaned_up(shim, key, Err(failure));
    }
}

/// Nothing is left of an abandoned container, or what is left can't be removed now.
pub(super) fn cleaned_up(shim: &mut Shim, key: u64, result: std::result::Result<(), Failure>) {
    let Err(failure) = result else { return forget(shim, key) };
    if let Some(container) = shim.container_of(key) {
        note(format_args!("clean up after container {}: {failure}", container.id));
        container.life = Life::Abandoned { given_up: true };
    }
}

fn forget(shim: &mut Shim, key: u64) {
    shim.containers.retain(|container| container.key != key);
}
