//! What the kubelet is told to do: one plain struct, put together from flags, KubeletConfiguration and kubeconfig.
//!
//! Everything below reads [`Config`] and nothing else: no flag, file or environment variable is looked at later.

pub(crate) mod duration;
pub mod flags;

mod ciphers;
mod document;
mod fields;
mod gates;
mod host;
mod identity;
mod kubeconfig;
mod machine;
mod rules;
mod settle;
pub(crate) mod source;
#[cfg(test)]
mod tests;
mod values;
pub(crate) mod yaml;

use crate::pod::QosClass;
use document::Document;
use flags::{Flags, Given};
pub(crate) use identity::detect_ip;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// All settings in force.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our node's name.
    pub node_name: String,
    /// `--node-ip`, or what was found where it is not given; the first one is the primary. Empty if the machine has none
    /// yet: [`detect_ip`] looks again.
    pub node_ips: Vec<IpAddr>,
    /// Whether `--node-ip` names them: a cloud's controller is told only those.
    pub node_ips_given: bool,
    /// Labels to register with (`--node-labels`).
    pub node_labels: BTreeMap<String, String>,
    /// Taints to register with.
    pub register_with_taints: Vec<k8s_openapi::api::core::v1::Taint>,
    /// Whether to create the Node object.
    pub register_node: bool,
    /// `spec.providerID`.
    pub provider_id: String,
    /// How to reach the API server; `None` for a node alone.
    pub kubeconfig: Option<PathBuf>,
    /// How much it may be asked.
    pub api: ApiLimits,
    /// `/var/lib/kubelet`: pods' folders, volumes.
    pub root: PathBuf,
    /// `/var/log/pods`.
    pub pod_logs: PathBuf,
    /// `/var/log/containers`: links into it. Fluent Bit and friends read them.
    pub container_logs: PathBuf,
    /// The CRI socket's path.
    pub runtime_socket: PathBuf,
    /// The image service's, usually the same.
    pub image_socket: PathBuf,
    /// Deadline of CRI calls that don't have a natural one.
    pub runtime_request_timeout: Duration,
    /// The folder of static pods.
    pub static_pods: Option<PathBuf>,
    /// How often it is read beside inotify.
    pub file_check_frequency: Duration,
    /// Resync of each pod.
    pub sync_frequency: Duration,
    /// Where :10250 listens.
    pub listen: SocketAddr,
    /// Where healthz listens without TLS; `None` for port 0.
    pub healthz_listen: Option<SocketAddr>,
    /// TLS and who may ask.
    pub serving: Serving,
    /// DNS for pods.
    pub dns: Dns,
    /// The node's capacity for pods and what is set aside.
    pub limits: Limits,
    /// Node status and lease.
    pub heartbeat: Heartbeat,
    /// Pulling.
    pub images: Images,
    /// Log rotation: size in bytes and number of files of a container.
    pub container_log_max_size: u64,
    /// Log rotation: number of files.
    pub container_log_max_files: u32,
    /// Longest pause between restarts of a crashing container.
    pub max_container_restart_period: Duration,
    /// RuntimeDefault instead of Unconfined where a pod says nothing.
    pub seccomp_default: bool,
    /// Sysctl patterns beyond the safe ones.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Whether the debugging handlers (logs, exec, …) are served.
    pub debugging_handlers: bool,
    /// Told to the runtime as the pod CIDR in standalone mode.
    pub pod_cidr: Option<String>,
    /// Where `Node.nodeInfo.kubeletVersion` and pods' probes name us: `v1.36.3`.
    pub kubelet_version: String,
    /// Whether :10250 is served: `enableServer` says so, and there is somebody who could be let in.
    pub serve: bool,
    /// Where `/pods` is served to root without TLS, for `orlop ps`; mode 0600.
    pub local_socket: Option<PathBuf>,
    /// `--cloud-provider=external`: register with the taint that the cloud's controller removes.
    pub external_cloud: bool,
    /// The folder of certificates that we make (`--cert-dir`).
    pub cert_dir: PathBuf,
    /// How log lines look and how many there are.
    pub logging: Logging,
    /// The kubelet's own `oom_score_adj`.
    pub oom_score_adj: i32,
    /// How many files the kubelet itself may have open (`maxOpenFiles`), if the machine allows it.
    pub max_open_files: u64,
    /// The KubeletConfiguration in force, defaults filled in, for `/configz`.
    pub document: serde_json::Value,
    /// Fields that were given and do nothing yet, for `/configz` and the log.
    pub not_yet_effective: Vec<String>,
}

/// The kubelet's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logging {
    /// `logging.format: json`.
    pub json: bool,
    /// klog's verbosity (`--v`).
    pub verbosity: u32,
}

