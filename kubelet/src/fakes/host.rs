//! A machine in memory: everything a pod needs is there, but for what a test takes away.

use crate::pod::{Pod, PodUid, Role};
use crate::runtime::keys;
use crate::spec;
use crate::worker::host::{Host, Obstacle, Result};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::Container;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The hostname of pods in the host's network, by which the fake runtime knows them.
pub(crate) const HOST: &str = "host";

/// The machine. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub(crate) struct FakeHost {
    state: Arc<Mutex<State>>,
}

/// What it does.
#[derive(Default)]
pub(crate) struct State {
    /// `mount`, `release`, `image web`, in order.
    pub(crate) calls: Vec<String>,
    failures: BTreeMap<&'static str, VecDeque<Obstacle>>,
    /// How long fetching an image takes.
    pub(crate) image_takes: Duration,
    /// How long setting up the volumes takes.
    pub(crate) mount_takes: Duration,
}

impl FakeHost {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next call of this verb fails.
    pub(crate) fn fail(&self, verb: &'static str, reason: &'static str, message: &str) {
        let obstacle = Obstacle { reason, message: message.to_owned(), retry_at: None };
        self.state().failures.entry(verb).or_default().push_back(obstacle);
    }

    fn call(&self, verb: &'static str, note: String) -> Result<()> {
        let mut state = self.state();
        state.calls.push(note);
        state.failures.get_mut(verb).and_then(VecDeque::pop_front).map_or(Ok(()), Err)
    }
}

impl Host for FakeHost {
    fn sandbox_config<'a>(&'a self, pod: &'a Pod, attempt: u32) -> BoxFuture<'a, Result<proto::PodSandboxConfig>> {
        let config = proto::PodSandboxConfig {
            metadata: Some(proto::PodSandboxMetadata {
                name: pod.name().to_owned(),
                namespace: pod.namespace().to_owned(),
                uid: pod.uid().to_string(),
                attempt,
            }),
            hostname: if pod.host_network() { HOST.to_owned() } else { pod.name().to_owned() },
            ..proto::PodSandboxConfig::default()
        };
        let answer = self.call("sandbox_config", "sandbox_config".to_owned()).map(|()| config);
        async { answer }.boxed()
    }

    fn mount<'a>(&'a self, _: &'a Pod) -> BoxFuture<'a, Result<()>> {
        let (answer, takes) = (self.call("mount", "mount".to_owned()), self.state().mount_takes);
        async move {
            tokio::time::sleep_until(tokio::time::Instant::now() + takes).await;
            answer
        }
        .boxed()
    }

    fn image<'a>(
        &'a self,
        _: &'a Pod,
        _: Role,
        container: &'a Container,
        _: &'a proto::PodSandboxConfig,
    ) -> BoxFuture<'a, Result<proto::Image>> {
        async move {
            let takes = self.state().image_takes;
            tokio::time::sleep_until(tokio::time::Instant::now() + takes).await;
            let image = proto::Image { id: container.image.clone().unwrap_or_default(), ..proto::Image::default() };
            self.call("image", format!("image {}", container.name)).map(|()| image)
        }
        .boxed()
    }

    fn container_config<'a>(
        &'a self,
        _: &'a Pod,
        container: &'a Container,
        image: &'a proto::Image,
        restart_count: Option<u32>,
        _: &'a [IpAddr],
    ) -> BoxFuture<'a, Result<proto::ContainerConfig>> {
        let annotations = BTreeMap::from([
            (keys::RESTART_COUNT.to_owned(), restart_count.unwrap_or(0).to_string()),
            (keys::CONTAINER_HASH.to_owned(), spec::container_hash(container)),
        ]);
        let metadata = proto::ContainerMetadata { name: container.name.clone(), attempt: restart_count.unwrap_or(0) };
        let config = proto::ContainerConfig {
            metadata: Some(metadata),
            image: Some(proto::ImageSpec { image: image.id.clone(), ..proto::ImageSpec::default() }),
            annotations,
            ..proto::ContainerConfig::default()
        };
        let answer = self.call("container_config", format!("config {}", container.name)).map(|()| config);
        async { answer }.boxed()
    }

    fn link_log(&self, _: &Pod, _: &str, _: &str, _: &str) {}

    fn last_words<'a>(&'a self, _: &'a crate::runtime::Container) -> BoxFuture<'a, String> {
        async { String::new() }.boxed()
    }

    fn release<'a>(&'a self, _: &'a PodUid) -> BoxFuture<'a, Result<()>> {
        let answer = self.call("release", "release".to_owned());
        async { answer }.boxed()
    }

    fn forget(&self, _: &PodUid) {}
}
