//! The status channel: what a container's first process tells its creator.
//!
//! A `SOCK_SEQPACKET` pair, one message per packet: the name of each stage before it begins, what the creator shall do for
//! it meanwhile, then either "ready" or an error; after the start an error, or nothing: the channel closes when the program
//! is executed. The error keeps its chain of causes, so that what the creator returns reads as if it had failed itself.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Room for the longest message.
pub(crate) const MESSAGE_BYTES: usize = 64 * 1024;

/// One packet.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    /// A stage begins.
    Stage(String),
    /// Something is strange but no failure.
    Warning(String),
    /// The sender waits, for one byte, until its creator has done this; an fd that it takes may be beside it.
    Asks(Request),
    /// The sender has made the process that goes on, whose pidfd is beside it, and ends.
    Born,
    /// All is set up; the terminal's master is beside it if there is one.
    Ready,
    /// It failed; nothing follows.
    Failed(StartError),
}

/// What a container's process needs its creator for: it is not where the creator is any more, or may not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Move `linux.netDevices` into the network namespace beside it.
    NetDevices,
    /// Run the hooks that belong into the creator's namespaces.
    Hooks,
    /// Hand on the listener of the seccomp filter that is loaded, which has this number in the process.
    Listener(i32),
}

impl Message {
    /// The packet. An error that is too long for one loses its causes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let encode = |message: &Message| serde_json::to_vec(message).unwrap_or_default();
        match (encode(self), self) {
            (long, Message::Failed(error)) if long.len() > MESSAGE_BYTES => {
                let message = error.message.chars().take(MESSAGE_BYTES / 8).collect();
                encode(&Message::Failed(StartError { kind: error.kind, message, cause: None }))
            }
            (bytes, _) => bytes,
        }
    }

    /// The message in a packet; one that can't be understood is an error that shows it.
    pub(crate) fn decode(bytes: &[u8]) -> Message {
        serde_json::from_slice(bytes).unwrap_or_else(|_| {
            let message = format!("not understood from the container's process: {:?}", String::from_utf8_lossy(bytes));
            Message::Failed(StartError { kind: StartErrorKind::Setup, message, cause: None })
        })
    }
}

/// Why a container's process could not be set up or its program not be run, as the process itself told.
///
/// Displays the outermost message; the causes follow as `source()`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartError {
    kind: StartErrorKind,
    message: String,
    cause: Option<Box<StartError>>,
}

/// What a client can make of a [`StartError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartErrorKind {
    /// The program, or its interpreter, is not there; a shell would say 127.
    NotFound,
    /// The program is there and can't be executed; a shell would say 126.
    NotExecutable,
    /// Everything before: a mount, an id, a limit.
    Setup,
}

impl StartError {
    /// An error and its causes.
    pub(crate) fn new(kind: StartErrorKind, error: &dyn std::error::Error) -> StartError {
        let cause = error.source().map(|cause| Box::new(StartError::new(kind, cause)));
        StartError { kind, message: error.to_string(), cause }
    }

    /// Decodes what was read from [`Created::status`](crate::Created::status) after the start; `None` for end of
    /// file: the program runs.
    pub fn from_status(bytes: &[u8]) -> Option<StartError> {
        match bytes {
            [] => None,
            bytes => match Message::decode(bytes) {
                Message::Failed(error) => Some(error),
                Message::Stage(_) | Message::Warning(_) | Message::Asks(_) | Message::Born | Message::Ready => None,
            },
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn error(message: &str, cause: Option<StartError>) -> StartError {
        StartError { kind: StartErrorKind::Setup, message: message.to_owned(), cause: cause.map(Box::new) }
    }

    #[test]
    fn an_error_keeps_its_causes_through_the_channel() {
        let sent = error("mount proc on /proc", Some(error("fsmount(...): EPERM", None)));
        let got = StartError::from_status(&Message::Failed(sent.clone()).encode()).unwrap();
        assert_eq!(got, sent);
        let cause = std::error::Error::source(&got).unwrap();
        assert_eq!(cause.to_string(), "fsmount(...): EPERM");
    }

    #[test]
    fn end_of_file_means_that_the_program_runs() {
        assert_eq!(StartError::from_status(b""), None);
    }

    #[test]
    fn an_error_too_long_for_a_packet_still_fits_one() {
        let long = error(&"x".repeat(MESSAGE_BYTES), Some(error("cause", None)));
        assert!(Message::Failed(long).encode().len() <= MESSAGE_BYTES);
    }

    #[test]
    fn noise_is_shown_and_not_taken_for_success() {
        assert!(StartError::from_status(b"Segmentation").unwrap().to_string().contains("Segmentation"));
    }
}
