//! The CRI server: what a kubelet or crictl talks to.
//!
//! [`Daemon::recover`] reads the records below [`Config::root`], finds the shims of the pods that run, and reconciles;
//! [`Daemon::serve`] answers RPCs on a Unix socket until it is told to stop. Pods do not notice either.

pub mod client;
mod config;
mod container;
mod creations;
mod events;
mod failure;
mod filter;
mod host;
mod index;
mod listen;
mod network;
mod pod_files;
mod pods;
mod pull_service;
mod records;
mod recovery;
mod rpc;
mod sandbox;
mod seccomp_cache;
mod service;
mod shim;
mod spec;
mod stages;
mod stats;
mod status;
mod supervise;
mod teardown;
mod traffic;
mod usage;
mod volumes;

pub use config::{Cni, Config, HostFiles, OpenFiles};
pub use listen::listen;

use failure::chain;
use pods::Pods;
use proto::image::images_server::ImagesServer;
use proto::image_service_server::ImageServiceServer;
use proto::runtime_service_server::RuntimeServiceServer;
use pull_service::PullService;
use service::Service;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

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

impl Error {
    fn new(step: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error { step: step.into(), source: source.into() }
    }
}

/// How long RPCs that run may take to end once the daemon is told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// A server whose state is in memory and agrees with what runs.
#[derive(Debug)]
pub struct Daemon {
    pods: Arc<Pods>,
    /// Keeps a second daemon away from the records.
    _lock: sys::fs::Lock,
}

impl Daemon {
    /// Brings the state in memory: reads the records, asks the shims, ends what was half made or half removed.
    ///
    /// # Errors
    /// A directory can't be made or read, or another daemon holds it.
    pub async fn recover(config: Config) -> Result<Daemon, Error> {
        let opened = tokio::task::spawn_blocking(move || open(config)).await;
        let (pods, lock) = opened.map_err(|error| Error::new("open the state", error))??;
        let pods = Arc::new(pods);
        recovery::recover(&pods).await.map_err(|failure| Error::new("recover the pods", failure))?;
        Ok(Daemon { pods, _lock: lock })
    }

    /// Answers RPCs until `shutdown` completes; then accepts no more, finishes or cancels what runs, and returns.
    /// Pods are left alone.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn serve(&self, listener: UnixListener, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let counter = tokio::spawn(usage::count(Arc::clone(&self.pods)));
        let service = Service { pods: Arc::clone(&self.pods) };
        let pulls =
            PullService { store: self.pods.images.clone(), hosts_dirs: self.pods.config.registry_hosts_dirs.clone() };
        let pods = Arc::clone(&self.pods);
        let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
        let shutdown = async move {
            shutdown.await;
            pods.events.end();
            // The receiver waits below for as long as the server runs.
            let _ = stopping.send(());
        };
        let server = tonic::transport::Server::builder()
            .add_service(
                RuntimeServiceServer::new(service.clone())
                    .max_decoding_message_size(MAX_MESSAGE)
                    .max_encoding_message_size(MAX_MESSAGE),
            )
            .add_service(
                ImageServiceServer::new(service)
                    .max_decoding_message_size(MAX_MESSAGE)
                    .max_encoding_message_size(MAX_MESSAGE),
            )
            .add_service(ImagesServer::new(pulls))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown);
        let drained = async {
            match stopped.await {
                // A pull may take minutes: it is cancelled.
                Ok(()) => drop(tokio::time::timeout(DRAIN, std::future::pending::<()>()).await),
                Err(_server_ended) => std::future::pending().await,
            }
        };
        let served = tokio::select! {
            served = server => served,
            () = drained => Ok(()),
        };
        counter.abort();
        served.map_err(|error| Error::new("serve", error))
    }
}

/// Everything that the daemon works with, still empty.
fn open(config: Config) -> Result<(Pods, sys::fs::Lock), Error> {
    let root = config.root.join("cri");
    let step = |what: &str| format!("{what} below {}", root.display());
    records::make_private_dir(&root).map_err(|error| Error::new(step("make directories"), error))?;
    let lock = patiently(|lock| matches!(lock, Ok(None)), || sys::fs::try_lock_exclusive(root.join("lock")));
    let lock = lock.map_err(|error| Error::new(step("lock"), error))?;
    let lock = lock.ok_or_else(|| Error::new(step("lock"), "another daemon holds it"))?;
    let records = |error| Error::new(step("open the records"), error);
    let sandbox_records = records::Records::open(root.join("sandboxes")).map_err(records)?;
    let container_records = records::Records::open(root.join("containers")).map_err(records)?;
    let settings = || image_config(config.parallel_layers, config.proxies.clone());
    let images = patiently(
        |store| matches!(store, Err(image::OpenError::InUse { .. })),
        || image::Store::open(&config.root.join("image"), settings()),
    );
    let images = images.map_err(|error| Error::new("open the image store", error))?;
    let layout = cgroup::Layout::detect().map_err(|error| Error::new("find the host's cgroups", error))?;
    // A kubelet waits two minutes for StopPodSandbox, in which more is to be done than DEL.
    let del = config.cni.timeout.min(Duration::from_mins(1));
    let deadlines = cni::client::Deadlines { add: config.cni.timeout, del, ..Default::default() };
    let cni = &config.cni;
    let networks = cni::client::Networks::with_deadlines(&cni.conf_dir, &cni.bin_dirs, &cni.cache_dir, deadlines);
    let shim = shim::Program::open(&config.shim)
        .map_err(|error| Error::new(format!("open the pods' supervisor {}", config.shim.display()), error))?;
    let pods = Pods {
        shim,
        host: host::facts(config.open_files, &layout),
        images,
        networks,
        layout,
        sandboxes: index::Index::new("sandbox"),
        containers: index::Index::new("container"),
        sandbox_records,
        container_records,
        sandbox_creations: creations::Creations::default(),
        container_creations: creations::Creations::default(),
        programs: seccomp_cache::Programs::default(),
        events: events::Events::default(),
        usage: usage::Usage::default(),
        cpu: stats::CpuSamples::default(),
        early_exits: std::sync::Mutex::default(),
        config,
    };
    Ok((pods, lock))
}

/// How long a killed daemon's locks may be held by a child that has been forked and has not executed its program yet.
const ORPHANED: Duration = Duration::from_secs(5);

/// Tries something again for as long as it is held by somebody else, but not for ever: it may be a daemon that lives.
/// Blocks.
fn patiently<T>(is_held: impl Fn(&T) -> bool, mut attempt: impl FnMut() -> T) -> T {
    let until = Instant::now() + ORPHANED;
    loop {
        let result = attempt();
        if !is_held(&result) || Instant::now() >= until {
            return result;
        }
        #[expect(clippy::disallowed_methods, reason = "nothing announces that a lock is let go of by its last holder")]
        std::thread::sleep(Duration::from_millis(10));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_a_killed_daemon_s_child_holds_for_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let mut held = Some(sys::fs::lock_exclusive(&path).unwrap());
        let mut attempts = 0;
        let lock = patiently(
            |lock| matches!(lock, Ok(None)),
            || {
                attempts += 1;
                if attempts == 3 {
                    drop(held.take());
                }
                sys::fs::try_lock_exclusive(&path)
            },
        );
        assert!(lock.unwrap().is_some());
        assert!(attempts >= 3);
    }
}
