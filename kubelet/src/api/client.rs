//! The client of a cluster's API server.
//!
//! Reads and writes are plain calls with a deadline and a rate limit; what is read often is watched and answered from
//! memory: services, our node, the Secrets and ConfigMaps of our pods. Node status and lease go over a connection of their
//! own, so that nothing else can delay them.

use super::forbidden::until_allowed;
use super::kept::Kept;
use super::list_watch::{Seen, Selected, watch};
use super::transport::{self, Throttle};
use super::{Api, ApiError, PodChange, Reference, ReferenceKind, Result, references};
use crate::config::{ApiLimits, Config};
use crate::metrics::Metrics;
use crate::pod::{Pod, PodUid};
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::BoxStream;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod as PodObject, Secret, Service, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{broadcast, watch as cell};

/// The namespace of all nodes' leases.
const LEASES: &str = "kube-node-lease";
/// Deadline of a call.
const DEADLINE: Duration = Duration::from_secs(30);
/// Deadline of a heartbeat: the next one is due then.
const HEARTBEAT_DEADLINE: Duration = Duration::from_secs(10);
/// How long to wait for the first list of services.
const PATIENCE: Duration = Duration::from_secs(5);
/// Changes of Secrets and ConfigMaps that a slow listener may be behind.
const CHANGES: usize = 1024;

/// The API server of a cluster.
pub struct Cluster {
    node_name: String,
    client: kube::Client,
    heartbeat: kube::Client,
    calls: Throttle,
    /// Reviews, which strangers cause: pods don't wait behind them.
    reviews: Throttle,
    events: Throttle,
    secrets: Kept<Secret>,
    config_maps: Kept<ConfigMap>,
    /// What each registered pod refers to.
    referred: Mutex<BTreeMap<PodUid, BTreeSet<Reference>>>,
    changes: broadcast::Sender<Reference>,
    services: cell::Receiver<Option<Arc<Vec<Service>>>>,
    node: Mutex<Option<cell::Sender<Option<Arc<Node>>>>>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// `Config` names no kubeconfig.
    #[error("there is no kubeconfig")]
    None,
    /// The kubeconfig can't be used.
    #[error("kubeconfig {path}: {reason}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never a credential.
        reason: String,
    },
    /// Its certificates or keys can't.
    #[error("the credentials of kubeconfig {path}")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Cluster {
    /// Reads the kubeconfig that `config` names. Connects when something is asked, not before.
    ///
    /// # Errors
    /// A kubeconfig that can't be used; an API server that is away is none.
    pub async fn connect(config: &Config, metrics: Metrics) -> std::result::Result<Arc<dyn Api>, ConnectError> {
        let path = config.kubeconfig.as_deref().ok_or(ConnectError::None)?;
        let kubeconfig = transport::read(path).await?;
        let make = || {
            transport::client(&kubeconfig, metrics.clone())
                .map_err(|source| ConnectError::Credentials { path: path.to_owned(), source: Box::new(source) })
        };
        let client = make()?;
        if let Some(at) = transport::certificate_expires(&kubeconfig) {
            metrics.client_certificate_expires(at);
        }
        Ok(Arc::new(Cluster::over(&config.node_name, &config.api, client, make()?)))
    }

    /// Speaks through these two connections.
    fn over(node_name: &str, limits: &ApiLimits, client: kube::Client, heartbeat: kube::Client) -> Cluster {
        let changes = broadcast::channel(CHANGES).0;
        Cluster {
            node_name: node_name.to_owned(),
            heartbeat,
            calls: Throttle::new(limits.qps, limits.burst),
            reviews: Throttle::new(limits.qps, limits.burst),
            events: Throttle::new(limits.event_qps, limits.event_burst),
            secrets: Kept::new(client.clone(), changes.clone()),
            config_maps: Kept::new(client.clone(), changes.clone()),
            referred: Mutex::default(),
            changes,
            services: watch_services(client.clone()),
            node: Mutex::default(),
            client,
        }
    }

    fn pods(&self, namespace: &str) -> kube::Api<PodObject> {
        kube::Api::namespaced(self.client.clone(), namespace)
    }

    /// A call in its turn, with a deadline.
    async fn call<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T> {
        self.calls.turn().await;
        within(DEADLINE, call).await
    }

    fn referred(&self) -> MutexGuard<'_, BTreeMap<PodUid, BTreeSet<Reference>>> {
        self.referred.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn acquire(&self, reference: &Reference) {
        match reference.kind {
            ReferenceKind::Secret => self.secrets.acquire(&reference.namespace, &reference.name),
            ReferenceKind::ConfigMap => self.config_maps.acquire(&reference.namespace, &reference.name),
        }
    }

    fn release(&self, reference: &Reference) {
        match reference.kind {
            ReferenceKind::Secret => self.secrets.release(&reference.namespace, &reference.name),
            ReferenceKind::ConfigMap => self.config_maps.release(&reference.namespace, &reference.name),
        }
    }
}

