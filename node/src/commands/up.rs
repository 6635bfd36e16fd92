//! `orlop up`: the CRI and the kubelet in one process, which still speak CRI to each other over the socket.
//!
//! What a machine lacks for that is provided: a network where none is configured ([`network`]), and links to our own CNI
//! plugins. What was done is said, and how to look at the pods.

mod announce;
mod network;

use super::{cri, kubelet};
use crate::args::Up;
use crate::local::Kubelet;
use crate::settings::Settings;
use ::kubelet::config::flags::Flags;
use ::kubelet::config::{Config, ConfigError};
use anyhow::Context;
use sd_notify::NotifyState;
use std::path::{Path, PathBuf};
use tokio::sync::watch;

/// Where static pods are, unless told otherwise.
const MANIFESTS: &str = "/etc/orlop/manifests";

/// systemd-resolved's own list of servers: the one in /etc/resolv.conf names its stub, which pods can't reach.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Reads the kubelet's configuration, with defaults for a machine that nobody prepared.
///
/// # Errors
/// The first mistake, with its place.
pub(crate) fn load(up: Up, settings: &Settings) -> Result<Config, ConfigError> {
    let mut flags = up.kubelet.0;
    let named = flags.has("kubeconfig");
    let alone = flags.last("kubeconfig").is_none_or(str::is_empty);
    if let Some(path) = up.kubelet_config {
        flags.set("config", path.display().to_string());
    }
    if let Some(path) = up.manifests.or(up.pod) {
        flags.set("pod-manifest-path", path.display().to_string());
    }
    flags.set("container-runtime-endpoint", format!("unix://{}", settings.socket().display()));
    let folders = Folders::of(settings);
    if !flags.has("root-dir") {
        flags.set("root-dir", folders.kubelet.display().to_string());
    }
    let mut defaults = vec![
        ("podLogsDir", folders.pod_logs.display().to_string()),
        // A person's machine may well have swap and cgroup v1; upstream's refusals are for nodes that somebody prepared.
        ("failSwapOn", "false".to_owned()),
        ("failCgroupV1", "false".to_owned()),
    ];
    if Path::new(RESOLVED).exists() {
        defaults.push(("resolvConf", RESOLVED.to_owned()));
    }
    // Not for `--kubeconfig ""`, which is a mistake: the pods of the cluster would end.
    if !named {
        defaults.push(("staticPodPath", MANIFESTS.to_owned()));
    }
    if alone {
        // Nobody watches it, and a second instance would want the same port.
        defaults.push(("healthzPort", "0".to_owned()));
    }
    let local_socket = Some(settings.kubelet_socket());
    let config = ::kubelet::config::load(&Flags { given: flags.given, defaults, local_socket })?;
    kubelet::wanted(config, "--manifests DIR")
}

/// Where the kubelet keeps things: in the usual places, or all below a private `--root`.
struct Folders {
    kubelet: PathBuf,
    pod_logs: PathBuf,
}

impl Folders {
    fn of(settings: &Settings) -> Folders {
        if settings.root == Settings::default().root {
            return Folders { kubelet: "/var/lib/kubelet".into(), pod_logs: "/var/log/pods".into() };
        }
        Folders { kubelet: settings.root.join("kubelet"), pod_logs: settings.root.join("log/pods") }
    }
}

/// Runs until SIGTERM or SIGINT, and leaves the pods alone.
///
/// # Errors
/// One of the two could not start, or ended by itself.
pub(crate) fn run(config: Config, settings: &Settings) -> anyhow::Result<()> {
    sys::kernel::require_minimum()?;
    let mut settings = settings.clone();
    cri::allow_open_files(config.max_open_files);
    cri::private_folder(&settings.state)?;
    settings.cni.bin_dirs.push(network::plugins(&settings.state)?);
    let done = prepare(&config, &settings)?;
    let runtime = cri::runtime()?;
    let daemon = runtime.block_on(cri::open(&settings))?;
    let ended = runtime.block_on(both(&daemon, config, &settings, &done));
    runtime.shutdown_timeout(cri::UNWIND);
    drop(daemon);
    ended
}

