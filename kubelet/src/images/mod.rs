//! Images: pull policies, credentials, back-off.
//!
//! [`Images::ensure`] is the way of one container to its image: is it there, may this pod use it, and if not, a pull,
//! with each credential that the pod has for it. Back-offs and the queue are pure; the events are upstream's, word for
//! word.
//!
//! | module | answers |
//! |---|---|
//! | [`mod@reference`] | is it a name; what is its repository |
//! | [`keyring`] | which credentials are for it |
//! | [`records`] | who may use an image that was pulled with some |
//! | [`backoff`] | when is it tried again |
//! | [`queue`] | how many pulls at a time, and in a second |

mod backoff;
mod keyring;
mod queue;
mod records;
mod reference;

use crate::api::Api;
use crate::api::events::{Kind, Recorder};
use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::pod::{Pod, PodUid, Role};
use crate::runtime::{Runtime, RuntimeError};
use backoff::Backoffs;
use k8s_openapi::api::core::v1::Container;
use keyring::{Credential, Keyring};
use queue::Queue;
use records::{Records, Verdict};
use reference::Reference;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Why a container's image is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ImageError {
    /// The waiting reason: `ErrImagePull`, `ImagePullBackOff`, `ErrImageNeverPull`, `InvalidImageName`,
    /// `ImageInspectError`, `RegistryUnavailable` or `SignatureValidationFailed`.
    pub reason: &'static str,
    /// The waiting message.
    pub message: String,
}

/// Has images pulled.
pub struct Images {
    runtime: Arc<dyn Runtime>,
    api: Arc<dyn Api>,
    recorder: Recorder,
    clock: Clock,
    metrics: Metrics,
    queue: Queue,
    records: Records,
    /// Whether what an earlier kubelet began was looked into.
    inherited: OnceCell<()>,
    backoffs: Mutex<Backoffs>,
}

/// One container on its way to its image.
#[derive(Clone, Copy)]
struct Wish<'a> {
    pod: &'a Pod,
    role: Role,
    container: &'a Container,
    sandbox: &'a proto::PodSandboxConfig,
    /// `container.image`, as events name it.
    image: &'a str,
    reference: &'a Reference,
    policy: Policy,
}

/// A pull that brought nothing.
struct PullFailure {
    message: String,
    /// Whether it is sure that the image did not come all the same.
    nothing_pulled: bool,
}

/// `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Always,
    IfNotPresent,
    Never,
}

impl Images {
    /// Nothing is asked of the runtime yet.
    pub fn new(
        runtime: Arc<dyn Runtime>,
        api: Arc<dyn Api>,
        recorder: Recorder,
        clock: Clock,
        metrics: Metrics,
        config: &Config,
    ) -> Images {
        let queue = Queue::new(&config.images, clock.now().mono);
        let records = Records::below(&config.root);
        Images {
            runtime,
            api,
            recorder,
            clock,
            metrics,
            queue,
            records,
            inherited: OnceCell::new(),
            backoffs: Mutex::default(),
        }
    }

    /// Has the container's image, by its policy, and tells what was found or done in events on the container. The event
    /// that the container could not be started (`Error: ErrImagePull`) is the caller's.
    ///
    /// Waits for pulls before it (serial ones) and for one of the same image by another pod. In back-off it fails at
    /// once with `ImagePullBackOff` and the last real error; when to try again is [`Self::retry_at`].
    ///
    /// # Errors
    /// The waiting reason and message of the container.
    pub async fn ensure(
        &self,
        pod: &Pod,
        role: Role,
        container: &Container,
        sandbox: &proto::PodSandboxConfig,
    ) -> Result<proto::Image, ImageError> {
        let image = container.image.as_deref().unwrap_or_default();
        let reference = reference::parse(image).map_err(|error| {
            let message = format!("Failed to apply default image tag {image:?}: {error}");
            self.tell((pod, role, container), Kind::Warning, "InspectFailed", &message);
            ImageError { reason: "InvalidImageName", message }
        })?;
        let policy = Policy::of(container, &reference);
        let wish = Wish { pod, role, container, sandbox, image, reference: &reference, policy };
        // A runtime that does not answer is asked again by the next one; until then the notes themselves count.
        let _ = self.inherited.get_or_try_init(|| self.inherit()).await;
        if let Some(found) = self.usable(wish).await? {
            return Ok(found);
        }
        self.not_in_back_off(wish)?;
        let asked_at = self.clock.now().mono;
        let _alone = self.queue.image(&reference.full).await;
        // Another pod may have pulled it while we waited.
        if let Some(found) = self.usable(wish).await? {
            return Ok(found);
        }
        self.pull(wish, asked_at).await
    }

