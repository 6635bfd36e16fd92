//! One start of a container: image, config, create, start.

use super::host::Obstacle;
use super::pod::Worker;
use super::sync::Stuck;
use crate::admission;
use crate::api::events::Kind;
use crate::plan::{Failure, Start, Waiting};
use crate::runtime::RuntimeError;
use k8s_openapi::api::core::v1::Container;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// The reasons of containers that can't be made and can't be started.
const CREATE_ERROR: &str = "CreateContainerError";
const RUN_ERROR: &str = "RunContainerError";
/// The reason of containers that ask for something that is not built.
const UNSUPPORTED: &str = "CreateContainerConfigError";
/// The reason of an image that could not be pulled just now, and how long it is shown.
const PULL_ERROR: &str = "ErrImagePull";
const SHOW_BACK_OFF: Duration = Duration::from_secs(5);
/// Reasons that come from the image: what is wrong with it has been told in an event of its own.
const IMAGE_REASONS: [&str; 6] = [
    PULL_ERROR,
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
];

impl Worker {
    /// Starts a container, or remembers why that failed.
    pub(super) async fn start_container(&mut self, start: &Start) -> Result<(), Stuck> {
        let Some(container) = self.pod.container(&start.name).map(|(_, container)| container.clone()) else {
            return Ok(());
        };
        if let Some(exited) = start.after {
            let hash = self.hashes.get(&start.name).cloned().unwrap_or_default();
            let now = self.context.clock.now().wall;
            self.memory.restarted(&start.name, &hash, exited, now);
        }
        let outcome = self.make_and_start(start, &container).await;
        self.context.metrics.container_started(start.role, outcome.is_ok());
        match outcome {
            Ok(()) => {
                self.memory.succeeded(&start.name);
                Ok(())
            }
            Err(obstacle) => Err(self.start_failed(start, obstacle)),
        }
    }

    async fn make_and_start(&mut self, start: &Start, container: &Container) -> Result<(), Obstacle> {
        if let Some(refused) = admission::unsupported(&self.pod) {
            return Err(Obstacle { reason: UNSUPPORTED, message: refused.message, retry_at: None });
        }
        let sandbox = self.observed.sandboxes.iter().find(|sandbox| sandbox.id == start.sandbox);
        let (attempt, ips) = sandbox.map_or((0, Vec::new()), |sandbox| (sandbox.attempt, sandbox.ips.clone()));
        let sandbox_config = self.sandbox_config(attempt).await?;
        let began = Instant::now();
        let image = self.image(start, container, &sandbox_config).await;
        self.pulling += began.elapsed();
        let image = image?;
        let config = self.container_config(start, container, &image, &ips).await?;
        let failed = |reason: &'static str| {
            move |error: RuntimeError| Obstacle { reason, message: error.description().to_owned(), retry_at: None }
        };
        let runtime = &self.context.runtime;
        let id =
            runtime.create_container(&start.sandbox, &config, &sandbox_config).await.map_err(failed(CREATE_ERROR))?;
        self.event(start, Kind::Normal, "Created", "Container created");
        runtime.start_container(&id).await.map_err(failed(RUN_ERROR))?;
        self.event(start, Kind::Normal, "Started", "Container started");
        self.context.host.link_log(&self.pod, &start.name, &id, &config.log_path);
        Ok(())
    }

    /// The image that was fetched while the sandbox was made, or now.
    async fn image(
        &mut self,
        start: &Start,
        container: &Container,
        sandbox: &proto::PodSandboxConfig,
    ) -> Result<proto::Image, Obstacle> {
        if let Some(fetched) = self.images.remove(&start.name)
            && let Ok(outcome) = fetched.await
        {
            return outcome;
        }
        self.context.host.image(&self.pod, start.role, container, sandbox).await
    }

    async fn container_config(
        &self,
        start: &Start,
        container: &Container,
        image: &proto::Image,
        ips: &[IpAddr],
    ) -> Result<proto::ContainerConfig, Obstacle> {
        self.context.host.container_config(&self.pod, container, image, start.restart_count, ips).await
    }

    /// Upstream's event, and the failure as state until the container runs.
    fn start_failed(&mut self, start: &Start, obstacle: Obstacle) -> Stuck {
        // Upstream's event for an image names the reason alone.
        let told = if IMAGE_REASONS.contains(&obstacle.reason) { obstacle.reason } else { obstacle.message.as_str() };
        let repeated = self.notes.get(&start.name).is_some_and(|note| note.message == obstacle.message);
        if !repeated {
            tracing::warn!(container = start.name, reason = obstacle.reason, error = obstacle.message, "not started");
        }
        self.event(start, Kind::Warning, "Failed", &format!("Error: {told}"));
        let retry_at = self.start_again_at(&obstacle);
        let waiting = Waiting { reason: obstacle.reason, message: obstacle.message };
        self.memory.failed(&start.name, Failure { waiting, retry_at });
        Stuck(retry_at)
    }

    /// When a container that could not be started is tried again.
    fn start_again_at(&self, obstacle: &Obstacle) -> Instant {
        let now = Instant::now();
        let Some(at) = obstacle.retry_at.filter(|at| *at > now) else { return self.retry_at() };
        // A pull that failed is asked for again before its back-off is over: `ImagePullBackOff` is then shown and told.
        if obstacle.reason == PULL_ERROR { at.min(now + SHOW_BACK_OFF) } else { at }
    }

    fn event(&self, start: &Start, kind: Kind, reason: &str, message: &str) {
        self.context.recorder.container(&self.pod, start.role, &start.name, kind, reason, message);
    }
}
