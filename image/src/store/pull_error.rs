//! Why a pull failed, and what that means to a caller.

use sys::Errno;

use super::{DatabaseError, StoreError};
use crate::config::ConfigError;
use crate::digest::Digest;
use crate::layer::LayerError;
use crate::manifest::ManifestError;
use crate::registry::{HostsError, RegistryError};

/// What a failed pull means to a caller; each has its gRPC code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullErrorKind {
    /// The registry has no such image, or none for this platform.
    NotFound,
    /// The registry wants credentials, or refuses those given.
    Denied,
    /// The registry can't be reached, or answers that it can't serve now.
    Unavailable,
    /// The registry limits our rate.
    RateLimited,
    /// What the registry sent is wrong: a digest, a length, a manifest, a layer.
    Corrupt,
    /// The image uses something that is not built, named in the message.
    Unsupported,
    /// No space, or no inodes.
    DiskFull,
    /// Anything else on this machine, its configuration included.
    Internal,
}

/// Why a pull failed. Print the whole chain: each `source` says more.
#[derive(Debug, thiserror::Error)]
#[error("pull {reference}")]
pub struct PullError {
    /// What was pulled.
    pub reference: String,
    /// Why it failed.
    #[source]
    pub source: PullFailure,
}

/// The step that failed.
#[derive(Debug, thiserror::Error)]
pub enum PullFailure {
    /// `certs.d` is wrong.
    #[error(transparent)]
    Hosts(#[from] HostsError),
    /// The registry did not give what was asked.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A manifest or index is refused.
    #[error("manifest {digest}")]
    Manifest {
        /// Which one.
        digest: Digest,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// Indexes that never come to a manifest.
    #[error("indexes within indexes, more than {0} deep")]
    IndexDepth(usize),
    /// A document is not as long as its descriptor says.
    #[error("{digest} has {got} bytes, but its descriptor says {want}")]
    Length {
        /// The document.
        digest: Digest,
        /// What came.
        got: u64,
        /// What was announced.
        want: u64,
    },
    /// The image's config is refused.
    #[error("config {digest}")]
    Config {
        /// Which one.
        digest: Digest,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// Manifest and config do not belong together.
    #[error("the manifest has {layers} layers, but its config has {diff_ids} diff ids")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the config.
        diff_ids: usize,
    },
    /// An image of another platform, without an index that would offer a choice.
    #[error("the image is for {found}, this is {wanted}")]
    Platform {
        /// What the config says.
        found: String,
        /// What was wanted.
        wanted: String,
    },
    /// A layer did not come down, or is refused.
    #[error("layer {digest}")]
    Layer {
        /// Its compressed digest.
        digest: Digest,
        /// Why. Shared by all pulls that waited for it.
        #[source]
        source: std::sync::Arc<FetchError>,
    },
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runtime is shutting down.
    #[error("the program is stopping")]
    Stopping,
}

/// Why a layer is not there.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The registry did not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// It is broken, or can't be written.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// Its directory can't be made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The work ended without a result.
    #[error("unpacking was cancelled")]
    Cancelled,
}

impl FetchError {
    /// True if somebody else's credentials were the reason: one who waited may try with his own.
    pub(super) fn is_personal(&self) -> bool {
        matches!(self, Self::Cancelled)
            || matches!(self, Self::Registry(error) if kind_of(error) == PullErrorKind::Denied)
    }

    fn kind(&self) -> PullErrorKind {
        match self {
            Self::Registry(error) => kind_of(error),
            Self::Layer(LayerError::Extract(error)) => match error.errno() {
                Some(errno) if is_full(errno) => PullErrorKind::DiskFull,
                Some(_) => PullErrorKind::Internal,
                None => PullErrorKind::Corrupt,
            },
            Self::Layer(LayerError::Thread(_)) | Self::Cancelled => PullErrorKind::Internal,
            Self::Layer(_) => PullErrorKind::Corrupt,
            Self::Store(error) => kind_of_store(error),
        }
    }
}

impl PullError {
    /// What the failure means.
    pub fn kind(&self) -> PullErrorKind {
        match &self.source {
            PullFailure::Registry(error) => kind_of(error),
            PullFailure::Manifest { source, .. } => match source {
                ManifestError::NoPlatform { .. } => PullErrorKind::NotFound,
                ManifestError::Json(_) | ManifestError::Ambiguous(_) => PullErrorKind::Corrupt,
                _ => PullErrorKind::Unsupported,
            },
            PullFailure::Platform { .. } => PullErrorKind::NotFound,
            PullFailure::IndexDepth(_)
            | PullFailure::Length { .. }
            | PullFailure::Config { .. }
            | PullFailure::LayerCount { .. } => PullErrorKind::Corrupt,
            PullFailure::Layer { source, .. } => source.kind(),
            PullFailure::Store(error) => kind_of_store(error),
            PullFailure::Hosts(_) | PullFailure::Stopping => PullErrorKind::Internal,
        }
    }
}

fn kind_of(error: &RegistryError) -> PullErrorKind {
    match error.decisive() {
        RegistryError::Network { .. } | RegistryError::Stalled { .. } => PullErrorKind::Unavailable,
        RegistryError::Status { status, .. } if status.is_server_error() => PullErrorKind::Unavailable,
        RegistryError::NotFound { .. } => PullErrorKind::NotFound,
        RegistryError::Denied { .. } => PullErrorKind::Denied,
        RegistryError::RateLimited { .. } => PullErrorKind::RateLimited,
        RegistryError::Status { .. } | RegistryError::Protocol { .. } | RegistryError::WrongDigest { .. } => {
            PullErrorKind::Corrupt
        }
        RegistryError::Hosts(_)
        | RegistryError::Settings { .. }
        | RegistryError::NoEndpoint { .. }
        | RegistryError::Every(_) => PullErrorKind::Internal,
    }
}

fn kind_of_store(error: &StoreError) -> PullErrorKind {
    let io = |source: &std::io::Error| source.raw_os_error().map(Errno::from_raw);
    let errno = match error {
        StoreError::File { source, .. } | StoreError::Database(DatabaseError::File { source, .. }) => io(source),
        StoreError::Database(DatabaseError::Redb { source, .. }) => match &**source {
            redb::Error::Io(source) => io(source),
            _ => None,
        },
        StoreError::Sync(source) | StoreError::Stack { source, .. } => Some(source.errno()),
        _ => None,
    };
    if errno.is_some_and(is_full) { PullErrorKind::DiskFull } else { PullErrorKind::Internal }
}

fn is_full(errno: Errno) -> bool {
    matches!(errno, Errno::ENOSPC | Errno::EDQUOT)
}
