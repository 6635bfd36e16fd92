//! The kubelet as a whole: what is opened, started and ended, in which order.
//!
//! [`run`] is the table of contents. What can't be opened at the start is an error; what fails later is retried by the
//! part it belongs to. The node, the server and the events begin at once; pods wait for the runtime, which may come later.

mod housekeeping;

use crate::admission::{self, Place};
use crate::api::Api;
use crate::api::client::Cluster;
use crate::api::events::Recorder;
use crate::api::standalone::Standalone;
use crate::cgroups::Cgroups;
use crate::clock::Clock;
use crate::config::Config;
use crate::images::Images;
use crate::metrics::Metrics;
use crate::node::{self, Facts};
use crate::probes::Probes;
use crate::runtime::{self, Cri, Health, Runtime, RuntimeInfo};
use crate::server::{self, Listeners, Server};
use crate::sources;
use crate::sources::mirror::Mirrors;
use crate::spec::Machine;
use crate::stats::{self, Stats};
use crate::status::writer::Writer;
use crate::table::PodTable;
use crate::volumes::Volumes;
use crate::worker::{Context, Dispatcher, DispatcherInputs, Gate, ThisHost, Wake};
use k8s_openapi::api::core::v1::Node;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long the start waits for the runtime. After that the node is there, not ready, and pods wait.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(30);
/// How soon the runtime is asked again that does not answer at the start.
const RUNTIME_RETRY: Duration = Duration::from_millis(200);
/// How much news of the runtime and of the sources may wait for the dispatcher.
const NEWS: usize = 1024;

/// Why the kubelet could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// One of its parts could not be opened.
    #[error("{step}")]
    Start {
        /// What was tried.
        step: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Names a step that failed.
fn step<E: Into<Box<dyn std::error::Error + Send + Sync>>>(step: impl Into<String>) -> impl FnOnce(E) -> RunError {
    move |error| RunError::Start { step: step.into(), source: error.into() }
}

/// Runs a kubelet until `shutdown` resolves. Pods are left alone when it ends.
///
/// # Errors
/// What can't be opened at the start. Later failures are retried and told in the node's status, never returned.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let began = Instant::now();
    make_folders(&config)?;
    let listeners = Listeners::bind(&config).await.map_err(step("open the server"))?;
    let parts = Parts::open(config).await?;
    let mut tasks = JoinSet::new();
    let (wake, wakes) = Wake::new();
    let mut node = node::start(parts.node_inputs());
    tasks.spawn(housekeeping::measure_start(parts.metrics.clone(), node.node.clone(), began));
    parts.watch_runtime(&mut tasks);
    let mut shutdown = std::pin::pin!(shutdown);
    let info = tokio::select! {
        info = parts.wait_for_runtime() => info,
        () = &mut shutdown => {
            node.stop().await;
            return Ok(());
        }
    };
    let pods = parts.pods(&wake).await?;
    node.supervise(pods.cgroups.clone());
    parts.start_pods(&mut tasks, &pods, &node, wakes, info);
    housekeeping::start(&mut tasks, &parts, &pods, &wake);
    let server = Server::new(parts.server_inputs(&pods)).map_err(step("open the server"))?;
    server.serve(listeners, shutdown).await;
    // Workers end in the middle of whatever they do: pods are left as they are, and found again by the next kubelet.
    tasks.shutdown().await;
    node.stop().await;
    Ok(())
}

/// The folders that everything else is below.
fn make_folders(config: &Config) -> Result<(), RunError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let make = |path: &std::path::Path, mode: u32| {
        let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
        made.map_err(step(format!("make {}", path.display())))
    };
    make(&config.root, 0o750)?;
    make(&config.root.join("pods"), 0o750)?;
    make(&config.pod_logs, 0o755)?;
    make(&config.container_logs, 0o755)
}

/// What everything is made of.
struct Parts {
    config: Arc<Config>,
    clock: Clock,
    metrics: Metrics,
    facts: Arc<Facts>,
    api: Arc<dyn Api>,
    recorder: Recorder,
    cri: Cri,
    runtime: Arc<dyn Runtime>,
    health: Arc<watch::Sender<Health>>,
    table: PodTable,
}

/// What pods need beside the runtime; made once the runtime has said which cgroup driver it uses.
struct Pods {
    cgroups: Arc<Cgroups>,
    volumes: Volumes,
    host: Arc<ThisHost>,
    probes: Probes,
    mirrors: Mirrors,
    writer: Writer,
    /// Counts pods that came and went.
    changes: watch::Sender<u64>,
    /// Whether every source of pods has said all it has.
    heard: watch::Sender<bool>,
}

