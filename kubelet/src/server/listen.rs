//! Accepting connections, a bounded number of them, and serving HTTP on each.
//!
//! Nobody can make us spend without end: connections are counted, in all and per address; one that has not shown who it
//! is within [`UNKNOWN_FOR`] is closed; HTTP/2 streams, headers and buffers are bounded. When file descriptors run out,
//! accepting pauses and goes on by itself.

use super::ServerError;
use super::addresses::{self, Addresses};
use super::state::State;
use super::tls::Tls;
use crate::config::Config;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::pki_types::CertificateDer;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::ServiceExt;

/// Connections at a time, to each listener.
const CONNECTIONS: usize = 512;
/// How long a connection may stay without a request that says who it is.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// How long a connection may idle between requests, as upstream.
const IDLE: Duration = Duration::from_secs(90);
/// Requests at a time on one HTTP/2 connection: kube-apiserver reads all logs of a node over one.
const STREAMS: u32 = 100;
const HEADERS: u32 = 64 * 1024;
const BUFFER: usize = 64 * 1024;
/// Pauses after accept failed.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long running requests have when the server ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// Who is at the other end of a connection; a request finds it among its extensions.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// Where it comes from; a network of IPv6 is one somebody.
    pub(super) origin: Option<IpAddr>,
    /// The certificates it showed.
    pub(super) chain: Arc<[CertificateDer<'static>]>,
    /// Set by the first request that was authenticated.
    pub(super) known: Arc<AtomicBool>,
}

impl Peer {
    fn new(address: Option<IpAddr>, chain: &[CertificateDer<'static>], known: bool) -> Peer {
        Peer { origin: address.map(addresses::origin), chain: chain.into(), known: Arc::new(AtomicBool::new(known)) }
    }
}

pub(super) async fn tcp(address: std::net::SocketAddr) -> Result<TcpListener, ServerError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| ServerError::Listen { address: address.to_string(), source })
}

/// Binds the private socket, mode 0600, in the place of one that nobody listens on any more.
pub(super) fn local(path: &Path) -> Result<UnixListener, ServerError> {
    let failed = |source| ServerError::Listen { address: path.display().to_string(), source };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(failed(io::ErrorKind::AddrInUse.into()));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = sys::socket::listen_stream(path).map_err(|error| failed(io::Error::other(error)))?;
    listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener)).map_err(failed)
}

/// What connections come from.
trait Accept: Send + Sync + 'static {
    type Stream: Send + 'static;
    /// The next one, and the address it came from.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<IpAddr>)>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    async fn next(&self) -> io::Result<(TcpStream, Option<IpAddr>)> {
        self.accept().await.map(|(stream, peer)| (stream, Some(peer.ip())))
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;
    async fn next(&self) -> io::Result<(UnixStream, Option<IpAddr>)> {
        self.accept().await.map(|(stream, _)| (stream, None))
    }
}

/// Serves HTTPS until `closing` says so.
pub(super) async fn https(listener: TcpListener, tls: Arc<Tls>, routes: Router, closing: watch::Receiver<bool>) {
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&tls.config));
    let until = closing.clone();
    let serve = move |stream: TcpStream| {
        let (acceptor, tls, routes, closing) = (acceptor.clone(), Arc::clone(&tls), routes.clone(), closing.clone());
        async move {
            // Its cost is two stat(2) a second at most, but their disk may hang: not on this thread.
            let _ = tokio::task::spawn_blocking(move || tls.refresh()).await;
            let _ = stream.set_nodelay(true);
            let address = stream.peer_addr().ok().map(|peer| peer.ip());
            let handshake = tokio::time::timeout(UNKNOWN_FOR, acceptor.accept(stream)).await;
            let Ok(Ok(stream)) = handshake else { return };
            let peer = Peer::new(address, stream.get_ref().1.peer_certificates().unwrap_or_default(), false);
            connection(stream, builder(), routes, peer, closing).await;
        }
    };
    accept(listener, serve, until).await;
}

/// Serves HTTP/1 without TLS on loopback.
pub(super) async fn plain(listener: TcpListener, routes: Router, closing: watch::Receiver<bool>) {
    let until = closing.clone();
    let serve = move |stream: TcpStream| {
        connection(stream, builder().http1_only(), routes.clone(), Peer::new(None, &[], true), closing.clone())
    };
    accept(listener, serve, until).await;
}

/// Serves HTTP/1 on the private socket.
pub(super) async fn unix(listener: UnixListener, routes: Router, closing: watch::Receiver<bool>) {
    let until = closing.clone();
    let serve = move |stream| {
        connection(stream, builder().http1_only(), routes.clone(), Peer::new(None, &[], true), closing.clone())
    };
    accept(listener, serve, until).await;
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .max_send_buf_size(BUFFER)
        .max_local_error_reset_streams(32)
        .keep_alive_interval(IDLE / 3)
        .keep_alive_timeout(IDLE / 3);
    builder
}

