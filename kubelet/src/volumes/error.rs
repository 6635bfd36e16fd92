//! Why a volume could not be set up. The texts of what upstream also says are upstream's: people search for them.

use super::payload::FileError;
use super::stages::Stalled;
use crate::api::ApiError;

/// A failure of one volume; [`VolumeError`](super::VolumeError) puts the volume's name before it.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetUpError {
    /// An object that is not there, and should be.
    #[error("{kind} \"{name}\" not found")]
    NotFound { kind: &'static str, name: String },
    /// The API server did not give us an object.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// No token for a service account.
    #[error("failed to fetch token")]
    Token(#[source] ApiError),
    /// The last token has expired and there is no other.
    #[error("token for service account \"{account}\" expired and refresh failed")]
    TokenExpired {
        account: String,
        #[source]
        source: ApiError,
    },
    /// A key that an object should have.
    #[error("references non-existent secret key: {0}")]
    SecretKey(String),
    /// The same for a ConfigMap.
    #[error("configmap references non-existent config key: {0}")]
    ConfigMapKey(String),
    /// A file that a volume can't hold.
    #[error(transparent)]
    File(#[from] FileError),
    /// A field or resource of the downward API that there is not.
    #[error("{0}")]
    Downward(String),
    /// A hostPath that is not what its type says.
    #[error(transparent)]
    HostPath(#[from] super::host_path::HostPathError),
    /// A field that is not built.
    #[error("{0} is not supported by this kubelet")]
    Unsupported(String),
    /// A mount path that makes no sense.
    #[error("invalid container mount point {0}")]
    MountPoint(String),
    /// A system call.
    #[error(transparent)]
    System(#[from] sys::Error),
    /// It takes too long.
    #[error(transparent)]
    Stalled(#[from] Stalled),
    /// Several of a projected volume's sources.
    #[error("[{}]", .0.iter().map(|error| chain(error)).collect::<Vec<_>>().join(", "))]
    Several(Vec<SetUpError>),
}

impl SetUpError {
    /// One error, or all of them as one.
    pub(super) fn of(mut errors: Vec<SetUpError>) -> SetUpError {
        match errors.len() {
            1 => errors.remove(0),
            _ => SetUpError::Several(errors),
        }
    }
}

/// An error and its causes in one line, for the text of an event.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
