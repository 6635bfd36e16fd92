//! ExecSync: runs a command to its end. Output beyond the limit is thrown away; a timeout kills it.
//!
//! It returns when the process has ended, even if a child of it still holds the pipes: what the process itself wrote is in
//! them by then, and they are read until they are empty, not until they are closed.

use super::run_pod_sandbox::{call, unexpected};
use crate::container::Life;
use crate::failure::{Failure, Result, chain};
use crate::pods::{Pods, blocking};
use crate::seccomp_cache::Program;
use crate::shim::{CallError, Shim};
use crate::spec::capabilities::CapabilitySets;
use crate::spec::{security, security_context};
use proto::{ExecSyncRequest, ExecSyncResponse};
use shim_protocol::{Answer, ErrorKind, Exec, Exit, KillExec, Stdio, Verb};
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How much of each stream is kept, in bytes (CVE-2022-31030).
const MAX_OUTPUT: usize = 16 * 1024 * 1024;

/// How much of both together fits into an answer that a client accepts.
const MAX_ANSWER: usize = crate::MAX_MESSAGE - 4096;

/// How long a process may take to be executed if the request sets no limit.
const START: Duration = Duration::from_secs(110);

/// How long a killed process may take to die.
const DIE: Duration = Duration::from_secs(10);

/// How long to wait before an exec that has not ended is killed again.
const AGAIN: Duration = Duration::from_millis(200);

pub(crate) async fn exec_sync(pods: &Arc<Pods>, request: ExecSyncRequest) -> Result<ExecSyncResponse> {
    let container = pods.containers.get(&request.container_id)?;
    if !matches!(container.life(), Life::Running(_)) {
        return Err(Failure::state(format!("container {} is not running", container.id)));
    }
    if request.cmd.is_empty() {
        return Err(Failure::invalid("cmd is empty"));
    }
    let timeout = u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0);
    let timeout = timeout.map(|seconds| Duration::from_secs(seconds).min(super::LONGEST));
    let shim = super::shim_of(pods, &container)?;
    let (preparer, id, cmd) = (Arc::clone(pods), container.id.clone(), request.cmd.clone());
    let prepared = blocking("prepare an exec", move || prepare(&preparer, &id, cmd)).await?;
    let running = Running::begin(shim, &container.id, &request.cmd, prepared, timeout).await?;
    // If the client leaves, dropping this future drops `running`, which kills the process.
    running.finish(&request.cmd).await
}

/// What an exec is started with, and our ends of its pipes.
struct Prepared {
    process: OwnedFd,
    seccomp: Option<Program>,
    stdout: (OwnedFd, OwnedFd),
    stderr: (OwnedFd, OwnedFd),
}

/// The container's own process with another command: user, environment, capabilities and limits are the same.
fn prepare(pods: &Pods, container: &str, cmd: Vec<String>) -> Result<Prepared> {
    let internal = |error: &dyn std::error::Error| Failure::internal(format!("exec in container {container}"), error);
    let spec = super::create_container::read_spec(pods, container)?;
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(cmd)).set_terminal(Some(false));
    let json = serde_json::to_vec(&process).map_err(|error| internal(&error))?;
    let context = security_context(&pods.containers.get(container)?.record().config);
    let granted = CapabilitySets::build(&context, pods.host.capabilities)?.names();
    Ok(Prepared {
        process: sys::fd::sealed_memfd(c"process", &json, false).map_err(|error| internal(&error))?,
        seccomp: pods.programs.get(&security::seccomp(&context)?, &granted)?,
        stdout: sys::fd::pipe().map_err(|error| internal(&error))?,
        stderr: sys::fd::pipe().map_err(|error| internal(&error))?,
    })
}

/// An exec'd process, killed when this is dropped before its end.
struct Running {
    shim: Arc<Shim>,
    exec: String,
    exit: Option<oneshot::Receiver<Exit>>,
    stdout: Receiver,
    stderr: Receiver,
    deadline: Option<(Instant, Duration)>,
    /// It has ended, or was never there.
    over: bool,
}

