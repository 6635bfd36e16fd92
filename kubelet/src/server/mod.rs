//! What the kubelet serves: HTTPS on :10250, healthz on loopback, and a private socket for this machine's administrator.
//!
//! Every request to :10250 is authenticated and authorised before a route is looked up, so an unknown path tells nothing.
//! The route tables are explicit, one per port: a path that is not in the port's table is not served there.

mod addresses;
mod answer;
mod authentication;
mod authorization;
mod cache;
mod certificate;
mod healthz;
mod listen;
mod logs;
mod pods;
mod routes;
mod state;
mod tls;
mod usage;

#[cfg(test)]
mod tests;

use crate::api::Api;
use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::runtime::Runtime;
use crate::stats::Stats;
use crate::table::PodTable;
use authentication::Authenticator;
use state::State;
use std::sync::Arc;
use tls::Tls;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the server answers from.
pub struct Inputs {
    /// Settings.
    pub config: Arc<Config>,
    /// Token and access reviews.
    pub api: Arc<dyn Api>,
    /// Whether a followed container still runs is read from here too.
    pub table: PodTable,
    /// The pods that the runtime has, for `/runningpods/`.
    pub runtime: Arc<dyn Runtime>,
    /// Usage.
    pub stats: Stats,
    /// Counters.
    pub metrics: Metrics,
    /// The time.
    pub clock: Clock,
    /// `/healthz/syncloop`: why pods are not being looked after, if they are not.
    pub sync_loop: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

/// Why the server can't begin.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address or a socket path is taken, or not ours.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The certificate, its key or the CA of clients.
    #[error("{step}")]
    Tls {
        /// What was tried with which file.
        step: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The sockets, bound.
#[derive(Debug, Default)]
pub struct Listeners {
    /// :10250.
    pub https: Option<TcpListener>,
    /// :10248 on loopback.
    pub healthz: Option<TcpListener>,
    /// The private socket.
    pub local: Option<UnixListener>,
}

impl Listeners {
    /// Binds what the configuration names.
    ///
    /// # Errors
    /// An address that is taken: a kubelet runs already.
    pub async fn bind(config: &Config) -> Result<Listeners, ServerError> {
        listen::bind(config).await
    }
}

/// The routes with all that they need.
pub struct Server {
    state: Arc<State>,
    tls: Option<Arc<Tls>>,
}

impl Server {
    /// Loads or makes the certificate.
    ///
    /// # Errors
    /// A certificate, key or CA that is given and can't be used.
    pub fn new(inputs: Inputs) -> Result<Server, ServerError> {
        let tls = inputs.config.serve.then(|| Tls::load(&inputs.config, &inputs.metrics)).transpose()?.map(Arc::new);
        let client_ca = tls.as_ref().and_then(|tls| tls.client_ca.clone());
        let authenticator = Authenticator::new(&inputs.config, Arc::clone(&inputs.api), client_ca);
        Ok(Server { state: Arc::new(State::new(inputs, authenticator)), tls })
    }

    /// Serves until `shutdown` resolves; then running requests have 2 s to end.
    pub async fn serve(self, listeners: Listeners, shutdown: impl Future<Output = ()>) {
        let Server { state, tls } = self;
        let (close, closing) = watch::channel(false);
        let mut serving = JoinSet::new();
        if let (Some(listener), Some(tls)) = (listeners.https, tls) {
            serving.spawn(listen::https(listener, tls, routes::https(&state), closing.clone()));
        }
        if let Some(listener) = listeners.healthz {
            serving.spawn(listen::plain(listener, routes::healthz(&state), closing.clone()));
        }
        if let Some(listener) = listeners.local {
            serving.spawn(listen::unix(listener, routes::local(&state), closing.clone()));
        }
        shutdown.await;
        close.send_replace(true);
        listen::remove_local(&state);
        while serving.join_next().await.is_some() {}
    }
}
