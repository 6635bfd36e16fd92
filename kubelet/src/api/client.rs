//! The client of a cluster's API server.

use super::ApiError;
use crate::config::Config;
use std::sync::Arc;

/// The API server of a cluster.
pub struct Cluster {}

impl Cluster {
    /// Reads the kubeconfig that `config` names. Connects when something is asked, not before.
    pub async fn connect(config: &Config) -> Result<Arc<dyn super::Api>, ConnectError> {
        let _ = config;
        todo!()
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig can't be used.
    #[error("kubeconfig {path}: {reason}")]
    Kubeconfig {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it; never a credential.
        reason: String,
    },
    /// The API server refused.
    #[error("the API server")]
    Api(#[source] ApiError),
}
