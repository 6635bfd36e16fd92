//! `Exec`: another process in a running container.

use super::{Begun, Request, read_document};
use crate::container::Life;
use crate::exec_process::{ExecLife, ExecProcess};
use crate::failure::{chain, failure, note};
use crate::progress::{Ended, Order, Result};
use crate::reap;
use crate::report::{Outcome, Report};
use crate::stage::{Reporter, Work};
use crate::supervisor::Shim;
use crate::task::{Job, Step};
use oci_runtime::plan::ContainerWide;
use oci_runtime::{ExecInputs, Parent, ProcessPlan, StdioFds, Target};
use shim_protocol::{Answer, ErrorKind, Exec, Failure, Process};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use sys::Errno;
use sys::process::{Pid, PidFd};
use sys::signal::Signal;

/// How long the end of a container may take that an exec has met.
const ENDING: Duration = Duration::from_millis(100);

pub(super) fn begin(shim: &mut Shim, request: Request, exec: Exec) -> Begun {
    let id = &exec.container;
    let container = shim.container(id)?;
    let Life::Running { first, .. } = &container.life else {
        return Err(failure(ErrorKind::NotRunning, format_args!("container {id} is not running")));
    };
    let target = Target {
        pid: first.process.pid,
        start_time: first.process.start_time,
        cgroup: container.cgroup().map(str::to_owned),
        resctrl: container.place.as_ref().map(|place| place.resctrl.joined.clone()).unwrap_or_default(),
    };
    let for_all = container.place.as_ref().map(|place| place.for_all.clone()).unwrap_or_default();
    let is_it = |other: &ExecProcess| other.id == exec.exec;
    if shim.execs.iter().any(is_it) {
        return Err(failure(ErrorKind::Exists, format_args!("exec {} exists", exec.exec)));
    }
    let key = shim.new_key();
    let Request { call, deadline, fds } = request;
    shim.execs.push(ExecProcess::beginning(key, exec.exec.clone()));
    let order = Order::new(call, deadline, Job::Exec(key));
    let begun = shim.begin_stage(order, fds, move |fds, reporter| run(&exec, &target, &for_all, fds, reporter));
    if begun.is_err() {
        shim.execs.retain(|exec| exec.key != key);
    }
    begun.map(|()| None)
}

/// The stage child's work.
fn run(exec: &Exec, target: &Target, container: &ContainerWide, fds: Vec<OwnedFd>, reporter: &Reporter) -> Work {
    let mut fds = fds.into_iter();
    let process = fds.next().ok_or_else(super::too_few_fds)?;
    let mut next = |wanted: bool| (wanted && !exec.terminal).then(|| fds.next()).flatten();
    let stdio =
        StdioFds { stdin: next(exec.stdio.stdin), stdout: next(exec.stdio.stdout), stderr: next(exec.stdio.stderr) };
    let seccomp = exec.seccomp.then(|| fds.next()).flatten();

    reporter.stage("read process");
    let document = read_document("the process", &process)?;
    let (process, warnings) =
        oci_runtime::config::parse_process(&document).map_err(|error| failure(ErrorKind::Invalid, chain(&error)))?;
    warnings.iter().for_each(|warning| note(format_args!("{warning}")));
    let plan = ProcessPlan::joining(&process, container).map_err(|error| super::plan_failure(&error))?;
    if plan.terminal != exec.terminal {
        return Err(failure(ErrorKind::Invalid, "process.terminal and the request's terminal differ"));
    }

    let mut progress = |name: &str| reporter.stage(name);
    let mut born = |_: i32, pidfd: BorrowedFd<'_>| reporter.send(&Report::Born, &[pidfd]);
    let mut inputs = ExecInputs::new(&mut progress);
    inputs.identity.id.clone_from(&exec.container);
    inputs.stdio = stdio;
    inputs.seccomp = super::filter(seccomp, &exec.filter)?;
    inputs.cgroups = Some(reporter.cgroups.layout().clone());
    inputs.parent = Parent::CallersParent;
    inputs.best_effort_oom_score = true;
    inputs.best_effort_rlimits = true;
    inputs.born = Some(&mut born);
    let created = oci_runtime::exec(plan, target, inputs).map_err(|error| match has_ended(target) {
        true => {
            failure(ErrorKind::NotRunning, format_args!("container {} has ended: {}", exec.container, chain(&error)))
        }
        false => super::runtime_failure(&error),
    })?;

    created.warnings.iter().for_each(|warning| note(format_args!("{warning}")));

    let process = Process { pid: created.pid, start_time: created.start_time };
    let mut fds = vec![super::pidfd(created.pidfd, created.pid)?, created.status];
    let terminal = created.console.is_some();
    fds.extend(created.console);
    Ok((Outcome::Executed { process, terminal }, fds))
}

