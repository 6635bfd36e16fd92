//! The kubelet as a whole: what is opened, started and ended, in which order.

use crate::config::Config;

/// Why the kubelet could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// One of its parts could not be opened.
    #[error("{step}")]
    Start {
        /// What was tried.
        step: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Runs a kubelet until `shutdown` resolves. Pods are left alone when it ends.
///
/// # Errors
/// What can't be opened at the start. Later failures are retried and told in the node's status, never returned.
pub async fn run(_config: Config, _shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    todo!()
}
