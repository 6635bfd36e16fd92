//! `orlop kubelet`: a kubelet on any CRI, as a drop-in for upstream's.

use super::cri::{UNWIND, allow_open_files, notify, private_folder, runtime, stopped};
use crate::args::KubeletFlags;
use crate::local::Kubelet;
use crate::settings::Settings;
use anyhow::Context;
use kubelet::config::flags::Flags;
use kubelet::config::{Config, ConfigError};
use sd_notify::NotifyState;

/// Reads the configuration: the files, the flags over them, and below them what this program knows better than upstream.
///
/// # Errors
/// The first mistake, with its place.
pub(crate) fn load(flags: KubeletFlags, settings: &Settings) -> Result<Config, ConfigError> {
    let config = ::kubelet::config::load(&Flags {
        given: flags.given,
        defaults: vec![("containerRuntimeEndpoint", format!("unix://{}", settings.socket().display()))],
        local_socket: Some(settings.kubelet_socket()),
    })?;
    wanted(config, "--pod-manifest-path DIR")
}

/// The configuration, if there is somebody who wants pods; `manifests` is the flag that names some.
///
/// # Errors
/// Neither a cluster nor a folder is given. Upstream's would start, and remove every pod of the runtime, as nobody wants any.
pub(super) fn wanted(config: Config, manifests: &str) -> Result<Config, ConfigError> {
    if config.kubeconfig.is_some() || config.static_pods.is_some() {
        return Ok(config);
    }
    Err(ConfigError::Mistake(format!(
        "error: there is nothing to run, and what runs would be removed\n  \
         = help: give --kubeconfig FILE, or {manifests} for a node alone"
    )))
}

/// Runs until SIGTERM or SIGINT, and leaves the pods alone.
///
/// # Errors
/// A part could not be opened.
pub(crate) fn run(config: Config, settings: &Settings) -> anyhow::Result<()> {
    sys::kernel::require_minimum()?;
    allow_open_files(config.max_open_files);
    private_folder(&settings.state)?;
    let score = config.oom_score_adj;
    if let Err(error) = sys::fs::write_knob("/proc/self/oom_score_adj", score.to_string()) {
        tracing::warn!(%error, score, "the kubelet itself may be killed when memory runs out");
    }
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let stop = stopped()?;
        serve(config, settings, || notify(&NotifyState::Ready), stop).await
    });
    runtime.shutdown_timeout(UNWIND);
    ended
}

/// Runs a kubelet until `stop` resolves; calls `ready` once it serves.
pub(super) async fn serve(
    config: Config,
    settings: &Settings,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    if !config.not_yet_effective.is_empty() {
        tracing::warn!(fields = config.not_yet_effective.join(" "), "given, but not yet effective");
    }
    tracing::info!(
        node = config.node_name,
        runtime = %config.runtime_socket.display(),
        cluster = config.kubeconfig.is_some(),
        "starting the kubelet"
    );
    let mut running = std::pin::pin!(::kubelet::run(config, stop));
    let local = Kubelet::new(settings);
    tokio::select! {
        ended = &mut running => return ended.context("run the kubelet"),
        () = local.listens() => ready(),
    }
    running.await.context("run the kubelet")
}
