//! Ending a pod, to the end: probes, containers, sandbox, volumes, cgroup, status, object.

use super::pod::{Next, Worker};
use super::sync::Stuck;
use crate::api::events::Kind;
use crate::plan::{self, Action, Lifecycle};
use crate::status::Termination;
use std::time::Duration;
use tokio::time::Instant;

/// How soon a step of an end is tried again.
const RETRY: Duration = Duration::from_secs(2);
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
        let mut orders = self.orders.clone();
        let end = since + grace;
        // Somebody who can't wait any longer deletes again with less grace.
        let sooner = orders.wait_for(|order| order.stop.is_some_and(|grace| Instant::now() + grace < end));
        let stopped = tokio::select! {
            biased;
            stopped = self.stop(&actions) => stopped,
            _ = sooner => return Next::Now,
        };
        match stopped {
            Ok(()) => Next::Now,
            Err(Stuck(_)) => self.after(RETRY),
        }
    }

    async fn stop(&mut self, actions: &[Action]) -> Result<(), Stuck> {
        for action in actions {
            match action {
                Action::Kill(kills) => self.kill(kills).await?,
                Action::StopSandbox { id } => self.stop_sandbox(id).await?,
                Action::RemoveContainer { .. } | Action::CreateSandbox { .. } | Action::Start(_) => {}
            }
        }
        Ok(())
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