    /// When the back-off of this container's image ends; `None` if it is in none.
    pub fn retry_at(&self, pod: &Pod, container: &Container) -> Option<Instant> {
        let image = container.image.as_deref().unwrap_or_default();
        self.backoffs().waiting(pod.uid(), image, self.clock.now().mono).map(|(until, _)| until)
    }

    /// Forgets the back-offs of a pod that is gone.
    pub fn forget(&self, pod: &PodUid) {
        self.backoffs().forget(pod);
    }

    /// The image, if it is there and the pod may use it without a pull.
    async fn usable(&self, wish: Wish<'_>) -> Result<Option<proto::Image>, ImageError> {
        if wish.policy == Policy::Always {
            return Ok(None);
        }
        let found = self.runtime.image(&wish.reference.full).await.map_err(|error| {
            // Upstream names the image's id, which it does not have here.
            let message = format!("Failed to inspect image \"\": {}", error.message);
            self.tell_of(wish, Kind::Warning, "InspectFailed", &message);
            ImageError { reason: "ImageInspectError", message }
        })?;
        if let Some(found) = found
            && self.may_use(wish, &found).await
        {
            let image = wish.image;
            let message =
                format!("Container image {image:?} already present on machine and can be accessed by the pod");
            self.tell_of(wish, Kind::Normal, "Pulled", &message);
            return Ok(Some(found));
        }
        if wish.policy == Policy::Never {
            // Also for one that is there and not for this pod: that it is there is not told.
            let message = format!("Container image {:?} is not present with pull policy of Never", wish.image);
            self.tell_of(wish, Kind::Warning, "ErrImageNeverPull", &message);
            return Err(ImageError { reason: "ErrImageNeverPull", message });
        }
        Ok(None)
    }

    /// Whether the pod may use an image that is there: it was pulled without credentials, or with one that it has.
    async fn may_use(&self, wish: Wish<'_>, found: &proto::Image) -> bool {
        let (image, name, id) = (wish.image.to_owned(), wish.reference.name.clone(), found.id.clone());
        match self.on_disk(move |records| records.verdict(&image, &name, &id)).await {
            Verdict::Everybody => !self.is_being_pulled(&found.id).await,
            Verdict::Pullers => false,
            Verdict::Holders(holders) => {
                self.credentials(wish).await.is_ok_and(|credentials| holders.include(&credentials))
            }
        }
    }

    /// Whether an image is one that some pull, by whatever name, was begun of and has not ended.
    async fn is_being_pulled(&self, id: &str) -> bool {
        for begun in self.on_disk(Records::begun).await {
            // Whoever does not know has to pull.
            if self.pulled_by_now(&begun).await.map_or(true, |pulled| pulled.as_deref() == Some(id)) {
                return true;
            }
        }
        false
    }

    /// The id of an image that a pull was begun of, if it is there.
    async fn pulled_by_now(&self, begun: &str) -> Result<Option<String>, RuntimeError> {
        let Ok(reference) = reference::parse(begun) else { return Ok(None) };
        Ok(self.runtime.image(&reference.full).await?.map(|found| found.id))
    }

    /// Ends what an earlier kubelet began: an image that came is one that was pulled with nobody knows what.
    async fn inherit(&self) -> Result<(), RuntimeError> {
        for begun in self.on_disk(Records::begun).await {
            let pulled = self.pulled_by_now(&begun).await?;
            let now = self.clock.now().wall;
            self.on_disk(move |records| records.inherit(&begun, pulled.as_deref(), now)).await;
        }
        Ok(())
    }

    fn not_in_back_off(&self, wish: Wish<'_>) -> Result<(), ImageError> {
        let now = self.clock.now().mono;
        let image = wish.image;
        let error = match self.backoffs().waiting(wish.pod.uid(), image, now) {
            None => return Ok(()),
            Some((_, error)) => error.to_owned(),
        };
        let message = format!("Back-off pulling image {image:?}");
        self.tell_of(wish, Kind::Normal, "BackOff", &message);
        Err(ImageError { reason: "ImagePullBackOff", message: format!("{message}: {error}") })
    }

