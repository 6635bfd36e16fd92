//! The series themselves: upstream's names, help texts, labels and buckets (pkg/kubelet/metrics/metrics.go, v1.36).

use super::HttpRequest;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

/// client_golang's default.
pub(super) const DEFAULT: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const POD_START: &[f64] = &[
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0,
    600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];
const IMAGE_PULL: &[f64] = &[
    1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0,
    3600.0,
];
/// 14 steps from 5 ms by the factor 2.5.
const RUNTIME: &[f64] = &[
    0.005,
    0.0125,
    0.03125,
    0.078125,
    0.1953125,
    0.48828125,
    1.220703125,
    3.0517578125,
    7.62939453125,
    19.073486328125,
    47.6837158203125,
    119.20928955078125,
    298.0232238769531,
    745.0580596923828,
];
const STATUS: &[f64] = &[0.010, 0.050, 0.100, 0.500, 1.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0];
const STORAGE: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0];
const REST: &[f64] = &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const IMAGE_SIZES: [(u64, &str); 12] = [
    (100 * GIB, "GT100GB"),
    (60 * GIB, "60GB-100GB"),
    (40 * GIB, "40GB-60GB"),
    (30 * GIB, "30GB-40GB"),
    (20 * GIB, "20GB-30GB"),
    (10 * GIB, "10GB-20GB"),
    (5 * GIB, "5GB-10GB"),
    (GIB, "1GB-5GB"),
    (500 * MIB, "500MB-1GB"),
    (100 * MIB, "100MB-500MB"),
    (10 * MIB, "10MB-100MB"),
    (0, "0-10MB"),
];

/// The label of an image of so many bytes.
pub(super) fn image_size(bytes: u64) -> &'static str {
    IMAGE_SIZES.iter().find(|(least, _)| bytes >= *least).map_or("0-10MB", |(_, label)| label)
}

/// The reasons of rejections that are counted each by itself; a node's own resources are among them.
const REJECTIONS: [&str; 18] = [
    "AppArmor",
    "Evicted",
    "InvalidNodeInfo",
    "InitContainerRestartPolicyForbidden",
    "NodeShutdown",
    "OutOfcpu",
    "OutOfephemeral-storage",
    "OutOfmemory",
    "OutOfpods",
    "PodFeatureUnsupported",
    "PodLevelResourcesNotSupported",
    "PodOSNotSupported",
    "PodOSSelectorNodeLabelDoesNotMatch",
    "SupplementalGroupsPolicyNotSupported",
    "SysctlForbidden",
    "TopologyAffinityError",
    "UnexpectedAdmissionError",
    "UnknownReason",
];

/// The label of a rejection for this reason.
pub(super) fn rejection(reason: &str) -> &'static str {
    let own = REJECTIONS.iter().find(|own| **own == reason).copied();
    own.unwrap_or(if reason.starts_with("OutOf") { "OutOfExtendedResources" } else { "Other" })
}

/// Makes histograms with these bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buckets(pub(super) &'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// Histograms by label.
pub(super) type Histograms<L> = Family<L, Histogram, Buckets>;
/// A gauge of a fraction.
type Fraction = Gauge<f64, AtomicU64>;

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty),* })*) => {
        $($(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name { $(pub(super) $field: $kind),* })*
    };
}

