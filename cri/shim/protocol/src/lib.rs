//! The messages between the `cri` daemon and a pod's `orlop-shim`.
//!
//! Transport: an `AF_UNIX` `SOCK_SEQPACKET` socket at `<state>/shim/<sandbox>/shim.sock` (0600). One message is one
//! datagram: a JSON object of at most [`MAX_MESSAGE`] bytes, with file descriptors beside it (`SCM_RIGHTS`). Everything
//! that may be large (an OCI spec, a process, a BPF program) travels as a sealed memfd, so that no message comes near
//! the limit.
//!
//! The daemon sends [`Request`]s, the shim answers each with one [`Reply`] of the same id, in any order, and sends
//! [`Event`]s to every connection that said [`Verb::Hello`] with `subscribe`. Shims live for months and outlive the
//! daemon that started them: unknown fields are ignored, fields are only ever added, with a default.
//!
//! This crate holds types and their encoding; it does no I/O.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The protocol's version; both sides speak the lower of the two that [`Hello`] exchanges.
pub const VERSION: u32 = 1;

/// The longest message, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// What the daemon asks for. File descriptors beside it are named, in order, by the verb's documentation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the daemon, unique on its connection; the reply carries it back.
    pub id: u64,
    /// How long the verb may take, in milliseconds; then its stage child is killed and the reply is
    /// [`ErrorKind::Deadline`] with the stages that it went through.
    pub deadline_ms: u64,
    /// What to do.
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Introduces the daemon and asks for the whole state. Reply: [`Answer::Hello`].
    Hello(Hello),
    /// Makes the sandbox: namespaces, hostname, sysctls, `/dev/shm`, the reaper. Once, before any other verb but
    /// `Hello`. Reply: [`Answer::Sandbox`], with the network namespace's fd beside it unless it is the host's.
    /// A shim whose sandbox could not be started ends after the reply.
    /// Below kernel 6.15 the `/dev/shm` is mounted at `shm` in the shim's directory; if the shim is killed, the daemon
    /// unmounts it.
    StartSandbox(Sandbox),
    /// Creates a container up to the point where only its program is missing.
    /// Fds: `spec` (sealed memfd with the OCI config.json), `rootfs` (a detached mount), then `seccomp` (sealed memfd
    /// with the BPF program) if [`Create::seccomp`]. Reply: [`Answer::Process`].
    Create(Box<Create>),
    /// Runs the created container's program. Reply: [`Answer::Done`], or [`ErrorKind::Start`] when it can't run, after
    /// its [`Event::Exited`]. A program that does not run by the deadline is killed.
    Start(ContainerRef),
    /// Runs another process in a running container.
    /// Fds: `process` (sealed memfd with the OCI `process` object), then `stdin`, `stdout`, `stderr`, of which those that
    /// [`Exec::stdio`] names are sent; then `seccomp` if [`Exec::seccomp`]. Reply: [`Answer::Process`], with
    /// the pty's master beside it if the process has a terminal.
    Exec(Box<Exec>),
    /// Sends a signal to a container's first process, or to all in its cgroup. Reply: [`Answer::Done`];
    /// a container that has ended is [`ErrorKind::NotRunning`].
    Kill(Kill),
    /// Sends a signal to an exec'd process. Reply: [`Answer::Done`].
    KillExec(KillExec),
    /// Applies an OCI `linux.resources` object to a created or running container.
    /// Fds: `resources` (sealed memfd). Reply: [`Answer::Done`].
    Update(ContainerRef),
    /// Switches a running container's log to a new file at its path. Reply: [`Answer::Done`].
    ReopenLog(ContainerRef),
    /// Connects a client to a running container's stdio, or to its terminal.
    /// Fds: `stdin` (read end), `stdout`, `stderr` (write ends), of which those that [`Attach::stdio`] names are sent.
    /// Reply: [`Answer::Done`]; the fds are closed when the container ends or the client falls 1 MiB behind.
    Attach(Attach),
    /// Sets a terminal's size. Reply: [`Answer::Done`].
    Resize(Resize),
    /// Forgets an ended container: its cgroup, exit record and log fd. A created or running one is
    /// [`ErrorKind::Running`] unless `force`, which kills it first. Reply: [`Answer::Done`].
    Delete(Delete),
    /// Kills all containers and the reaper, waits for them, removes their cgroups and ends the shim after the reply. Exit
    /// records stay. Reply: [`Answer::Done`]; after a failure it can be asked for again.
    StopSandbox,
}

impl Verb {
    /// The verb in words, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Verb::Hello(_) => "hello",
            Verb::StartSandbox(_) => "start sandbox",
            Verb::Create(_) => "create",
            Verb::Start(_) => "start",
            Verb::Exec(_) => "exec",
            Verb::Kill(_) => "kill",
            Verb::KillExec(_) => "kill exec",
            Verb::Update(_) => "update",
            Verb::ReopenLog(_) => "reopen log",
            Verb::Attach(_) => "attach",
            Verb::Resize(_) => "resize",
            Verb::Delete(_) => "delete",
            Verb::StopSandbox => "stop sandbox",
        }
    }
}

