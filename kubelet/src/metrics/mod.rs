//! What `/metrics` and `/metrics/probes` tell: counted where it happens, written as text when somebody scrapes.
//!
//! Names, labels and buckets are upstream's, so that kubernetes-mixin's alerts and dashboards work unchanged; among them
//! the PLEG's, though our pods are driven by events: an alert whose series is missing is silent. A part of the kubelet
//! calls one method per thing that happened; it knows no label. Label values come from closed sets, except those of
//! [`probes`], which are forgotten with their pod.

mod families;
pub mod probes;
pub mod process;
pub mod table;
pub mod text;

use crate::pod::Role;
use families::{
    Admission, Api, ApiLatency, ContainerError, ContainerType, Families, ImageSize, Operation, Request, Storage,
    TimedBy,
};
use prometheus_client::registry::Registry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// All counters of the process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    families: Families,
    registry: Registry,
    probes: probes::Probes,
    last_relist: Mutex<Option<Instant>>,
    /// Seconds since 1970; 0 for none.
    client_certificate_expires: AtomicU64,
    server_certificate_expires: AtomicU64,
}

/// One request that a server of the kubelet answered.
#[derive(Debug, Clone, Copy)]
pub struct HttpRequest {
    /// `GET`, `POST`, …; anything unusual is `other`.
    pub method: &'static str,
    /// The first component of the path, of a closed set.
    pub path: &'static str,
    /// Whether it streams as long as the client likes.
    pub long_running: bool,
}

impl Metrics {
    /// Counters at zero.
    pub fn new(node_name: &str) -> Metrics {
        let families = Families::new();
        let mut registry = Registry::default();
        families.register(&mut registry);
        families.node_name.get_or_create(&families::Node { node: node_name.to_owned() }).set(1);
        families.cgroup_version.set(cgroup_version());
        let inner = Inner {
            families,
            registry,
            probes: probes::Probes::new(),
            last_relist: Mutex::new(None),
            client_certificate_expires: AtomicU64::new(0),
            server_certificate_expires: AtomicU64::new(0),
        };
        Metrics { inner: Arc::new(inner) }
    }

    /// A CRI call ended. `op` is the snake-case name that upstream gives it: `run_podsandbox`, `create_container`, …
    pub fn runtime_operation(&self, op: &'static str, elapsed: Duration, ok: bool) {
        let label = TimedBy { operation_type: op };
        let families = self.families();
        families.runtime_operations.get_or_create(&label).inc();
        families.runtime_duration.get_or_create(&label).observe(elapsed.as_secs_f64());
        if !ok {
            families.runtime_errors.get_or_create(&label).inc();
        }
    }

    /// A RunPodSandbox ended; `handler` is the RuntimeClass's, empty for the default one.
    pub fn sandbox_started(&self, handler: &str, elapsed: Duration, ok: bool) {
        let families = self.families();
        let label = families::Handler { runtime_handler: handler.to_owned() };
        families.sandbox_duration.get_or_create(&label).observe(elapsed.as_secs_f64());
        families.started_pods.inc();
        if !ok {
            families.sandbox_errors.get_or_create(&label).inc();
            families.started_pods_errors.inc();
        }
    }

    /// A worker's pass over a pod ended: `create`, `update`, `sync` or `kill`.
    pub fn pod_worker(&self, op: &'static str, elapsed: Duration) {
        let label = TimedBy { operation_type: op };
        self.families().pod_worker.get_or_create(&label).observe(elapsed.as_secs_f64());
    }

    /// A worker began with a pod that was first seen so long ago.
    pub fn pod_worker_started(&self, since_first_seen: Duration) {
        self.families().pod_worker_start.observe(since_first_seen.as_secs_f64());
    }

    /// All containers of a pod run for the first time.
    pub fn pod_started(&self, since_created: Duration, since_first_seen: Duration) {
        self.families().pod_start.observe(since_first_seen.as_secs_f64());
        self.families().pod_start_total.observe(since_created.as_secs_f64());
    }

    /// The same moment, less what image pulls and init containers took: the startup SLI.
    pub fn pod_start_sli(&self, elapsed: Duration) {
        self.families().pod_start_sli.observe(elapsed.as_secs_f64());
    }

    /// A status reached the API server so long after it changed.
    pub fn status_written(&self, since_changed: Duration) {
        self.families().status_sync.observe(since_changed.as_secs_f64());
    }

    /// A container was started, or could not be.
    pub fn container_started(&self, role: Role, ok: bool) {
        let container_type = container_type(role);
        self.families().started_containers.get_or_create(&ContainerType { container_type }).inc();
        if !ok {
            let label = ContainerError { container_type, code: "RunContainerError" };
            self.families().started_containers_errors.get_or_create(&label).inc();
        }
    }

    /// A complete look at the runtime ended.
    pub fn relist(&self, elapsed: Duration) {
        let families = self.families();
        families.relist_duration.observe(elapsed.as_secs_f64());
        let now = Instant::now();
        let before = self.inner.last_relist.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        if let Some(before) = before {
            families.relist_interval.observe((now - before).as_secs_f64());
        }
        self.runtime_seen();
    }

    /// A look at one pod ended.
    pub fn pod_relist(&self, elapsed: Duration) {
        self.families().pod_relist_duration.observe(elapsed.as_secs_f64());
        self.runtime_seen();
    }

    /// The runtime was heard of: a list or an event.
    pub fn runtime_seen(&self) {
        let now = jiff::Timestamp::now().as_millisecond() as f64 / 1000.0;
        self.families().last_seen.set(now);
    }