impl Running {
    async fn begin(
        shim: Arc<Shim>,
        container: &str,
        cmd: &[String],
        prepared: Prepared,
        timeout: Option<Duration>,
    ) -> Result<Running> {
        let what = format!("exec in container {container}");
        let exec = crate::index::new_id();
        let verb = Verb::Exec(Box::new(Exec {
            container: container.to_owned(),
            exec: exec.clone(),
            stdio: Stdio { stdin: false, stdout: true, stderr: true },
            terminal: false,
            seccomp: prepared.seccomp.is_some(),
            filter: Program::filter_of(prepared.seccomp.as_ref()),
        }));
        let reader = |pipe| Receiver::from_owned_fd(pipe).map_err(|error| Failure::internal(&what, &error));
        let (stdout, stderr) = (reader(prepared.stdout.0)?, reader(prepared.stderr.0)?);
        let seccomp = prepared.seccomp.map(|program| program.memfd);
        let fds = [prepared.process, prepared.stdout.1, prepared.stderr.1].into_iter().chain(seccomp);
        let exit = shim.expect_exit(&exec).map_err(|error| call(&what, error))?;
        let deadline = timeout.map(|timeout| (Instant::now() + timeout, timeout));
        let mut running = Running { exit: Some(exit), exec, stdout, stderr, deadline, shim, over: false };
        match running.shim.call(verb, fds.collect(), timeout.unwrap_or(START)).await {
            Ok((Answer::Process(_), _)) => Ok(running),
            Ok((other, _)) => Err(unexpected("Exec", &other)),
            Err(error) => {
                // A shim that did not answer may still make it.
                running.over = matches!(error, CallError::Failed(_) | CallError::Gone);
                if running.over {
                    running.shim.forget_exit(&running.exec);
                }
                Err(match error {
                    CallError::Failed(failure) if failure.kind == ErrorKind::Deadline => timed_out(cmd, timeout),
                    other => call(&what, other),
                })
            }
        }
    }

