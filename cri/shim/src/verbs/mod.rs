//! The verbs, one file each: what is checked at once, what a stage child does, and what its outcome changes.

mod attach;
mod create;
pub(crate) mod delete;
pub(crate) mod exec;
mod hello;
mod kill;
mod kill_exec;
mod reopen_log;
mod resize;
pub(crate) mod start;
mod start_sandbox;
pub(crate) mod stop_sandbox;
mod update;

use crate::failure::{chain, failure, internal};
use crate::progress::{Ended, Result};
use crate::supervisor::Shim;
use crate::task::{Call, Job};
use oci_runtime::{Filter, Listener, PlanError};
use shim_protocol::{Answer, ErrorKind, Failure, Stdio, Verb};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;
use sys::process::{Pid, PidFd};
use sys::signal::Number;

/// What a verb needs to go on, for those that go on.
pub(crate) struct Request {
    /// Who asked.
    pub(crate) call: Call,
    /// How long it may take.
    pub(crate) deadline: Duration,
    /// What lay beside it.
    pub(crate) fds: Vec<OwnedFd>,
}

/// `Ok(None)`: a task goes on and answers.
type Begun = std::result::Result<Option<Answer>, Failure>;

/// Begins a verb and answers it if that is all.
pub(crate) fn begin(shim: &mut Shim, call: Call, deadline: Duration, verb: Verb, fds: Vec<OwnedFd>) {
    let begun = check_fds(&verb, fds.len()).and_then(|()| {
        let request = Request { call, deadline, fds };
        match verb {
            Verb::Hello(hello) => Ok(Some(hello::hello(shim, call, &hello))),
            Verb::StartSandbox(sandbox) => start_sandbox::begin(shim, request, sandbox),
            Verb::Create(create) => create::begin(shim, request, *create),
            Verb::Start(container) => start::begin(shim, request, &container.container),
            Verb::Exec(exec) => exec::begin(shim, request, *exec),
            Verb::Kill(kill) => kill::begin(shim, request, &kill),
            Verb::KillExec(kill) => kill_exec::kill_exec(shim, &kill),
            Verb::Update(container) => update::begin(shim, request, &container.container),
            Verb::ReopenLog(container) => reopen_log::begin(shim, request, &container.container),
            Verb::Attach(attach) => attach::attach(shim, request.fds, &attach),
            Verb::Resize(resize) => resize::resize(shim, &resize),
            Verb::Delete(delete) => delete::begin(shim, request, &delete),
            Verb::StopSandbox => stop_sandbox::begin(shim, request),
        }
    });
    match begun {
        Ok(None) => {}
        Ok(Some(answer)) => shim.reply(call, Ok(answer), Vec::new()),
        Err(failure) => shim.reply(call, Err(failure), Vec::new()),
    }
}

/// Does what a stage child's outcome is for.
pub(crate) fn finish(shim: &mut Shim, job: Job, ended: Ended, result: Result) {
    match job {
        Job::StartSandbox => start_sandbox::finish(shim, ended, result),
        Job::Create(container) => create::finish(shim, container, ended, result),
        Job::Exec(exec) => exec::finish(shim, exec, ended, result),
        Job::ReopenLog(container) => reopen_log::finish(shim, container, ended, result),
        Job::Plain | Job::Undo => shim.answer(ended, result.map(|_| Answer::Done)),
        Job::Sweep(container) => shim.swept(container, result.map(|_| ())),
        Job::Abandon(container) => create::cleaned_up(shim, container, result.map(|_| ())),
        Job::Poststart(container) => start::hooks_ended(shim, container, ended, result),
        Job::Delete(container) => delete::finish(shim, container, ended, result),
        Job::StopSandbox => stop_sandbox::finish(shim, ended, result),
    }
}

/// Refuses a message with other fds than its verb names.
fn check_fds(verb: &Verb, sent: usize) -> std::result::Result<(), Failure> {
    let (name, expected) = match verb {
        Verb::Create(create) => ("create", 2 + usize::from(create.seccomp)),
        Verb::Exec(exec) => {
            // A terminal is the process's stdio, whatever else is said.
            let stdio = if exec.terminal { 0 } else { count(exec.stdio) };
            ("exec", 1 + stdio + usize::from(exec.seccomp))
        }
        Verb::Update(_) => ("update", 1),
        Verb::Attach(attach) => ("attach", count(attach.stdio)),
        Verb::Hello(_) => ("hello", 0),
        Verb::StartSandbox(_) => ("start_sandbox", 0),
        Verb::Start(_) => ("start", 0),
        Verb::Kill(_) => ("kill", 0),
        Verb::KillExec(_) => ("kill_exec", 0),
        Verb::ReopenLog(_) => ("reopen_log", 0),
        Verb::Resize(_) => ("resize", 0),
        Verb::Delete(_) => ("delete", 0),
        Verb::StopSandbox => ("stop_sandbox", 0),
    };
    if sent == expected {
        return Ok(());
    }
    Err(failure(ErrorKind::Invalid, format_args!("{name} came with {sent} file descriptors, {expected} belong to it")))
}

