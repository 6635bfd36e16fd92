//! Which pods should run: those that the API server binds to our node, and those in the folder of static pods.
//!
//! One task merges both into [`Update`]s, keeps the [`mirror`] pods apart from the real ones, and says a static pod again
//! when something that its mirror depends on has changed.

mod defaults;
mod file;
mod manifest;
pub mod mirror;
mod validate;

use crate::api::{Api, PodChange};
use crate::clock::Clock;
use crate::config::Config;
use crate::pod::{Pod, PodUid, Source};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod as PodObject;
use mirror::{Mirrors, is_mirror};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tracing::warn;

/// Updates that may wait for the workers' dispatcher.
const QUEUE: usize = 64;

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
    let (updates, receiver) = mpsc::channel(QUEUE);
    let files = config
        .static_pods
        .clone()
        .map(|folder| file::start(folder, config.file_check_frequency, config.node_name.clone(), clock.clone()));
    let merge = Merge { updates, mirrors: mirrors.clone(), statics: BTreeMap::new(), files_seen: false };
    tokio::spawn(merge.run(api.watch_pods(), files));
    receiver
}

/// The merging task's state.
struct Merge {
    updates: mpsc::Sender<Update>,
    mirrors: Mirrors,
    /// Static pods as they were said last.
    statics: BTreeMap<PodUid, Pod>,
    files_seen: bool,
}

/// Nobody listens any more.
struct Ended;

impl Merge {
    async fn run(mut self, mut changes: BoxStream<'static, PodChange>, mut files: Option<mpsc::Receiver<Vec<Pod>>>) {
        let mut node = self.mirrors.node();
        let mut registered = node.borrow_and_update().is_some();
        let (mut api_ended, mut node_ended) = (false, false);
        loop {
            let result = tokio::select! {
                () = self.updates.closed() => return,
                change = changes.next(), if !api_ended => match change {
                    Some(change) => self.api(change).await,
                    // A node that stands alone has no such source.
                    None => { api_ended = true; Ok(()) }
                },
                Some(pods) = next(&mut files) => self.files(pods).await,
                changed = node.changed(), if !node_ended => {
                    node_ended = changed.is_err();
                    let now = node.borrow_and_update().is_some();
                    let appeared = now && !registered;
                    registered = now;
                    // Their mirrors could not be made before.
                    if appeared { self.say_statics(|_| true).await } else { Ok(()) }
                }
            };
            if result.is_err() {
                return;
            }
        }
    }

    async fn api(&mut self, change: PodChange) -> Result<(), Ended> {
        match change {
            PodChange::All(all) => {
                let (mirrors, real): (Vec<_>, Vec<_>) = all.into_iter().partition(is_mirror);
                self.mirrors.replace(mirrors);
                let pods = real.into_iter().filter_map(usable).collect();
                self.say(Update::Set { source: Source::Api, pods }).await?;
                self.say_statics(|_| true).await
            }
            PodChange::Upsert(object) if is_mirror(&object) => {
                let (namespace, name) = (object.metadata.namespace.clone(), object.metadata.name.clone());
                self.mirrors.put(*object);
                self.say_static(namespace, name).await
            }
            PodChange::Gone(object) if is_mirror(&object) => {
                self.mirrors.forget(&object);
                self.say_static(object.metadata.namespace, object.metadata.name).await
            }
            PodChange::Upsert(object) => match usable(*object) {
                Some(pod) => self.say(Update::Upsert(pod)).await,
                None => Ok(()),
            },
            PodChange::Gone(object) => match usable(*object) {
                Some(pod) => self.say(Update::Remove { source: Source::Api, uid: pod.uid().clone() }).await,
                None => Ok(()),
            },
        }
    }

    /// The folder holds these now. A changed manifest is another pod, with another UID, unless it has one of its own.
    async fn files(&mut self, pods: Vec<Pod>) -> Result<(), Ended> {
        let new: BTreeMap<PodUid, Pod> = pods.into_iter().map(|pod| (pod.uid().clone(), pod)).collect();
        let old = std::mem::replace(&mut self.statics, new.clone());
        if !std::mem::replace(&mut self.files_seen, true) {
            return self.say(Update::Set { source: Source::File, pods: new.into_values().collect() }).await;
        }
        for uid in old.keys().filter(|uid| !new.contains_key(*uid)) {
            self.say(Update::Remove { source: Source::File, uid: uid.clone() }).await?;
        }
        let is_news = |pod: &Pod| !old.get(pod.uid()).is_some_and(|old| old.wants_the_same(pod));
        for pod in new.into_values().filter(is_news) {
            self.say(Update::Upsert(pod)).await?;
        }
        Ok(())
    }

    async fn say_static(&self, namespace: Option<String>, name: Option<String>) -> Result<(), Ended> {
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        self.say_statics(|pod| pod.namespace() == namespace && pod.name() == name).await
    }

    async fn say_statics(&self, which: impl Fn(&Pod) -> bool) -> Result<(), Ended> {
        for pod in self.statics.values().filter(|pod| which(pod)) {
            self.say(Update::Upsert(pod.clone())).await?;
        }
        Ok(())
    }

    async fn say(&self, update: Update) -> Result<(), Ended> {
        self.updates.send(update).await.map_err(|_| Ended)
    }
}

/// The next list of the folder; never, where there is no folder.
async fn next(files: &mut Option<mpsc::Receiver<Vec<Pod>>>) -> Option<Vec<Pod>> {
    match files {
        Some(files) => files.recv().await,
        None => std::future::pending().await,
    }
}

/// A pod that can be worked with at all; the API server's own checks let no other through.
fn usable(object: PodObject) -> Option<Pod> {
    let name = object.metadata.name.clone();
    match Pod::new(Arc::new(object), Source::Api) {
        Ok(pod) => Some(pod),
        Err(error) => {
            warn!(name, %error, "a pod of the API server is passed over");
            None
        }
    }
}

#[cfg(test)]
mod tests;
