//! `StartSandbox`: the shim enters the pod's namespaces, makes its shared memory and starts its reaper.

use super::{Begun, Request};
use crate::ending::SWEEP;
use crate::failure::{chain, failure, internal, note};
use crate::progress::{Ended, Order, Result};
use crate::report::Outcome;
use crate::sandbox::{Lifecycle, Reaper, RunningSandbox};
use crate::shared_memory::SharedMemory;
use crate::stage::{LAST_CALL, Reporter, Work, see_off};
use crate::supervisor::Shim;
use crate::task::{Job, Step, Task};
use shim_protocol::{Answer, ErrorKind, Failure, Process, Sandbox, SandboxProcess};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use sys::netlink::route::{self, RouteSocket};
use sys::process::{CloneFlags, PidFd};

/// The index of `lo`: the first link of every network namespace.
const LOOPBACK: u32 = 1;

/// The most bytes that a sandbox may take up in [`shim_protocol::State`], beside all containers.
pub(super) const SANDBOX_LIMIT: usize = 8 * 1024;

/// The value of `net.ipv4.ip_unprivileged_port_start` and the like is set where the calling process is, so the shim has
/// to be in the pod's namespaces before its stage child writes them.
pub(super) fn begin(shim: &mut Shim, request: Request, sandbox: Sandbox) -> Begun {
    if !matches!(shim.lifecycle, Lifecycle::Fresh) {
        return Err(failure(ErrorKind::Exists, "the sandbox was started before"));
    }
    if serde_json::to_vec(&sandbox).map_or(usize::MAX, |told| told.len()) > SANDBOX_LIMIT {
        let message = format_args!("the sandbox takes more than {SANDBOX_LIMIT} bytes to tell: too many sysctls");
        return Err(failure(ErrorKind::Invalid, message));
    }
    let result = enter(shim, &sandbox).and_then(|shared_memory| {
        let asked = sandbox.clone();
        let order = Order::new(request.call, request.deadline, Job::StartSandbox);
        if let Err(failure) = shim.begin_stage(order, Vec::new(), move |_, reporter| prepare(&asked, reporter)) {
            // The stage's failure is the one to tell.
            let _ = shared_memory.map(|shared_memory| shared_memory.remove(&shim.dir));
            return Err(failure);
        }
        Ok(Lifecycle::Starting(Box::new((sandbox, shared_memory))))
    });
    match result {
        Ok(starting) => {
            shim.lifecycle = starting;
            Ok(None)
        }
        Err(failure) => {
            shim.lifecycle = Lifecycle::Over;
            Err(failure)
        }
    }
}

/// What the shim does itself, because it is about the shim itself. None of it can wait.
fn enter(shim: &Shim, sandbox: &Sandbox) -> std::result::Result<Option<SharedMemory>, Failure> {
    let mut namespaces = CloneFlags::empty();
    namespaces.set(CloneFlags::CLONE_NEWNET, sandbox.network);
    namespaces.set(CloneFlags::CLONE_NEWIPC, sandbox.ipc);
    namespaces.set(CloneFlags::CLONE_NEWUTS, sandbox.hostname.is_some());
    sys::namespace::unshare(namespaces).map_err(|error| internal("make the pod's namespaces", &error))?;
    if let Some(hostname) = &sandbox.hostname {
        sys::namespace::set_hostname(hostname)
            .map_err(|error| internal(format_args!("set the pod's host name {hostname}"), &error))?;
    }
    let shared_memory = sandbox.shm_bytes.map(|bytes| SharedMemory::new(bytes, &shim.dir)).transpose();
    shared_memory.map_err(|error| internal("make the pod's /dev/shm", &error))
}

/// The stage child's work.
fn prepare(sandbox: &Sandbox, reporter: &Reporter) -> Work {
    if sandbox.network {
        reporter.stage("set the loopback up");
        let up =
            RouteSocket::open().and_then(|mut route| route.run(&[route::Request::SetUp { link: LOOPBACK, up: true }]));
        up.map_err(|error| internal("set the pod's loopback up", &error))?;
    }
    if !sandbox.sysctls.is_empty() {
        reporter.stage("set sysctls");
        let procfs = sys::procfs::ProcFd::open().map_err(|error| internal("open a private procfs", &error))?;
        for (name, value) in &sandbox.sysctls {
            procfs
                .write_sysctl(name, value)
                .map_err(|error| internal(format_args!("set sysctl {name} to {value:?}"), &error))?;
        }
    }
    let Some(reaper) = &sandbox.reaper else { return Ok((Outcome::Sandbox { reaper: None }, Vec::new())) };
    reporter.stage("start the reaper");
    let (process, pidfd, lifeline) = crate::reaper::start(reaper, &reporter.cgroups)?;
    Ok((Outcome::Sandbox { reaper: Some(process) }, vec![pidfd, lifeline]))
}

