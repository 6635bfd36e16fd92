//! One request and its response, over a connection of its own.

use super::{Response, Target, Tls};
use crate::probes::check::{MAX_OUTPUT, connect, join_host_port, text, words};
use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderMap, Method, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::error::Error;
use std::pin::pin;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Bound of what a response's head may take.
const MAX_HEAD: usize = 64 * 1024;
/// Go's words at the end of a client's patience.
const HEAD_TIMEOUT: &str = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";

/// Where it failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// There was no response.
    Asking(String),
    /// Its body broke off.
    Reading(String),
}

/// Asks, and reads the answer.
pub(super) async fn get(target: &Target, headers: HeaderMap, tls: &Tls, deadline: Instant) -> Result<Response, Failed> {
    let stream = match timeout_at(deadline, connect(target.host(), target.port)).await {
        Ok(connected) => connected.map_err(Failed::Asking)?,
        Err(_) => {
            let address = join_host_port(target.host(), target.port);
            let why = "i/o timeout (Client.Timeout exceeded while awaiting headers)";
            return Err(Failed::Asking(format!("dial tcp {address}: {why}")));
        }
    };
    if !target.encrypted() {
        return version_1(stream, request(target, headers)?, deadline).await;
    }
    let (stream, version_2) = encrypt(target, tls, stream, deadline).await?;
    let request = request(target, headers)?;
    if version_2 {
        self::version_2(stream, request, deadline).await
    } else {
        version_1(stream, request, deadline).await
    }
}

type Stream = tokio_rustls::client::TlsStream<TcpStream>;

async fn encrypt(target: &Target, tls: &Tls, stream: TcpStream, deadline: Instant) -> Result<(Stream, bool), Failed> {
    let failed = |why: &str| Failed::Asking(why.to_owned());
    match timeout_at(deadline, tls.handshake(target.host(), stream)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Failed::Asking(handshake_failure(&error))),
        Err(_) => Err(failed("net/http: TLS handshake timeout")),
    }
}

fn handshake_failure(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => "http: server gave HTTP response to HTTPS client".to_owned(),
        Some(error) => format!("tls: {error}"),
        None => words(error),
    }
}

type Get = http::Request<Empty<Bytes>>;

fn request(target: &Target, headers: HeaderMap) -> Result<Get, Failed> {
    let built = http::Request::builder().method(Method::GET).uri(target.path()).body(Empty::new());
    let mut request = built.map_err(|error| Failed::Asking(error.to_string()))?;
    *request.headers_mut() = headers;
    Ok(request)
}

async fn version_1<S>(stream: S, request: Get, deadline: Instant) -> Result<Response, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Some servers know header names in Go's spelling only.
    let mut builder = http1::Builder::new();
    builder.title_case_headers(true).max_buf_size(MAX_HEAD);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|error| Failed::Asking(spoken(&error)))?;
    beside(connection, exchange(sender.send_request(request), deadline)).await
}

async fn version_2<S>(stream: S, mut request: Get, deadline: Instant) -> Result<Response, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_header_list_size(MAX_HEAD as u32);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|error| Failed::Asking(spoken(&error)))?;
    // In HTTP/2 the host is part of the URI, and connections are not spoken of.
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(http::header::HOST);
    request.headers_mut().remove(http::header::CONNECTION);
    let host = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
    let uri = format!("https://{host}{}", request.uri());
    *request.uri_mut() = uri.parse().map_err(|_| Failed::Asking(format!("parse {uri:?}")))?;
    beside(connection, exchange(sender.send_request(request), deadline)).await
}

/// Does the exchange while the connection is driven, and leaves the connection with it.
async fn beside<C: Future>(
    connection: C,
    exchange: impl Future<Output = Result<Response, Failed>>,
) -> Result<Response, Failed> {
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange));
    tokio::select! {
        biased;
        answer = &mut exchange => return answer,
        // The server has closed it; what came before is still to be read.
        _ = &mut connection => {}
    }
    exchange.await
}

async fn exchange(
    response: impl Future<Output = hyper::Result<http::Response<Incoming>>>,
    deadline: Instant,
) -> Result<Response, Failed> {
    let response = match timeout_at(deadline, response).await {
        Ok(answered) => answered.map_err(|error| Failed::Asking(spoken(&error)))?,
        Err(_) => return Err(Failed::Asking(HEAD_TIMEOUT.to_owned())),
    };
    let (head, body) = response.into_parts();
    let body = match timeout_at(deadline, read(body)).await {
        Ok(body) => body?,
        Err(_) => {
            let why = "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
            return Err(Failed::Reading(why.to_owned()));
        }
    };
    Ok(Response { status: head.status, location: head.headers.get(LOCATION).cloned(), body: text(&body) })
}

/// Reads a body until it ends or is as long as we want it.
async fn read(mut body: Incoming) -> Result<Vec<u8>, Failed> {
    let mut read = Vec::new();
    while read.len() < MAX_OUTPUT
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|error| Failed::Reading(spoken(&error)))?;
        read.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
    }
    Ok(read)
}

/// What Go says where hyper fails.
fn spoken(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "EOF".to_owned();
    }
    if error.is_parse() {
        return format!("net/http: HTTP/1.x transport connection broken: malformed HTTP response: {error}");
    }
    match error.source().and_then(|source| source.downcast_ref::<std::io::Error>()) {
        Some(error) => format!("read: {}", words(error)),
        None => error.to_string(),
    }
}