/// Serves one connection until it ends, or is asked to.
async fn connection<I>(
    io: I,
    builder: Builder<TokioExecutor>,
    routes: Router,
    peer: Peer,
    mut closing: watch::Receiver<bool>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let known = Arc::clone(&peer.known);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        routes.clone().oneshot(request)
    });
    let mut served = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut deadline = pin!(tokio::time::sleep_until(Instant::now() + UNKNOWN_FOR));
    let (mut doubted, mut asked) = (true, false);
    loop {
        tokio::select! {
            _ = served.as_mut() => return,
            () = deadline.as_mut(), if doubted => {
                doubted = false;
                if !known.load(Ordering::Relaxed) {
                    return;
                }
            }
            () = closed(&mut closing), if !asked => {
                asked = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Accepts until `closing` says so, and gives running connections [`FAREWELL`] to end.
async fn accept<L: Accept, F>(listener: L, serve: impl Fn(L::Stream) -> F, mut closing: watch::Receiver<bool>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let addresses = Addresses::default();
    let mut connections = JoinSet::new();
    let mut pause = PAUSE;
    loop {
        let accepted = async {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { std::future::pending().await };
            listener.next().await.map(|accepted| (accepted, permit))
        };
        tokio::select! {
            () = closed(&mut closing) => break,
            Some(_) = connections.join_next() => {}
            accepted = accepted => match accepted {
                Ok(((stream, address), permit)) => {
                    pause = PAUSE;
                    // Dropping the stream closes it.
                    let Some(place) = addresses.take(address) else { continue };
                    let served = serve(stream);
                    connections.spawn(async move {
                        let _held = (permit, place);
                        served.await;
                    });
                }
                Err(error) => {
                    if pause == PAUSE {
                        tracing::warn!(error = &error as &dyn std::error::Error, "no connection can be accepted: going on");
                    }
                    tokio::time::sleep_until(Instant::now() + pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            },
        }
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(FAREWELL, ended).await;
    connections.shutdown().await;
}

/// Resolves when the server ends.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Binds what the configuration names.
pub(super) async fn bind(config: &Config) -> Result<super::Listeners, ServerError> {
    let mut listeners = super::Listeners::default();
    if config.serve {
        listeners.https = Some(tcp(config.listen).await?);
    } else {
        tracing::info!("the HTTPS port is not served: it is switched off, or nobody could be let in without a cluster");
    }
    if let Some(address) = config.healthz_listen {
        listeners.healthz = Some(tcp(address).await?);
    }
    if let Some(path) = &config.local_socket {
        listeners.local = Some(local(path)?);
    }
    Ok(listeners)
}

/// Removes the private socket's name.
pub(super) fn remove_local(state: &State) {
    if let Some(path) = &state.inputs.config.local_socket {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// Has no file descriptors for twenty tries, then one connection.
    #[derive(Default)]
    struct Exhausted(AtomicUsize);

    impl Accept for Exhausted {
        type Stream = ();
        async fn next(&self) -> io::Result<((), Option<IpAddr>)> {
            match self.0.fetch_add(1, Ordering::SeqCst) {
                0..20 => Err(io::Error::from(nix::errno::Errno::EMFILE)),
                20 => Ok(((), None)),
                _ => std::future::pending().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn accepting_goes_on_after_file_descriptors_ran_out_and_does_not_spin() {
        let (close, closing) = watch::channel(false);
        let served = Arc::new(tokio::sync::Notify::new());
        let (began, serving) = (Instant::now(), Arc::clone(&served));
        let serve = move |()| {
            let serving = Arc::clone(&serving);
            async move { serving.notify_one() }
        };
        let watching = async {
            served.notified().await;
            assert!(began.elapsed() > Duration::from_secs(10), "20 failures in {:?}", began.elapsed());
            close.send(true).unwrap();
        };
        tokio::join!(accept(Exhausted::default(), serve, closing), watching);
    }

    #[tokio::test]
    async fn healthz_is_served_where_the_https_port_is_not() {
        let mut config = crate::server::tests::config(Path::new("/nowhere"));
        (config.serve, config.local_socket) = (false, None);
        let listeners = bind(&config).await.unwrap();
        assert!(listeners.https.is_none() && listeners.healthz.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_say_who_it_is_ends() {
        let (ours, _theirs) = tokio::io::duplex(1024);
        let (_close, closing) = watch::channel(false);
        let began = Instant::now();
        let served = connection(ours, builder(), Router::new(), Peer::new(None, &[], false), closing);
        tokio::time::timeout(2 * UNKNOWN_FOR, served).await.expect("an end");
        assert_eq!(began.elapsed(), UNKNOWN_FOR);
    }
}
