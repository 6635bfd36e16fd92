//! From the document in force to [`Config`]: typed values, and what only makes sense together.

use super::document::Document;
use super::flags::Given;
use super::source::Place;
use super::yaml::{Key, Node, Value};
use super::{
    AccessReview, ApiLimits, Config, ConfigError, Dns, Heartbeat, Images, Limits, Logging, Serving, ciphers, duration,
    gates, identity, rules,
};
use crate::spec::quantity;
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What `Node.nodeInfo.kubeletVersion` says: the Kubernetes release whose behaviour this is.
const VERSION: &str = "v1.36.3";

/// The configuration of a document and the flags that have no field in it.
///
/// # Errors
/// The first value that can't be used, alone or with another, with its place.
pub(super) fn settle(document: &Document, given: &Given<'_>) -> Result<Config, ConfigError> {
    let read = Reader { document };
    let mut not_yet_effective = document.effects()?;
    not_yet_effective.extend(gates::check(read.map("featureGates"))?);
    not_yet_effective.extend(given.effects()?);
    rules::check(&read)?;
    not_yet_effective.extend(ciphers::missing(&read));
    let identity = identity::settle(given)?;
    let root = read_path(given, "root-dir").unwrap_or_else(|| PathBuf::from("/var/lib/kubelet"));
    let pod_logs = read.path("podLogsDir").unwrap_or_else(|| PathBuf::from("/var/log/pods"));
    let runtime_socket = read.socket("containerRuntimeEndpoint")?;
    let serving = serving(&read, identity.kubeconfig.is_some());
    // Without an API server nobody could be let in: such a port would be open for nothing.
    let answerable = identity.kubeconfig.is_some() || serving.access_review.is_none();
    Ok(Config {
        node_name: identity.name,
        node_ips: identity.ips,
        node_ips_given: identity.ips_given,
        node_labels: identity.labels,
        register_with_taints: read.taints("registerWithTaints")?,
        register_node: read.bool("registerNode"),
        provider_id: read.text("providerID"),
        kubeconfig: identity.kubeconfig,
        api: api_limits(&read),
        container_logs: pod_logs.with_file_name("containers"),
        pod_logs,
        image_socket: read.given_socket("imageServiceEndpoint")?.unwrap_or_else(|| runtime_socket.clone()),
        runtime_socket,
        runtime_request_timeout: read.duration("runtimeRequestTimeout"),
        static_pods: read.path("staticPodPath"),
        file_check_frequency: read.duration("fileCheckFrequency"),
        sync_frequency: read.duration("syncFrequency"),
        listen: SocketAddr::new(read.ip("address"), read.port("port")),
        healthz_listen: match read.port("healthzPort") {
            0 => None,
            port => Some(SocketAddr::new(read.ip("healthzBindAddress"), port)),
        },
        serving,
        dns: dns(&read),
        limits: limits(&read),
        heartbeat: heartbeat(&read),
        images: images(&read),
        container_log_max_size: read.bytes("containerLogMaxSize"),
        container_log_max_files: read.count("containerLogMaxFiles"),
        max_container_restart_period: read.duration("crashLoopBackOff.maxContainerRestartPeriod"),
        seccomp_default: read.bool("seccompDefault"),
        allowed_unsafe_sysctls: read.texts("allowedUnsafeSysctls"),
        debugging_handlers: read.bool("enableDebuggingHandlers"),
        pod_cidr: read.given_text("podCIDR"),
        kubelet_version: VERSION.to_owned(),
        serve: read.bool("enableServer") && answerable,
        local_socket: None,
        external_cloud: identity.external_cloud,
        cert_dir: read_path(given, "cert-dir").unwrap_or_else(|| root.join("pki")),
        root,
        logging: Logging { json: read.text("logging.format") == "json", verbosity: read.count("logging.verbosity") },
        oom_score_adj: i32::try_from(read.int("oomScoreAdj")).unwrap_or_default(),
        max_open_files: u64::try_from(read.int("maxOpenFiles")).unwrap_or_default(),
        document: document.json(),
        not_yet_effective,
    })
}

/// A flag's path, absolute.
pub(super) fn read_path(given: &Given<'_>, flag: &str) -> Option<PathBuf> {
    let text = given.own(flag).filter(|text| !text.is_empty())?;
    Some(std::path::absolute(text).unwrap_or_else(|_| PathBuf::from(text)))
}

