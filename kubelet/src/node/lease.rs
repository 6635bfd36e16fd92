//! The heartbeat that the control plane counts: a Lease in `kube-node-lease`, renewed every quarter of its duration.
//!
//! A node whose lease is not renewed is NotReady after 40 s, and its pods are evicted after minutes. So a failed renewal is
//! tried again at once, and then after pauses that grow to seven seconds: when the API server is back, the lease is renewed
//! within one period.

use super::heartbeat::in_time;
use super::register::next_pause;
use crate::api::{Api, ApiError};
use crate::clock::Clock;
use crate::random::random;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

const NAMESPACE: &str = "kube-node-lease";
/// How often a renewal is tried before the lease is read again.
const TRIES: usize = 5;
/// By how much of it a period is longer at most: nodes that started together drift apart.
const JITTER: f64 = 0.04;

/// Keeps one node's lease.
pub(super) struct Keeper {
    api: Arc<dyn Api>,
    clock: Clock,
    node: String,
    duration: Duration,
    /// The lease as it was last written, or read.
    latest: Option<Lease>,
}

impl Keeper {
    pub(super) fn new(api: Arc<dyn Api>, clock: Clock, node: &str, duration: Duration) -> Keeper {
        Keeper { api, clock, node: node.to_owned(), duration, latest: None }
    }

    /// Renews until the task is aborted.
    pub(super) async fn run(mut self) {
        let mut pause = None;
        loop {
            let began = Instant::now();
            let next = match self.keep().await {
                Ok(()) => {
                    pause = None;
                    period(self.duration, random())
                }
                Err(error) => {
                    let next = next_pause(pause);
                    pause = Some(next);
                    match error {
                        // At the start: registration says what is to be said.
                        ApiError::NotFound(_) => {
                            tracing::debug!(node = %self.node, "there is no node to own a lease yet")
                        }
                        _ => {
                            tracing::warn!(node = %self.node, %error, "renew the node's lease; trying again in {next:?}")
                        }
                    }
                    next
                }
            };
            sleep_until(began + next).await;
        }
    }

    /// One renewal: of the lease as we know it, and if that fails, of the one that is there.
    async fn keep(&mut self) -> Result<(), ApiError> {
        if self.latest.is_some() && self.renew().await.is_ok() {
            return Ok(());
        }
        self.latest = None;
        match in_time(self.api.lease(&self.node)).await {
            Ok(lease) => {
                self.latest = Some(lease);
                self.renew().await
            }
            Err(ApiError::NotFound(_)) => self.create().await,
            Err(error) => Err(error),
        }
    }

    async fn renew(&mut self) -> Result<(), ApiError> {
        let mut failure = ApiError::NotFound("there is no lease".to_owned());
        for _ in 0..TRIES {
            let Some(latest) = self.latest.clone() else { break };
            let mut lease = renewed(latest, self.duration, self.clock.now().wall);
            // Created by somebody else, or before the node: it should go when the node goes.
            if lease.metadata.owner_references.as_ref().is_none_or(Vec::is_empty)
                && let Ok(owner) = self.owner().await
            {
                lease.metadata.owner_references = Some(vec![owner]);
            }
            match in_time(self.api.replace_lease(&lease)).await {
                Ok(lease) => {
                    self.latest = Some(lease);
                    return Ok(());
                }
                Err(ApiError::Conflict(_)) => self.latest = Some(in_time(self.api.lease(&self.node)).await?),
                Err(error @ ApiError::NotFound(_)) => return Err(error),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Creates the lease, once there is a node to own it.
    async fn create(&mut self) -> Result<(), ApiError> {
        let owner = self.owner().await?;
        let metadata = ObjectMeta {
            name: Some(self.node.clone()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        };
        let spec = LeaseSpec { holder_identity: Some(self.node.clone()), ..LeaseSpec::default() };
        let lease = renewed(Lease { metadata, spec: Some(spec) }, self.duration, self.clock.now().wall);
        self.latest = Some(in_time(self.api.create_lease(&lease)).await?);
        Ok(())
    }

    async fn owner(&self) -> Result<OwnerReference, ApiError> {
        let node = in_time(self.api.node(&self.node)).await?;
        Ok(OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: self.node.clone(),
            uid: node.metadata.uid.unwrap_or_default(),
            ..OwnerReference::default()
        })
    }
}

/// The lease, renewed now. The duration too: it may be another one since the lease was created.
fn renewed(mut lease: Lease, duration: Duration, now: Timestamp) -> Lease {
    let spec = lease.spec.get_or_insert_default();
    spec.lease_duration_seconds = i32::try_from(duration.as_secs()).ok();
    spec.renew_time = Some(MicroTime(now));
    lease
}

/// From one renewal to the next.
fn period(duration: Duration, random: f64) -> Duration {
    duration.mul_f64(0.25 * (1.0 + random * JITTER))
}

#[cfg(test)]
mod tests;
