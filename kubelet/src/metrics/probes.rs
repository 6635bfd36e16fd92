//! Series of probes, by pod and container: the only ones here without a bound of their own, so each pod's are dropped
//! with it.

use super::families::{Buckets, DEFAULT, Histograms};
use crate::pod::{Pod, PodUid};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    probe_type: &'static str,
    result: &'static str,
    container: String,
    pod: String,
    namespace: String,
    pod_uid: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Probed {
    probe_type: &'static str,
    container: String,
    pod: String,
    namespace: String,
}

/// Outcomes and durations of probes.
#[derive(Debug)]
pub(super) struct Probes {
    outcomes: Family<Outcome, Counter>,
    durations: Histograms<Probed>,
    registry: Registry,
    /// What exists of each pod.
    of: Mutex<BTreeMap<PodUid, HashSet<Outcome>>>,
}

impl Probes {
    pub(super) fn new() -> Probes {
        let outcomes = Family::default();
        let durations = Family::new_with_constructor(Buckets(DEFAULT));
        let mut registry = Registry::default();
        registry.register(
            "prober_probe",
            "Cumulative number of a liveness, readiness or startup probe for a container by result",
            outcomes.clone(),
        );
        registry.register(
            "prober_probe_duration_seconds",
            "Duration in seconds for a probe response",
            durations.clone(),
        );
        Probes { outcomes, durations, registry, of: Mutex::default() }
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) fn count(
        &self,
        pod: &Pod,
        container: &str,
        kind: &'static str,
        result: &'static str,
        elapsed: Duration,
    ) {
        let outcome = Outcome {
            probe_type: kind,
            result,
            container: container.to_owned(),
            pod: pod.name().to_owned(),
            namespace: pod.namespace().to_owned(),
            pod_uid: pod.uid().to_string(),
        };
        self.outcomes.get_or_create(&outcome).inc();
        // As upstream: a failure's time is mostly its timeout.
        if result != "failed" {
            self.durations.get_or_create(&outcome.probed()).observe(elapsed.as_secs_f64());
        }
        self.of.lock().unwrap_or_else(PoisonError::into_inner).entry(pod.uid().clone()).or_default().insert(outcome);
    }

    pub(super) fn forget(&self, uid: &PodUid) {
        let Some(outcomes) = self.of.lock().unwrap_or_else(PoisonError::into_inner).remove(uid) else { return };
        for outcome in outcomes {
            self.outcomes.remove(&outcome);
            self.durations.remove(&outcome.probed());
        }
    }
}

impl Outcome {
    fn probed(&self) -> Probed {
        Probed {
            probe_type: self.probe_type,
            container: self.container.clone(),
            pod: self.pod.clone(),
            namespace: self.namespace.clone(),
        }
    }
}
