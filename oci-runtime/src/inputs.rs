//! What [`create`](crate::create) and [`exec`](crate::exec) are given besides the plan, and what they give back.

use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cgroup::Layout;

use crate::resctrl::Groups;
use crate::seccomp_filter::Filter;
use crate::state::Identity;

/// Everything of [`create`](crate::create) that a config.json can't hold.
pub struct Inputs<'a> {
    /// Whose process it is, for hooks and seccomp agents.
    pub identity: Identity,
    /// What hooks in the caller's namespaces have that are given no environment of their own.
    pub environment: Vec<CString>,
    /// Where hooks find the root file system in the container's mount namespace if it is none of [`Root::Path`]: an empty
    /// directory. They find it nowhere without one.
    pub root_at: Option<PathBuf>,
    /// The root file system.
    pub root: Root,
    /// Standard streams; ignored when the process has a terminal.
    pub stdio: StdioFds,
    /// The system call filter. `None`: the plan's profile, if it has one, is compiled now.
    pub seccomp: Option<Filter>,
    /// Whose child the container becomes.
    pub parent: Parent,
    /// What the created container waits for.
    pub gate: Gate,
    /// A detached tmpfs of the pod, of which a clone is mounted at this path of the container, for example
    /// `/dev/shm`, after the config's mounts. A mount of the config at the same path is left out.
    pub shared_memory: Option<(PathBuf, OwnedFd)>,
    /// An `oom_score_adj` that the host refuses (no `CAP_SYS_RESOURCE`) is left as it was instead of an error.
    pub best_effort_oom_score: bool,
    /// An rlimit above what the host allows is clamped to it instead of an error.
    pub best_effort_rlimits: bool,
    /// How many fds from 3 on the program inherits; they must be open.
    pub preserve_fds: u32,
    /// The process stays in the caller's session keyring instead of getting one of its own (session-keyring(7)).
    pub keep_keyring: bool,
    /// A program that is missing or not executable is told by the start, on [`Created::status`], instead of by `create`:
    /// clients of the CRI look for it there.
    pub program_at_start: bool,
    /// Called with the name of each stage before it begins, for example `open volume /mnt/nfs/data`.
    pub progress: &'a mut dyn FnMut(&str),
    /// The host's cgroup hierarchies; `None` looks for them, which takes longer the more mounts there are.
    pub cgroups: Option<Layout>,
    /// Called once the cgroup is there and was found unused: from here on what is in it is the container's.
    pub cgroup_made: Option<&'a mut dyn FnMut()>,
    /// Called with each group of resctrl that is about to be made for the container.
    pub group_announced: Option<&'a mut dyn FnMut(&Path)>,
    /// See [`Born`].
    pub born: Option<&'a mut Born<'a>>,
}

/// Called with the number and the pidfd of the new process as soon as there is one. A caller that may itself be killed
/// halfway can so leave word of whom to end.
pub type Born<'a> = dyn FnMut(i32, BorrowedFd<'_>) + 'a;

impl<'a> Inputs<'a> {
    /// The strict defaults: a plain child behind a pipe, no streams, nothing shared, nothing best effort.
    pub fn new(root: Root, progress: &'a mut dyn FnMut(&str)) -> Self {
        Inputs {
            identity: Identity::default(),
            environment: Vec::new(),
            root_at: None,
            root,
            stdio: StdioFds::default(),
            seccomp: None,
            parent: Parent::Caller,
            gate: Gate::Pipe,
            shared_memory: None,
            best_effort_oom_score: false,
            best_effort_rlimits: false,
            preserve_fds: 0,
            keep_keyring: false,
            program_at_start: false,
            progress,
            cgroups: None,
            cgroup_made: None,
            group_announced: None,
            born: None,
        }
    }
}

