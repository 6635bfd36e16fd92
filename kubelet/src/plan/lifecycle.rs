//! Where a pod stands on its way.
//!
//! ```text
//!              all ran, deadline, deletion          nothing runs             all given back
//!   Syncing ──────────────────────────▶ Terminating ────────────▶ Terminated ──────────────▶ Finished
//! ```
//!
//! There is no way back to Syncing: a pod that once began to end is never started again under the same UID. What upstream keeps in
//! seven booleans and timestamps is the variant here.

use crate::pod::Pod;
use crate::status::Termination;
use std::time::Duration;
use tokio::time::Instant;

/// Where a pod stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lifecycle {
    /// It is kept as its spec wants it.
    Syncing,
    /// Its containers are stopped.
    Terminating {
        /// Why.
        why: Termination,
        /// Since when: the grace period counts from here.
        since: Instant,
        /// How long its containers may take.
        grace: Duration,
    },
    /// No container runs; volumes and cgroup are taken down.
    Terminated {
        /// Why.
        why: Termination,
    },
    /// Nothing is left but dead containers, which keep logs and exit codes until the pod is deleted.
    Finished {
        /// Why.
        why: Termination,
    },
}

impl Lifecycle {
    /// Begins to end, if it has not yet. A second reason changes nothing but the grace period, which only gets shorter.
    pub fn terminate(&mut self, why: Termination, grace: Duration, now: Instant) {
        match self {
            Lifecycle::Syncing => *self = Lifecycle::Terminating { why, since: now, grace },
            Lifecycle::Terminating { since, grace: granted, .. } => {
                // The shorter period counts from the moment it is asked for.
                let left = (*since + *granted).saturating_duration_since(now);
                if grace < left {
                    (*since, *granted) = (now, grace);
                }
            }
            Lifecycle::Terminated { .. } | Lifecycle::Finished { .. } => {}
        }
    }

    /// Something of a pod that was finished runs: a sandbox that took long to be made. It has to go as the others went.
    pub fn reopen(&mut self, alive: bool, now: Instant) {
        if let Lifecycle::Finished { why } = self
            && alive
        {
            *self = Lifecycle::Terminating { why: why.clone(), since: now, grace: Duration::ZERO };
        }
    }

    /// When the grace of its containers is over, while they are stopped.
    pub fn ends_by(&self) -> Option<Instant> {
        match self {
            Lifecycle::Terminating { since, grace, .. } => Some(*since + *grace),
            _ => None,
        }
    }

    /// Why it ends, if it does.
    pub fn why(&self) -> Option<&Termination> {
        match self {
            Lifecycle::Syncing => None,
            Lifecycle::Terminating { why, .. } | Lifecycle::Terminated { why } | Lifecycle::Finished { why } => {
                Some(why)
            }
        }
    }

    /// Where a pod stands that this kubelet sees for the first time: a pod whose phase is final is never started again.
    pub fn of(pod: &Pod, now: Instant) -> Lifecycle {
        let phase = pod.object().status.as_ref().and_then(|status| status.phase.as_deref());
        match phase {
            Some("Succeeded" | "Failed") if !pod.is_static() => {
                Lifecycle::Terminating { why: Termination::Completed, since: now, grace: super::grace_period(pod) }
            }
            _ => Lifecycle::Syncing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(grace: u64) -> Lifecycle {
        let mut lifecycle = Lifecycle::Syncing;
        lifecycle.terminate(Termination::Deleted, Duration::from_secs(grace), Instant::now());
        lifecycle
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_deletion_can_only_shorten_the_grace_period() {
        let mut lifecycle = ending(30);
        tokio::time::advance(Duration::from_secs(10)).await;
        let before = lifecycle.clone();
        lifecycle.terminate(Termination::Deleted, Duration::from_secs(25), Instant::now());
        assert_eq!(lifecycle, before, "20 s are left, 25 s are longer");
        lifecycle.terminate(Termination::Deleted, Duration::ZERO, Instant::now());
        let expected =
            Lifecycle::Terminating { why: Termination::Deleted, since: Instant::now(), grace: Duration::ZERO };
        assert_eq!(lifecycle, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn what_runs_of_a_finished_pod_is_stopped() {
        let mut lifecycle = Lifecycle::Finished { why: Termination::Completed };
        lifecycle.reopen(false, Instant::now());
        assert_eq!(lifecycle, Lifecycle::Finished { why: Termination::Completed });
        lifecycle.reopen(true, Instant::now());
        assert_eq!(lifecycle.ends_by(), Some(Instant::now()));
        assert_eq!(lifecycle.why(), Some(&Termination::Completed));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_brings_a_pod_back() {
        for lifecycle in
            [Lifecycle::Terminated { why: Termination::Completed }, Lifecycle::Finished { why: Termination::Completed }]
        {
            let mut later = lifecycle.clone();
            later.terminate(Termination::Deleted, Duration::ZERO, Instant::now());
            assert_eq!(later, lifecycle);
        }
    }
}
