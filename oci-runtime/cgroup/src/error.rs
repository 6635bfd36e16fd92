//! What can go wrong with a cgroup; every variant names the file or the cgroup.

use std::path::PathBuf;

use nix::errno::Errno;
use sys::signal::Number;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation on a cgroup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A directory or file could not be opened.
    #[error("open {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// A file could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The kernel refused a value.
    #[error("write {value:?} to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// Why.
        #[source]
        source: Errno,
    },
    /// A cgroup directory could not be made.
    #[error("make cgroup {path}")]
    Make {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// A file could not be given to its new owner.
    #[error("give {path} to user {user}")]
    Give {
        /// The file.
        path: PathBuf,
        /// The user.
        user: u32,
        /// Why.
        #[source]
        source: Errno,
    },
    /// A cgroup directory could not be removed in the given time; `EBUSY` means that a process is left in it.
    #[error("remove cgroup {path}")]
    Remove {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// A file of the kernel did not hold what its documentation says.
    #[error("{path} holds {text:?}, which is not {expected}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The part that was not understood.
        text: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// No cgroup hierarchy is mounted.
    #[error("no cgroup hierarchy is mounted: /sys/fs/cgroup is empty or not mounted")]
    NothingMounted,
    /// The host, or this crate, lacks something that was asked for.
    #[error("{what}")]
    Unsupported {
        /// What was asked for and what is missing.
        what: String,
    },
    /// A cgroup path that names nothing, or that no cgroup can have.
    #[error("cgroup path {path:?} {reason}")]
    BadPath {
        /// The path as given.
        path: String,
        /// Why it was refused.
        reason: &'static str,
    },
    /// A limit whose controller, or file, this host does not have.
    #[error("linux.resources.{field}: {missing}")]
    Missing {
        /// The field of [`crate::Resources`], in the words of the OCI runtime-spec.
        field: &'static str,
        /// What is missing.
        missing: String,
    },
    /// A limit that the kernel refused.
    #[error("linux.resources.{field}")]
    Limit {
        /// The field of [`crate::Resources`], in the words of the OCI runtime-spec.
        field: &'static str,
        /// Which file.
        #[source]
        source: Box<Error>,
    },
    /// A v2 cgroup that no process of a container can be put in.
    #[error("cgroup {path} {reason}")]
    Unusable {
        /// The cgroup.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The device program of a v2 cgroup could not be put into force.
    #[error("linux.resources.devices: limit the devices of cgroup {path}")]
    DeviceProgram {
        /// The cgroup.
        path: PathBuf,
        /// Which call.
        #[source]
        source: sys::Error,
    },
    /// A limit that no kernel would take.
    #[error("linux.resources.{field}: {reason}")]
    BadValue {
        /// The field of [`crate::Resources`], in the words of the OCI runtime-spec.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Creation found processes in a cgroup that was there already. The wording is runc's.
    #[error("container's cgroup is not empty: {count} process(es) found")]
    NotEmpty {
        /// How many.
        count: usize,
    },
    /// Creation found a frozen cgroup: processes put there would never run. The wording is runc's.
    #[error("container's cgroup unexpectedly frozen")]
    Frozen,
    /// The deadline passed before the processes had reached the wanted state.
    #[error("cgroup {path} is not {state} after {seconds} s")]
    Deadline {
        /// The cgroup.
        path: PathBuf,
        /// The awaited state.
        state: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// The mounts of the host could not be read.
    #[error("find the cgroup hierarchies")]
    Detect {
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// A process could not be signalled.
    #[error("send {signal} to process {pid}")]
    Signal {
        /// The signal.
        signal: Number,
        /// The process.
        pid: i32,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// A call on an event fd failed.
    #[error("{what}")]
    Call {
        /// What was tried.
        what: String,
        /// Why.
        #[source]
        source: Errno,
    },
}

impl Error {
    /// The errno beneath this error, where a system call is what failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Open { source, .. }
            | Error::Read { source, .. }
            | Error::Write { source, .. }
            | Error::Make { source, .. }
            | Error::Remove { source, .. }
            | Error::Give { source, .. }
            | Error::Call { source, .. } => Some(*source),
            Error::Limit { source, .. } => source.errno(),
            _ => None,
        }
    }

    /// True where the cgroup or the file is not there (any more): `ENOENT` by name, `ENODEV` through an fd that
    /// outlived its cgroup.
    pub fn is_gone(&self) -> bool {
        matches!(self.errno(), Some(Errno::ENOENT | Errno::ENODEV))
    }
}

/// Says which field of the config a failure is about, unless it says so itself.
pub(crate) fn in_field(field: &'static str) -> impl Fn(Error) -> Error {
    move |error| match error {
        Error::Missing { .. } | Error::BadValue { .. } | Error::DeviceProgram { .. } | Error::Limit { .. } => error,
        error => Error::Limit { field, source: Box::new(error) },
    }
}