/// Everything of [`exec`](crate::exec) that a process object can't hold; fields as in [`Inputs`].
pub struct ExecInputs<'a> {
    /// See [`Inputs::identity`].
    pub identity: Identity,
    /// Standard streams; ignored when the process has a terminal.
    pub stdio: StdioFds,
    /// The system call filter; `None` for none.
    pub seccomp: Option<Filter>,
    /// Whose child the process becomes.
    pub parent: Parent,
    /// See [`Inputs::best_effort_oom_score`].
    pub best_effort_oom_score: bool,
    /// See [`Inputs::best_effort_rlimits`].
    pub best_effort_rlimits: bool,
    /// See [`Inputs::preserve_fds`].
    pub preserve_fds: u32,
    /// See [`Inputs::keep_keyring`].
    pub keep_keyring: bool,
    /// See [`Inputs::cgroups`].
    pub cgroups: Option<Layout>,
    /// Cgroups below the container's that the process joins, each in the hierarchy of a controller, or in all.
    pub below: Vec<(Option<String>, String)>,
    /// See [`Inputs::progress`].
    pub progress: &'a mut dyn FnMut(&str),
    /// See [`Born`].
    pub born: Option<&'a mut Born<'a>>,
}

impl<'a> ExecInputs<'a> {
    /// The strict defaults.
    pub fn new(progress: &'a mut dyn FnMut(&str)) -> Self {
        ExecInputs {
            identity: Identity::default(),
            stdio: StdioFds::default(),
            seccomp: None,
            parent: Parent::Caller,
            best_effort_oom_score: false,
            best_effort_rlimits: false,
            preserve_fds: 0,
            keep_keyring: false,
            cgroups: None,
            below: Vec::new(),
            progress,
            born: None,
        }
    }
}

/// Where the root file system comes from.
#[derive(Debug)]
pub enum Root {
    /// A directory of the host.
    Path(PathBuf),
    /// A detached mount (`fsmount` or `OPEN_TREE_CLONE`); it is attached in the container's mount namespace only.
    Mount(OwnedFd),
}

/// The standard streams; `None` is `/dev/null`.
#[derive(Debug, Default)]
pub struct StdioFds {
    /// fd 0.
    pub stdin: Option<OwnedFd>,
    /// fd 1.
    pub stdout: Option<OwnedFd>,
    /// fd 2.
    pub stderr: Option<OwnedFd>,
}

impl StdioFds {
    /// Whether one of them is `/dev/null`.
    pub(crate) fn needs_null(&self) -> bool {
        self.stdin.is_none() || self.stdout.is_none() || self.stderr.is_none()
    }
}

/// Whose child the new process becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// The caller's.
    Caller,
    /// The caller's parent's (`CLONE_PARENT`): the shim calls from a short-lived stage child.
    CallersParent,
}

/// What a created container waits for before it runs its program.
#[derive(Debug, PartialEq, Eq)]
pub enum Gate {
    /// One byte in a pipe, [`Created::start`]; if the pipe is closed without it, the container ends.
    Pipe,
    /// A reader of this FIFO, which sees one byte, as runc's `exec.fifo`: the starter may be any process.
    Fifo(PathBuf),
}

/// The running container that [`exec`](crate::exec) joins.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its first process, in the caller's PID namespace.
    pub pid: i32,
    /// That process's start time (field 22 of `/proc/<pid>/stat`): a recycled pid is refused.
    pub start_time: u64,
    /// Its cgroup, as in `linux.cgroupsPath`; `None` stays in the caller's.
    pub cgroup: Option<String>,
    /// [`Groups::joined`] of the container.
    pub resctrl: Vec<PathBuf>,
}

/// A process that waits for its start, or, from `exec`, one that runs.
#[derive(Debug)]
pub struct Created {
    /// In the caller's PID namespace.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`, clock ticks since boot.
    pub start_time: u64,
    /// Its pidfd.
    pub pidfd: Option<OwnedFd>,
    /// Write one byte to run the program; `None` behind a FIFO and from `exec`.
    pub start: Option<OwnedFd>,
    /// After the start: end of file once the program runs, or one message, which
    /// [`StartError::from_status`](crate::StartError::from_status) decodes, when it can't run. Packets, not a stream:
    /// one `read` with room for 64 KiB gets the whole message.
    pub status: OwnedFd,
    /// The terminal's master, when the process has one.
    pub console: Option<OwnedFd>,
    /// Its groups in resctrl; empty from `exec`.
    pub resctrl: Groups,
    /// What was strange but no failure, for the caller's log.
    pub warnings: Vec<String>,
}
