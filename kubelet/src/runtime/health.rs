//! How the runtime is: asked every five seconds, told to whoever watches.

use super::{Runtime, RuntimeStatus};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How the runtime is. The node's Ready condition, admission and the workers watch it.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Its last answer to `Status`; `None` before the first one and while it does not answer.
    pub status: Option<RuntimeStatus>,
    /// The last answer that there was, however old: what the runtime can do does not change while it is silent.
    pub known: Option<RuntimeStatus>,
    /// Why it did not answer, or what it says of itself: `rpc error: …`, or the condition RuntimeReady's text.
    pub error: Option<String>,
    /// When it last said that it is ready.
    pub last_ready: Option<Instant>,
    /// When all pods were last listed (upstream's PLEG "was last seen active").
    pub last_relist: Option<Instant>,
    /// The call that a listing has waited for longest, where one hangs: `ContainerStatus of default/web`.
    pub blocked_by: Option<String>,
}

impl Health {
    /// Whether a condition is true: `RuntimeReady`, `NetworkReady`.
    pub fn condition(&self, kind: &str) -> Option<&proto::RuntimeCondition> {
        self.status.as_ref()?.conditions.iter().find(|condition| condition.r#type == kind)
    }

    /// Whether pods can be given a network.
    pub fn network_ready(&self) -> bool {
        self.condition("NetworkReady").is_some_and(|condition| condition.status)
    }

    /// Whether containers can be run.
    pub fn runtime_ready(&self) -> bool {
        self.condition("RuntimeReady").is_some_and(|condition| condition.status)
    }
}

/// How often the runtime is asked while it is well, and while it is not: the node is Ready within a second of it.
const WELL: Duration = Duration::from_secs(5);
const UNWELL: Duration = Duration::from_millis(500);
/// A call that takes longer is named where the node is not ready.
const SLOW: Duration = Duration::from_secs(10);

/// Asks the runtime how it is, for as long as somebody watches. `blocked_by` names the oldest call that takes longer than
/// it is given.
pub(crate) async fn watch_health(
    runtime: Arc<dyn Runtime>,
    health: Arc<watch::Sender<Health>>,
    blocked_by: impl Fn(Duration) -> Option<String> + Send,
) {
    loop {
        let answer = runtime.status().await;
        let blocked_by = blocked_by(SLOW);
        health.send_modify(|health| health.learn(answer, blocked_by));
        let pause = if health.borrow().runtime_ready() && health.borrow().network_ready() { WELL } else { UNWELL };
        tokio::select! {
            () = tokio::time::sleep_until(Instant::now() + pause) => {}
            () = health.closed() => return,
        }
    }
}

impl Health {
    fn learn(&mut self, answer: super::Result<RuntimeStatus>, blocked_by: Option<String>) {
        self.blocked_by = blocked_by;
        match answer {
            Ok(status) => (self.status, self.known) = (Some(status.clone()), Some(status)),
            Err(error) => {
                (self.status, self.error) = (None, Some(error.message));
                return;
            }
        }
        let runtime = self.condition("RuntimeReady").cloned();
        match runtime {
            Some(condition) if condition.status => {
                self.error = None;
                self.last_ready = Some(Instant::now());
            }
            Some(condition) => {
                let text = format!("RuntimeReady=false reason:{} message:{}", condition.reason, condition.message);
                self.error = Some(text);
            }
            None => self.error = Some("the runtime does not say whether it is ready".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::RuntimeError;

    #[test]
    fn what_the_runtime_can_do_is_known_while_it_is_silent() {
        let mut health = Health::default();
        health.learn(Ok(RuntimeStatus { supplemental_groups_policy: true, ..RuntimeStatus::default() }), None);
        let silent = RuntimeError { call: "Status", code: tonic::Code::Unavailable, message: "gone".into() };
        health.learn(Err(silent), None);
        assert!(health.status.is_none());
        assert!(health.known.is_some_and(|known| known.supplemental_groups_policy));
    }
}
