//! What an RPC answers when it can't do what was asked: a gRPC code and one sentence.
//!
//! This is where errors stop travelling: the chain of causes is rendered once, joined by colons. A [`Failure`] can be
//! cloned, because everyone who waits for the same creation gets the same answer.

use shim_protocol::ErrorKind;
use std::error::Error;
use tonic::{Code, Status};

/// The result of everything below an RPC.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// A refusal or a failure, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// What the client can do about it.
    pub(crate) code: Code,
    /// What was tried with which thing, and why it did not work.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }

    /// The request makes no sense: it must be changed before it is sent again.
    pub(crate) fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(Code::InvalidArgument, message)
    }

    /// There is no such thing.
    pub(crate) fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(Code::NotFound, message)
    }

    /// The name belongs to something else.
    pub(crate) fn exists(message: impl Into<String>) -> Failure {
        Failure::new(Code::AlreadyExists, message)
    }

    /// The thing is not in a state where this can be done.
    pub(crate) fn state(message: impl Into<String>) -> Failure {
        Failure::new(Code::FailedPrecondition, message)
    }

    /// Orlop has not learnt this.
    pub(crate) fn unbuilt(what: impl std::fmt::Display) -> Failure {
        Failure::new(Code::Unimplemented, format!("{what}: not built yet"))
    }

    /// Something on this machine went wrong; `error`'s whole chain is told.
    pub(crate) fn internal(what: impl std::fmt::Display, error: &dyn Error) -> Failure {
        Failure::new(Code::Internal, format!("{what}: {}", chain(error)))
    }

    /// The same failure, as part of something larger.
    pub(crate) fn within(self, what: impl std::fmt::Display) -> Failure {
        Failure { code: self.code, message: format!("{what}: {}", self.message) }
    }

    /// A shim's answer, under the code that a CRI client understands.
    pub(crate) fn from_shim(what: impl std::fmt::Display, failure: &shim_protocol::Failure) -> Failure {
        let code = match failure.kind {
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::Exists => Code::AlreadyExists,
            ErrorKind::NotRunning | ErrorKind::Running => Code::FailedPrecondition,
            ErrorKind::Invalid => Code::InvalidArgument,
            ErrorKind::Unsupported => Code::Unimplemented,
            ErrorKind::Deadline => Code::DeadlineExceeded,
            ErrorKind::Start => Code::Unknown,
            ErrorKind::Internal => Code::Internal,
        };
        let stages: Vec<String> = failure.stages.iter().map(|s| format!("{} {} ms", s.name, s.ms)).collect();
        let told = if failure.kind == ErrorKind::Deadline && !stages.is_empty() {
            format!(" (stages: {})", stages.join(", "))
        } else {
            String::new()
        };
        Failure::new(code, format!("{what}: {}{told}", failure.message))
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        Status::new(failure.code, failure.message)
    }
}

/// `error` and its causes, joined by colons; a cause that says nothing new is left out.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use shim_protocol::Stage;

    #[test]
    fn a_deadline_of_the_shim_tells_the_stages_with_their_milliseconds() {
        let failure = shim_protocol::Failure {
            kind: ErrorKind::Deadline,
            message: "create container c1: deadline passed".into(),
            stages: vec![
                Stage { name: "parse".into(), ms: 1 },
                Stage { name: "open volume /mnt/nfs".into(), ms: 118_000 },
            ],
        };
        let failure = Failure::from_shim("create container \"web\"", &failure);
        assert_eq!(failure.code, Code::DeadlineExceeded);
        assert!(failure.message.ends_with("(stages: parse 1 ms, open volume /mnt/nfs 118000 ms)"), "{failure}");
    }

    #[test]
    fn a_chain_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("open the store")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("disk on fire"));
        assert_eq!(chain(&error), "open the store: disk on fire");
    }
}