labels! {
    /// The node.
    Node { node: String }
    /// What was done.
    TimedBy { operation_type: &'static str }
    /// The RuntimeClass's handler.
    Handler { runtime_handler: String }
    /// The role of a container.
    ContainerType { container_type: &'static str }
    /// A container that could not start.
    ContainerError { container_type: &'static str, code: &'static str }
    /// How large an image is, roughly.
    ImageSize { image_size_in_bytes: &'static str }
    /// What was done to a volume, and how it ended.
    Storage { volume_plugin: &'static str, operation_name: &'static str, status: &'static str, migrated: &'static str }
    /// What was done to a volume.
    Operation { volume_plugin: &'static str, operation_name: &'static str }
    /// A request to the API server, answered.
    Api { code: String, method: &'static str, host: String }
    /// A request to the API server.
    ApiLatency { verb: &'static str, host: String }
    /// A request to us.
    Request { method: &'static str, path: &'static str, server_type: &'static str, long_running: &'static str }
    /// Why a pod was not admitted.
    Admission { reason: &'static str }
    /// What was scarce when a pod was evicted.
    Eviction { eviction_signal: &'static str }
    /// What was scarce when a pod was preempted.
    Preemption { preemption_signal: &'static str }
}

impl From<HttpRequest> for Request {
    fn from(request: HttpRequest) -> Request {
        let long_running = if request.long_running { "true" } else { "false" };
        Request { method: request.method, path: request.path, server_type: "readwrite", long_running }
    }
}

/// Declares the fields, their construction and their registration in one place.
macro_rules! families {
    ($($field:ident: $kind:ty = $make:expr, $name:literal, $help:literal;)*) => {
        /// All series that the registry writes.
        #[derive(Debug)]
        pub(super) struct Families { $(pub(super) $field: $kind),* }

        impl Families {
            pub(super) fn new() -> Families {
                Families { $($field: $make),* }
            }

            pub(super) fn register(&self, registry: &mut Registry) {
                // The registry adds the full stop.
                $(registry.register($name, $help, self.$field.clone());)*
            }
        }
    };
}

fn by<L: Clone + std::hash::Hash + Eq>(buckets: &'static [f64]) -> Histograms<L> {
    Family::new_with_constructor(Buckets(buckets))
}

fn one(buckets: &'static [f64]) -> Histogram {
    Buckets(buckets).new_metric()
}

families! {
    node_name: Family<Node, Gauge> = Family::default(), "kubelet_node_name",
        "The node's name. The count is always 1";
    cgroup_version: Gauge = Gauge::default(), "kubelet_cgroup_version", "cgroup version on the hosts";
    runtime_operations: Family<TimedBy, Counter> = Family::default(), "kubelet_runtime_operations",
        "Cumulative number of runtime operations by operation type";
    runtime_errors: Family<TimedBy, Counter> = Family::default(), "kubelet_runtime_operations_errors",
        "Cumulative number of runtime operation errors by operation type";
    runtime_duration: Histograms<TimedBy> = by(RUNTIME), "kubelet_runtime_operations_duration_seconds",
        "Duration in seconds of runtime operations. Broken down by operation type";
    sandbox_duration: Histograms<Handler> = by(DEFAULT), "kubelet_run_podsandbox_duration_seconds",
        "Duration in seconds of the run_podsandbox operations. Broken down by RuntimeClass.Handler";
    sandbox_errors: Family<Handler, Counter> = Family::default(), "kubelet_run_podsandbox_errors",
        "Cumulative number of the run_podsandbox operation errors by RuntimeClass.Handler";
    started_pods: Counter = Counter::default(), "kubelet_started_pods", "Cumulative number of pods started";
    started_pods_errors: Counter = Counter::default(), "kubelet_started_pods_errors",
        "Cumulative number of errors when starting pods";
    started_containers: Family<ContainerType, Counter> = Family::default(), "kubelet_started_containers",
        "Cumulative number of containers started";
    started_containers_errors: Family<ContainerError, Counter> = Family::default(),
        "kubelet_started_containers_errors", "Cumulative number of errors when starting containers";
    pod_worker: Histograms<TimedBy> = by(DEFAULT), "kubelet_pod_worker_duration_seconds",
        "Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync";
    pod_worker_start: Histogram = one(DEFAULT), "kubelet_pod_worker_start_duration_seconds",
        "Duration in seconds from kubelet seeing a pod to starting a worker";
    pod_start: Histogram = one(POD_START), "kubelet_pod_start_duration_seconds",
        "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run";
    pod_start_sli: Histogram = one(POD_START), "kubelet_pod_start_sli_duration_seconds",
        "Duration in seconds to start a pod, excluding time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch";
    pod_start_total: Histogram = one(POD_START), "kubelet_pod_start_total_duration_seconds",
        "Duration in seconds to start a pod since creation, including time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch";
    status_sync: Histogram = one(STATUS), "kubelet_pod_status_sync_duration_seconds",
        "Duration in seconds to sync a pod status update. Measures time from detection of a change to pod status until the API is successfully updated for that pod";
    relist_duration: Histogram = one(DEFAULT), "kubelet_pleg_relist_duration_seconds",
        "Duration in seconds for relisting pods in PLEG";
    relist_interval: Histogram = one(DEFAULT), "kubelet_pleg_relist_interval_seconds",
        "Interval in seconds between relisting in PLEG";
    pod_relist_duration: Histogram = one(DEFAULT), "kubelet_pleg_pod_relist_duration_seconds",
        "Duration in seconds for relisting a single pod in PLEG";
    last_seen: Fraction = Gauge::default(), "kubelet_pleg_last_seen_seconds",
        "Timestamp in seconds when PLEG was last seen active";
    discarded: Counter = Counter::default(), "kubelet_pleg_discard_events", "The number of discard events in PLEG";
    image_pull: Histograms<ImageSize> = by(IMAGE_PULL), "kubelet_image_pull_duration_seconds",
        "Duration in seconds to pull an image";
    cgroup: Histograms<TimedBy> = by(DEFAULT), "kubelet_cgroup_manager_duration_seconds",
        "Duration in seconds for cgroup manager operations. Broken down by method";
    storage: Histograms<Storage> = by(STORAGE), "storage_operation_duration_seconds", "Storage operation duration";
    storage_errors: Family<Operation, Counter> = Family::default(), "storage_operation_errors",
        "Storage operation errors";
    rest_requests: Family<Api, Counter> = Family::default(), "rest_client_requests",
        "Number of HTTP requests, partitioned by status code, method, and host";
    rest_latency: Histograms<ApiLatency> = by(REST), "rest_client_request_duration_seconds",
        "Request latency in seconds. Broken down by verb, and host";
    http_requests: Family<Request, Counter> = Family::default(), "kubelet_http_requests",
        "Number of the http requests received since the server started";
    http_duration: Histograms<Request> = by(DEFAULT), "kubelet_http_requests_duration_seconds",
        "Duration in seconds to serve http requests";
    http_inflight: Family<Request, Gauge> = Family::default(), "kubelet_http_inflight_requests",
        "Number of the inflight http requests";
    admission: Family<Admission, Counter> = Family::default(), "kubelet_admission_rejections",
        "Cumulative number pod admission rejections by the Kubelet";
    evictions: Family<Eviction, Counter> = Family::default(), "kubelet_evictions",
        "Cumulative number of pod evictions by eviction signal";
    preemptions: Family<Preemption, Counter> = Family::default(), "kubelet_preemptions",
        "Cumulative number of pod preemptions by preemption resource";
    orphaned_pods: Counter = Counter::default(), "kubelet_orphaned_runtime_pods",
        "Number of pods that have been detected in the container runtime without being already known to the pod worker";
    config_error: Gauge = Gauge::default(), "kubelet_node_config_error",
        "This metric is true (1) if the node is experiencing a configuration-related error, false (0) otherwise";
    client_renew_errors: Counter = Counter::default(), "kubelet_certificate_manager_client_expiration_renew_errors",
        "Counter of certificate renewal errors";
    server_renew_errors: Counter = Counter::default(), "kubelet_server_expiration_renew_errors",
        "Counter of certificate renewal errors";
    startup_pre_registration: Fraction = Gauge::default(), "kubelet_node_startup_pre_registration_duration_seconds",
        "Duration in seconds of node startup before registration";
    startup_registration: Fraction = Gauge::default(), "kubelet_node_startup_registration_duration_seconds",
        "Duration in seconds of node startup during registration";
    startup: Fraction = Gauge::default(), "kubelet_node_startup_duration_seconds",
        "Duration in seconds of node startup in total";
}