/// See [`Verb::Hello`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The daemon's [`VERSION`].
    pub version: u32,
    /// Whether this connection wants [`Event`]s.
    pub subscribe: bool,
}

/// See [`Verb::StartSandbox`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sandbox {
    /// The sandbox's id.
    pub id: String,
    /// Makes a network namespace of its own (else the host's is kept) and sets its loopback up.
    pub network: bool,
    /// Makes an IPC namespace of its own.
    pub ipc: bool,
    /// Makes a UTS namespace of its own, with this host name; `None` keeps the host's.
    pub hostname: Option<String>,
    /// `name` (dotted) to value, set inside the namespaces before anything runs; the daemon has checked them.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Size of the `/dev/shm` that the pod's containers share, in bytes; `None` when the pod shares the host's.
    pub shm_bytes: Option<u64>,
    /// Present when the pod's containers share a PID namespace: its first process.
    pub reaper: Option<Reaper>,
}

/// The first process of a shared PID namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reaper {
    /// Its cgroup, as in OCI's `linux.cgroupsPath`.
    pub cgroup: String,
    /// oom_score_adj, best effort: lowering may need a capability that the host lacks.
    pub oom_score_adj: Option<i32>,
}

/// See [`Verb::Create`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Create {
    /// The container's id.
    pub container: String,
    /// The CRI log file, absolute; `None` throws output away. Its directory is made if missing.
    pub log_path: Option<PathBuf>,
    /// Keep a pipe to standard input open for attach clients; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// Close standard input when the first attach client that had it leaves.
    pub stdin_once: bool,
    /// Whether a `seccomp` fd is sent.
    pub seccomp: bool,
    /// How its program is loaded.
    #[serde(default)]
    pub filter: Filter,
    /// The pod's `/dev/shm` is mounted at this path of the container.
    pub shm: Option<PathBuf>,
    /// What bind mount sources need before the spec's mounts are made; a source that hangs hangs only this verb.
    #[serde(default)]
    pub sources: Vec<Source>,
    /// Writes to `/proc/<pid>/oom_score_adj` that the host refuses are tolerated (no CAP_SYS_RESOURCE).
    #[serde(default)]
    pub best_effort_oom_score: bool,
    /// Resource limits above what the host allows are clamped to that.
    #[serde(default)]
    pub best_effort_rlimits: bool,
}

/// A bind mount's source on the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Absolute path on the host; symbolic links are followed.
    pub path: PathBuf,
    /// Make a directory there if nothing is.
    pub create_missing: bool,
    /// What the mount that holds it must allow.
    pub require: Option<Propagation>,
}

/// Propagation that a host mount must have (CRI `MountPropagation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Propagation {
    /// Shared: mounts of the container are to appear on the host.
    Shared,
    /// Shared or slave: mounts of the host are to appear in the container.
    SharedOrSlave,
}

/// Names a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerRef {
    /// The container's id.
    pub container: String,
}

/// See [`Verb::Exec`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// The running container.
    pub container: String,
    /// Chosen by the daemon, unique in the pod.
    pub exec: String,
    /// Which stdio fds are sent; the others are `/dev/null`. Ignored with a terminal.
    pub stdio: Stdio,
    /// The process gets a terminal; its master is sent with the reply.
    pub terminal: bool,
    /// Whether a `seccomp` fd is sent.
    pub seccomp: bool,
    /// How its program is loaded.
    #[serde(default)]
    pub filter: Filter,
}

/// How the program of a `seccomp` fd is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Filter {
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// Who decides where the program asks (`SCMP_ACT_NOTIFY`).
    pub listener: Option<Listener>,
}

/// Who gets the fd on which a filter asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// A Unix socket of the host.
    pub path: PathBuf,
    /// Sent along, as it is.
    pub metadata: String,
}

/// Which of the three standard streams have an fd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stdio {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// See [`Verb::Kill`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kill {
    /// The container.
    pub container: String,
    /// Linux signal number.
    pub signal: i32,
    /// Every process in the container's cgroup instead of its first.
    pub all: bool,
}

/// See [`Verb::KillExec`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KillExec {
    /// The exec's id.
    pub exec: String,
    /// Linux signal number.
    pub signal: i32,
}

/// See [`Verb::Attach`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attach {
    /// The running container.
    pub container: String,
    /// Which fds are sent. With a terminal `stderr` must be false.
    pub stdio: Stdio,
}

/// See [`Verb::Resize`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resize {
    /// The container with the terminal.
    pub container: String,
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// See [`Verb::Delete`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delete {
    /// The container.
    pub container: String,
    /// Kill it first if it runs.
    pub force: bool,
}

/// What the shim sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The answer to a request.
    Reply(Reply),
    /// Something happened.
    Event(Event),
}

/// The answer to the request with this id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's id.
    pub id: u64,
    /// What came of it.
    pub result: Result<Answer, Failure>,
}