    /// Pulls, and remembers how it went.
    async fn pull(&self, wish: Wish<'_>, asked_at: Instant) -> Result<proto::Image, ImageError> {
        let image = wish.image;
        let credentials = self.credentials(wish).await;
        self.tell_of(wish, Kind::Normal, "Pulling", &format!("Pulling image {image:?}"));
        let slot = self.queue.slot().await;
        let began_at = self.clock.now().mono;
        let outcome = match credentials {
            Ok(credentials) => self.pull_with(wish, &credentials).await,
            Err(error) => Err(error),
        };
        drop(slot);
        let now = self.clock.now().mono;
        match outcome {
            Ok(found) => {
                let (took, with_waiting) = (go_millis(now - began_at), go_millis(now - asked_at));
                self.tell_of(wish, Kind::Normal, "Pulled", &format!(
                    "Successfully pulled image {image:?} in {took} ({with_waiting} including waiting). Image size: {} bytes.",
                    found.size
                ));
                self.metrics.image_pull(found.size, now - asked_at);
                self.backoffs().sweep(now);
                Ok(found)
            }
            Err(error) => {
                let message = format!("Failed to pull image {image:?}: {error}");
                self.tell_of(wish, Kind::Warning, "Failed", &message);
                let error = pull_error(image, error);
                let kept = format!("{}: {}", error.reason, error.message);
                self.backoffs().failed(wish.pod.uid(), image, kept, now);
                Err(error)
            }
        }
    }

    /// Tries each credential, or none if there is none, and writes down which one it was: as soon as it is known, since
    /// an image without a record is everybody's.
    async fn pull_with(&self, wish: Wish<'_>, credentials: &[Credential]) -> Result<proto::Image, String> {
        let image = wish.image.to_owned();
        let in_doubt = self
            .on_disk({
                let image = image.clone();
                move |records| records.begin(&image)
            })
            .await
            .map_err(|error| format!("Failed to record image pull intent for container image {image:?}: {error}"))?;
        let (name, now) = (wish.reference.name.clone(), self.clock.now().wall);
        match self.try_each(wish, credentials).await {
            Ok((id, with)) => {
                let (id_of_record, with) = (id.clone(), with.cloned());
                self.on_disk(move |records| match records.pulled(&name, &id_of_record, with.as_ref(), now) {
                    Ok(()) => records.end(&image),
                    // The note stays, and makes every pod prove that it may have the image.
                    Err(error) => tracing::warn!(image, %error, "how an image was pulled is not written down"),
                })
                .await;
                self.look_at(wish, &id).await
            }
            Err(failure) => {
                // An earlier pull may have brought what this one was refused.
                if failure.nothing_pulled && !in_doubt {
                    self.on_disk(move |records| records.end(&image)).await;
                }
                Err(failure.message)
            }
        }
    }

