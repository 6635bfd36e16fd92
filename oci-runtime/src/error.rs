//! What [`create`](crate::create) and [`exec`](crate::exec) fail with, and the container's own process before it tells.

use crate::StartError;
use crate::program::ProgramError;
use crate::status::StartErrorKind;

/// The failure of a verb; the chain of `source()` tells the whole story.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{step}")]
    Step {
        /// What was tried with which thing, for example `mount proc on /proc`.
        step: String,
        /// The call.
        #[source]
        source: sys::Error,
    },
    /// The cgroup could not be made, limited or joined.
    #[error("{step}")]
    Cgroup {
        /// What was tried.
        step: String,
        /// Which file.
        #[source]
        source: cgroup::Error,
    },
    /// The system call filter could not be made.
    #[error("compile linux.seccomp")]
    Seccomp(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The container has ended, before or while it was joined.
    #[error("the container is not running")]
    NotRunning(#[source] Box<Error>),
    /// A hook failed.
    #[error("error running {kind} hook #{index}")]
    Hook {
        /// `createRuntime`, …
        kind: &'static str,
        /// Its place in the config's list.
        index: usize,
        /// How.
        #[source]
        source: Box<crate::hooks::HookError>,
    },
    /// Refused by us.
    #[error("{0}")]
    Refused(String),
    /// The container's own process failed and told why.
    #[error(transparent)]
    Container(#[from] StartError),
    /// It ended without a word.
    #[error("the container's new process died during {stage} before it could say why{hint}")]
    Silent {
        /// The last stage that it named.
        stage: String,
        /// What its cgroup tells, if anything.
        hint: String,
    },
}

impl Error {
    /// 127 when the program is missing, 126 when it can't be executed, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Container(error) => error.exit_code(),
            _ => 1,
        }
    }

    /// The same for the status channel.
    pub(crate) fn to_start_error(&self) -> StartError {
        match self {
            Error::Container(error) => error.clone(),
            error => StartError::new(StartErrorKind::Setup, error),
        }
    }
}

impl From<ProgramError> for Error {
    fn from(error: ProgramError) -> Error {
        Error::Container(StartError::new(error.kind(), &error))
    }
}

/// Names the step that a call belongs to.
pub(crate) trait Step<T> {
    /// `what` is only made when it failed.
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Step<T> for sys::Result<T> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Step { step: what(), source })
    }
}

impl<T> Step<T> for cgroup::Result<T> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Cgroup { step: what(), source })
    }
}