fn serving(read: &Reader<'_>, cluster: bool) -> Serving {
    let webhook = cluster && read.bool("authentication.webhook.enabled");
    Serving {
        tls: read.path("tlsCertFile").zip(read.path("tlsPrivateKeyFile")),
        only_tls13: read.text("tlsMinVersion") == "VersionTLS13",
        cipher_suites: ciphers::settle(read),
        client_ca: read.path("authentication.x509.clientCAFile"),
        anonymous: read.bool("authentication.anonymous.enabled"),
        token_review: webhook.then(|| read.duration("authentication.webhook.cacheTTL")),
        access_review: (read.text("authorization.mode") == "Webhook").then(|| AccessReview {
            allowed: read.duration("authorization.webhook.cacheAuthorizedTTL"),
            denied: read.duration("authorization.webhook.cacheUnauthorizedTTL"),
        }),
    }
}

fn api_limits(read: &Reader<'_>) -> ApiLimits {
    ApiLimits {
        qps: read.count("kubeAPIQPS"),
        burst: read.count("kubeAPIBurst"),
        event_qps: read.count("eventRecordQPS"),
        event_burst: read.count("eventBurst"),
    }
}

fn dns(read: &Reader<'_>) -> Dns {
    Dns {
        servers: read.texts("clusterDNS").iter().filter_map(|text| text.parse().ok()).collect(),
        domain: read.text("clusterDomain"),
        resolv_conf: read.path("resolvConf"),
    }
}

fn limits(read: &Reader<'_>) -> Limits {
    let mut eviction_hard = read.text_map("evictionHard");
    if read.bool("mergeDefaultEvictionSettings") {
        let defaults = Reader { document: &Document::defaults() }.text_map("evictionHard");
        for (signal, threshold) in defaults {
            eviction_hard.entry(signal).or_insert(threshold);
        }
    }
    let grace = read.text_map("evictionSoftGracePeriod").into_iter();
    Limits {
        max_pods: read.count("maxPods"),
        pods_per_core: read.count("podsPerCore"),
        pod_pids: u64::try_from(read.int("podPidsLimit")).ok().filter(|limit| *limit > 0),
        kube_reserved: read.text_map("kubeReserved"),
        system_reserved: read.text_map("systemReserved"),
        eviction_hard,
        eviction_soft: read.text_map("evictionSoft"),
        eviction_soft_grace: grace.filter_map(|(signal, text)| Some((signal, duration::parse(&text)?))).collect(),
        pressure_transition: read.duration("evictionPressureTransitionPeriod"),
        cgroup_root: match read.text("cgroupRoot") {
            root if root.is_empty() => "/".to_owned(),
            root => root,
        },
        enforce_allocatable: read.texts("enforceNodeAllocatable").iter().any(|what| what == "pods"),
        cpu_quota: read.bool("cpuCFSQuota"),
        cpu_quota_period: read.duration("cpuCFSQuotaPeriod"),
        cgroups_per_qos: read.bool("cgroupsPerQOS"),
    }
}

fn heartbeat(read: &Reader<'_>) -> Heartbeat {
    let status_update = read.duration("nodeStatusUpdateFrequency");
    // For compatibility, upstream reports as often as it updates where only the latter is given.
    let follows = read.document.given("nodeStatusUpdateFrequency") && !read.document.given("nodeStatusReportFrequency");
    Heartbeat {
        status_update,
        status_report: if follows { status_update } else { read.duration("nodeStatusReportFrequency") },
        lease_duration: Duration::from_secs(u64::from(read.count("nodeLeaseDurationSeconds"))),
        max_images: usize::try_from(read.int("nodeStatusMaxImages")).ok(),
    }
}

fn images(read: &Reader<'_>) -> Images {
    let max_parallel = read.given_int("maxParallelImagePulls").and_then(|count| u32::try_from(count).ok());
    let serialize = match read.document.given("serializeImagePulls") {
        true => read.bool("serializeImagePulls"),
        false => max_parallel.is_none_or(|count| count < 2),
    };
    Images {
        serialize,
        max_parallel,
        registry_qps: read.count("registryPullQPS"),
        registry_burst: read.count("registryBurst"),
    }
}

/// Reads fields as what the table says they are.
///
/// Paths are literals and kinds are checked when a layer is added: `a_config_is_made_of_the_defaults` reads every one.
pub(super) struct Reader<'a> {
    pub(super) document: &'a Document,
}