async fn within<T>(deadline: Duration, call: impl Future<Output = kube::Result<T>>) -> Result<T> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(map_error(&error)),
        Err(_) => Err(ApiError::Unavailable(format!("the API server did not answer within {deadline:?}"))),
    }
}

/// What an error means to us. Answers that can't be read are not quoted: they may hold secrets.
pub(super) fn map_error(error: &kube::Error) -> ApiError {
    let status = match error {
        kube::Error::Api(status) => status,
        kube::Error::SerdeError(source) => {
            let (line, column) = (source.line(), source.column());
            return ApiError::Unavailable(format!(
                "the API server's answer is not what it should be (line {line}, column {column})"
            ));
        }
        kube::Error::FromUtf8(_) => return ApiError::Unavailable("the API server's answer is not text".to_owned()),
        // kube's own words for these say nothing.
        kube::Error::Service(source) => return ApiError::Unavailable(chain(&**source)),
        kube::Error::HyperError(source) => return ApiError::Unavailable(chain(source)),
        other => return ApiError::Unavailable(chain(other)),
    };
    let message = status.message.clone();
    match (status.code, status.reason.as_str()) {
        (404, _) => ApiError::NotFound(message),
        (409, "AlreadyExists") => ApiError::AlreadyExists(message),
        (409, _) => ApiError::Conflict(message),
        (408 | 429 | 500.., _) => ApiError::Unavailable(message),
        (status, _) => ApiError::Refused { status, message },
    }
}

/// An error and its causes in one line, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let part = source.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = source.source();
    }
    text
}

/// All services, cut down to what environments are made of.
fn watch_services(client: kube::Client) -> cell::Receiver<Option<Arc<Vec<Service>>>> {
    let (sender, receiver) = cell::channel(None);
    tokio::spawn(async move {
        let server = Selected { api: kube::Api::<Service>::all(client), fields: None };
        let mut all = BTreeMap::new();
        let mut seen = pin!(watch("services".to_owned(), server));
        let key = |service: &Service| (service.metadata.namespace.clone(), service.metadata.name.clone());
        loop {
            tokio::select! {
                () = sender.closed() => return,
                seen = seen.next() => match seen {
                    None => return,
                    Some(Seen::Failed(_)) => continue,
                    Some(Seen::All(list)) => all = list.into_iter().map(|one| (key(&one), trimmed_service(one))).collect(),
                    Some(Seen::Upsert(one)) => drop(all.insert(key(&one), trimmed_service(one))),
                    Some(Seen::Gone(one)) => drop(all.remove(&key(&one))),
                },
            }
            sender.send_replace(Some(Arc::new(all.values().cloned().collect())));
        }
    });
    receiver
}

fn trimmed_service(mut service: Service) -> Service {
    let meta = std::mem::take(&mut service.metadata);
    service.metadata.name = meta.name;
    service.metadata.namespace = meta.namespace;
    service.status = None;
    if let Some(spec) = &mut service.spec {
        spec.selector = None;
    }
    service
}

/// Our node while somebody listens, without its images and managed fields.
async fn keep_node(client: kube::Client, name: String, sender: cell::Sender<Option<Arc<Node>>>) {
    let server = Selected { api: kube::Api::<Node>::all(client), fields: Some(format!("metadata.name={name}")) };
    let mut seen = pin!(watch(format!("node {name}"), server));
    loop {
        let node = tokio::select! {
            () = sender.closed() => return,
            seen = seen.next() => match seen {
                None => return,
                Some(Seen::Failed(_)) => continue,
                Some(Seen::All(mut list)) => list.pop(),
                Some(Seen::Upsert(node)) => Some(node),
                Some(Seen::Gone(_)) => None,
            },
        };
        sender.send_replace(node.map(|mut node| {
            node.metadata.managed_fields = None;
            if let Some(status) = &mut node.status {
                status.images = None;
            }
            Arc::new(node)
        }));
    }
}

