//! Ending a pod, to the end: probes, containers, sandbox, volumes, cgroup, status, object.

use super::pod::{Next, Worker};
use super::sync::{Stuck, stop};
use crate::api::events::Kind;
use crate::plan::{self, Action, Lifecycle};
use crate::status::Termination;
use std::pin::pin;
use std::time::Duration;
use tokio::time::Instant;

/// How soon a step of an end is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How long a sandbox that is being made holds up the end of its pod.
const CREATION_PATIENCE: Duration = Duration::from_secs(10);
/// A worker with nothing left to do looks again so rarely that it costs nothing.
const IDLE: Duration = Duration::from_secs(3600);

impl Worker {
    /// Stops what still runs. Goes on when nothing does.
    pub(super) async fn terminate(&mut self, since: Instant, grace: Duration) -> Next {
        self.notes.clear();
        // What is still fetched for it nobody needs any more.
        self.images.clear();
        let now = self.context.clock.now();
        let actions = plan::terminate(&self.pod, &self.observed, since, grace, now);
        self.tell().await;
        if actions.is_empty() {
            let why = self.lifecycle.why().cloned().unwrap_or(Termination::Deleted);
            self.lifecycle = Lifecycle::Terminated { why };
            return Next::Now;
        }
        // A runtime that says it did what it did not is asked again, but not at once.
        let in_vain = self.did_before(&actions);
        for action in &actions {
            match self.stop_and_look(action, since + grace).await {
                Some(Ok(())) => {}
                Some(Err(Stuck(_))) => return self.after(RETRY),
                None => return Next::Now,
            }
        }
        if in_vain { self.after(RETRY) } else { Next::Now }
    }

    /// Stops something, and tells what happens to the pod meanwhile: the grace may be an hour, in which containers end and
    /// probes fail. `None` if the pod has to end sooner than `end`.
    async fn stop_and_look(&mut self, action: &Action, end: Instant) -> Option<Result<(), Stuck>> {
        if let Action::Kill(kills) = action {
            self.announce(kills);
        }
        let mut stopping = pin!(stop(self.context.runtime.clone(), action.clone()));
        let outcomes = loop {
            tokio::select! {
                biased;
                outcomes = &mut stopping => break outcomes,
                changed = self.orders.changed() => {
                    if changed.is_err() {
                        break stopping.await;
                    }
                    self.obey();
                    // Somebody who can't wait any longer deleted it again, with less grace.
                    if self.lifecycle.ends_by().is_some_and(|by| by < end) {
                        return None;
                    }
                    if self.observe().await.is_ok() {
                        self.tell().await;
                    }
                }
            }
        };
        Some(outcomes.into_iter().try_for_each(|outcome| self.done("stop", outcome)))
    }

    /// Waits for a sandbox that was being made when the pod began to end, so that it is seen and stopped; not for long. One
    /// that comes later is found when the runtime tells of it.
    pub(super) async fn settle(&mut self) {
        if let Some(creation) = self.creation.take() {
            // What came of it is seen next.
            let _ = tokio::time::timeout(CREATION_PATIENCE, creation).await;
        }
    }

    /// Nothing runs any more: gives back what the pod had of the machine.
    pub(super) async fn release(&mut self, why: Termination) -> Next {
        self.context.probes.remove(self.pod.uid());
        self.context.table.update(self.pod.uid(), |entry| entry.active = false);
        self.tell().await;
        if let Err(obstacle) = self.context.host.release(self.pod.uid()).await {
            if self.announced.insert(("Release", obstacle.message.clone())) {
                tracing::warn!(reason = obstacle.reason, error = obstacle.message, "not taken down yet");
                self.context.recorder.pod(&self.pod, Kind::Warning, obstacle.reason, obstacle.message);
            }
            return self.after(RETRY);
        }
        self.context.host.forget(self.pod.uid());
        if self.told {
            self.context.api.unregister(&self.pod);
            self.context.writer.finish(&self.pod);
        }
        self.lifecycle = Lifecycle::Finished { why };
        tracing::debug!("nothing is left of the pod but its dead containers");
        Next::Now
    }

    /// Nothing is left. A pod that is being deleted goes from the API server now; one that is gone needs no worker.
    pub(super) fn finished(&mut self) -> Next {
        if self.orders.borrow().gone {
            if self.pod.is_static() && self.told {
                self.remove_mirror();
            }
            return Next::Leave;
        }
        if self.told {
            // The newest version may be the one that is being deleted.
            self.context.writer.set(&self.pod, self.status.clone());
            self.context.writer.finish(&self.pod);
        }
        self.after(IDLE)
    }

    /// The mirror of a static pod goes with it, beside everything else: the API server may be away.
    fn remove_mirror(&self) {
        let (mirrors, pod) = (self.context.mirrors.clone(), self.pod.clone());
        tokio::spawn(async move {
            if let Err(error) = mirrors.remove(&pod).await {
                tracing::warn!(%pod, %error, "the mirror pod is not removed; it is tried again");
            }
        });
    }
}
