//! Running a plugin binary: configuration in, result or error out, within a deadline and a bound.
//!
//! The configuration is handed over as an anonymous file, so that neither side can block on a full pipe. What a runtime
//! calls runs in a process group of its own, which is killed as a whole at the deadline: a plugin's own children (a shell
//! script's, a delegating plugin's IPAM) must not outlive the call. That is why a plugin that calls another leaves it in
//! the group ([`Group::Callers`]): one that led its own would not be reached, and could reserve an address after the DEL.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use sys::process::PidFd;

use crate::caseless;
use crate::error::PluginError;

/// The largest result that is read. Real ones have some hundred bytes.
const STDOUT_MAX: usize = 1024 * 1024;
/// How much of what a plugin says on its standard error is kept for messages.
const STDERR_MAX: usize = 4096;
/// How long a binary that is being written is waited for, and how often it is tried.
const BUSY_RETRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Why a plugin gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It did not start.
    #[error("start {path}")]
    Start {
        /// The binary.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The pipes or the process could not be watched.
    #[error("watch {path}")]
    Watch {
        /// The binary.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It did not end in time, and was killed.
    #[error("{path} did not end within {limit:?} and was killed{}", said(stderr))]
    TimedOut {
        /// The binary.
        path: PathBuf,
        /// The time it had.
        limit: Duration,
        /// The end of its standard error.
        stderr: String,
    },
    /// It printed without end, and was killed.
    #[error("{path} printed more than {} KiB and was killed", STDOUT_MAX / 1024)]
    TooLong {
        /// The binary.
        path: PathBuf,
    },
    /// It failed and said why.
    #[error("{0}")]
    Plugin(PluginError),
    /// It failed without an error that can be read.
    #[error("{path} ended with {status}{}{}", printed(stdout), said(stderr))]
    Failed {
        /// The binary.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The start of what it printed.
        stdout: String,
        /// The end of its standard error.
        stderr: String,
    },
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("; stderr: {stderr:?}") }
}

fn printed(stdout: &str) -> String {
    if stdout.is_empty() { " and no error message".into() } else { format!(" and printed {stdout:?}, not a CNI error") }
}

/// The process group that a plugin runs in, and so what is killed at its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// One of its own, killed as a whole: for a runtime.
    Own,
    /// The caller's, so that whoever kills the caller's kills it too; only the plugin itself is killed at its deadline.
    Callers,
}

/// Runs `plugin` and returns what it printed. `environment` is added to the caller's own, which CNI plugins inherit.
pub(crate) fn run(
    plugin: &Path,
    environment: &[(&str, &std::ffi::OsStr)],
    config: &[u8],
    limit: Duration,
    group: Group,
) -> Result<Vec<u8>, ExecError> {
    let started = |source| ExecError::Start { path: plugin.into(), source };
    let input = anonymous_file(config).map_err(started)?;
    let child = spawn(plugin, environment, &input, group).map_err(started)?;
    let mut running = Running { child, group, reaped: false };
    let ended = running.collect(limit);
    match ended {
        Err(source) => Err(ExecError::Watch { path: plugin.into(), source }),
        Ok(Ended::TimedOut { stderr }) => {
            Err(ExecError::TimedOut { path: plugin.into(), limit, stderr: text(&stderr) })
        }
        Ok(Ended::TooLong) => Err(ExecError::TooLong { path: plugin.into() }),
        Ok(Ended::Exited { status, stdout, .. }) if status.success() => Ok(stdout),
        Ok(Ended::Exited { status, stdout, stderr }) => Err(match caseless::from_slice::<PluginError>(&stdout) {
            Ok(error) if error.code != 0 || !error.msg.is_empty() => ExecError::Plugin(error),
            _ => {
                let shown = &stdout[..stdout.len().min(STDERR_MAX)];
                ExecError::Failed { path: plugin.into(), status, stdout: text(shown), stderr: text(&stderr) }
            }
        }),
    }
}