    /// The id of what was pulled, and the credential that it was pulled with.
    async fn try_each<'c>(
        &self,
        wish: Wish<'_>,
        credentials: &'c [Credential],
    ) -> Result<(String, Option<&'c Credential>), PullFailure> {
        let tries: Vec<Option<&Credential>> =
            if credentials.is_empty() { vec![None] } else { credentials.iter().map(Some).collect() };
        let mut errors: Vec<String> = Vec::new();
        let mut nothing_pulled = true;
        for with in tries {
            if !self.queue.admit(self.clock.now().mono) {
                return Err(PullFailure { message: "pull QPS exceeded".to_owned(), nothing_pulled });
            }
            let auth = with.map(Credential::auth);
            match self.runtime.pull_image(&wish.reference.full, auth.as_ref(), wish.sandbox).await {
                Ok(id) => return Ok((id, with)),
                Err(error) => {
                    nothing_pulled &= says_that_it_ended(&error);
                    errors.push(bare(&error));
                }
            }
        }
        Err(PullFailure { message: aggregate(errors), nothing_pulled })
    }

    /// The image that was just pulled: its user and its size are needed. Asked for by its id, which nobody moves.
    async fn look_at(&self, wish: Wish<'_>, id: &str) -> Result<proto::Image, String> {
        match self.runtime.image(id).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(format!("image {:?} is gone right after it was pulled", wish.image)),
            Err(error) => Err(bare(&error)),
        }
    }

    /// The pod's credentials for the image. A secret that is not there is told, and may not be needed.
    async fn credentials(&self, wish: Wish<'_>) -> Result<Vec<Credential>, String> {
        let mut keyring = Keyring::default();
        let mut missing = Vec::new();
        let references = wish.pod.spec().image_pull_secrets.iter().flatten();
        for name in references.map(|reference| reference.name.as_str()).filter(|name| !name.is_empty()) {
            match self.api.secret(wish.pod.namespace(), name).await {
                Ok(secret) => keyring.add(&secret)?,
                Err(_) => missing.push(name),
            }
        }
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            self.recorder.pod(wish.pod, Kind::Warning, "FailedToRetrieveImagePullSecret", message);
        }
        Ok(keyring.lookup(&wish.reference.repository))
    }

    async fn on_disk<T: Send + 'static>(&self, work: impl FnOnce(&Records) -> T + Send + 'static) -> T {
        let records = self.records.clone();
        match tokio::task::spawn_blocking(move || work(&records)).await {
            Ok(done) => done,
            // It panicked, or the runtime is being shut down, and whoever waits ends with it.
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => std::future::pending().await,
            },
        }
    }

    fn tell_of(&self, wish: Wish<'_>, kind: Kind, reason: &str, message: &str) {
        self.tell((wish.pod, wish.role, wish.container), kind, reason, message);
    }

    fn tell(&self, (pod, role, container): (&Pod, Role, &Container), kind: Kind, reason: &str, message: &str) {
        self.recorder.container(pod, role, &container.name, kind, reason, message);
    }

    fn backoffs(&self) -> MutexGuard<'_, Backoffs> {
        self.backoffs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Policy {
    /// The API server fills it in; for a static pod nobody may have.
    fn of(container: &Container, reference: &Reference) -> Policy {
        match container.image_pull_policy.as_deref() {
            Some("Always") => Policy::Always,
            Some("Never") => Policy::Never,
            Some("IfNotPresent") => Policy::IfNotPresent,
            _ if reference.latest => Policy::Always,
            _ => Policy::IfNotPresent,
        }
    }
}

/// Whether an error is the runtime's answer: with another one a pull may go on, and come to its end, unheard. That the
/// registry is unavailable is an answer, though its code is also that of a runtime that is not there.
fn says_that_it_ended(error: &RuntimeError) -> bool {
    match error.code {
        tonic::Code::Unavailable => error.message.contains("desc = RegistryUnavailable"),
        tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => false,
        _ => true,
    }
}

/// The runtime's own words where its error is of no particular kind.
fn bare(error: &RuntimeError) -> String {
    let text = error.message.as_str();
    match error.code {
        tonic::Code::Unknown => text.strip_prefix("rpc error: code = Unknown desc = ").unwrap_or(text).to_owned(),
        _ => text.to_owned(),
    }
}

/// One error as it is; several different ones in brackets.
fn aggregate(mut errors: Vec<String>) -> String {
    let mut seen = std::collections::BTreeSet::new();
    errors.retain(|error| seen.insert(error.clone()));
    match errors.as_slice() {
        [only] => only.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

/// Two kinds of failure have reasons of their own, by which the runtime's text begins.
fn pull_error(image: &str, error: String) -> ImageError {
    for (reason, what) in [
        ("RegistryUnavailable", "the registry is unavailable"),
        ("SignatureValidationFailed", "the signature validation failed"),
    ] {
        if let Some(rest) = error.strip_prefix(reason) {
            return ImageError { reason, message: format!("image pull failed for {image} because {what}{rest}") };
        }
    }
    ImageError { reason: "ErrImagePull", message: error }
}

/// A duration in whole milliseconds, as Go prints it: `1m2.5s`, `340ms`, `0s`.
fn go_millis(duration: Duration) -> String {
    let millis = duration.as_millis();
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let (seconds, rest) = (millis / 1000 % 60, millis % 1000);
    if millis > 0 && millis < 1000 {
        return format!("{millis}ms");
    }
    let fraction = format!(".{rest:03}");
    let seconds = format!("{seconds}{}s", fraction.trim_end_matches('0').trim_end_matches('.'));
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, _) => format!("{minutes}m{seconds}"),
        _ => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests;
