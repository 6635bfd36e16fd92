//! What the daemons can be told: every key of `config.toml`, with its default.
//!
//! The keys are the fields of [`Settings`]; there is no other list of them. A file names only what it changes. Tables
//! merge, arrays and values replace; `config.toml` comes first, then `conf.d/*.toml` in the order of their names, then
//! the command line ([`layers`]). A key never moves: there are no schema versions.

pub(crate) mod layers;

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// All settings. Defaults are the conventions that other software on a node expects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// What must survive a reboot: images, records, writable layers.
    pub(crate) root: PathBuf,
    /// What must not: sockets, exit records.
    pub(crate) state: PathBuf,
    /// The CRI socket; empty means `orlop.sock` below `state`.
    pub(crate) socket: PathBuf,
    pub(crate) log: Log,
    pub(crate) cri: Cri,
    pub(crate) cni: Cni,
    pub(crate) registry: Registry,
    pub(crate) image: Image,
}

/// The daemon's own log, on standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    /// error, warn, info, debug, trace, or a filter such as `info,image=debug`.
    pub(crate) level: String,
    /// `text` or `json`.
    pub(crate) format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For a person, coloured on a terminal.
    Text,
    /// One object a line.
    Json,
}

/// The CRI server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cri {
    /// The supervisor that is started once per pod; empty means `orlop-shim` beside this program.
    pub(crate) shim: PathBuf,
    /// Parent of the cgroups of pods that name none.
    pub(crate) cgroup_parent: String,
    /// Where network namespaces are pinned.
    pub(crate) netns_dir: PathBuf,
    /// Seconds that one CNI ADD or DEL may take.
    pub(crate) cni_timeout_s: u64,
}

/// Where CNI's configuration, plugins and cache are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cni {
    /// The first conflist here, by name, is the pods' network; read again when it changes.
    pub(crate) conf_dir: PathBuf,
    /// Where plugins are looked for, in this order.
    pub(crate) bin_dirs: Vec<PathBuf>,
    /// libcni's result cache.
    pub(crate) cache_dir: PathBuf,
}

/// Registries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registry {
    /// Folders of `<host>/hosts.toml`, read at each pull; the first that has the host wins.
    pub(crate) hosts_dirs: Vec<PathBuf>,
}

/// Images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Image {
    /// Layers that are downloaded and unpacked at the same time, over all pulls.
    pub(crate) parallel_layers: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: "/var/lib/orlop".into(),
            state: "/run/orlop".into(),
            socket: PathBuf::new(),
            log: Log { level: "info".into(), format: LogFormat::Text },
            cri: Cri {
                shim: PathBuf::new(),
                cgroup_parent: "/orlop".into(),
                netns_dir: "/run/netns".into(),
                cni_timeout_s: 120,
            },
            cni: Cni {
                conf_dir: "/etc/cni/net.d".into(),
                bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
                cache_dir: "/var/lib/cni".into(),
            },
            registry: Registry { hosts_dirs: vec!["/etc/containerd/certs.d".into(), "/etc/docker/certs.d".into()] },
            image: Image { parallel_layers: 4 },
        }
    }
}

impl Settings {
    /// Where this instance's kubelet answers root without TLS, for `orlop ps`.
    pub(crate) fn kubelet_socket(&self) -> PathBuf {
        self.state.join("kubelet.sock")
    }

    /// The CRI socket, with its default filled in.
    pub(crate) fn socket(&self) -> PathBuf {
        if self.socket.as_os_str().is_empty() { self.state.join("orlop.sock") } else { self.socket.clone() }
    }
}