fn trimmed_pod(mut pod: PodObject) -> PodObject {
    pod.metadata.managed_fields = None;
    pod
}

impl Api for Cluster {
    fn in_cluster(&self) -> bool {
        true
    }

    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Arc<Secret>>> {
        Box::pin(self.secrets.get(namespace, name))
    }

    fn config_map<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Arc<ConfigMap>>> {
        Box::pin(self.config_maps.get(namespace, name))
    }

    fn services(&self) -> BoxFuture<'_, Result<Arc<Vec<Service>>>> {
        let mut services = self.services.clone();
        Box::pin(async move {
            let listed = services.wait_for(Option::is_some);
            let all = tokio::time::timeout(PATIENCE, listed).await.ok().and_then(|all| all.ok()?.clone());
            // Upstream's words.
            let missing = "services have not yet been read at least once, cannot construct envvars";
            all.ok_or_else(|| ApiError::Unavailable(missing.to_owned()))
        })
    }

    fn register(&self, pod: &Pod) {
        let new = references::of(pod);
        let mut referred = self.referred();
        let old = referred.insert(pod.uid().clone(), new.clone()).unwrap_or_default();
        // New ones first: what both versions refer to is never let go.
        new.difference(&old).for_each(|reference| self.acquire(reference));
        old.difference(&new).for_each(|reference| self.release(reference));
    }

    fn unregister(&self, pod: &Pod) {
        let old = self.referred().remove(pod.uid()).unwrap_or_default();
        old.iter().for_each(|reference| self.release(reference));
    }

    fn create_token<'a>(
        &'a self,
        namespace: &'a str,
        account: &'a str,
        request: &'a TokenRequest,
    ) -> BoxFuture<'a, Result<TokenRequest>> {
        let accounts: kube::Api<ServiceAccount> = kube::Api::namespaced(self.client.clone(), namespace);
        Box::pin(async move {
            let post = PostParams::default();
            until_allowed(|| self.call(accounts.create_token_request(account, &post, request))).await
        })
    }

    fn pod<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<PodObject>> {
        let pods = self.pods(namespace);
        Box::pin(self.call(async move { pods.get(name).await.map(trimmed_pod) }))
    }

    fn create_pod<'a>(&'a self, pod: &'a PodObject) -> BoxFuture<'a, Result<PodObject>> {
        let pods = self.pods(pod.metadata.namespace.as_deref().unwrap_or_default());
        Box::pin(self.call(async move { pods.create(&PostParams::default(), pod).await.map(trimmed_pod) }))
    }

    fn delete_pod<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        uid: &'a str,
        grace: u32,
    ) -> BoxFuture<'a, Result<()>> {
        let pods = self.pods(namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(grace),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() }),
            ..DeleteParams::default()
        };
        Box::pin(self.call(async move { pods.delete(name, &params).await.map(drop) }))
    }

    fn patch_pod_status<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        patch: &'a Value,
    ) -> BoxFuture<'a, Result<PodObject>> {
        let pods = self.pods(namespace);
        let patch = Patch::Strategic(patch);
        Box::pin(
            self.call(async move { pods.patch_status(name, &PatchParams::default(), &patch).await.map(trimmed_pod) }),
        )
    }

    fn node<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Node>> {
        let nodes: kube::Api<Node> = kube::Api::all(self.heartbeat.clone());
        Box::pin(within(HEARTBEAT_DEADLINE, async move { nodes.get(name).await }))
    }

    fn watch_node(&self, name: &str) -> cell::Receiver<Option<Arc<Node>>> {
        let mut kept = self.node.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(sender) = kept.as_ref().filter(|sender| !sender.is_closed()) {
            return sender.subscribe();
        }
        let (sender, receiver) = cell::channel(None);
        tokio::spawn(keep_node(self.client.clone(), name.to_owned(), sender.clone()));
        *kept = Some(sender);
        receiver
    }

    fn create_node<'a>(&'a self, node: &'a Node) -> BoxFuture<'a, Result<Node>> {
        let nodes: kube::Api<Node> = kube::Api::all(self.heartbeat.clone());
        Box::pin(within(HEARTBEAT_DEADLINE, async move { nodes.create(&PostParams::default(), node).await }))
    }

    fn patch_node<'a>(&'a self, name: &'a str, patch: &'a Value) -> BoxFuture<'a, Result<Node>> {
        let nodes: kube::Api<Node> = kube::Api::all(self.heartbeat.clone());
        let patch = Patch::Strategic(patch);
        Box::pin(within(HEARTBEAT_DEADLINE, async move { nodes.patch(name, &PatchParams::default(), &patch).await }))
    }

    fn patch_node_status<'a>(&'a self, name: &'a str, patch: &'a Value) -> BoxFuture<'a, Result<Node>> {
        let nodes: kube::Api<Node> = kube::Api::all(self.heartbeat.clone());
        let patch = Patch::Strategic(patch);
        Box::pin(within(
            HEARTBEAT_DEADLINE,
            async move { nodes.patch_status(name, &PatchParams::default(), &patch).await },
        ))
    }

    fn lease<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Lease>> {
        let leases: kube::Api<Lease> = kube::Api::namespaced(self.heartbeat.clone(), LEASES);
        Box::pin(within(HEARTBEAT_DEADLINE, async move { leases.get(name).await }))
    }

    fn create_lease<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Lease>> {
        let leases: kube::Api<Lease> = kube::Api::namespaced(self.heartbeat.clone(), LEASES);
        Box::pin(within(HEARTBEAT_DEADLINE, async move { leases.create(&PostParams::default(), lease).await }))
    }

    fn replace_lease<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Lease>> {
        let leases: kube::Api<Lease> = kube::Api::namespaced(self.heartbeat.clone(), LEASES);
        let name = lease.metadata.name.as_deref().unwrap_or_default();
        Box::pin(within(HEARTBEAT_DEADLINE, async move { leases.replace(name, &PostParams::default(), lease).await }))
    }

    fn create_event<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<Event>> {
        let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
        let events: kube::Api<Event> = kube::Api::namespaced(self.client.clone(), namespace);
        Box::pin(async move {
            self.events.turn().await;
            within(DEADLINE, events.create(&PostParams::default(), event)).await
        })
    }

    fn patch_event<'a>(&'a self, namespace: &'a str, name: &'a str, patch: &'a Value) -> BoxFuture<'a, Result<Event>> {
        let events: kube::Api<Event> = kube::Api::namespaced(self.client.clone(), namespace);
        Box::pin(async move {
            self.events.turn().await;
            within(DEADLINE, events.patch(name, &PatchParams::default(), &Patch::Strategic(patch))).await
        })
    }

    fn review_token<'a>(&'a self, review: &'a TokenReview) -> BoxFuture<'a, Result<TokenReview>> {
        let reviews: kube::Api<TokenReview> = kube::Api::all(self.client.clone());
        Box::pin(async move {
            self.reviews.turn().await;
            within(DEADLINE, reviews.create(&PostParams::default(), review)).await
        })
    }

    fn review_access<'a>(&'a self, review: &'a SubjectAccessReview) -> BoxFuture<'a, Result<SubjectAccessReview>> {
        let reviews: kube::Api<SubjectAccessReview> = kube::Api::all(self.client.clone());
        Box::pin(async move {
            self.reviews.turn().await;
            within(DEADLINE, reviews.create(&PostParams::default(), review)).await
        })
    }

    fn watch_pods(&self) -> BoxStream<'static, PodChange> {
        let api: kube::Api<PodObject> = kube::Api::all(self.client.clone());
        let server = Selected { api, fields: Some(format!("spec.nodeName={}", self.node_name)) };
        let changes = watch("pods".to_owned(), server).filter_map(|seen| {
            ready(match seen {
                Seen::All(all) => Some(PodChange::All(all.into_iter().map(trimmed_pod).collect())),
                Seen::Upsert(pod) => Some(PodChange::Upsert(Box::new(trimmed_pod(pod)))),
                Seen::Gone(pod) => Some(PodChange::Gone(Box::new(trimmed_pod(pod)))),
                Seen::Failed(error) => {
                    tracing::warn!(%error, "the pods of this node can't be listed yet");
                    None
                }
            })
        });
        changes.boxed()
    }

    fn changes(&self) -> broadcast::Receiver<Reference> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests;