impl Parts {
    async fn open(config: Config) -> Result<Parts, RunError> {
        let config = Arc::new(config);
        let clock = Clock::system();
        let metrics = Metrics::new(&config.node_name);
        let facts = Arc::new(node::facts(&config).map_err(step("look at this machine"))?);
        let api = match &config.kubeconfig {
            Some(_) => {
                Cluster::connect(&config, metrics.clone()).await.map_err(step("make a client of the API server"))?
            }
            None => Standalone::start(),
        };
        let recorder = Recorder::start(api.clone(), clock.clone(), &config.node_name);
        let cri =
            Cri::connect(&config.runtime_socket, &config.image_socket, config.runtime_request_timeout, metrics.clone());
        let runtime: Arc<dyn Runtime> = Arc::new(cri.clone());
        let health = Arc::new(watch::Sender::new(Health::default()));
        Ok(Parts { config, clock, metrics, facts, api, recorder, cri, runtime, health, table: PodTable::default() })
    }

    fn node_inputs(&self) -> node::Inputs {
        node::Inputs {
            config: self.config.clone(),
            facts: self.facts.clone(),
            api: self.api.clone(),
            runtime: self.runtime.clone(),
            recorder: self.recorder.clone(),
            clock: self.clock.clone(),
            health: self.health.subscribe(),
        }
    }

    /// Asks the runtime how it is, for everybody.
    fn watch_runtime(&self, tasks: &mut JoinSet<()>) {
        let cri = self.cri.clone();
        let blocked_by = move |longer_than| cri.blocked_by(longer_than);
        tasks.spawn(runtime::watch_health(self.runtime.clone(), self.health.clone(), blocked_by));
    }

    /// The runtime's name, if it answers in time. The node begins without one: it is not ready then.
    async fn wait_for_runtime(&self) -> Option<RuntimeInfo> {
        let info = tokio::time::timeout(RUNTIME_PATIENCE, runtime_info(&*self.runtime)).await.ok();
        match &info {
            Some(info) => tracing::info!(name = info.name, version = info.version, "the runtime answers"),
            None => tracing::error!(
                socket = %self.config.runtime_socket.display(),
                "the runtime does not answer: pods wait for it"
            ),
        }
        info
    }

    async fn pods(&self, wake: &Wake) -> Result<Pods, RunError> {
        let driver = self.runtime.cgroup_driver().await.ok().flatten().unwrap_or(proto::CgroupDriver::Cgroupfs);
        let (config, facts) = (self.config.clone(), self.facts.clone());
        let open = move || Cgroups::open(&config, driver, &facts.capacity);
        let cgroups = tokio::task::spawn_blocking(open)
            .await
            .map_err(step("make the cgroups of pods"))?
            .map_err(step("make the cgroups of pods"))?;
        let cgroups = Arc::new(cgroups);
        let volumes = Volumes::new(&self.config, self.api.clone(), self.clock.clone(), self.metrics.clone());
        let images = Images::new(
            self.runtime.clone(),
            self.api.clone(),
            self.recorder.clone(),
            self.clock.clone(),
            self.metrics.clone(),
            &self.config,
        );
        let probes = Probes::new(
            self.runtime.clone(),
            self.recorder.clone(),
            self.clock.clone(),
            self.metrics.clone(),
            self.facts.host_ips.first().copied(),
            wake.sender(),
        );
        let mirrors = Mirrors::new(self.api.clone(), &self.config.node_name);
        let writer = Writer::start(self.api.clone(), mirrors.clone(), self.clock.clone(), self.metrics.clone());
        let host = Arc::new(ThisHost {
            config: self.config.clone(),
            facts: self.facts.clone(),
            machine: Arc::new(Machine::probe(self.facts.memory_bytes, cgroups.is_v2())),
            api: self.api.clone(),
            images: Arc::new(images),
            volumes: volumes.clone(),
            cgroups: cgroups.clone(),
            recorder: self.recorder.clone(),
            health: self.health.subscribe(),
            metrics: self.metrics.clone(),
        });
        let (changes, heard) = (watch::Sender::new(0), watch::Sender::new(false));
        Ok(Pods { cgroups, volumes, host, probes, mirrors, writer, changes, heard })
    }

