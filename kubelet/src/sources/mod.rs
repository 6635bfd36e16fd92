//! Which pods should run: those that the API server binds to our node, and those in the folder of static pods.

pub mod mirror;

use crate::api::Api;
use crate::clock::Clock;
use crate::config::Config;
use crate::pod::{Pod, PodUid, Source};
use mirror::Mirrors;
use std::sync::Arc;
use tokio::sync::mpsc;

/// News of a source.
#[derive(Debug, Clone)]
pub enum Update {
    /// Everything that the source has. Until each source has said it once, nobody may remove what is not desired.
    Set {
        /// Which.
        source: Source,
        /// All of its pods; a pod that is not among them is gone.
        pods: Vec<Pod>,
    },
    /// A pod is new or changed. Also said of a static pod whose mirror changed or is gone.
    Upsert(Pod),
    /// A pod is gone from its source.
    Remove {
        /// Which.
        source: Source,
        /// Whose.
        uid: PodUid,
    },
}

/// The sources that there are for this configuration: every one of them says [`Update::Set`] sooner or later.
pub fn expected(config: &Config) -> Vec<Source> {
    let api = config.kubeconfig.as_ref().map(|_| Source::Api);
    let file = config.static_pods.as_ref().map(|_| Source::File);
    api.into_iter().chain(file).collect()
}

/// Starts all sources. Their tasks end when the receiver is dropped.
pub fn start(config: &Config, api: &Arc<dyn Api>, mirrors: &Mirrors, clock: &Clock) -> mpsc::Receiver<Update> {
    let _ = (config, api, mirrors, clock);
    todo!()
}
