//! The CRI over a Unix socket.
//!
//! [`Cri`] owns the connection, which is dialled at the first call and again after it broke, and what a call has beside
//! its message: a deadline, a place among the calls that are under way, a metric, and an error in the form in which every
//! kubelet shows it. The verbs are in [`verbs`], what was learnt and can't change any more in [`known`].

mod calls;
mod known;
mod verbs;

use super::{Result, RuntimeError};
use crate::metrics::Metrics;
use calls::Calls;
use known::Known;
use proto::image_service_client::ImageServiceClient;
use proto::runtime_service_client::RuntimeServiceClient;
use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

/// The largest message in either direction: a list of all that a full node has stays far below.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// A connection to a CRI runtime and its image service: made when first needed, and again when it broke. Cheap to clone.
#[derive(Clone)]
pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    timeout: Duration,
    metrics: Metrics,
    calls: Arc<Calls>,
    known: Arc<Known>,
}

/// A call as errors and metrics name it.
#[derive(Clone, Copy)]
struct Call {
    /// The RPC.
    rpc: &'static str,
    /// The label of `kubelet_runtime_operations_*`.
    operation: &'static str,
}

impl Cri {
    /// A connection to these sockets; `timeout` bounds the calls that have no deadline of their own. Nothing is dialled yet.
    pub fn connect(socket: &Path, image_socket: &Path, timeout: Duration, metrics: Metrics) -> Cri {
        let runtime = channel(socket);
        let images = if image_socket == socket { runtime.clone() } else { channel(image_socket) };
        Cri {
            runtime: RuntimeServiceClient::new(runtime)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(images)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            timeout,
            metrics,
            calls: Arc::default(),
            known: Arc::default(),
        }
    }

    /// The oldest call that has been under way for longer than this: `ContainerStatus of default/web`.
    pub fn blocked_by(&self, longer_than: Duration) -> Option<String> {
        self.calls.oldest(longer_than)
    }

    /// Waits for an answer, `limit` at most; no limit for those that end by themselves.
    async fn call<T>(
        &self,
        call: Call,
        pod: &str,
        limit: Option<Duration>,
        answer: impl Future<Output = std::result::Result<tonic::Response<T>, Status>>,
    ) -> Result<T> {
        let started = Instant::now();
        let under_way = self.calls.begin(call.rpc, pod);
        let outcome = match limit {
            None => answer.await,
            Some(limit) => tokio::time::timeout(limit, answer)
                .await
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("context deadline exceeded"))),
        };
        drop(under_way);
        self.metrics.runtime_operation(call.operation, started.elapsed(), outcome.is_ok());
        outcome.map(tonic::Response::into_inner).map_err(|status| error(call.rpc, &status))
    }
}

/// A channel that dials `socket` when something is asked, and again after the connection broke.
fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(&socket).await;
            let named = stream
                .map_err(|error| std::io::Error::new(error.kind(), format!("dial unix {}: {error}", socket.display())));
            named.map(hyper_util::rt::TokioIo::new)
        }
    });
    // The URI is only the `:authority` that gRPC wants; the connector dials the socket.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}

/// The error of a call, in the words of gRPC for Go.
fn error(call: &'static str, status: &Status) -> RuntimeError {
    let code = status.code();
    let mut text = status.message().to_owned();
    // What failed below gRPC is told by the sources alone; the last one names the socket.
    let mut source = status.source();
    while let Some(inner) = source {
        source = inner.source();
        if source.is_none() {
            text = format!("connection error: {inner}");
        }
    }
    RuntimeError { call, code, message: format!("rpc error: code = {} desc = {text}", name(code)) }
}

/// A code as Go writes it.
fn name(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Runtime as _;

    #[test]
    fn an_error_has_the_form_that_every_kubelet_shows() {
        let error = error("RunPodSandbox", &Status::not_found("no such image"));
        assert_eq!(error.to_string(), "rpc error: code = NotFound desc = no such image");
        assert_eq!(error.code, Code::NotFound);
        assert_eq!(name(Code::Cancelled), "Canceled");
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_on_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("none.sock");
        let cri = Cri::connect(&socket, &socket, Duration::from_secs(5), Metrics::new("node"));
        let error = cri.version().await.unwrap_err();
        assert_eq!((error.call, error.code), ("Version", Code::Unavailable));
        assert!(error.message.contains(&format!("dial unix {}", socket.display())), "{error}");
    }
}