/// A verb's success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done, nothing to tell.
    Done,
    /// The whole state.
    Hello(Box<State>),
    /// The sandbox runs.
    Sandbox(SandboxProcess),
    /// A process was made.
    Process(Process),
}

/// A process: a number is only ever used together with its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// In the host's PID namespace.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`, clock ticks since boot.
    pub start_time: u64,
}

/// The shim and the reaper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxProcess {
    /// The shim, which is in the pod's network, IPC and UTS namespaces.
    pub shim: Process,
    /// The first process of the pod's PID namespace.
    pub reaper: Option<Process>,
}

/// All that the shim knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The shim's [`VERSION`].
    pub version: u32,
    /// What [`Verb::StartSandbox`] asked for and what came of it; `None` before it.
    pub sandbox: Option<(Sandbox, SandboxProcess)>,
    /// False once the reaper has died: the sandbox is not ready.
    pub ready: bool,
    /// Ids and states of the containers. More than fit into one message are never held: a pod's containers
    /// are bounded at 200.
    pub containers: BTreeMap<String, ContainerState>,
}

/// Where a container is in its life.
///
/// ```text
/// Create ──▶ Created ──Start──▶ Running ──▶ Exited ──Delete──▶ (forgotten)
///               └──────── Delete{force}, death ────▲
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Everything but the program is there.
    Created(Process),
    /// The program runs.
    Running(Process),
    /// It ended, and so did all in its cgroup if it shares a PID namespace.
    Exited(Exit),
}

/// How a process ended. On disk this is the exit record, `exits/<container>.json`, written before anyone is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Who.
    pub process: Process,
    /// Exit status, or 128 + the signal.
    pub code: i32,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// The kernel's OOM killer killed something in its cgroup.
    pub oom_killed: bool,
    /// When its program was started, nanoseconds since 1970; 0 if it never was.
    pub started_at: i64,
    /// When the shim reaped it, nanoseconds since 1970.
    pub finished_at: i64,
}

/// A verb's failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What the daemon can do about it.
    pub kind: ErrorKind,
    /// One sentence that names what was tried with which thing; the chain of causes after colons.
    pub message: String,
    /// The stages that the verb went through, with how long each took, the last one being where it failed.
    #[serde(default)]
    pub stages: Vec<Stage>,
}

/// A step of a verb.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// For example `open volume /mnt/nfs/data`.
    pub name: String,
    /// Milliseconds spent in it so far.
    pub ms: u64,
}

/// Classes of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// No container or exec of that id.
    NotFound,
    /// That id is in use.
    Exists,
    /// The container is not running.
    NotRunning,
    /// The container is created or running.
    Running,
    /// The request makes no sense: the spec, a path, a limit.
    Invalid,
    /// The kernel or this version lacks what is asked for.
    Unsupported,
    /// The program can't be run; the container is in state exited with code 128.
    Start,
    /// The deadline passed; `stages` tells where.
    Deadline,
    /// Everything else.
    Internal,
}

/// What the shim tells on its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A container ended; its exit record is on disk.
    Exited {
        /// The container.
        container: String,
        /// How.
        exit: Exit,
    },
    /// An exec'd process ended.
    ExecExited {
        /// The exec's id.
        exec: String,
        /// How.
        exit: Exit,
    },
    /// The kernel's OOM killer was at work in the container's cgroup.
    Oom {
        /// The container.
        container: String,
    },
    /// The reaper died: the sandbox is not ready, all its containers are being killed by the kernel.
    ReaperDied,
}

/// A message that can't be sent or read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Longer than [`MAX_MESSAGE`].
    #[error("message of {0} bytes is longer than {MAX_MESSAGE}")]
    TooLong(usize),
    /// Not what this version understands.
    #[error("decode message")]
    Decode(#[source] serde_json::Error),
}

/// The datagram for a message.
///
/// # Errors
/// [`CodecError::TooLong`]: the message does not fit.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = serde_json::to_vec(message).map_err(CodecError::Decode)?;
    if bytes.len() > MAX_MESSAGE {
        return Err(CodecError::TooLong(bytes.len()));
    }
    Ok(bytes)
}

/// The message in a datagram.
///
/// # Errors
/// [`CodecError::Decode`]: not JSON, or not a message of ours.
pub fn decode<'a, T: Deserialize<'a>>(datagram: &'a [u8]) -> Result<T, CodecError> {
    serde_json::from_slice(datagram).map_err(CodecError::Decode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_of_a_newer_daemon_are_ignored() {
        let request: Request =
            decode(br#"{"id":7,"deadline_ms":1000,"new":true,"verb":{"start":{"container":"a","also_new":[1]}}}"#)
                .unwrap();
        assert_eq!(request.verb, Verb::Start(ContainerRef { container: "a".into() }));
    }

    #[test]
    fn a_message_over_the_limit_is_refused_before_it_is_sent() {
        let message = Failure { kind: ErrorKind::Internal, message: "x".repeat(MAX_MESSAGE), stages: vec![] };
        assert!(matches!(encode(&message), Err(CodecError::TooLong(n)) if n > MAX_MESSAGE));
    }
}