    async fn finish(mut self, cmd: &[String]) -> Result<ExecSyncResponse> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let exit = self.exit.as_mut().expect("only taken when dropped");
        let deadline = self.deadline;
        let outlived = async {
            match deadline {
                Some((at, _)) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let ended = {
            let (out, err) = (&self.stdout, &self.stderr);
            tokio::select! {
                ended = &mut *exit => Some(ended),
                () = outlived => None,
                never = async { tokio::join!(collect(out, &mut stdout), collect(err, &mut stderr)) } => match never.0 {},
            }
        };
        let Some(ended) = ended else {
            // It is to be gone when we answer; a process that hangs in the kernel is not worth waiting for.
            end(&self.shim, &self.exec, exit, DIE).await;
            self.over = true;
            self.shim.forget_exit(&self.exec);
            return Err(timed_out(cmd, deadline.map(|(_, timeout)| timeout)));
        };
        self.over = true;
        let exit = ended.map_err(|_| Failure::new(tonic::Code::Unavailable, "the pod's shim died during the exec"))?;
        for (pipe, kept) in [(&self.stdout, &mut stdout), (&self.stderr, &mut stderr)] {
            read_rest(pipe, kept).map_err(|error| Failure::internal("read the exec's output", &error))?;
        }
        fit(&mut stdout, &mut stderr, MAX_ANSWER);
        Ok(ExecSyncResponse { stdout, stderr, exit_code: exit.code })
    }
}

/// Kills an exec until it has ended or `patience` has. Once is not enough: while the shim still makes the process there is
/// nothing to kill.
async fn end(shim: &Shim, exec: &str, exit: &mut oneshot::Receiver<Exit>, patience: Duration) {
    let until = Instant::now() + patience;
    while Instant::now() < until {
        let verb = Verb::KillExec(KillExec { exec: exec.to_owned(), signal: nix::libc::SIGKILL });
        match shim.call(verb, Vec::new(), DIE).await {
            Err(CallError::Gone) => return,
            Err(CallError::Failed(failure)) if failure.kind == ErrorKind::NotFound => return,
            Ok(_) | Err(CallError::Failed(_)) => {}
            Err(error) => tracing::warn!(error = chain(&error), "kill an exec"),
        }
        if tokio::time::timeout(AGAIN, &mut *exit).await.is_ok() {
            return;
        }
    }
}

impl Drop for Running {
    /// The client left before the end.
    fn drop(&mut self) {
        if !self.over {
            let (shim, exec) = (Arc::clone(&self.shim), std::mem::take(&mut self.exec));
            let Some(mut exit) = self.exit.take() else { return };
            tokio::spawn(async move {
                end(&shim, &exec, &mut exit, START).await;
                shim.forget_exit(&exec);
            });
        }
    }
}

/// Cuts the streams so that together they are not longer than `limit`: each may have half, and what the other leaves.
fn fit(stdout: &mut Vec<u8>, stderr: &mut Vec<u8>, limit: usize) {
    let half = limit / 2;
    let left_by = |other: &Vec<u8>| limit - other.len().min(half);
    let (for_stdout, for_stderr) = (left_by(stderr), left_by(stdout));
    stdout.truncate(for_stdout);
    stderr.truncate(for_stderr.min(limit - stdout.len()));
}

fn timed_out(cmd: &[String], timeout: Option<Duration>) -> Failure {
    let seconds = timeout.unwrap_or(START).as_secs();
    Failure::new(tonic::Code::DeadlineExceeded, format!("exec {cmd:?}: timed out after {seconds} s and was killed"))
}

/// Reads for ever; keeps what fits.
async fn collect(pipe: &Receiver, kept: &mut Vec<u8>) -> Infallible {
    loop {
        let readable = pipe.readable().await;
        if readable.is_err() || matches!(drain(|buffer| pipe.try_read(buffer), kept), Ok(Drained::Closed) | Err(_)) {
            return std::future::pending().await;
        }
    }
}

/// Reads what the process has written by its end. The pipe itself is asked, not what the event loop knows of it: that may
/// hear of the exit before it hears of the output.
fn read_rest(pipe: &Receiver, kept: &mut Vec<u8>) -> io::Result<()> {
    drain(|buffer| Ok(nix::unistd::read(pipe, buffer)?), kept).map(drop)
}

/// Whether more may come.
#[derive(Debug, PartialEq, Eq)]
enum Drained {
    Empty,
    Closed,
}

/// Reads what is there, at most as much as is kept at all: a child that writes on and on does not hold us up.
fn drain(mut read: impl FnMut(&mut [u8]) -> io::Result<usize>, kept: &mut Vec<u8>) -> io::Result<Drained> {
    let mut buffer = [0; 64 * 1024];
    let mut budget = MAX_OUTPUT;
    loop {
        match read(&mut buffer) {
            Ok(0) => return Ok(Drained::Closed),
            Ok(length) => {
                let room = MAX_OUTPUT.saturating_sub(kept.len()).min(length);
                kept.extend_from_slice(&buffer[..room]);
                budget = budget.saturating_sub(length);
                if budget == 0 {
                    return Ok(Drained::Empty);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Drained::Empty),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn output_is_read_at_the_end_though_the_event_loop_has_not_heard_of_it() {
        let (ours, theirs) = sys::fd::pipe().expect("a pipe");
        let pipe = Receiver::from_owned_fd(ours).expect("a pipe of the event loop");
        // Held open, as by a child that lives on.
        let mut child = std::fs::File::from(theirs);
        child.write_all(b"started\n").expect("write");
        let mut kept = Vec::new();
        read_rest(&pipe, &mut kept).expect("read");
        assert_eq!(kept, b"started\n");
    }

    #[test]
    fn both_streams_together_fit_into_one_answer() {
        for ((stdout, stderr), want) in [
            ((10, 20), (10, 20)),
            ((90, 20), (80, 20)),
            ((20, 90), (20, 80)),
            ((90, 90), (50, 50)),
            ((200, 0), (100, 0)),
            ((0, 200), (0, 100)),
            ((50, 51), (50, 50)),
        ] {
            let (mut out, mut err) = (vec![0; stdout], vec![0; stderr]);
            fit(&mut out, &mut err, 100);
            assert_eq!((out.len(), err.len()), want, "{stdout} {stderr}");
        }
    }
}
