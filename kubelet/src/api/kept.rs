//! Secrets and ConfigMaps, each watched for as long as a pod refers to it, and answered from memory.
//!
//! One watch per object, because that is what a node is allowed to watch: the API server's node authoriser knows which
//! objects the pods of a node refer to.

use super::client::map_error;
use super::forbidden::until_allowed;
use super::list_watch::{Seen, Selected, watch};
use super::{ApiError, Reference, ReferenceKind, Result};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{broadcast, watch as cell};
use tokio::task::AbortHandle;

/// How long to wait for a first list before the caller is told to try again.
const PATIENCE: Duration = Duration::from_secs(5);

/// A kind of object that pods refer to.
pub(super) trait Referred:
    kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + serde::de::DeserializeOwned
    + Clone
    + Debug
    + PartialEq
    + Send
    + Sync
    + 'static
{
    /// As a [`Reference`] names it.
    const REFERENCE: ReferenceKind;
    /// As messages name it: `secrets`.
    const PLURAL: &'static str;
    /// Whether it can never change: then it need not be watched.
    fn immutable(&self) -> bool;
}

impl Referred for Secret {
    const REFERENCE: ReferenceKind = ReferenceKind::Secret;
    const PLURAL: &'static str = "secrets";

    fn immutable(&self) -> bool {
        self.immutable.unwrap_or(false)
    }
}

impl Referred for ConfigMap {
    const REFERENCE: ReferenceKind = ReferenceKind::ConfigMap;
    const PLURAL: &'static str = "configmaps";

    fn immutable(&self) -> bool {
        self.immutable.unwrap_or(false)
    }
}

/// What is known of an object.
#[derive(Debug, Clone)]
enum Known<K> {
    /// Nothing yet.
    Nothing,
    /// There is none.
    Missing,
    /// The first list failed; it is tried again.
    Failed,
    /// This is it.
    Is(Arc<K>),
}

/// By namespace and name.
type Entries<K> = BTreeMap<(String, String), Entry<K>>;

/// The objects of one kind. Cheap to clone.
pub(super) struct Kept<K> {
    client: kube::Client,
    changes: broadcast::Sender<Reference>,
    entries: Arc<Mutex<Entries<K>>>,
}

impl<K> Clone for Kept<K> {
    fn clone(&self) -> Self {
        Kept { client: self.client.clone(), changes: self.changes.clone(), entries: self.entries.clone() }
    }
}

struct Entry<K> {
    users: usize,
    known: cell::Receiver<Known<K>>,
    task: AbortHandle,
}

impl<K> Drop for Entry<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<K: Referred> Kept<K> {
    pub(super) fn new(client: kube::Client, changes: broadcast::Sender<Reference>) -> Kept<K> {
        Kept { client, changes, entries: Arc::default() }
    }

    /// One more refers to it.
    pub(super) fn acquire(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let mut entries = self.entries();
        entries.entry(key.clone()).or_insert_with(|| self.start(key)).users += 1;
    }

    /// One fewer does; the last ends the watch.
    pub(super) fn release(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&key) else { return };
        entry.users -= 1;
        if entry.users == 0 {
            entries.remove(&key);
        }
    }

    /// The object: from memory where it is watched, else from the API server.
    pub(super) async fn get(&self, namespace: &str, name: &str) -> Result<Arc<K>> {
        let key = (namespace.to_owned(), name.to_owned());
        let known = self.entries().get(&key).map(|entry| entry.known.clone());
        let Some(mut known) = known else { return self.ask(namespace, name).await };
        let settled = known.wait_for(|known| !matches!(known, Known::Nothing));
        let known = match tokio::time::timeout(PATIENCE, settled).await {
            Ok(Ok(known)) => known.clone(),
            // Not listed in time, or not referred to any more.
            _ => Known::Nothing,
        };
        match known {
            Known::Is(object) => Ok(object),
            Known::Missing => Err(ApiError::NotFound(format!("{} {name:?} not found", K::PLURAL))),
            Known::Failed => self.ask(namespace, name).await,
            Known::Nothing => {
                Err(ApiError::Unavailable(format!("{} {namespace}/{name}: not listed within {PATIENCE:?}", K::PLURAL)))
            }
        }
    }

    async fn ask(&self, namespace: &str, name: &str) -> Result<Arc<K>> {
        let api: kube::Api<K> = kube::Api::namespaced(self.client.clone(), namespace);
        let get = || async {
            match tokio::time::timeout(PATIENCE, api.get(name)).await {
                Ok(answer) => answer.map_err(|error| map_error(&error)),
                Err(_) => Err(ApiError::Unavailable(format!(
                    "get {} {namespace}/{name}: no answer in {PATIENCE:?}",
                    K::PLURAL
                ))),
            }
        };
        Ok(Arc::new(trimmed(until_allowed(get).await?)))
    }

    fn start(&self, (namespace, name): (String, String)) -> Entry<K> {
        let (sender, known) = cell::channel(Known::Nothing);
        let api: kube::Api<K> = kube::Api::namespaced(self.client.clone(), &namespace);
        let server = Selected { api, fields: Some(format!("metadata.name={name}")) };
        let reference = Reference { kind: K::REFERENCE, namespace, name };
        let task = tokio::spawn(keep(server, reference, sender, self.changes.clone())).abort_handle();
        Entry { users: 0, known, task }
    }

    fn entries(&self) -> MutexGuard<'_, Entries<K>> {
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Watches one object until it is aborted, or the object says that it never changes.
async fn keep<K: Referred>(
    server: Selected<K>,
    reference: Reference,
    known: cell::Sender<Known<K>>,
    changes: broadcast::Sender<Reference>,
) {
    let what = format!("{} {}/{}", K::PLURAL, reference.namespace, reference.name);
    let mut seen = pin!(watch(what, server));
    while let Some(seen) = seen.next().await {
        let now = match seen {
            Seen::All(mut all) => all.pop().map_or(Known::Missing, |object| Known::Is(Arc::new(trimmed(object)))),
            Seen::Upsert(object) => Known::Is(Arc::new(trimmed(object))),
            Seen::Gone(_) => Known::Missing,
            Seen::Failed(_) => Known::Failed,
        };
        let constant = matches!(&now, Known::Is(object) if object.immutable());
        let first = matches!(*known.borrow(), Known::Nothing);
        let changed = known.send_if_modified(|before| {
            let same = matches!((&*before, &now), (Known::Is(a), Known::Is(b)) if a == b);
            *before = now;
            !same
        });
        if changed && !first {
            // Nobody may be listening.
            let _ = changes.send(reference.clone());
        }
        if constant {
            // The value stays readable as long as the sender lives.
            known.closed().await;
            return;
        }
    }
}

/// The object without what only its authors need: managed fields, and the annotation that holds it a second time.
fn trimmed<K: Referred>(mut object: K) -> K {
    let meta = std::mem::take(object.metadata_mut());
    *object.metadata_mut() = ObjectMeta {
        name: meta.name,
        namespace: meta.namespace,
        uid: meta.uid,
        resource_version: meta.resource_version,
        ..ObjectMeta::default()
    };
    object
}
