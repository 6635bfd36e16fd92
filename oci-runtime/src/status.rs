//! The status channel from a container's first process to its creator: its messages and what they decode to.

use std::fmt;

/// Why a container's process could not be set up or its program not be run, as the process itself told.
///
/// Displays the outermost message; the causes follow as `source()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartError {
    kind: StartErrorKind,
    message: String,
    cause: Option<Box<StartError>>,
}

/// What a client can make of a [`StartError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartErrorKind {
    /// The program, or its interpreter, is not there; a shell would say 127.
    NotFound,
    /// The program is there and can't be executed; a shell would say 126.
    NotExecutable,
    /// Everything before: a mount, an id, a limit.
    Setup,
}

impl StartError {
    /// Decodes what was read from [`Created::status`](crate::Created::status) after the start; `None` for end of
    /// file: the program runs.
    pub fn from_status(bytes: &[u8]) -> Option<StartError> {
        if bytes.is_empty() {
            return None;
        }
        let message = String::from_utf8_lossy(bytes).into_owned();
        Some(StartError { kind: StartErrorKind::Setup, message, cause: None })
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> StartErrorKind {
        self.kind
    }

    /// The exit code that a shell would give for it.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            StartErrorKind::NotFound => 127,
            StartErrorKind::NotExecutable => 126,
            StartErrorKind::Setup => 1,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}