fn count(stdio: Stdio) -> usize {
    usize::from(stdio.stdin) + usize::from(stdio.stdout) + usize::from(stdio.stderr)
}

/// Reads a sealed memfd. For stage children.
fn read_document(name: &str, memfd: &OwnedFd) -> std::result::Result<Vec<u8>, Failure> {
    sys::fd::read_sealed(memfd, oci_runtime::config::MAX_SIZE)
        .map_err(|error| failure(ErrorKind::Invalid, format_args!("read {name}: {error}")))
}

/// The failure for a plan that the runtime refuses.
fn plan_failure(error: &PlanError) -> Failure {
    let kind = match error {
        PlanError::Unsupported { .. } => ErrorKind::Unsupported,
        PlanError::Invalid { .. } => ErrorKind::Invalid,
    };
    failure(kind, chain(error))
}

/// The failure for what the runtime could not do.
fn runtime_failure(error: &oci_runtime::Error) -> Failure {
    match error {
        oci_runtime::Error::Container(error) => crate::status::refusal(error),
        oci_runtime::Error::NotRunning(_) => failure(ErrorKind::NotRunning, chain(error)),
        error => failure(ErrorKind::Internal, chain(error)),
    }
}

/// The filter whose program was sent, if one was.
fn filter(program: Option<OwnedFd>, how: &shim_protocol::Filter) -> Result<Option<Filter>> {
    let listener = how.listener.as_ref().map(|who| Listener { path: who.path.clone(), metadata: who.metadata.clone() });
    program
        .map(|program| Filter::from_memfd(&program, how.flags, listener))
        .transpose()
        .map_err(|error| runtime_failure(&error))
}

/// A stage child sent less than it told.
fn too_few_fds() -> Failure {
    failure(ErrorKind::Internal, "file descriptors are missing beside a message")
}

/// A stage child told something that is not for its verb.
fn unexpected() -> Failure {
    failure(ErrorKind::Internal, "the stage's outcome belongs to another verb")
}

/// The pidfd of a process that the runtime made.
fn pidfd(made: Option<OwnedFd>, pid: i32) -> std::result::Result<OwnedFd, Failure> {
    let opened = made.map_or_else(|| PidFd::open(Pid::from_raw(pid)).map(OwnedFd::from), Ok);
    opened.map_err(|error| internal(format_args!("watch process {pid}"), &error))
}

/// A file that the loop may read or write without waiting.
fn nonblocking(fd: OwnedFd) -> std::result::Result<File, Failure> {
    sys::fd::set_nonblocking(&fd, true).map_err(|error| internal("keep a stream", &error))?;
    Ok(File::from(fd))
}

/// The signal with this number.
fn signal(number: i32) -> std::result::Result<Number, Failure> {
    Number::new(number).ok_or_else(|| failure(ErrorKind::Invalid, format_args!("there is no signal {number}")))
}

/// The failure for an id that no container has.
fn no_container(id: &str) -> Failure {
    failure(ErrorKind::NotFound, format_args!("no container {id}"))
}

impl Shim {
    /// The container with this id.
    fn container(&mut self, id: &str) -> std::result::Result<&mut crate::container::Container, Failure> {
        self.containers.iter_mut().find(|container| container.id == id).ok_or_else(|| no_container(id))
    }

    /// The container with this key, if it is still there.
    fn container_of(&mut self, key: u64) -> Option<&mut crate::container::Container> {
        self.containers.iter_mut().find(|container| container.key == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shim_protocol::{Attach, ContainerRef, Exec};

    #[test]
    fn each_verb_takes_exactly_the_fds_that_it_names() {
        let both = Stdio { stdin: false, stdout: true, stderr: true };
        let exec = |terminal| {
            let exec = Exec {
                container: "c".into(),
                exec: "e".into(),
                stdio: both,
                terminal,
                seccomp: true,
                filter: Default::default(),
            };
            Verb::Exec(Box::new(exec))
        };
        for (verb, expected) in [
            (Verb::StopSandbox, 0),
            (Verb::Update(ContainerRef { container: "c".into() }), 1),
            (Verb::Attach(Attach { container: "c".into(), stdio: both }), 2),
            (exec(false), 4),
            (exec(true), 2),
        ] {
            assert!(check_fds(&verb, expected).is_ok(), "{verb:?}");
            let error = check_fds(&verb, expected + 1).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid, "{verb:?}");
        }
    }
}
