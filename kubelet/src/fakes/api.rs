//! An API server in memory: what is put in is answered, what is written is kept, what is scripted fails.

use crate::api::{Api, ApiError, PodChange, Reference, Result};
use crate::pod::Pod;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::BoxStream;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod as PodObject, Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

type Names = (String, String);

/// The fake. Cheap to clone: all clones are one server.
#[derive(Clone)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    node: watch::Sender<Option<Arc<Node>>>,
    changes: broadcast::Sender<Reference>,
}

/// What it holds; a test may look at all of it.
#[derive(Default)]
pub(crate) struct State {
    /// Pods, with the statuses that were patched in.
    pub(crate) pods: BTreeMap<Names, PodObject>,
    /// Secrets.
    pub(crate) secrets: BTreeMap<Names, Arc<Secret>>,
    /// ConfigMaps.
    pub(crate) config_maps: BTreeMap<Names, Arc<ConfigMap>>,
    /// Services.
    pub(crate) services: Arc<Vec<Service>>,
    /// Events in the order of creation, counted up by patches.
    pub(crate) events: Vec<Event>,
    /// Every call that writes: `patch_pod_status default/web`.
    pub(crate) calls: Vec<String>,
    /// Patches of pod statuses as they came.
    pub(crate) patches: Vec<Value>,
    /// The lease.
    pub(crate) lease: Option<Lease>,
    /// UIDs of pods whose references are watched.
    pub(crate) registered: BTreeSet<String>,
    /// How tokens and accesses are reviewed: the answer's status for what is asked.
    pub(crate) token_review: Option<fn(&TokenReview) -> TokenReview>,
    /// Likewise.
    pub(crate) access_review: Option<fn(&SubjectAccessReview) -> SubjectAccessReview>,
    /// Accesses that were reviewed, in order.
    pub(crate) access_reviews: Vec<SubjectAccessReview>,
    failures: BTreeMap<String, VecDeque<ApiError>>,
    held: BTreeMap<String, oneshot::Receiver<()>>,
    watchers: Vec<mpsc::UnboundedSender<PodChange>>,
    versions: u64,
}

impl FakeApi {
    /// An empty server.
    pub(crate) fn new() -> FakeApi {
        FakeApi { state: Arc::default(), node: watch::channel(None).0, changes: broadcast::channel(64).0 }
    }

    /// As what the code under test takes.
    pub(crate) fn api(&self) -> Arc<dyn Api> {
        Arc::new(self.clone())
    }

    /// What it holds.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The next calls of this verb (`create_pod`, …) fail so, one each.
    pub(crate) fn fail(&self, verb: &str, errors: impl IntoIterator<Item = ApiError>) {
        self.state().failures.entry(verb.to_owned()).or_default().extend(errors);
    }

    /// The next call of this verb is done at once, and answered when the sender says so.
    pub(crate) fn hold(&self, verb: &str) -> oneshot::Sender<()> {
        let (sender, receiver) = oneshot::channel();
        self.state().held.insert(verb.to_owned(), receiver);
        sender
    }

    /// No call fails any more.
    pub(crate) fn end_failures(&self) {
        self.state().failures.clear();
    }

    /// Adds or replaces a pod; watchers hear of it.
    pub(crate) fn put_pod(&self, pod: PodObject) -> PodObject {
        self.state().put_pod(pod)
    }

    /// Removes a pod; watchers hear of it.
    pub(crate) fn remove_pod(&self, namespace: &str, name: &str) {
        self.state().remove_pod(&names(namespace, name));
    }

    /// Tells every watcher of pods something.
    pub(crate) fn say(&self, change: PodChange) {
        self.state().say(&change);
    }

    /// Sets our node.
    pub(crate) fn put_node(&self, node: Node) {
        self.node.send_replace(Some(Arc::new(node)));
    }

    /// Adds or replaces a Secret; whoever listens to changes hears of it.
    pub(crate) fn put_secret(&self, secret: Secret) {
        let names = names_of(&secret.metadata);
        self.state().secrets.insert(names.clone(), Arc::new(secret));
        self.changed(crate::api::ReferenceKind::Secret, names);
    }