    /// A probe ended. `kind` is `Liveness`, `Readiness` or `Startup`; `result` `successful`, `failed` or `unknown`.
    pub fn probe(
        &self,
        pod: &crate::pod::Pod,
        container: &str,
        kind: &'static str,
        result: &'static str,
        elapsed: Duration,
    ) {
        self.inner.probes.count(pod, container, kind, result, elapsed);
    }

    /// A pod is gone, and what was counted for its probes.
    pub fn probes_forgotten(&self, uid: &crate::pod::PodUid) {
        self.inner.probes.forget(uid);
    }

    /// An image was pulled.
    pub fn image_pull(&self, bytes: u64, elapsed: Duration) {
        let label = ImageSize { image_size_in_bytes: families::image_size(bytes) };
        self.families().image_pull.get_or_create(&label).observe(elapsed.as_secs_f64());
    }

    /// A change of a pod's cgroup: `create`, `update` or `destroy`.
    pub fn cgroup(&self, op: &'static str, elapsed: Duration) {
        let label = TimedBy { operation_type: op };
        self.families().cgroup.get_or_create(&label).observe(elapsed.as_secs_f64());
    }

    /// A volume was set up or torn down: `volume_mount`, `volume_unmount`; `plugin` as `kubernetes.io/configmap`.
    pub fn storage_operation(&self, op: &'static str, plugin: &'static str, elapsed: Duration, ok: bool) {
        let status = if ok { "success" } else { "fail-unknown" };
        let label = Storage { volume_plugin: plugin, operation_name: op, status, migrated: "false" };
        self.families().storage.get_or_create(&label).observe(elapsed.as_secs_f64());
        if !ok {
            let label = Operation { volume_plugin: plugin, operation_name: op };
            self.families().storage_errors.get_or_create(&label).inc();
        }
    }

    /// The API server answered; `code` is `<error>` where it did not.
    pub fn rest_client(&self, verb: &'static str, host: &str, code: &str, elapsed: Duration) {
        let label = Api { code: code.to_owned(), method: verb, host: host.to_owned() };
        self.families().rest_requests.get_or_create(&label).inc();
        let label = ApiLatency { verb, host: host.to_owned() };
        self.families().rest_latency.get_or_create(&label).observe(elapsed.as_secs_f64());
    }

    /// A request arrived; [`Metrics::http_answered`] ends it.
    pub fn http_arrived(&self, request: HttpRequest) {
        let label = Request::from(request);
        self.families().http_requests.get_or_create(&label).inc();
        self.families().http_inflight.get_or_create(&label).inc();
    }

    /// A request was answered, or its client left.
    pub fn http_answered(&self, request: HttpRequest, elapsed: Duration) {
        let label = Request::from(request);
        self.families().http_duration.get_or_create(&label).observe(elapsed.as_secs_f64());
        self.families().http_inflight.get_or_create(&label).dec();
    }

    /// A pod was not admitted. Resources have many names; those that are not this node's own are counted as one.
    pub fn admission_rejected(&self, reason: &str) {
        let reason = families::rejection(reason);
        self.families().admission.get_or_create(&Admission { reason }).inc();
    }

    /// Pods were found in the runtime that nobody wants.
    pub fn orphaned_runtime_pod(&self) {
        self.families().orphaned_pods.inc();
    }

    /// The certificate by which we are known to the API server ends at this second since 1970.
    pub fn client_certificate_expires(&self, at: u64) {
        self.inner.client_certificate_expires.store(at, Ordering::Relaxed);
    }

    /// The certificate that :10250 shows ends at this second since 1970.
    pub fn server_certificate_expires(&self, at: u64) {
        self.inner.server_certificate_expires.store(at, Ordering::Relaxed);
    }

    /// The configuration was refused, or is in order again.
    pub fn config_error(&self, is: bool) {
        self.families().config_error.set(i64::from(is));
    }

    /// How long the phases of our start took: `pre_registration`, `registration`, and all of it.
    pub fn node_started(&self, pre_registration: Duration, registration: Duration, total: Duration) {
        self.families().startup_pre_registration.set(pre_registration.as_secs_f64());
        self.families().startup_registration.set(registration.as_secs_f64());
        self.families().startup.set(total.as_secs_f64());
    }

    /// What was counted, in the classic text format, into `out`.
    pub fn write(&self, out: &mut text::Text) {
        out.registry(&self.inner.registry);
        let now = jiff::Timestamp::now().as_second();
        for (name, help, at) in [
            (
                "kubelet_certificate_manager_client_ttl_seconds",
                "Gauge of the TTL (time-to-live) of the Kubelet's client certificate",
                &self.inner.client_certificate_expires,
            ),
            (
                "kubelet_certificate_manager_server_ttl_seconds",
                "Gauge of the shortest TTL (time-to-live) of the Kubelet's serving certificate",
                &self.inner.server_certificate_expires,
            ),
        ] {
            let at = at.load(Ordering::Relaxed);
            // +Inf is upstream's word for "there is no certificate that could end".
            let left = if at == 0 { f64::INFINITY } else { at as f64 - now as f64 };
            out.family(name, help, text::Kind::Gauge);
            out.sample(name, &[], left);
        }
    }

    /// What `/metrics/probes` tells.
    pub fn write_probes(&self, out: &mut text::Text) {
        out.registry(self.inner.probes.registry());
    }

    fn families(&self) -> &Families {
        &self.inner.families
    }
}

fn container_type(role: Role) -> &'static str {
    match role {
        Role::Init | Role::Sidecar => "init_container",
        Role::Regular => "container",
    }
}

/// 2 where the unified hierarchy is all there is, else 1.
fn cgroup_version() -> i64 {
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { 2 } else { 1 }
}
