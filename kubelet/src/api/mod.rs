//! The API server: the objects that pods refer to, and what the kubelet writes.

pub mod client;
pub mod events;
mod forbidden;
mod kept;
mod list_watch;
pub(crate) mod references;
pub mod standalone;
mod transport;

use crate::pod::Pod;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod as PodObject, Secret, Service};
use std::sync::Arc;
use tokio::sync::{broadcast, watch};

/// Why the API server did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    /// There is no such object (404).
    #[error("{0}")]
    NotFound(String),
    /// It exists already (409 AlreadyExists).
    #[error("{0}")]
    AlreadyExists(String),
    /// Somebody else changed it meanwhile, or a UID precondition failed (409 Conflict).
    #[error("{0}")]
    Conflict(String),
    /// Refused for good: 401, 403 (for a pod's tokens, Secrets and ConfigMaps: after some tries), 422 and other 4xx.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's words.
        message: String,
    },
    /// No answer, or 429 and 5xx: worth another try.
    #[error("{0}")]
    Unavailable(String),
    /// There is no API server: the node stands alone.
    #[error("this node stands alone: it has no API server to ask for {0}")]
    Standalone(String),
}

/// The result of a call.
pub type Result<T> = std::result::Result<T, ApiError>;

/// A Secret or ConfigMap that some pod refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Which of the two.
    pub kind: ReferenceKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What a [`Reference`] refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReferenceKind {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
}

/// What the watch of the pods that are bound to our node says.
#[derive(Debug, Clone)]
pub enum PodChange {
    /// All of them: the first list, and each list after a watch that could not be resumed.
    All(Vec<PodObject>),
    /// One was added or changed.
    Upsert(Box<PodObject>),
    /// One was deleted.
    Gone(Box<PodObject>),
}

/// What the kubelet asks of an API server.
///
/// Three things implement it: the client of a cluster, a node that stands alone (every read is
/// [`ApiError::Standalone`]), and the fake of the tests. `secret`, `config_map` and `services` answer from caches.
pub trait Api: Send + Sync + 'static {
    /// Whether there is an API server at all.
    fn in_cluster(&self) -> bool;
    /// A Secret that `pod` refers to; the first call starts a watch that lasts as long as a registered pod refers to it.
    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Arc<Secret>>>;
    /// A ConfigMap, likewise.
    fn config_map<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Arc<ConfigMap>>>;
    /// All services, once their first list has come. A node alone has none.
    fn services(&self) -> BoxFuture<'_, Result<Arc<Vec<Service>>>>;
    /// Starts and keeps the watches of everything that this version of `pod` refers to.
    fn register(&self, pod: &Pod);
    /// Ends them.
    fn unregister(&self, pod: &Pod);
    /// A token for the service account of a pod.
    fn create_token<'a>(
        &'a self,
        namespace: &'a str,
        account: &'a str,
        request: &'a TokenRequest,
    ) -> BoxFuture<'a, Result<TokenRequest>>;
    /// The pod as the server has it now.
    fn pod<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<PodObject>>;
    /// Creates a (mirror) pod.
    fn create_pod<'a>(&'a self, pod: &'a PodObject) -> BoxFuture<'a, Result<PodObject>>;
    /// Deletes a pod if it still has this UID.
    fn delete_pod<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        uid: &'a str,
        grace: u32,
    ) -> BoxFuture<'a, Result<()>>;
    /// Strategic merge patch of a pod's status; the patch holds `metadata.uid` as precondition.
    fn patch_pod_status<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        patch: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<PodObject>>;
    /// Our node.
    fn node<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Node>>;
    /// Our node as it changes, from a watch that lasts as long as a receiver of it; `None` while there is no such node or
    /// it was not seen yet, which is always on a node that stands alone.
    fn watch_node(&self, name: &str) -> watch::Receiver<Option<Arc<Node>>>;
    /// Registers our node.
    fn create_node<'a>(&'a self, node: &'a Node) -> BoxFuture<'a, Result<Node>>;
    /// Strategic merge patch of the node.
    fn patch_node<'a>(&'a self, name: &'a str, patch: &'a serde_json::Value) -> BoxFuture<'a, Result<Node>>;
    /// Strategic merge patch of the node's status.
    fn patch_node_status<'a>(&'a self, name: &'a str, patch: &'a serde_json::Value) -> BoxFuture<'a, Result<Node>>;
    /// The node's lease.
    fn lease<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Lease>>;
    /// Creates it.
    fn create_lease<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Lease>>;
    /// Renews it.
    fn replace_lease<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Lease>>;
    /// Writes an event.
    fn create_event<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<Event>>;
    /// Counts an event up.
    fn patch_event<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        patch: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Event>>;
    /// Whose token is this.
    fn review_token<'a>(&'a self, review: &'a TokenReview) -> BoxFuture<'a, Result<TokenReview>>;
    /// May they.
    fn review_access<'a>(&'a self, review: &'a SubjectAccessReview) -> BoxFuture<'a, Result<SubjectAccessReview>>;
    /// The pods bound to our node, from now on. Never ends while there is an API server; a node alone has an empty
    /// stream that ends at once.
    fn watch_pods(&self) -> BoxStream<'static, PodChange>;
    /// Secrets and ConfigMaps of registered pods that have changed: volumes made of them want a refresh. Who lags behind
    /// refreshes all.
    fn changes(&self) -> broadcast::Receiver<Reference>;
}
