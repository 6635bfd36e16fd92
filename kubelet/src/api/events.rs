//! Events: what `kubectl describe` shows of a pod's or the node's life.
//!
//! A [`Recorder`] puts an event into a bounded queue and returns; one task [`correlate`]s (repeats are counted, similar
//! ones combined, floods dropped) and writes, with retries. A node that stands alone writes them to its log.

mod correlate;

use super::{Api, ApiError};
use crate::clock::Clock;
use crate::pod::{Pod, Role};
use correlate::{Correlator, Write};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{info, warn};

/// Events that wait to be written; more are dropped. A thousand is some minutes of a busy node.
const QUEUE: usize = 1000;
/// Tries to write one event while the API server does not answer.
const TRIES: u32 = 12;
/// The pause between them.
const PAUSE: Duration = Duration::from_secs(10);

/// How an event is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Information.
    Normal,
    /// Trouble.
    Warning,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Normal => "Normal",
            Kind::Warning => "Warning",
        }
    }
}

/// Writes events. Cheap to clone, never blocks: a queue stands between.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Event>,
    clock: Clock,
    node_name: Arc<str>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// Starts the task that writes to `api` in the name of this node's kubelet. It ends when the last recorder is dropped.
    pub fn start(api: Arc<dyn Api>, clock: Clock, node_name: &str) -> Recorder {
        let (queue, events) = mpsc::channel(QUEUE);
        let recorder = Recorder { queue, clock: clock.clone(), node_name: node_name.into(), dropped: Arc::default() };
        tokio::spawn(write_all(api, clock, events, recorder.dropped.clone()));
        recorder
    }

    /// A recorder whose events a test reads as they are recorded.
    #[cfg(test)]
    pub(crate) fn captured(clock: Clock) -> (Recorder, mpsc::Receiver<Event>) {
        let (queue, events) = mpsc::channel(QUEUE);
        (Recorder { queue, clock, node_name: "node".into(), dropped: Arc::default() }, events)
    }

    /// An event of a pod.
    pub fn pod(&self, pod: &Pod, kind: Kind, reason: &str, message: impl Into<String>) {
        self.record(pod_reference(pod, None), kind, reason, message.into());
    }

    /// An event of one of its containers.
    pub fn container(&self, pod: &Pod, role: Role, name: &str, kind: Kind, reason: &str, message: impl Into<String>) {
        let list = match role {
            Role::Init | Role::Sidecar => "initContainers",
            Role::Regular => "containers",
        };
        let path = format!("spec.{list}{{{name}}}");
        self.record(pod_reference(pod, Some(path)), kind, reason, message.into());
    }

    /// An event of our node.
    pub fn node(&self, kind: Kind, reason: &str, message: impl Into<String>) {
        let object = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(self.node_name.to_string()),
            // Every kubelet does so: `kubectl describe node` finds them by this "UID".
            uid: Some(self.node_name.to_string()),
            ..ObjectReference::default()
        };
        self.record(object, kind, reason, message.into());
    }

    fn record(&self, object: ObjectReference, kind: Kind, reason: &str, message: String) {
        let now = self.clock.now().wall;
        let name = object.name.as_deref().unwrap_or_default();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", now.as_nanosecond())),
                namespace: Some(object.namespace.clone().unwrap_or_else(|| "default".to_owned())),
                ..ObjectMeta::default()
            },
            reason: Some(reason.to_owned()),
            message: Some(message),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            type_: Some(kind.as_str().to_owned()),
            source: Some(EventSource { component: Some("kubelet".to_owned()), host: Some(self.node_name.to_string()) }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.node_name.to_string()),
            involved_object: object,
            ..Event::default()
        };
        // A full queue means that the API server has been away for long; who waits for it would not run pods.
        if self.queue.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn pod_reference(pod: &Pod, field_path: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace().to_owned()),
        name: Some(pod.name().to_owned()),
        // Of a static pod its own UID: `kubectl describe` finds it in the mirror's annotation.
        uid: Some(pod.uid().to_string()),
        resource_version: pod.object().metadata.resource_version.clone(),
        field_path,
    }
}

async fn write_all(api: Arc<dyn Api>, clock: Clock, mut events: mpsc::Receiver<Event>, dropped: Arc<AtomicU64>) {
    let mut correlator = Correlator::default();
    while let Some(event) = events.recv().await {
        if !api.in_cluster() {
            log(&event);
            continue;
        }
        if let Some(write) = correlator.observe(event, clock.now()) {
            write_one(&*api, &mut correlator, write).await;
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            warn!(lost, "events were dropped: the API server takes them too slowly");
        }
    }
}

fn log(event: &Event) {
    let object = &event.involved_object;
    info!(
        kind = object.kind,
        namespace = object.namespace,
        name = object.name,
        field = object.field_path,
        r#type = event.type_,
        reason = event.reason,
        "{}",
        event.message.as_deref().unwrap_or_default()
    );
}

