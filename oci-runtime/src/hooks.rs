//! Running hooks: each gets the container's state on its standard input and nothing else of ours.
//!
//! One after the other, in the order of the config; each is waited for. What they print is kept for the error of one that
//! fails, as runc does. A hook dies with the process that runs it, so that whoever is killed at a deadline leaves none.

use std::ffi::CString;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use sys::Errno;
use sys::poll::Interest;
use sys::process::{CloneArgs, Exit, Fork, Pid, PidFd, Signal, SingleThread};
use sys::rootfd::RootFd;

use crate::error::{Error, Step};
use crate::plan::{Hook, Hooks};
use crate::state::State;

/// How much of each stream of a hook is kept, its end.
const KEPT_OUTPUT: usize = 4096;

/// Why a hook is a failure.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It ended with something else than 0.
    #[error("{path}: {exit}, stdout: {stdout}, stderr: {stderr}")]
    Failed {
        /// The program.
        path: String,
        /// In Go's words, which are in runc's messages: `exit status 1`.
        exit: String,
        /// The end of what it printed.
        stdout: String,
        /// The end of what it complained of.
        stderr: String,
    },
    /// It took too long and was killed.
    #[error("{path}: hook ran past specified timeout of {:.1}s", timeout.as_secs_f64())]
    TimedOut {
        /// The program.
        path: String,
        /// What it had.
        timeout: Duration,
    },
    /// It could not be executed.
    #[error("fork/exec {path}: {why}")]
    NotRun {
        /// The program.
        path: String,
        /// As its process told it.
        why: String,
    },
    /// It could not be run, or not be waited for.
    #[error("{path}")]
    Broken {
        /// The program.
        path: String,
        /// The call.
        #[source]
        source: sys::Error,
    },
}

/// Runs the `poststart` hooks, in the caller's namespaces; to be called when the container's program runs.
///
/// `environment` is for hooks without one of their own. The caller must have one thread.
///
/// # Errors
/// The first one that failed; the container is to be stopped then.
pub fn poststart(hooks: &Hooks, state: &State<'_>, environment: &[CString]) -> Result<(), Error> {
    if hooks.poststart.is_empty() {
        return Ok(());
    }
    let bundle = open_bundle(state);
    Series::of_caller("poststart", &hooks.poststart, bundle.as_ref(), environment).run(state, &alone()?, &mut |_| ())
}

/// Runs the `poststop` hooks, in the caller's namespaces; to be called when the container is gone. A failing one keeps none of the
/// others from running.
///
/// See [`poststart`].
pub fn poststop(hooks: &Hooks, state: &State<'_>, environment: &[CString]) -> Vec<Error> {
    if hooks.poststop.is_empty() {
        return Vec::new();
    }
    let bundle = open_bundle(state);
    let series = Series::of_caller("poststop", &hooks.poststop, bundle.as_ref(), environment);
    match alone() {
        Err(error) => vec![error],
        Ok(alone) => series.run_all(state, &alone, &mut |_| ()).filter_map(Result::err).collect(),
    }
}

/// The variables of the calling process, which hooks without an environment of their own get, as those of runc do.
pub fn own_environment() -> Vec<CString> {
    use std::os::unix::ffi::OsStrExt;
    let entry = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
    };
    std::env::vars_os().filter_map(entry).collect()
}

/// The proof that this process may clone.
pub(crate) fn alone() -> Result<SingleThread, Error> {
    sys::process::require_single_thread().step(|| "count threads".to_owned())
}

/// The hooks of one kind, and where they run.
pub(crate) struct Series<'a> {
    /// As in the config.
    pub(crate) kind: &'static str,
    pub(crate) hooks: &'a [Hook],
    /// `None` is the caller's own.
    pub(crate) directory: Option<BorrowedFd<'a>>,
    /// `None` is the caller's own.
    pub(crate) umask: Option<u32>,
    /// For those without one of their own.
    pub(crate) environment: &'a [CString],
}

/// Where hooks of the caller's namespaces begin, as with runc. One that is gone is no failure: they have its path.
pub(crate) fn open_bundle(state: &State<'_>) -> Option<RootFd> {
    RootFd::open(state.bundle()).ok()
}

