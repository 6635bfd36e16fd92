//! How the runtime is: asked every five seconds, told to whoever watches.

use super::RuntimeStatus;
use tokio::time::Instant;

/// How the runtime is. The node's Ready condition, admission and the workers watch it.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Its last answer to `Status`; `None` before the first one and while it does not answer.
    pub status: Option<RuntimeStatus>,
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