/// The HTTPS server.
#[derive(Debug, Clone)]
pub struct Serving {
    /// Certificate and key, PEM; self-signed ones are made in [`Config::cert_dir`] where they are not given.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// `tlsMinVersion: VersionTLS13`.
    pub only_tls13: bool,
    /// `tlsCipherSuites`, IANA names; empty allows all that rustls has.
    pub cipher_suites: Vec<String>,
    /// CA of client certificates.
    pub client_ca: Option<PathBuf>,
    /// Whether callers without credentials are `system:anonymous` instead of refused.
    pub anonymous: bool,
    /// Whether tokens are reviewed by the API server, and how long an answer is kept.
    pub token_review: Option<Duration>,
    /// Access reviews by the API server; `None` allows everything (AlwaysAllow).
    pub access_review: Option<AccessReview>,
}

/// How long answers of the authoriser are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessReview {
    /// For a yes.
    pub allowed: Duration,
    /// For a no.
    pub denied: Duration,
}

/// Calls to the API server a second on average and at once; 0 a second does not limit. Heartbeats are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiLimits {
    /// `kubeAPIQPS`.
    pub qps: u32,
    /// `kubeAPIBurst`.
    pub burst: u32,
    /// `eventRecordQPS`: events.
    pub event_qps: u32,
    /// `eventBurst`.
    pub event_burst: u32,
}

/// DNS of pods.
#[derive(Debug, Clone, Default)]
pub struct Dns {
    /// `clusterDNS`.
    pub servers: Vec<IpAddr>,
    /// `clusterDomain`.
    pub domain: String,
    /// The host's resolv.conf; `None` for an empty path.
    pub resolv_conf: Option<PathBuf>,
}

/// Capacity and reservations.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `maxPods`.
    pub max_pods: u32,
    /// `podsPerCore`; 0 does not limit.
    pub pods_per_core: u32,
    /// `podPidsLimit`; `None` for what is not positive.
    pub pod_pids: Option<u64>,
    /// `kubeReserved`, as quantities.
    pub kube_reserved: BTreeMap<String, String>,
    /// `systemReserved`.
    pub system_reserved: BTreeMap<String, String>,
    /// `evictionHard`: signal → quantity or percentage.
    pub eviction_hard: BTreeMap<String, String>,
    /// `evictionSoft`.
    pub eviction_soft: BTreeMap<String, String>,
    /// `evictionSoftGracePeriod`.
    pub eviction_soft_grace: BTreeMap<String, Duration>,
    /// `evictionPressureTransitionPeriod`.
    pub pressure_transition: Duration,
    /// `cgroupRoot`, `/` by default.
    pub cgroup_root: String,
    /// `enforceNodeAllocatable` names pods.
    pub enforce_allocatable: bool,
    /// `cpuCFSQuota`.
    pub cpu_quota: bool,
    /// `cpuCFSQuotaPeriod`.
    pub cpu_quota_period: Duration,
    /// `cgroupsPerQOS`.
    pub cgroups_per_qos: bool,
}

/// How often the node speaks.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// `nodeStatusUpdateFrequency`.
    pub status_update: Duration,
    /// `nodeStatusReportFrequency`.
    pub status_report: Duration,
    /// `nodeLeaseDurationSeconds`; renewed every quarter of it.
    pub lease_duration: Duration,
    /// `nodeStatusMaxImages`; `None` for -1.
    pub max_images: Option<usize>,
}

/// Pulling.
#[derive(Debug, Clone)]
pub struct Images {
    /// One at a time.
    pub serialize: bool,
    /// At most so many at a time, where not serialised.
    pub max_parallel: Option<u32>,
    /// Pulls a second; 0 does not limit.
    pub registry_qps: u32,
    /// In a burst.
    pub registry_burst: u32,
}

/// A configuration that can't be used; prints itself with the file, the line and the key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A mistake in a file, a flag or the machine, rendered with the lines around it.
    #[error("{0}")]
    Mistake(String),
    /// A file that can't be read.
    #[error("read {path}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Reads the files that the flags name, lays the flags over them and looks at the machine for what neither says.
///
/// # Errors
/// The first mistake, with its place.
pub fn load(flags: &Flags) -> Result<Config, ConfigError> {
    let given = Given::new(&flags.given)?;
    let mut document = Document::defaults();
    document.add_defaults(&flags.defaults)?;
    if let Some(path) = settle::read_path(&given, "config") {
        document.add_file(&path)?;
    }
    if let Some(folder) = settle::read_path(&given, "config-dir") {
        for path in document::drop_ins(&folder)? {
            document.add_file(&path)?;
        }
    }
    document.add_flags(&given)?;
    let mut config = settle::settle(&document, &given)?;
    config.local_socket.clone_from(&flags.local_socket);
    host::check(&document)?;
    Ok(config)
}

impl Config {
    /// `<root>/pods/<uid>`.
    pub fn pod_dir(&self, uid: &crate::pod::PodUid) -> PathBuf {
        self.root.join("pods").join(uid.as_str())
    }

    /// The name of a class's cgroup below kubepods; Guaranteed pods have none.
    pub fn qos_cgroup(class: QosClass) -> Option<&'static str> {
        match class {
            QosClass::Guaranteed => None,
            QosClass::Burstable => Some("burstable"),
            QosClass::BestEffort => Some("besteffort"),
        }
    }
}