/// Writes one event; gives up on what the API server refuses, and after [`TRIES`] without an answer.
async fn write_one(api: &dyn Api, correlator: &mut Correlator, mut write: Write) {
    for tried in 1..=TRIES {
        let result = match &write {
            Write::Create(event) => api.create_event(event).await,
            Write::Patch { event, patch } => {
                let (namespace, name) = (event.metadata.namespace.as_deref(), event.metadata.name.as_deref());
                api.patch_event(namespace.unwrap_or_default(), name.unwrap_or_default(), patch).await
            }
        };
        match (result, write) {
            (Ok(_), _) => return,
            // The API server keeps events for an hour: the one to count up may be gone.
            (Err(ApiError::NotFound(_)), Write::Patch { event, .. }) => write = Write::Create(event),
            (Err(error @ ApiError::Unavailable(_)), same) => {
                if tried == TRIES {
                    give_up(same.event(), &error);
                    return;
                }
                write = same;
                tokio::time::sleep_until(tokio::time::Instant::now() + PAUSE).await;
            }
            (Err(error), refused) => {
                give_up(refused.event(), &error);
                correlator.forget(refused.event());
                return;
            }
        }
    }
}

fn give_up(event: &Event, error: &ApiError) {
    let object = &event.involved_object;
    warn!(
        kind = object.kind,
        namespace = object.namespace,
        name = object.name,
        reason = event.reason,
        %error,
        "an event is not written"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::api::FakeApi;
    use crate::pod::Source;
    use k8s_openapi::api::core::v1 as core;
    use serde_json::json;

    fn pod(name: &str) -> Pod {
        let object: core::Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": format!("{name}-uid"), "resourceVersion": "7"},
            "spec": {"containers": [{"name": "c"}]},
        }))
        .unwrap();
        Pod::new(Arc::new(object), Source::Api).unwrap()
    }

    fn clock() -> Clock {
        Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap())
    }

    /// Lets the writing task do all it can without time going by.
    async fn settle() {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_says_who_what_and_where() {
        let fake = FakeApi::new();
        let recorder = Recorder::start(fake.api(), clock(), "n1");
        recorder.container(&pod("web"), Role::Regular, "c", Kind::Normal, "Started", "Container started");
        settle().await;
        let state = fake.state();
        let event = &state.events[0];
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        assert!(event.metadata.name.as_deref().unwrap().starts_with("web.18867"), "{:?}", event.metadata.name);
        assert_eq!(event.involved_object.field_path.as_deref(), Some("spec.containers{c}"));
        assert_eq!(event.involved_object.uid.as_deref(), Some("web-uid"));
        assert_eq!(event.reporting_component.as_deref(), Some("kubelet"));
        assert_eq!(event.reporting_instance.as_deref(), Some("n1"));
        assert_eq!(event.source.as_ref().unwrap().host.as_deref(), Some("n1"));
        assert_eq!((event.count, event.type_.as_deref()), (Some(1), Some("Normal")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_event_is_in_the_default_namespace_and_its_uid_is_the_name() {
        let fake = FakeApi::new();
        let recorder = Recorder::start(fake.api(), clock(), "n1");
        recorder.node(Kind::Normal, "Starting", "Starting kubelet.");
        settle().await;
        let state = fake.state();
        let event = &state.events[0];
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(event.involved_object.uid.as_deref(), Some("n1"));
        assert_eq!(event.involved_object.namespace, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeat_is_counted_up() {
        let fake = FakeApi::new();
        let recorder = Recorder::start(fake.api(), clock(), "n1");
        for _ in 0..3 {
            recorder.pod(&pod("web"), Kind::Warning, "BackOff", "Back-off");
        }
        settle().await;
        let state = fake.state();
        assert_eq!(state.events.len(), 1);
        assert_eq!(state.events[0].count, Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_outlasts_an_api_server_that_is_away() {
        let fake = FakeApi::new();
        fake.fail("create_event", (0..3).map(|_| ApiError::Unavailable("connection refused".into())));
        let recorder = Recorder::start(fake.api(), clock(), "n1");
        recorder.pod(&pod("web"), Kind::Normal, "Killing", "Stopping container c");
        settle().await;
        assert!(fake.state().events.is_empty());
        tokio::time::advance(PAUSE * 4).await;
        for _ in 0..4 {
            settle().await;
            tokio::time::advance(PAUSE).await;
        }
        assert_eq!(fake.state().events.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_is_refused_does_not_hold_up_the_next() {
        let fake = FakeApi::new();
        fake.fail("create_event", [ApiError::Refused { status: 403, message: "namespace is being terminated".into() }]);
        let recorder = Recorder::start(fake.api(), clock(), "n1");
        recorder.pod(&pod("a"), Kind::Normal, "Killing", "Stopping container c");
        recorder.pod(&pod("b"), Kind::Normal, "Killing", "Stopping container c");
        settle().await;
        assert_eq!(fake.state().events.len(), 1);
    }
}