    /// Adds or replaces a ConfigMap, likewise.
    pub(crate) fn put_config_map(&self, config_map: ConfigMap) {
        let names = names_of(&config_map.metadata);
        self.state().config_maps.insert(names.clone(), Arc::new(config_map));
        self.changed(crate::api::ReferenceKind::ConfigMap, names);
    }

    fn changed(&self, kind: crate::api::ReferenceKind, (namespace, name): Names) {
        // Nobody may be listening.
        let _ = self.changes.send(Reference { kind, namespace, name });
    }

    fn call<T: Send + 'static>(
        &self,
        verb: &str,
        names: &Names,
        answer: impl FnOnce(&mut State) -> Result<T>,
    ) -> BoxFuture<'static, Result<T>> {
        let mut state = self.state();
        if let Some(error) = state.failures.get_mut(verb).and_then(VecDeque::pop_front) {
            return Box::pin(ready(Err(error)));
        }
        let reads = ["secret", "config_map", "services", "pod", "node", "lease"];
        if !reads.contains(&verb) {
            state.calls.push(format!("{verb} {}/{}", names.0, names.1));
        }
        let answer = answer(&mut state);
        match state.held.remove(verb) {
            Some(said) => Box::pin(async {
                // A test that ends without a word has its answer.
                let _ = said.await;
                answer
            }),
            None => Box::pin(ready(answer)),
        }
    }

    fn patch_node_object(&self, verb: &str, name: &str, patch: &Value) -> BoxFuture<'static, Result<Node>> {
        let patched: Result<Node> =
            self.node.borrow().as_deref().map(|node| merged(node, patch)).ok_or(not_found("nodes", name));
        self.call(verb, &names("", name), |_| {
            let patched = patched?;
            self.node.send_replace(Some(Arc::new(patched.clone())));
            Ok(patched)
        })
    }
}

impl State {
    fn put_pod(&mut self, mut pod: PodObject) -> PodObject {
        self.versions += 1;
        pod.metadata.resource_version = Some(self.versions.to_string());
        self.pods.insert(names_of(&pod.metadata), pod.clone());
        self.say(&PodChange::Upsert(Box::new(pod.clone())));
        pod
    }

    fn remove_pod(&mut self, names: &Names) {
        if let Some(pod) = self.pods.remove(names) {
            self.say(&PodChange::Gone(Box::new(pod)));
        }
    }

    fn say(&mut self, change: &PodChange) {
        self.watchers.retain(|watcher| watcher.send(change.clone()).is_ok());
    }
}

fn names(namespace: &str, name: &str) -> Names {
    (namespace.to_owned(), name.to_owned())
}

