//! Why a registry could not serve: always with the host and with what was asked of it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::hosts::HostsError;
use crate::digest::Digest;

/// Why a registry, with all its mirrors, did not give what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection, or it broke.
    #[error("{host}: {what}: {}", shown(.source))]
    Network {
        /// Scheme, host and port.
        host: String,
        /// What was asked, such as `get manifest latest`.
        what: String,
        /// What the HTTP client says. Not a `source`: its own chain repeats itself and is shown above.
        source: reqwest::Error,
    },
    /// Nothing came for too long.
    #[error("{host}: {what}: no answer for {} s", .after.as_secs_f32())]
    Stalled {
        /// Scheme, host and port.
        host: String,
        /// What was asked.
        what: String,
        /// How long we waited.
        after: Duration,
    },
    /// It is not there.
    #[error("{host}: {what}: not found{}", in_its_words(.message))]
    NotFound {
        /// Scheme, host and port.
        host: String,
        /// What was asked.
        what: String,
        /// The registry's own words, or nothing.
        message: String,
    },
    /// The registry wants credentials, or refuses those that it got.
    #[error("{host}: {what}: {problem}{}", in_its_words(.message))]
    Denied {
        /// Scheme, host and port.
        host: String,
        /// What was asked.
        what: String,
        /// In what way.
        problem: String,
        /// The registry's own words, or nothing.
        message: String,
    },
    /// 429.
    #[error("{host}: {what}: too many requests ({}){}", limits(.limit, .reset, *.anonymous, .host), in_its_words(.message))]
    RateLimited {
        /// Scheme, host and port.
        host: String,
        /// What was asked.
        what: String,
        /// The limit, as the registry says it.
        limit: Option<String>,
        /// When to come again.
        reset: Option<Duration>,
        /// True if no credentials were sent.
        anonymous: bool,
        /// The registry's own words, or nothing.
        message: String,
    },
    /// Another status that is no success.
    #[error("{host}: {what}: {status}{}", in_its_words(.message))]
    Status {
        /// Scheme, host and port.
        host: String,
        /// What was asked.
        what: String,
        /// The HTTP status.
        status: reqwest::StatusCode,
        /// The registry's own words, or nothing.
        message: String,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The registry's answer contradicts itself, the manifest, or the protocol.
    #[error("{host}: {what}: {problem}")]
    Protocol {
        /// Scheme, host and port.
        host: String,
        /// What was asked.
        what: String,
        /// The contradiction.
        problem: String,
    },
    /// The bytes are not those that were asked for.
    #[error("{host}: {what}: the content's digest is {got}")]
    WrongDigest {
        /// Scheme, host and port.
        host: String,
        /// What was asked.
        what: String,
        /// The digest of what came.
        got: Digest,
    },
    /// A file of `certs.d` is wrong.
    #[error(transparent)]
    Hosts(#[from] HostsError),
    /// A certificate or key of `certs.d` can't be used, or a proxy's address is none.
    #[error("{what}: {problem}")]
    Settings {
        /// The file or the setting.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No endpoint may do what is needed.
    #[error("{host}: no endpoint in its hosts.toml has the capability {capability:?}")]
    NoEndpoint {
        /// The registry's host.
        host: String,
        /// `pull` or `resolve`.
        capability: &'static str,
    },
    /// Every endpoint failed, each in its own way; the last is the registry itself.
    #[error("{}", joined(.0))]
    Every(Vec<RegistryError>),
}

impl RegistryError {
    /// Joins what the endpoints said; there is at least one.
    pub(super) fn of_all(mut errors: Vec<Self>) -> Self {
        match errors.len() {
            1 => errors.remove(0),
            _ => Self::Every(errors),
        }
    }

    /// The error that says most about the whole: the last endpoint's.
    pub(crate) fn decisive(&self) -> &Self {
        match self {
            Self::Every(errors) => errors.last().map_or(self, Self::decisive),
            other => other,
        }
    }

    /// True where the same request may succeed a moment later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Network { source, .. } => !is_certificate(source),
            Self::Stalled { .. } | Self::RateLimited { .. } => true,
            Self::Status { status, .. } => matches!(status.as_u16(), 408 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// How long the registry asked us to wait.
    pub(super) fn asked_delay(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { reset, .. } => *reset,
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(super) fn settings(file: &std::path::Path, problem: impl fmt::Display) -> Self {
        Self::Settings { what: format!("use {}", PathBuf::from(file).display()), problem: problem.to_string() }
    }
}

/// A certificate does not get better by trying again.
fn is_certificate(error: &reqwest::Error) -> bool {
    let text = shown(error);
    error.is_connect() && (text.contains("certificate") || text.contains("CertificateRequired"))
}

/// The root of an HTTP error's chain: what stands above it repeats it, or names the URL, which may hold a signature.
fn shown(error: &reqwest::Error) -> String {
    let mut root: &dyn std::error::Error = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    match (error.is_connect(), error.is_timeout()) {
        (true, true) => "connect: timed out".into(),
        (true, false) => format!("connect: {root}"),
        (false, true) => "timed out".into(),
        (false, false) => format!("the connection broke: {root}"),
    }
}

fn in_its_words(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" (it says: {message})") }
}

fn limits(limit: &Option<String>, reset: &Option<Duration>, anonymous: bool, host: &str) -> String {
    let mut parts = Vec::new();
    if let Some(limit) = limit {
        parts.push(format!("limit {limit}"));
    }
    if let Some(reset) = reset {
        parts.push(format!("resets in {}", rounded(*reset)));
    }
    parts.push(match anonymous {
        true => format!("anonymous: no credentials matched {}", host.split("://").last().unwrap_or(host)),
        false => "with the credentials given".into(),
    });
    parts.join(", ")
}

fn rounded(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

fn joined(errors: &[RegistryError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