/// A file without a name that reads as `content`.
fn anonymous_file(content: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create(c"cni-config", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// Starts the plugin; one that is just being written (ETXTBSY) is tried again for five seconds, as libcni does.
#[allow(clippy::disallowed_methods, reason = "nothing announces that the last writer closed a file")]
fn spawn(
    plugin: &Path,
    environment: &[(&str, &std::ffi::OsStr)],
    input: &File,
    group: Group,
) -> std::io::Result<Child> {
    let mut attempt = 0;
    loop {
        let mut command = Command::new(plugin);
        command.envs(environment.iter().copied());
        if group == Group::Own {
            command.process_group(0);
        }
        command.stdin(input.try_clone()?).stdout(Stdio::piped()).stderr(Stdio::piped());
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && attempt < BUSY_RETRIES => {
                attempt += 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            other => return other,
        }
    }
}

/// How a plugin ended.
enum Ended {
    Exited { status: ExitStatus, stdout: Vec<u8>, stderr: Vec<u8> },
    TimedOut { stderr: Vec<u8> },
    TooLong,
}

/// A started plugin; dropping it kills it, with its process group if it leads one, and reaps it.
struct Running {
    child: Child,
    group: Group,
    reaped: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            // Process and group still exist: the plugin is not reaped.
            let _ = match self.group {
                Group::Own => killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL).map_err(Into::into),
                Group::Callers => self.child.kill(),
            };
            let _ = self.child.wait();
        }
    }
}

impl Running {
    /// Reads both pipes until the process ends. What it wrote before is in the pipes by then, so that a grandchild
    /// which keeps them open doesn't matter.
    fn collect(&mut self, limit: Duration) -> std::io::Result<Ended> {
        let deadline = Instant::now() + limit;
        let pidfd = PidFd::open(Pid::from_raw(self.child.id() as i32))?;
        let (mut out, mut err) = (self.child.stdout.take(), self.child.stderr.take());
        for pipe in [out.as_ref().map(AsFd::as_fd), err.as_ref().map(AsFd::as_fd)].into_iter().flatten() {
            set_nonblocking(pipe)?;
        }
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let exited = wait_readable(pidfd.as_fd(), &out, &err, left)?;
            drain(&mut out, &mut stdout)?;
            drain(&mut err, &mut stderr)?;
            stderr.drain(..stderr.len().saturating_sub(STDERR_MAX));
            if stdout.len() > STDOUT_MAX {
                return Ok(Ended::TooLong);
            }
            if exited {
                self.reaped = true;
                return Ok(Ended::Exited { status: self.child.wait()?, stdout, stderr });
            }
            if left.is_zero() {
                return Ok(Ended::TimedOut { stderr });
            }
        }
    }
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> std::io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Waits until a pipe has something, the process ended or the time is up; true if the process ended.
fn wait_readable(
    process: BorrowedFd<'_>,
    out: &Option<impl AsFd>,
    err: &Option<impl AsFd>,
    left: Duration,
) -> std::io::Result<bool> {
    let pipes = [out.as_ref().map(AsFd::as_fd), err.as_ref().map(AsFd::as_fd)];
    let mut watched: Vec<PollFd<'_>> =
        [process].into_iter().chain(pipes.into_iter().flatten()).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    // Rounded up, so that the last part of a millisecond is not spent spinning.
    let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    match poll(&mut watched, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(watched[0].any().unwrap_or(false)),
        Err(errno) => Err(errno.into()),
    }
}

/// Reads what is there, at most one buffer beyond the bound; at its end the pipe is closed.
fn drain(pipe: &mut Option<impl Read>, into: &mut Vec<u8>) -> std::io::Result<()> {
    let mut buffer = [0; 8192];
    while let Some(open) = pipe
        && into.len() <= STDOUT_MAX
    {
        match open.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(read) => into.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// The first regular file of this name in the directories: an executable plugin, if it is one.
pub(crate) fn find(plugin: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    let candidates = directories.iter().map(|directory| directory.join(plugin));
    candidates.into_iter().find(|path| path.metadata().is_ok_and(|metadata| metadata.is_file()))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    /// What a shell prints; the script is its "plugin configuration".
    fn shell(script: &str, limit: Duration, group: Group) -> Result<String, ExecError> {
        let environment = [("ENV", OsStr::new(""))];
        run(Path::new("/bin/sh"), &environment, script.as_bytes(), limit, group).map(|printed| text(&printed))
    }

    #[test]
    fn only_what_a_runtime_calls_leads_a_process_group() {
        // Fields 1 and 5 of proc_pid_stat(5); the name in field 2 has no space.
        let ids = "read pid name state parent group rest < /proc/$$/stat; echo $pid $group";
        let limit = Duration::from_secs(20);
        let own = shell(ids, limit, Group::Own).unwrap();
        let (pid, group) = own.split_once(' ').unwrap();
        assert_eq!(pid, group);
        let callers = shell(ids, limit, Group::Callers).unwrap();
        assert_eq!(callers.split_once(' ').unwrap().1, nix::unistd::getpgrp().to_string());
    }

    #[test]
    fn a_plugin_in_its_callers_group_is_killed_alone() {
        let ended = shell("exec sleep 1000", Duration::from_millis(200), Group::Callers);
        assert!(matches!(ended, Err(ExecError::TimedOut { .. })), "{ended:?}");
    }
}
