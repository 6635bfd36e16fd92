//! The kubelet of this node, asked over its private socket: which pods there are and how they are.

use crate::settings::Settings;
use anyhow::Context;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// Ten thousand pods.
const LARGEST_ANSWER: usize = 256 << 20;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A kubelet that may be there.
#[derive(Debug, Clone)]
pub(crate) struct Kubelet {
    socket: PathBuf,
}

/// What of a v1 Pod is of interest to a list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pod {
    pub(crate) metadata: Metadata,
    pub(crate) spec: Spec,
    pub(crate) status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) deletion_timestamp: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Spec {
    pub(crate) init_containers: Vec<Container>,
    pub(crate) containers: Vec<Container>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Container {
    pub(crate) name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) phase: String,
    pub(crate) reason: Option<String>,
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: Option<String>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) init_container_statuses: Vec<ContainerStatus>,
    pub(crate) container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ContainerStatus {
    pub(crate) name: String,
    pub(crate) ready: bool,
    pub(crate) restart_count: u32,
    pub(crate) state: State,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    pub(crate) waiting: Option<Stopped>,
    pub(crate) terminated: Option<Stopped>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Stopped {
    pub(crate) reason: Option<String>,
}

impl Pod {
    /// Whether its Ready condition is true.
    pub(crate) fn is_ready(&self) -> bool {
        self.status.conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True")
    }
}

impl Kubelet {
    /// The kubelet of this instance.
    pub(crate) fn new(settings: &Settings) -> Kubelet {
        Kubelet { socket: settings.kubelet_socket() }
    }

    /// Its pods.
    ///
    /// # Errors
    /// It isn't there, or doesn't answer.
    pub(crate) async fn pods(&self) -> anyhow::Result<Vec<Pod>> {
        #[derive(Deserialize)]
        struct List {
            #[serde(default)]
            items: Vec<Pod>,
        }
        let body = tokio::time::timeout(PATIENCE, self.get("/pods")).await.context("wait for its pods")??;
        Ok(serde_json::from_slice::<List>(&body).context("read its pods")?.items)
    }

    /// Resolves once it listens.
    pub(crate) async fn listens(&self) {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            if tokio::net::UnixStream::connect(&self.socket).await.is_ok() {
                return;
            }
        }
    }

    async fn get(&self, path: &str) -> anyhow::Result<Bytes> {
        let asked = || format!("ask the kubelet on {}", self.socket.display());
        let stream = tokio::net::UnixStream::connect(&self.socket).await.with_context(asked)?;
        let (mut client, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.with_context(asked)?;
        let connection = tokio::spawn(connection);
        let request = hyper::Request::get(path).header("host", "kubelet").body(Empty::<Bytes>::new())?;
        let answer = client.send_request(request).await.with_context(asked)?;
        anyhow::ensure!(answer.status().is_success(), "{}: {}", asked(), answer.status());
        let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await;
        connection.abort();
        Ok(body.map_err(|error| anyhow::anyhow!("{}: {error}", asked()))?.to_bytes())
    }
}
