//! From an image reference to a root file system: registry client, content store, unpacking, overlay snapshots.
//!
//! [`Store::pull`] is the whole way: resolve a [`Reference`] at the registry (or a mirror of `certs.d`), choose the
//! platform's manifest, stream every missing layer in one pass (network → sha256 → inflate → sha256 → files), make all
//! of it durable, and only then make the image visible in one transaction. [`Store::mount_rootfs`] stacks the layers
//! below a writable directory and returns a detached mount.
//!
//! The crate knows nothing of CRI, pods or containers: a lease holds an image for whoever names himself. It is given
//! its directory, its limits and its proxies ([`Config`], [`PullOptions`]) and reads no environment. Container paths
//! are resolved only below `sys::rootfd::RootFd`; async code is found only in `registry` and `store::pull`.

mod config;
mod credentials;
mod digest;
mod layer;
mod manifest;
mod platform;
mod progress;
mod reference;
mod registry;
mod store;

pub use config::{ConfigError, ImageConfig, MAX_LAYERS};
pub use credentials::{Credentials, EncodedAuthError, Secret};
pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use layer::{ExtractError, Fault, InflateError, LayerError, TarError};
pub use manifest::ManifestError;
pub use platform::Platform;
pub use progress::{Phase, Progress, ProgressSink};
pub use reference::{Reference, ReferenceError};
pub use registry::{HostsError, Proxies, RegistryError};
pub use store::{
    Config, DatabaseError, FetchError, Image, ImageId, Lease, MountError, MountOptions, OpenError, PullError,
    PullErrorKind, PullFailure, PullOptions, Store, StoreError, Usage,
};
