//! Workers against a runtime, a host and an API server in memory, in virtual time.

mod ends;
mod mirrors;
mod restarts;
mod starts;

use super::{Context, Dispatcher, DispatcherInputs, Gate, Wake};
use crate::admission::Rejection;
use crate::api::events::Recorder;
use crate::clock::Clock;
use crate::config;
use crate::config::flags::Flags;
use crate::fakes::api::FakeApi;
use crate::fakes::host::FakeHost;
use crate::fakes::runtime::FakeRuntime;
use crate::metrics::Metrics;
use crate::node::Facts;
use crate::pod::{Pod, PodUid, Source};
use crate::probes::Probes;
use crate::runtime::{self, Health};
use crate::sources::Update;
use crate::sources::mirror::Mirrors;
use crate::status::writer::Writer;
use crate::table::PodTable;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Event, PodStatus};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A kubelet's heart with everything around it in memory.
struct Stage {
    runtime: FakeRuntime,
    host: FakeHost,
    api: FakeApi,
    mirrors: Mirrors,
    table: PodTable,
    updates: mpsc::Sender<Update>,
    events: mpsc::Receiver<Event>,
    wake: Wake,
    _tasks: JoinSet<()>,
}

impl Stage {
    async fn new() -> Stage {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        Stage::with(FakeRuntime::new(clock.clone()), FakeHost::default(), clock, Arc::new(|_, _| Ok(()))).await
    }

    /// A kubelet that starts where these are already.
    async fn with(runtime: FakeRuntime, host: FakeHost, clock: Clock, gate: Gate) -> Stage {
        let fake_api = FakeApi::new();
        let api = fake_api.api();
        let (recorder, events) = Recorder::captured(clock.clone());
        let metrics = Metrics::new("node");
        let (wake, wakes) = Wake::new();
        let shared: Arc<dyn runtime::Runtime> = Arc::new(runtime.clone());
        let probes = Probes::new(shared.clone(), recorder.clone(), clock.clone(), metrics.clone(), None, wake.sender());
        let mirrors = Mirrors::new(api.clone(), "node");
        let health = Arc::new(watch::Sender::new(Health::default()));
        let table = PodTable::default();
        let config = config::load(&flags()).expect("these flags make a configuration");
        let context = Context {
            config: Arc::new(config),
            facts: Arc::new(Facts { host_ips: vec!["192.0.2.1".parse().unwrap()], ..Facts::default() }),
            runtime: shared.clone(),
            runtime_name: "fake".into(),
            host: Arc::new(host.clone()),
            api: api.clone(),
            recorder,
            writer: Writer::start(api, mirrors.clone(), clock.clone(), metrics.clone()),
            mirrors: mirrors.clone(),
            probes,
            table: table.clone(),
            health: health.subscribe(),
            metrics: metrics.clone(),
            clock,
        };
        let mut tasks = JoinSet::new();
        let (news_sender, news) = mpsc::channel(64);
        let relist = Arc::new(Notify::new());
        tasks.spawn(runtime::watch_health(shared.clone(), health.clone(), |_| None));
        tasks.spawn(runtime::relist::run(shared, relist.clone(), news_sender, health, metrics));
        let (updates, receiver) = mpsc::channel(64);
        let inputs = DispatcherInputs { updates: receiver, wakes, news, relist };
        let dispatcher =
            Dispatcher::new(context, gate, [Source::Api], watch::Sender::new(0), watch::Sender::new(false));
        tasks.spawn(dispatcher.run(inputs));
        let stage = Stage { runtime, host, api: fake_api, mirrors, table, updates, events, wake, _tasks: tasks };
        stage.pass(1).await;
        stage
    }

    /// Time passes, and whoever has something to do does it.
    async fn pass(&self, seconds: u64) {
        tokio::time::sleep_until(Instant::now() + Duration::from_secs(seconds)).await;
    }

    async fn wants(&self, pods: &[&Pod]) {
        let pods = pods.iter().map(|pod| (*pod).clone()).collect();
        self.updates.send(Update::Set { source: Source::Api, pods }).await.unwrap();
        self.pass(1).await;
    }

    async fn upsert(&self, pod: &Pod) {
        self.updates.send(Update::Upsert(pod.clone())).await.unwrap();
        self.pass(1).await;
    }

    async fn gone(&self, pod: &Pod) {
        self.updates.send(Update::Remove { source: pod.source(), uid: pod.uid().clone() }).await.unwrap();
        self.pass(1).await;
    }

    fn calls(&self) -> Vec<String> {
        self.runtime.take_calls()
    }

    fn status(&self, pod: &Pod) -> PodStatus {
        (*self.table.get(pod.uid()).expect("the pod is known").status).clone()
    }

    fn container(&self, pod: &Pod, name: &str) -> ContainerStatus {
        let status = self.status(pod);
        let all = status.container_statuses.into_iter().chain(status.init_container_statuses).flatten();
        all.into_iter().find(|it| it.name == name).expect("the container has a status")
    }

    /// What a container does: `running`, `waiting CrashLoopBackOff`, `terminated 1`.
    fn state(&self, pod: &Pod, name: &str) -> String {
        match self.container(pod, name).state {
            Some(ContainerState { running: Some(_), .. }) => "running".to_owned(),
            Some(ContainerState { waiting: Some(waiting), .. }) => {
                format!("waiting {}", waiting.reason.unwrap_or_default())
            }
            Some(ContainerState { terminated: Some(ended), .. }) => format!("terminated {}", ended.exit_code),
            _ => "nothing".to_owned(),
        }
    }

    /// The events since the last time: `Killing: Stopping container web`.
    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            let text = |text: Option<String>| text.unwrap_or_default();
            told.push(format!("{}: {}", text(event.reason), text(event.message)));
        }
        told
    }
}

/// Flags that don't depend on the machine.
fn flags() -> Flags {
    let given = [("hostname-override", "node"), ("node-ip", "192.0.2.1")];
    Flags {
        given: given.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        defaults: vec![("failCgroupV1", "false".into()), ("failSwapOn", "false".into())],
        local_socket: None,
    }
}

/// A pod from what its spec and metadata say beside the usual.
fn pod(name: &str, spec: Value) -> Pod {
    object(name, Source::Api, &spec, &json!({}))
}

fn object(name: &str, source: Source, spec: &Value, metadata: &Value) -> Pod {
    let mut whole = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": {"restartPolicy": "Always", "terminationGracePeriodSeconds": 30},
    });
    for (part, more) in [("spec", spec), ("metadata", metadata)] {
        for (key, value) in more.as_object().unwrap() {
            whole[part][key] = value.clone();
        }
    }
    Pod::new(Arc::new(serde_json::from_value(whole).unwrap()), source).unwrap()
}

/// A pod with one container, `web`.
fn web() -> Pod {
    pod("web", json!({"containers": [{"name": "web", "image": "i"}]}))
}

/// The same pod, being deleted.
fn deleted(pod: &Pod, grace: i64) -> Pod {
    let mut object = pod.object().clone();
    object.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:10Z")).expect("a time"));
    object.metadata.deletion_grace_period_seconds = Some(grace);
    Pod::new(Arc::new(object), pod.source()).unwrap()
}

fn refuse(reason: &str, message: &str) -> Gate {
    let rejection = Rejection { reason: reason.into(), message: message.into() };
    Arc::new(move |_, _| Err(rejection.clone()))
}

fn uid(pod: &Pod) -> &PodUid {
    pod.uid()
}
