//! A node that stands alone: there is no API server, and everything that needs one is an error that says so.

use super::{Api, ApiError, PodChange, Reference, Result};
use crate::pod::Pod;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::{self, BoxStream};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod as PodObject, Secret, Service};
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::{broadcast, watch};

/// The API of a node that has none.
#[derive(Debug)]
pub struct Standalone {
    /// Never says anything; its receivers wait instead of being told that all is over.
    node: watch::Sender<Option<Arc<Node>>>,
    changes: broadcast::Sender<Reference>,
}

impl Standalone {
    /// Makes it.
    pub fn start() -> Arc<dyn Api> {
        Arc::new(Standalone { node: watch::channel(None).0, changes: broadcast::channel(1).0 })
    }
}

fn alone<T: Send + 'static>(what: impl Into<String>) -> BoxFuture<'static, Result<T>> {
    Box::pin(ready(Err(ApiError::Standalone(what.into()))))
}

impl Api for Standalone {
    fn in_cluster(&self) -> bool {
        false
    }

    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Arc<Secret>>> {
        alone(format!("secret {namespace}/{name}"))
    }

    fn config_map<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Arc<ConfigMap>>> {
        alone(format!("configmap {namespace}/{name}"))
    }

    fn services(&self) -> BoxFuture<'_, Result<Arc<Vec<Service>>>> {
        Box::pin(ready(Ok(Arc::default())))
    }

    fn register(&self, _pod: &Pod) {}

    fn unregister(&self, _pod: &Pod) {}

    fn create_token<'a>(
        &'a self,
        namespace: &'a str,
        account: &'a str,
        _request: &'a TokenRequest,
    ) -> BoxFuture<'a, Result<TokenRequest>> {
        alone(format!("a token of service account {namespace}/{account}"))
    }

    fn pod<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<PodObject>> {
        alone(format!("pod {namespace}/{name}"))
    }

    fn create_pod<'a>(&'a self, _pod: &'a PodObject) -> BoxFuture<'a, Result<PodObject>> {
        alone("a pod's creation")
    }

    fn delete_pod<'a>(
        &'a self,
        _namespace: &'a str,
        _name: &'a str,
        _uid: &'a str,
        _grace: u32,
    ) -> BoxFuture<'a, Result<()>> {
        alone("a pod's deletion")
    }

    fn patch_pod_status<'a>(
        &'a self,
        _namespace: &'a str,
        _name: &'a str,
        _patch: &'a Value,
    ) -> BoxFuture<'a, Result<PodObject>> {
        alone("a change of a pod's status")
    }

    fn node<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Node>> {
        alone(format!("node {name}"))
    }

    fn watch_node(&self, _name: &str) -> watch::Receiver<Option<Arc<Node>>> {
        self.node.subscribe()
    }

    fn create_node<'a>(&'a self, _node: &'a Node) -> BoxFuture<'a, Result<Node>> {
        alone("a node's creation")
    }

    fn patch_node<'a>(&'a self, _name: &'a str, _patch: &'a Value) -> BoxFuture<'a, Result<Node>> {
        alone("a change of a node")
    }

    fn patch_node_status<'a>(&'a self, _name: &'a str, _patch: &'a Value) -> BoxFuture<'a, Result<Node>> {
        alone("a change of a node's status")
    }

    fn lease<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, Result<Lease>> {
        alone("a lease")
    }

    fn create_lease<'a>(&'a self, _lease: &'a Lease) -> BoxFuture<'a, Result<Lease>> {
        alone("a lease's creation")
    }

    fn replace_lease<'a>(&'a self, _lease: &'a Lease) -> BoxFuture<'a, Result<Lease>> {
        alone("a lease's renewal")
    }

    fn create_event<'a>(&'a self, _event: &'a Event) -> BoxFuture<'a, Result<Event>> {
        alone("an event's creation")
    }

    fn patch_event<'a>(
        &'a self,
        _namespace: &'a str,
        _name: &'a str,
        _patch: &'a Value,
    ) -> BoxFuture<'a, Result<Event>> {
        alone("a change of an event")
    }

    fn review_token<'a>(&'a self, _review: &'a TokenReview) -> BoxFuture<'a, Result<TokenReview>> {
        alone("a token review")
    }

    fn review_access<'a>(&'a self, _review: &'a SubjectAccessReview) -> BoxFuture<'a, Result<SubjectAccessReview>> {
        alone("an access review")
    }

    fn watch_pods(&self) -> BoxStream<'static, PodChange> {
        stream::empty().boxed()
    }

    fn changes(&self) -> broadcast::Receiver<Reference> {
        self.changes.subscribe()
    }
}
