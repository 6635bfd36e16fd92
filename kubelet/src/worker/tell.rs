//! A pod's status: generated from what is, told to whoever asks and to the API server.

use super::pod::Worker;
use crate::pod::Role;
use crate::runtime::ContainerState;
use crate::status::{self, Inputs};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Worker {
    /// Generates the status and has it written.
    pub(super) async fn tell(&mut self) {
        if !self.told {
            return;
        }
        let probes = |id: &str| self.context.probes.state(id);
        let status = status::generate(&Inputs {
            pod: &self.pod,
            observed: &self.observed,
            notes: &self.notes,
            probes: &probes,
            runtime_name: &self.context.runtime_name,
            facts: &self.context.facts,
            previous: &self.status,
            termination: self.lifecycle.why(),
            termination_messages: &self.last_words,
            now: self.context.clock.now().wall,
        });
        self.measure(&status);
        if status != self.status {
            self.status = status.clone();
            let shared = Arc::new(status.clone());
            self.context.table.update(self.pod.uid(), |entry| entry.status = shared);
        }
        self.context.writer.set(&self.pod, status);
    }

    /// How long it took until the pod ran.
    fn measure(&self, status: &k8s_openapi::api::core::v1::PodStatus) {
        let was = self.status.phase.as_deref();
        if status.phase.as_deref() != Some("Running") || was == Some("Running") {
            return;
        }
        let created = self.pod.object().metadata.creation_timestamp.as_ref().map(|time| time.0);
        let since_created = created.map(|created| self.context.clock.now().wall.duration_since(created));
        let since_created = since_created.and_then(|age| age.try_into().ok()).unwrap_or_default();
        self.context.metrics.pod_started(since_created, self.first_seen.elapsed());
        // The SLI is of pods that wait for nothing of their own: neither pulls nor init containers.
        if self.pod.containers().all(|(role, _)| role == Role::Regular) {
            self.context.metrics.pod_start_sli(self.first_seen.elapsed().saturating_sub(self.pulling));
        }
    }

    /// Reads the last words of containers that ended since the last time; forgets those of containers that are gone.
    pub(super) async fn read_last_words(&mut self) {
        let observed = self.observed.clone();
        let mut words = BTreeMap::new();
        for container in observed.containers.iter().filter(|it| matches!(it.state, ContainerState::Exited(_))) {
            let known = self.last_words.remove(&container.id);
            let text = match known {
                Some(known) => known,
                None => self.context.host.last_words(container).await,
            };
            words.insert(container.id.clone(), text);
        }
        self.last_words = words;
    }
}
