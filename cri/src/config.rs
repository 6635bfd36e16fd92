//! What the daemon is told: every path and limit, injected; nothing here has a default from the environment.

use std::path::PathBuf;
use std::time::Duration;

/// The settings of one CRI server. Several may run side by side as long as `root`, `state` and the socket differ.
#[derive(Debug, Clone)]
pub struct Config {
    /// What must survive a reboot: `<root>/cri` is ours (records, writable layers), `<root>/image` the image store's.
    pub root: PathBuf,
    /// What must not: `<state>/shim/<sandbox>/` holds a pod's socket and exit records.
    pub state: PathBuf,
    /// The supervisor that is started once per pod.
    pub shim: PathBuf,
    /// Names under which a sandbox may ask for our runtime (`runtime_handler`); the empty name always means the default.
    pub handlers: Vec<String>,
    /// The cgroup below which pods go that name no `cgroup_parent`, cgroupfs syntax.
    pub cgroup_parent: String,
    /// Where network namespaces are pinned, as `cni-<uuid>`.
    pub netns_dir: PathBuf,
    /// Network configuration, plugins, results.
    pub cni: Cni,
    /// Folders of `<host>/hosts.toml`, read at each pull; the first that has the host wins.
    pub registry_hosts_dirs: Vec<PathBuf>,
    /// Layers that are downloaded and unpacked at the same time, over all pulls.
    pub parallel_layers: usize,
    /// How registries are reached.
    pub proxies: image::Proxies,
    /// How many files a container's processes may open.
    pub open_files: OpenFiles,
    /// How often writable layers are measured, in the background.
    pub usage_interval: Duration,
    /// Files that pods get a copy of.
    pub host_files: HostFiles,
}

/// Where CNI's configuration, plugins and cache are.
#[derive(Debug, Clone)]
pub struct Cni {
    /// The first usable conflist here, by name, is the pods' network; read again when it changes.
    pub conf_dir: PathBuf,
    /// Where plugins are looked for, in this order.
    pub bin_dirs: Vec<PathBuf>,
    /// libcni's cache; results are below `results/`.
    pub cache_dir: PathBuf,
    /// How long one ADD or DEL may take before the RPC gives up on it.
    pub timeout: Duration,
}

/// RLIMIT_NOFILE of containers; both are cut to the daemon's own hard limit.
///
/// containerd 2 sets none and hands down its own, which under systemd is 1024 and 524288. We name these two, so that the
/// daemon can raise its own soft limit without it leaking into containers.
#[derive(Debug, Clone, Copy)]
pub struct OpenFiles {
    /// What a process begins with; programs that use select(2) need it low.
    pub soft: u64,
    /// How far it may raise that.
    pub hard: u64,
}

/// The host's files from which a pod's are made.
#[derive(Debug, Clone)]
pub struct HostFiles {
    /// Copied for pods that send no DNS configuration.
    pub resolv_conf: PathBuf,
    /// Copied for every pod.
    pub hosts: PathBuf,
}

impl Config {
    /// A configuration with the conventional values for everything but these three.
    pub fn new(root: impl Into<PathBuf>, state: impl Into<PathBuf>, shim: impl Into<PathBuf>) -> Config {
        Config {
            root: root.into(),
            state: state.into(),
            shim: shim.into(),
            handlers: vec!["orlop".into(), "runc".into()],
            cgroup_parent: "/orlop".into(),
            netns_dir: "/run/netns".into(),
            cni: Cni {
                conf_dir: "/etc/cni/net.d".into(),
                bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
                cache_dir: "/var/lib/cni".into(),
                timeout: Duration::from_mins(2),
            },
            registry_hosts_dirs: vec!["/etc/containerd/certs.d".into(), "/etc/docker/certs.d".into()],
            parallel_layers: 4,
            proxies: image::Proxies::default(),
            open_files: OpenFiles { soft: 1024, hard: 524_288 },
            usage_interval: Duration::from_secs(10),
            host_files: HostFiles { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into() },
        }
    }
}