    /// Starts what brings pods to life: relists, sources, the dispatcher with its workers.
    fn start_pods(
        &self,
        tasks: &mut JoinSet<()>,
        pods: &Pods,
        node: &node::Running,
        wakes: mpsc::UnboundedReceiver<crate::pod::PodUid>,
        info: Option<RuntimeInfo>,
    ) {
        let (news_sender, news) = mpsc::channel(NEWS);
        let relist = Arc::new(Notify::new());
        let (runtime, health, metrics) = (self.runtime.clone(), self.health.clone(), self.metrics.clone());
        tasks.spawn(runtime::relist::run(runtime, relist.clone(), news_sender, health, metrics));
        let updates = sources::start(&self.config, &self.api, &pods.mirrors, &self.clock);
        let inputs = DispatcherInputs { updates, wakes, news, relist };
        let context = self.context(pods);
        let gate = self.gate(node);
        let (runtime, config) = (self.runtime.clone(), self.config.clone());
        let (changes, heard) = (pods.changes.clone(), pods.heard.clone());
        tasks.spawn(async move {
            let info = match info {
                Some(info) => info,
                None => runtime_info(&*runtime).await,
            };
            let context = Context { runtime_name: info.name.into(), ..context };
            Dispatcher::new(context, gate, sources::expected(&config), changes, heard).run(inputs).await;
        });
    }

    fn context(&self, pods: &Pods) -> Context {
        Context {
            config: self.config.clone(),
            facts: self.facts.clone(),
            runtime: self.runtime.clone(),
            runtime_name: "".into(),
            host: pods.host.clone(),
            api: self.api.clone(),
            recorder: self.recorder.clone(),
            writer: pods.writer.clone(),
            mirrors: pods.mirrors.clone(),
            probes: pods.probes.clone(),
            table: self.table.clone(),
            health: self.health.subscribe(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
        }
    }

    /// Says whether a pod may run here.
    fn gate(&self, node: &node::Running) -> Gate {
        let (config, facts, health) = (self.config.clone(), self.facts.clone(), self.health.subscribe());
        let (object, pressures) = (node.node.clone(), node.pressures.clone());
        let apparmor = admission::apparmor_enabled();
        Arc::new(move |pod, others| {
            // Before our node was read, it is what we would register.
            let node = object.borrow().clone().unwrap_or_else(|| Arc::new(unregistered(&config)));
            let runtime = health.borrow().known.clone().unwrap_or_default();
            let pressures = *pressures.borrow();
            let allowed_sysctls = &config.allowed_unsafe_sysctls;
            let (facts, node, runtime) = (&*facts, &*node, &runtime);
            let place = Place { others, facts, node, pressures, allowed_sysctls, runtime, apparmor };
            admission::admit(pod, &place)
        })
    }

    fn server_inputs(&self, pods: &Pods) -> server::Inputs {
        let stats = Stats::new(stats::Inputs {
            node_name: self.config.node_name.clone(),
            root: self.config.root.clone(),
            pod_logs: self.config.pod_logs.clone(),
            runtime: self.runtime.clone(),
            table: self.table.clone(),
            volumes: pods.volumes.clone(),
            cgroup_root: self.config.limits.cgroup_root.clone(),
            cgroups: Some(pods.cgroups.clone()),
            clock: self.clock.clone(),
        });
        let health = self.health.subscribe();
        server::Inputs {
            config: self.config.clone(),
            api: self.api.clone(),
            table: self.table.clone(),
            runtime: self.runtime.clone(),
            stats,
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            sync_loop: Box::new(move || sync_loop(&health.borrow())),
        }
    }
}

/// The runtime's name and version, once it answers.
async fn runtime_info(runtime: &dyn Runtime) -> RuntimeInfo {
    loop {
        match runtime.version().await {
            Ok(info) => return info,
            Err(error) => tracing::debug!(%error, "the runtime does not answer"),
        }
        tokio::time::sleep_until(Instant::now() + RUNTIME_RETRY).await;
    }
}

/// Whether pods are looked after: they are not while the runtime can't be listed.
fn sync_loop(health: &Health) -> Result<(), String> {
    /// Upstream calls its sync loop unhealthy after twice its longest period.
    const PATIENCE: Duration = Duration::from_secs(180);
    match health.last_relist {
        Some(at) if at.elapsed() <= PATIENCE => Ok(()),
        Some(at) => Err(format!("pods were last listed {} s ago", at.elapsed().as_secs())),
        None => Err("pods have yet to be listed".to_owned()),
    }
}

/// Our node as far as admission needs it, before it is registered.
fn unregistered(config: &Config) -> Node {
    let mut labels: BTreeMap<String, String> = config.node_labels.clone();
    labels.insert("kubernetes.io/hostname".to_owned(), config.node_name.clone());
    labels.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
    labels.insert("kubernetes.io/arch".to_owned(), "amd64".to_owned());
    let mut node = Node::default();
    node.metadata.name = Some(config.node_name.clone());
    node.metadata.labels = Some(labels);
    node
}