/// The stage child has ended.
pub(super) fn finish(shim: &mut Shim, mut ended: Ended, result: Result) {
    let result = result.and_then(|(outcome, fds)| match outcome {
        Outcome::Sandbox { reaper } => running(shim, reaper, fds),
        _ => Err(super::unexpected()),
    });
    match result {
        Ok((processes, network)) => {
            let reaper = processes.reaper;
            shim.answer_with(ended, Ok(Answer::Sandbox(processes)), network.into_iter().collect());
            if let Some(reaper) = reaper {
                shim.claim(reaper);
            }
        }
        Err(failure) => {
            undo(shim, &mut ended);
            shim.answer(ended, Err(failure));
        }
    }
}

/// Ends a start that is under way: the sandbox is to be stopped.
pub(super) fn give_up(shim: &mut Shim) {
    let is_it = |task: &&Task| matches!(task.step, Step::Stage(_, Job::StartSandbox));
    if let Some(key) = shim.tasks.iter().find(is_it).map(|task| task.key) {
        shim.give_up(key, failure(ErrorKind::NotRunning, "the sandbox was stopped before it was started"));
    }
}

/// Removes what a sandbox that could not be started has left on the host. A stage child that failed has removed the reaper's
/// cgroup itself.
fn undo(shim: &mut Shim, ended: &mut Ended) {
    ended.kill_born();
    let Lifecycle::Starting(starting) = std::mem::replace(&mut shim.lifecycle, Lifecycle::Over) else { return };
    let (sandbox, shared_memory) = *starting;
    if let Some(Err(error)) = shared_memory.map(|shared_memory| shared_memory.remove(&shim.dir)) {
        note(format_args!("unmount the pod's /dev/shm: {}", chain(&error)));
    }
    let Some(reaper) = sandbox.reaper.filter(|_| !ended.is_clean) else { return };
    let order = Order::own(LAST_CALL + SWEEP + Duration::from_secs(1), Job::Undo);
    let child = ended.child.take().map(OwnedFd::from).into_iter().collect();
    let begun = shim.begin_stage(order, child, move |child, stage| {
        let seen_off = see_off(child);
        // It ends with its stage child, which held the other end of its pipe, as soon as it gets to that. Others in there would
        // be a stranger's.
        let until = Instant::now() + SWEEP;
        while let Err(failure) = stage.cgroups.delete(&reaper.cgroup) {
            if Instant::now() >= until {
                return Err(failure);
            }
            // A failure may come at once.
            let _ = sys::poll::poll(&[], Some(Duration::from_millis(50)));
        }
        seen_off.map(|()| (Outcome::Done, Vec::new()))
    });
    if let Err(failure) = begun {
        note(format_args!("remove the reaper's cgroup: {failure}"));
    }
}

/// The sandbox is there; with it the fd of its network namespace, if that is its own.
fn running(
    shim: &mut Shim,
    reaper: Option<Process>,
    fds: Vec<OwnedFd>,
) -> std::result::Result<(SandboxProcess, Option<OwnedFd>), Failure> {
    let Lifecycle::Starting(starting) = &shim.lifecycle else { return Err(super::unexpected()) };
    let mut fds = fds.into_iter();
    let reaper = match (reaper, fds.next(), fds.next()) {
        (None, _, _) => None,
        (Some(process), Some(pidfd), Some(lifeline)) => {
            Some(Reaper { process, pidfd: PidFd::from_fd(pidfd), _lifeline: lifeline })
        }
        _ => return Err(super::too_few_fds()),
    };
    let network = starting.0.network.then(|| File::open("/proc/self/ns/net")).transpose();
    let network = network.map_err(|error| internal("open the pod's network namespace", &error))?;
    let own = crate::process::own().map_err(|error| internal("find out who we are", &error))?;
    let processes = SandboxProcess { shim: own, reaper: reaper.as_ref().map(|reaper| reaper.process) };
    let told = processes.clone();
    let Lifecycle::Starting(starting) = std::mem::replace(&mut shim.lifecycle, Lifecycle::Over) else {
        return Err(super::unexpected());
    };
    let (config, shared_memory) = *starting;
    let running = RunningSandbox { config, processes, reaper, shared_memory, stopping: false };
    shim.lifecycle = Lifecycle::Running(Box::new(running));
    Ok((told, network.map(OwnedFd::from)))
}