fn names_of(meta: &ObjectMeta) -> Names {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn not_found(what: &str, name: &str) -> ApiError {
    ApiError::NotFound(format!("{what} {name:?} not found"))
}

fn merged<T: Serialize + DeserializeOwned>(object: &T, patch: &Value) -> T {
    let mut value = serde_json::to_value(object).expect("API objects are JSON");
    strategic_merge(&mut value, patch);
    serde_json::from_value(value).expect("a patched object is still one")
}

/// Applies a strategic merge patch as the API server would: lists of conditions, taints and addresses merge by their keys.
pub(crate) fn strategic_merge(target: &mut Value, patch: &Value) {
    let (Value::Object(fields), Value::Object(changes)) = (&mut *target, patch) else {
        *target = patch.clone();
        return;
    };
    for (name, change) in changes.iter().filter(|(name, _)| !name.starts_with('$')) {
        let key = match name.as_str() {
            "conditions" | "addresses" => Some("type"),
            "podIPs" | "hostIPs" => Some("ip"),
            _ => None,
        };
        match (change, key) {
            (Value::Null, _) => {
                fields.remove(name);
            }
            (Value::Object(_), _) => strategic_merge(fields.entry(name.clone()).or_insert_with(|| json!({})), change),
            (Value::Array(changes), Some(key)) => {
                merge_list(fields.entry(name.clone()).or_insert_with(|| json!([])), key, changes);
            }
            _ => {
                fields.insert(name.clone(), change.clone());
            }
        }
    }
    for (name, order) in
        changes.iter().filter_map(|(name, value)| Some((name.strip_prefix("$setElementOrder/")?, value)))
    {
        let (Some(list), Some(order)) = (fields.get_mut(name).and_then(Value::as_array_mut), order.as_array()) else {
            continue;
        };
        let Some((key, _)) = order.first().and_then(Value::as_object).and_then(|first| first.iter().next()) else {
            continue;
        };
        list.sort_by_key(|element| order.iter().position(|place| place[key] == element[key]));
    }
}

fn merge_list(target: &mut Value, key: &str, changes: &[Value]) {
    let Value::Array(list) = target else { return };
    if changes.iter().any(|change| change.get("$patch").and_then(Value::as_str) == Some("replace")) {
        *list = changes.iter().filter(|change| change.get("$patch").is_none()).cloned().collect();
        return;
    }
    for change in changes {
        let at = list.iter().position(|element| element[key] == change[key]);
        match (at, change.get("$patch").and_then(Value::as_str)) {
            (Some(at), Some("delete")) => drop(list.remove(at)),
            (None, Some("delete")) => {}
            (Some(at), _) => strategic_merge(&mut list[at], change),
            (None, _) => list.push(change.clone()),
        }
    }
}

impl Api for FakeApi {
    fn in_cluster(&self) -> bool {
        true
    }

    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Arc<Secret>>> {
        let names = names(namespace, name);
        self.call("secret", &names, |state| state.secrets.get(&names).cloned().ok_or(not_found("secrets", name)))
    }

    fn config_map<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Arc<ConfigMap>>> {
        let names = names(namespace, name);
        self.call("config_map", &names, |state| {
            state.config_maps.get(&names).cloned().ok_or(not_found("configmaps", name))
        })
    }

    fn services(&self) -> BoxFuture<'_, Result<Arc<Vec<Service>>>> {
        self.call("services", &names("", ""), |state| Ok(state.services.clone()))
    }

    fn register(&self, pod: &Pod) {
        self.state().registered.insert(pod.uid().to_string());
    }

    fn unregister(&self, pod: &Pod) {
        self.state().registered.remove(pod.uid().as_str());
    }

    fn create_token<'a>(
        &'a self,
        namespace: &'a str,
        account: &'a str,
        request: &'a TokenRequest,
    ) -> BoxFuture<'a, Result<TokenRequest>> {
        let mut answer = request.clone();
        self.call("create_token", &names(namespace, account), |state| {
            state.versions += 1;
            let status = json!({"token": format!("token-{}", state.versions), "expirationTimestamp": null});
            answer.status = serde_json::from_value(status).ok();
            Ok(answer)
        })
    }

    fn pod<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<PodObject>> {
        let names = names(namespace, name);
        self.call("pod", &names, |state| state.pods.get(&names).cloned().ok_or(not_found("pods", name)))
    }

    fn create_pod<'a>(&'a self, pod: &'a PodObject) -> BoxFuture<'a, Result<PodObject>> {
        let mut pod = pod.clone();
        let names = names_of(&pod.metadata);
        self.call("create_pod", &names, |state| {
            if state.pods.contains_key(&names) {
                return Err(ApiError::AlreadyExists(format!("pods {:?} already exists", names.1)));
            }
            state.versions += 1;
            pod.metadata.uid = Some(format!("uid-{}", state.versions));
            Ok(state.put_pod(pod))
        })
    }

    fn delete_pod<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        uid: &'a str,
        grace: u32,
    ) -> BoxFuture<'a, Result<()>> {
        let names = names(namespace, name);
        self.call("delete_pod", &names, |state| {
            let pod = state.pods.get(&names).ok_or(not_found("pods", name))?;
            if pod.metadata.uid.as_deref() != Some(uid) {
                return Err(ApiError::Conflict(format!("the UID in the precondition ({uid}) does not match")));
            }
            if grace == 0 {
                state.remove_pod(&names);
            }
            Ok(())
        })
    }

    fn patch_pod_status<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        patch: &'a Value,
    ) -> BoxFuture<'a, Result<PodObject>> {
        let names = names(namespace, name);
        self.call("patch_pod_status", &names, |state| {
            let pod = state.pods.get(&names).ok_or(not_found("pods", name))?;
            if patch["metadata"]["uid"].as_str() != pod.metadata.uid.as_deref() {
                return Err(ApiError::Conflict("Precondition failed: UID in precondition".to_owned()));
            }
            let patched = merged(pod, &json!({"status": patch["status"]}));
            state.patches.push(patch.clone());
            Ok(state.put_pod(patched))
        })
    }

    fn node<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Node>> {
        let node = self.node.borrow().as_deref().cloned().ok_or(not_found("nodes", name));
        self.call("node", &names("", name), |_| node)
    }

    fn watch_node(&self, _name: &str) -> watch::Receiver<Option<Arc<Node>>> {
        self.node.subscribe()
    }

    fn create_node<'a>(&'a self, node: &'a Node) -> BoxFuture<'a, Result<Node>> {
        let names = names_of(&node.metadata);
        let exists = self.node.borrow().is_some();
        let node = node.clone();
        self.call("create_node", &names.clone(), |_| {
            if exists {
                return Err(ApiError::AlreadyExists(format!("nodes {:?} already exists", names.1)));
            }
            self.put_node(node.clone());
            Ok(node)
        })
    }

    fn patch_node<'a>(&'a self, name: &'a str, patch: &'a Value) -> BoxFuture<'a, Result<Node>> {
        self.patch_node_object("patch_node", name, patch)
    }

    fn patch_node_status<'a>(&'a self, name: &'a str, patch: &'a Value) -> BoxFuture<'a, Result<Node>> {
        self.patch_node_object("patch_node_status", name, patch)
    }

    fn lease<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Lease>> {
        self.call("lease", &names("", name), |state| state.lease.clone().ok_or(not_found("leases", name)))
    }

    fn create_lease<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Lease>> {
        let lease = lease.clone();
        self.call("create_lease", &names_of(&lease.metadata), |state| {
            state.lease = Some(lease.clone());
            Ok(lease)
        })
    }

    fn replace_lease<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Lease>> {
        let lease = lease.clone();
        self.call("replace_lease", &names_of(&lease.metadata), |state| {
            state.lease = Some(lease.clone());
            Ok(lease)
        })
    }

    fn create_event<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<Event>> {
        let event = event.clone();
        self.call("create_event", &names_of(&event.metadata), |state| {
            state.events.push(event.clone());
            Ok(event)
        })
    }

    fn patch_event<'a>(&'a self, namespace: &'a str, name: &'a str, patch: &'a Value) -> BoxFuture<'a, Result<Event>> {
        let names = names(namespace, name);
        self.call("patch_event", &names, |state| {
            let event = state.events.iter_mut().find(|event| names_of(&event.metadata) == names);
            let event = event.ok_or(not_found("events", name))?;
            *event = merged(event, patch);
            Ok(event.clone())
        })
    }

    fn review_token<'a>(&'a self, review: &'a TokenReview) -> BoxFuture<'a, Result<TokenReview>> {
        let review = review.clone();
        self.call("review_token", &names("", ""), |state| {
            Ok(state.token_review.map_or_else(|| review.clone(), |answer| answer(&review)))
        })
    }

    fn review_access<'a>(&'a self, review: &'a SubjectAccessReview) -> BoxFuture<'a, Result<SubjectAccessReview>> {
        let review = review.clone();
        self.call("review_access", &names("", ""), |state| {
            state.access_reviews.push(review.clone());
            Ok(state.access_review.map_or_else(|| review.clone(), |answer| answer(&review)))
        })
    }

    fn watch_pods(&self) -> BoxStream<'static, PodChange> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state();
        // The receiver is at hand, so there is somebody to hear it.
        let _ = sender.send(PodChange::All(state.pods.values().cloned().collect()));
        state.watchers.push(sender);
        UnboundedReceiverStream::new(receiver).boxed()
    }

    fn changes(&self) -> broadcast::Receiver<Reference> {
        self.changes.subscribe()
    }
}