/// What is made before anything starts, in words.
fn prepare(config: &Config, settings: &Settings) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut done = vec![("CRI", format!("unix://{}", settings.socket().display()))];
    match &config.kubeconfig {
        Some(path) => done.push(("cluster", format!("node {} of {}", config.node_name, path.display()))),
        None => done.push(("cluster", "none: static pods only".to_owned())),
    }
    if let Some(path) = &config.static_pods {
        if path == Path::new(MANIFESTS) {
            std::fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
        }
        anyhow::ensure!(path.exists(), "there are no manifests at {}", path.display());
        done.push(("manifests", path.display().to_string()));
    }
    let network = match &config.kubeconfig {
        Some(_) => network::left_to_cluster(&settings.cni.conf_dir)?,
        None => network::provide(&settings.cni.conf_dir)?,
    };
    done.push(("network", network.to_string()));
    done.push(("logs", config.pod_logs.display().to_string()));
    done.push(("look with", announce::ps_command(settings)));
    Ok(done)
}

/// The CRI first, the kubelet when it listens; at the end the other way round.
async fn both(
    daemon: &::cri::Daemon,
    config: Config,
    settings: &Settings,
    done: &[(&'static str, String)],
) -> anyhow::Result<()> {
    let signalled = cri::stopped()?;
    let (listening, mut listens) = watch::channel(false);
    let (stop_cri, cri_stopped) = tokio::sync::oneshot::channel::<()>();
    let (stop_kubelet, kubelet_stopped) = tokio::sync::oneshot::channel::<()>();
    let network = tokio::spawn(network::give_way(settings.cni.conf_dir.clone()));

    let served = async {
        let stop = async { _ = cri_stopped.await };
        let served = cri::serve(daemon, settings, || _ = listening.send(true), stop).await;
        // A kubelet without its runtime would only wait; the service manager starts both again.
        _ = stop_kubelet.send(());
        served
    };
    let ran = async {
        // An error means that the CRI ended before it listened, which says why by itself.
        if listens.wait_for(|listens| *listens).await.is_err() {
            return Ok(());
        }
        let stop = async {
            tokio::select! { () = signalled => {}, _ = kubelet_stopped => {} }
        };
        let ready = || {
            announce::started(done);
            cri::notify(&NotifyState::Ready);
        };
        let announcer = tokio::spawn(announce::first_pods(Kubelet::new(settings)));
        let ended = kubelet::serve(config, settings, ready, stop).await;
        announcer.abort();
        _ = stop_cri.send(());
        ended
    };
    let (served, ran) = tokio::join!(served, ran);
    network.abort();
    served.and(ran)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{KubeletFlags, UpFlags};

    fn up(kubeconfig: Option<&str>, kubelet_config: Option<PathBuf>) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let settings =
            Settings { root: folder.path().to_owned(), state: folder.path().to_owned(), ..Settings::default() };
        let mut flags = KubeletFlags::default();
        flags.set("node-ip", "192.0.2.1");
        if let Some(path) = kubeconfig {
            flags.set("kubeconfig", path);
        }
        load(Up { manifests: None, pod: None, kubelet_config, kubelet: UpFlags(flags) }, &settings)
    }

    #[test]
    fn a_machine_alone_runs_the_usual_folder() {
        assert_eq!(up(None, None).unwrap().static_pods, Some(MANIFESTS.into()));
    }

    #[test]
    fn an_empty_kubeconfig_is_refused_instead_of_ending_every_pod() {
        let error = up(Some(""), None).unwrap_err().to_string();
        assert!(error.contains("what runs would be removed") && error.contains("--manifests DIR"), "{error}");
    }

    #[test]
    fn the_folder_that_the_kubelets_file_names_is_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubelet.yaml");
        let text = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nstaticPodPath: /srv/pods\n";
        sys::fs::atomic_write(&path, text.as_bytes(), sys::fs::Durability::Rename, 0o600).unwrap();
        assert_eq!(up(None, Some(path)).unwrap().static_pods, Some("/srv/pods".into()));
    }
}