/// Whether a container that could not be joined is at its end. Its PID namespace takes no more processes from the moment that
/// its first one begins to exit, which takes until the others have died: hence a moment's patience.
fn has_ended(target: &Target) -> bool {
    let first = sys::process::Process { pid: Pid::from_raw(target.pid), start_time: target.start_time };
    let ended = first.open().and_then(|pidfd| pidfd.ends_within(ENDING));
    ended.unwrap_or_else(|error| error.is(Errno::ESRCH))
}

/// The stage child has made the process, or not.
pub(super) fn finish(shim: &mut Shim, key: u64, ended: Ended, result: Result) {
    let result = match result {
        Ok((Outcome::Executed { process, terminal }, fds)) => {
            adopt(shim, key, process, terminal, fds).map(|()| process)
        }
        Ok(_) => Err(super::unexpected()),
        Err(failure) => Err(failure),
    };
    match result {
        Ok(process) => {
            let Ended { call, deadline, mut stages, .. } = ended;
            stages.next("execute the program", Instant::now());
            shim.begin(call, deadline, stages, Step::Executing(key));
            shim.claim(process);
        }
        Err(failure) => {
            if !ended.is_clean {
                ended.kill_born();
            }
            shim.execs.retain(|exec| exec.key != key);
            shim.answer(ended, Err(failure));
        }
    }
}

fn adopt(
    shim: &mut Shim,
    key: u64,
    process: Process,
    terminal: bool,
    fds: Vec<OwnedFd>,
) -> std::result::Result<(), Failure> {
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or_else(super::too_few_fds);
    let pidfd = PidFd::from_fd(next()?);
    let status = super::nonblocking(next()?)?;
    let terminal = if terminal { Some(next()?) } else { None };
    if let Some(exec) = shim.execs.iter_mut().find(|exec| exec.key == key) {
        exec.life = ExecLife::Starting { process, pidfd, status, terminal };
    }
    Ok(())
}

/// Whether the program of an exec runs is known.
pub(crate) fn started(shim: &mut Shim, key: u64, result: std::result::Result<(), Failure>) {
    let Some(exec) = shim.execs.iter_mut().find(|exec| exec.key == key) else { return };
    let ExecLife::Starting { process, pidfd, terminal, .. } = std::mem::replace(&mut exec.life, ExecLife::Beginning)
    else {
        return;
    };
    exec.life = match &result {
        Ok(()) => ExecLife::Running { process, pidfd, started_at: reap::now() },
        Err(_) => ExecLife::Refused { process },
    };
    let is_it = |step: &Step| matches!(step, Step::Executing(exec) if *exec == key);
    if let Some(ended) = shim.take_task(is_it) {
        let fds = if result.is_ok() { terminal.into_iter().collect() } else { Vec::new() };
        shim.answer_with(ended, result.map(|()| Answer::Process(process)), fds);
    }
}

/// The program does not run in time: its process is killed.
pub(crate) fn give_up(shim: &mut Shim, key: u64, ended: Ended, deadline: Failure) {
    if let Some(exec) = shim.execs.iter_mut().find(|exec| exec.key == key)
        && let ExecLife::Starting { process, pidfd, .. } = &exec.life
    {
        let _ = pidfd.send_signal(Signal::SIGKILL);
        exec.life = ExecLife::Refused { process: *process };
    }
    shim.answer(ended, Err(deadline));
}