impl<'a> Series<'a> {
    /// In the caller's namespaces.
    pub(crate) fn of_caller(
        kind: &'static str,
        hooks: &'a [Hook],
        bundle: Option<&'a RootFd>,
        environment: &'a [CString],
    ) -> Series<'a> {
        Series { kind, hooks, directory: bundle.map(AsFd::as_fd), umask: None, environment }
    }

    /// Runs them until one fails.
    pub(crate) fn run(
        &self,
        state: &State<'_>,
        alone: &SingleThread,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(), Error> {
        self.run_all(state, alone, progress).collect()
    }

    /// Runs each as its result is asked for.
    fn run_all(
        &self,
        state: &State<'_>,
        alone: &SingleThread,
        progress: &mut dyn FnMut(&str),
    ) -> impl Iterator<Item = Result<(), Error>> {
        let kind = self.kind;
        self.hooks.iter().enumerate().map(move |(index, hook)| {
            progress(&format!("run {kind} hook #{index} {}", hook.path.to_string_lossy()));
            self.run_one(hook, state, alone).map_err(|source| Error::Hook { kind, index, source: Box::new(source) })
        })
    }

    fn run_one(&self, hook: &Hook, state: &State<'_>, alone: &SingleThread) -> Result<(), HookError> {
        let path = || hook.path.to_string_lossy().into_owned();
        let mut running =
            self.start(hook, state, alone).map_err(|source| HookError::Broken { path: path(), source })?;
        let ended = running.wait(hook.timeout).map_err(|source| HookError::Broken { path: path(), source })?;
        let [why, stdout, stderr] = running.outputs.map(Output::text);
        match (ended, hook.timeout) {
            (None, timeout) => Err(HookError::TimedOut { path: path(), timeout: timeout.unwrap_or_default() }),
            (Some(_), _) if !why.is_empty() => Err(HookError::NotRun { path: path(), why }),
            (Some(exit), _) if exit.is_success() => Ok(()),
            (Some(exit), _) => Err(HookError::Failed { path: path(), exit: words(exit), stdout, stderr }),
        }
    }

    fn start(&self, hook: &Hook, state: &State<'_>, alone: &SingleThread) -> sys::Result<Running> {
        let state = serde_json::to_vec(state).unwrap_or_default();
        let mut stdin = File::from(sys::fd::sealed_memfd(c"state", &state, false)?);
        stdin.rewind().map_err(|error| sys::Error::from_io("lseek", &error, sys::error::fd(&stdin)))?;
        let (failure, told) = sys::fd::pipe()?;
        let (stdout, stdout_of_hook) = sys::fd::pipe()?;
        let (stderr, stderr_of_hook) = sys::fd::pipe()?;
        for output in [&failure, &stdout, &stderr] {
            sys::fd::set_nonblocking(output, true)?;
        }
        let (told, parent) = (File::from(told), Pid::this());
        match fork(alone)? {
            Fork::Child => {
                let streams = [stdin.as_fd(), stdout_of_hook.as_fd(), stderr_of_hook.as_fd()];
                self.become_hook(hook, streams, &told, parent)
            }
            Fork::Parent(child) => {
                let pidfd = match child.pidfd {
                    Some(pidfd) => pidfd,
                    None => PidFd::open(child.pid)?,
                };
                Ok(Running { pidfd, outputs: [failure, stdout, stderr].map(Output::new) })
            }
        }
    }

    /// The hook's process, up to its program.
    fn become_hook(&self, hook: &Hook, streams: [BorrowedFd<'_>; 3], told: &File, parent: Pid) -> ! {
        let run = || {
            sys::signal::reset_all()?;
            sys::process::set_pdeathsig(Some(Signal::SIGKILL))?;
            if Pid::parent() != parent {
                // Too late to be told of its end.
                sys::process::exit_now(NOT_RUN);
            }
            if let Some(directory) = &self.directory {
                sys::process::change_directory(directory)?;
            }
            if let Some(mask) = self.umask {
                sys::credentials::set_umask(mask);
            }
            sys::fd::install_table(&streams, Vec::new())?;
            // What the caller passes through to a program is not for hooks.
            sys::fd::close_all_but(streams.len() as u32, &[told.as_fd()])?;
            sys::process::execve(&hook.path, &hook.args, hook.env.as_deref().unwrap_or(self.environment))
        };
        let Err(error) = run();
        let why = match error.call() {
            "execve" => error.errno().desc().to_lowercase(),
            _ => error.to_string(),
        };
        // Nobody is left who would hear of a failure here.
        let _ = { told }.write_all(why.as_bytes());
        sys::process::exit_now(NOT_RUN)
    }
}

/// The exit code of a process that could not become its hook, as a shell's.
const NOT_RUN: i32 = 127;

/// With its pidfd; where a filter knows no clone3, as that of most engines, it is opened afterwards.
fn fork(alone: &SingleThread) -> sys::Result<Fork> {
    match sys::process::clone3_alone(&CloneArgs { pidfd: true, ..CloneArgs::default() }, alone) {
        Err(error) if error.is(Errno::ENOSYS) || error.is(Errno::EPERM) => sys::process::fork_alone(alone),
        forked => forked,
    }
}

/// A hook that was started.
struct Running {
    pidfd: PidFd,
    /// Why it was not executed, what it prints, what it complains of.
    outputs: [Output; 3],
}

impl Running {
    /// Until it has ended, however long others hold its streams open and whatever they write. `None` if it had to be killed.
    fn wait(&mut self, timeout: Option<Duration>) -> sys::Result<Option<Exit>> {
        let deadline = sys::poll::deadline(timeout);
        loop {
            let mut files = vec![(self.pidfd.as_fd(), Interest::READ)];
            files
                .extend(self.outputs.iter().filter_map(|output| Some((output.file.as_ref()?.as_fd(), Interest::READ))));
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let is_last_look = left.is_some_and(|left| left.is_zero());
            let ready = sys::poll::poll(&files, left)?;
            let ended = ready.first().is_some_and(|process| !process.is_empty());
            self.outputs.iter_mut().for_each(Output::take);
            if ended {
                return self.pidfd.wait().map(Some);
            }
            // It may have ended in time while nobody let us look.
            if is_last_look {
                self.pidfd.send_signal(Signal::SIGKILL)?;
                return self.pidfd.wait().map(|_| None);
            }
        }
    }
}

/// One of a hook's outputs; the reading end does not wait.
struct Output {
    /// `None` at its end.
    file: Option<File>,
    end: Vec<u8>,
}

impl Output {
    fn new(file: OwnedFd) -> Output {
        Output { file: Some(file.into()), end: Vec::new() }
    }

    /// What is there, a pipe of it at most: who writes without end must not keep us from looking at anything else.
    fn take(&mut self) {
        const PIPE: usize = 65_536;
        let mut buffer = [0; KEPT_OUTPUT];
        for _ in 0..PIPE / KEPT_OUTPUT {
            let Some(file) = &mut self.file else { return };
            match file.read(&mut buffer) {
                Ok(length @ 1..) => {
                    self.end.extend_from_slice(&buffer[..length]);
                    self.end.drain(..self.end.len().saturating_sub(KEPT_OUTPUT));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => self.file = None,
            }
        }
    }

    fn text(self) -> String {
        String::from_utf8_lossy(&self.end).into_owned()
    }
}

/// As Go says it.
fn words(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit status {code}"),
        Exit::Signal { signal, core_dumped } => {
            let core = if core_dumped { " (core dumped)" } else { "" };
            format!("signal: {signal}{core}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More output than anybody can read.
    fn endless() -> Output {
        Output::new(File::open("/dev/zero").expect("the zero device").into())
    }

    #[expect(clippy::zombie_processes, reason = "it is reaped by its pidfd")]
    fn running(program: &str, argument: &str) -> Running {
        let child = std::process::Command::new(program).arg(argument).spawn().expect("a process");
        let pidfd = PidFd::open(Pid::from_raw(child.id() as i32)).expect("its pidfd");
        Running { pidfd, outputs: [endless(), endless(), endless()] }
    }

    #[test]
    fn a_hook_is_killed_at_its_deadline_however_much_it_writes() {
        let begun = Instant::now();
        let ended = running("sleep", "100").wait(Some(Duration::from_millis(50))).unwrap();
        assert_eq!(ended, None);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_hook_is_over_when_it_ends_however_much_its_children_write() {
        let ended = running("sleep", "0").wait(None).unwrap();
        assert_eq!(ended, Some(Exit::Code(0)));
    }
}
