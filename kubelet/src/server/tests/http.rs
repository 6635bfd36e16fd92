//! A client of HTTPS, or of HTTP on loopback, one connection each.

use super::authorities::Identity;
use crate::any_server::AnyServer;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpStream, UnixStream};

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) content_type: String,
}

/// One connection.
pub(super) struct Client {
    sender: Sender,
    token: Option<String>,
}

enum Sender {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

impl Client {
    /// HTTP/1.1 over TLS.
    pub(super) async fn tls(address: SocketAddr, identity: Option<Identity>) -> Client {
        let stream = connect(address, identity, b"http/1.1").await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Client { sender: Sender::One(sender), token: None }
    }

    /// HTTP/2 over TLS.
    pub(super) async fn tls_two(address: SocketAddr) -> Client {
        let stream = connect(address, None, b"h2").await.unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Client { sender: Sender::Two(sender), token: None }
    }

    /// HTTP/1.1 in the clear.
    pub(super) async fn plain(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).await.unwrap()).await
    }

    /// On a socket of this machine.
    pub(super) async fn unix(path: &std::path::Path) -> Client {
        Client::over(UnixStream::connect(path).await.unwrap()).await
    }

    async fn over(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static) -> Client {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Client { sender: Sender::One(sender), token: None }
    }

    pub(super) fn with_token(mut self, token: Option<&str>) -> Client {
        self.token = token.map(str::to_owned);
        self
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn send(&mut self, method: &str, path: &str) -> Reply {
        let answer = self.open(method, path).await;
        let status = answer.status().as_u16();
        let content_type = answer.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Reply { status, body, content_type: content_type.unwrap_or_default() }
    }

    /// Sends a request; the answer's body is still to come.
    pub(super) async fn open(&mut self, method: &str, path: &str) -> hyper::Response<hyper::body::Incoming> {
        let uri = match &self.sender {
            Sender::One(_) => path.to_owned(),
            Sender::Two(_) => format!("https://node{path}"),
        };
        let mut request = hyper::Request::builder().method(method).uri(uri).header("host", "node");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Empty::new()).unwrap();
        match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await.unwrap();
                sender.send_request(request).await.unwrap()
            }
            Sender::Two(sender) => sender.send_request(request).await.unwrap(),
        }
    }
}

pub(super) async fn connect(
    address: SocketAddr,
    identity: Option<Identity>,
    protocol: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    connect_with(address, identity, protocol, rustls::DEFAULT_VERSIONS).await
}

pub(super) async fn connect_with(
    address: SocketAddr,
    identity: Option<Identity>,
    protocol: &[u8],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    handshake(TcpStream::connect(address).await?, client_config(identity, protocol, versions)).await
}

fn client_config(
    identity: Option<Identity>,
    protocol: &[u8],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    // As kube-apiserver does without `--kubelet-certificate-authority`.
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    config
}

/// A connection from another address of this machine.
pub(super) async fn connect_from(
    own: [u8; 4],
    address: SocketAddr,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((own, 0).into())?;
    let stream = socket.connect(address).await?;
    handshake(stream, client_config(None, b"http/1.1", rustls::DEFAULT_VERSIONS)).await
}

async fn handshake(
    stream: TcpStream,
    config: ClientConfig,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from("node").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}
