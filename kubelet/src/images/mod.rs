//! Images: pull policies, credentials, back-off.

use crate::api::Api;
use crate::clock::Clock;
use crate::config::Config;
use crate::pod::{Pod, Role};
use crate::runtime::Runtime;
use k8s_openapi::api::core::v1::Container;
use std::sync::Arc;

/// Why a container's image is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ImageError {
    /// The waiting reason: `ErrImagePull`, `ImagePullBackOff`, `ErrImageNeverPull`, `InvalidImageName`, ….
    pub reason: &'static str,
    /// The waiting message.
    pub message: String,
}

/// Has images pulled.
pub struct Images {
    _runtime: Arc<dyn Runtime>,
    _api: Arc<dyn Api>,
}

impl Images {
    /// With a recorder and metrics as soon as those exist.
    pub fn new(runtime: Arc<dyn Runtime>, api: Arc<dyn Api>, clock: Clock, config: &Config) -> Images {
        let _ = (clock, config);
        Images { _runtime: runtime, _api: api }
    }

    /// Has the container's image, by its policy, and tells what was found or done in events on the container.
    ///
    /// Waits for pulls before it (serial ones) and for one of the same image by another pod. In back-off it fails at
    /// once with `ImagePullBackOff` and the last real error; when to try again is [`Self::retry_at`].
    pub async fn ensure(
        &self,
        pod: &Pod,
        role: Role,
        container: &Container,
        sandbox: &proto::PodSandboxConfig,
    ) -> Result<proto::Image, ImageError> {
        let _ = (pod, role, container, sandbox);
        todo!()
    }

    /// When the back-off of this pod's image ends; `None` if it is in none.
    pub fn retry_at(&self, pod: &Pod, container: &Container) -> Option<tokio::time::Instant> {
        let _ = (pod, container);
        todo!()
    }

    /// Forgets the back-offs of a pod that is gone.
    pub fn forget(&self, pod: &crate::pod::PodUid) {
        let _ = pod;
        todo!()
    }
}