impl<'a> Reader<'a> {
    fn value(&self, path: &str) -> Option<&'a Value> {
        self.document.get(path).map(|node| &node.value)
    }

    pub(super) fn place(&self, path: &str) -> Place {
        self.document.get(path).map_or(Place::Default, |node| node.place.clone())
    }

    pub(super) fn bool(&self, path: &str) -> bool {
        matches!(self.value(path), Some(Value::Bool(true)))
    }

    pub(super) fn given_int(&self, path: &str) -> Option<i64> {
        match self.value(path)? {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn int(&self, path: &str) -> i64 {
        self.given_int(path).unwrap_or_default()
    }

    fn count(&self, path: &str) -> u32 {
        u32::try_from(self.int(path)).unwrap_or_default()
    }

    fn port(&self, path: &str) -> u16 {
        u16::try_from(self.int(path)).unwrap_or_default()
    }

    pub(super) fn given_text(&self, path: &str) -> Option<String> {
        match self.value(path)? {
            Value::Text(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        }
    }

    pub(super) fn text(&self, path: &str) -> String {
        self.given_text(path).unwrap_or_default()
    }

    fn ip(&self, path: &str) -> IpAddr {
        self.text(path).parse().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
    }

    pub(super) fn duration(&self, path: &str) -> Duration {
        duration::parse(&self.text(path)).unwrap_or_default()
    }

    fn bytes(&self, path: &str) -> u64 {
        quantity::units(&Quantity(self.text(path))).ok().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default()
    }

    /// A path, absolute: one of a file starts at the file's folder.
    pub(super) fn path(&self, path: &str) -> Option<PathBuf> {
        let text = self.given_text(path)?;
        let folder = self.place(path).folder().map_or_else(|| PathBuf::from("."), Path::to_owned);
        Some(std::path::absolute(folder.join(&text)).unwrap_or_else(|_| PathBuf::from(text)))
    }

    fn given_socket(&self, path: &str) -> Result<Option<PathBuf>, ConfigError> {
        self.given_text(path).map(|_| self.socket(path)).transpose()
    }

    /// The path of a `unix://` endpoint; the scheme may be left out.
    fn socket(&self, path: &str) -> Result<PathBuf, ConfigError> {
        let text = self.text(path);
        let socket = text.strip_prefix("unix://").unwrap_or(&text);
        if !socket.starts_with('/') {
            let title = format!("`{path}` is not the path of a Unix socket: {text:?}");
            return Err(self.place(path).mistake(&title, "for example unix:///run/orlop/orlop.sock"));
        }
        Ok(PathBuf::from(socket))
    }

    pub(super) fn texts(&self, path: &str) -> Vec<String> {
        let Some(Value::List(items)) = self.value(path) else { return Vec::new() };
        items.iter().filter_map(|item| text(&item.value)).collect()
    }

    pub(super) fn map(&self, path: &str) -> &'a [(Key, Node)] {
        match self.value(path) {
            Some(Value::Map(entries)) => entries,
            _ => &[],
        }
    }

    pub(super) fn text_map(&self, path: &str) -> BTreeMap<String, String> {
        self.map(path).iter().filter_map(|(key, node)| Some((key.name.clone(), text(&node.value)?))).collect()
    }

    fn taints(&self, path: &str) -> Result<Vec<Taint>, ConfigError> {
        let Some(Value::List(items)) = self.value(path) else { return Ok(Vec::new()) };
        items.iter().map(taint).collect()
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Int(value) => Some(value.to_string()),
        _ => None,
    }
}

fn taint(node: &Node) -> Result<Taint, ConfigError> {
    let Value::Map(entries) = &node.value else { return Ok(Taint::default()) };
    let field = |name: &str| entries.iter().find(|(key, _)| key.name == name).and_then(|(_, node)| text(&node.value));
    let key = field("key").unwrap_or_default();
    if !rules::is_qualified_name(&key) {
        return Err(node.place.mistake(&format!("a taint's key is not a qualified name: {key:?}"), ""));
    }
    let effect = field("effect").unwrap_or_default();
    if effect.is_empty() {
        return Err(node
            .place
            .mistake(&format!("the taint {key} has no effect"), "NoSchedule, PreferNoSchedule or NoExecute"));
    }
    Ok(Taint { key, effect, value: field("value").filter(|value| !value.is_empty()), time_added: None })
}
