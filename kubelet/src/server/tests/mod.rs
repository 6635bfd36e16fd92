//! The server as its clients meet it: TLS over loopback, certificates, tokens, an API server that reviews.

mod authorities;
mod canary;
mod certificates;
mod floods;
mod http;
mod matrix;
mod pages;
mod pod_logs;

use super::{Inputs, Listeners, Server};
use crate::clock::Clock;
use crate::config::{AccessReview, Config, flags::Flags};
use crate::fakes::api::FakeApi;
use crate::fakes::runtime::FakeRuntime;
use crate::metrics::Metrics;
use crate::pod::{Pod, Source};
use crate::runtime::{Container, ContainerState, ObservedPod};
use crate::stats::Stats;
use crate::table::{Entry, PodTable};
use crate::volumes::Volumes;
use authorities::Authority;
use http::{Client, Reply};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewStatus, UserInfo};
use k8s_openapi::api::authorization::v1::{SubjectAccessReview, SubjectAccessReviewStatus};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The token of somebody who may do everything.
const ALLOWED: &str = "token-of-allowed";
/// Of somebody who may do nothing.
const DENIED: &str = "token-of-denied";
/// Of somebody who may `get` nodes/proxy, as many monitoring roles.
const PROXY_READER: &str = "token-of-proxy-reader";

fn whose(review: &TokenReview) -> TokenReview {
    let name = match review.spec.token.as_str() {
        ALLOWED => Some("allowed"),
        DENIED => Some("denied"),
        PROXY_READER => Some("proxy-reader"),
        _ => None,
    };
    let user = name.map(|name| UserInfo { username: Some(name.to_owned()), ..UserInfo::default() });
    let status = TokenReviewStatus { authenticated: Some(user.is_some()), user, ..TokenReviewStatus::default() };
    TokenReview { status: Some(status), ..review.clone() }
}

fn may(review: &SubjectAccessReview) -> SubjectAccessReview {
    let asked = review.spec.resource_attributes.clone().unwrap_or_default();
    let allowed = match review.spec.user.as_deref() {
        Some("allowed") => true,
        Some("proxy-reader") => asked.verb.as_deref() == Some("get") && asked.subresource.as_deref() == Some("proxy"),
        _ => false,
    };
    let status = SubjectAccessReviewStatus { allowed, ..SubjectAccessReviewStatus::default() };
    SubjectAccessReview { status: Some(status), ..review.clone() }
}

/// A running server, and the world that it serves.
struct Served {
    folder: tempfile::TempDir,
    address: SocketAddr,
    healthz: SocketAddr,
    clients: Authority,
    api: FakeApi,
    table: PodTable,
    runtime: FakeRuntime,
    metrics: Metrics,
    serving: tokio_util::task::AbortOnDropHandle<()>,
}

/// Settings of a server in `folder` that asks the API server about everybody, and keeps no access reviews.
pub(super) fn config(folder: &Path) -> Config {
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let flags = Flags {
        given: [
            ("hostname-override", "node"),
            ("node-ip", "192.0.2.1"),
            ("fail-cgroupv1", "false"),
            ("fail-swap-on", "false"),
        ]
        .map(owned)
        .into(),
        defaults: Vec::new(),
        local_socket: Some(folder.join("kubelet.sock")),
    };
    let mut config = crate::config::load(&flags).unwrap();
    config.root = folder.join("root");
    config.pod_logs = folder.join("logs");
    config.cert_dir = folder.join("pki");
    config.serve = true;
    config.debugging_handlers = true;
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.healthz_listen = Some("127.0.0.1:0".parse().unwrap());
    config.serving.tls = None;
    config.serving.anonymous = false;
    config.serving.client_ca = Some(folder.join("clients.crt"));
    config.serving.token_review = Some(Duration::from_secs(120));
    config.serving.access_review = Some(AccessReview { allowed: Duration::ZERO, denied: Duration::ZERO });
    config
}

impl Served {
    async fn start() -> Served {
        Served::with(|_| {}).await
    }

    /// A server with other settings.
    async fn with(change: impl FnOnce(&mut Config)) -> Served {
        Served::until(change, std::future::pending()).await
    }

    /// One that ends.
    async fn until(change: impl FnOnce(&mut Config), end: impl Future<Output = ()> + Send + 'static) -> Served {
        let folder = tempfile::tempdir().unwrap();
        let clients = Authority::new("clients");
        fill(&folder.path().join("clients.crt"), clients.pem().as_bytes());
        for made in ["root", "logs"] {
            std::fs::create_dir(folder.path().join(made)).unwrap();
        }
        let mut config = config(folder.path());
        change(&mut config);
        let (api, table, runtime) = (FakeApi::new(), PodTable::default(), FakeRuntime::new(Clock::system()));
        api.state().token_review = Some(whose);
        api.state().access_review = Some(may);
        let metrics = Metrics::new("node");
        let listeners = Listeners::bind(&config).await.unwrap();
        let address = listeners.https.as_ref().unwrap().local_addr().unwrap();
        let healthz = listeners.healthz.as_ref().unwrap().local_addr().unwrap();
        let server = Server::new(inputs(config, &api, &table, &runtime, &metrics)).unwrap();
        let serving = tokio::spawn(server.serve(listeners, end));
        let serving = tokio_util::task::AbortOnDropHandle::new(serving);
        Served { folder, address, healthz, clients, api, table, runtime, metrics, serving }
    }

    /// A client with a token, or none.
    async fn client(&self, token: Option<&str>) -> Client {
        Client::tls(self.address, None).await.with_token(token)
    }

    /// What the one who may do everything gets.
    async fn get(&self, path: &str) -> Reply {
        self.client(Some(ALLOWED)).await.send("GET", path).await
    }

    /// Puts pod `ns/web` with a container `c` into the table.
    fn put_web(&self, state: ContainerState, status: serde_json::Value) -> Pod {
        let object = serde_json::json!({
            "metadata": { "name": "web", "namespace": "ns", "uid": "u1" },
            "spec": { "containers": [{ "name": "c", "image": "busybox" }] },
        });
        let pod = Pod::new(Arc::new(serde_json::from_value(object).unwrap()), Source::Api).unwrap();
        let mut container = Container { state, ..crate::fakes::runtime::container("id1", "c") };
        container.sandbox_id = "sb1".to_owned();
        let observed =
            ObservedPod { sandboxes: vec![crate::fakes::runtime::sandbox("sb1")], containers: vec![container] };
        let status = Arc::new(serde_json::from_value(status).unwrap());
        self.table.set(Entry { pod: pod.clone(), observed: Arc::new(observed), status, active: true });
        pod
    }

    /// A pod `ns/web` whose container `c` runs and has logged these lines.
    fn put_running(&self, lines: &[&str]) -> Pod {
        let started_at = jiff::Timestamp::UNIX_EPOCH;
        let status = serde_json::json!({ "containerStatuses": [{
            "name": "c", "image": "busybox", "imageID": "", "ready": true, "restartCount": 0,
            "containerID": "orlop://id1", "state": { "running": {} },
        }] });
        let text: String = lines.iter().map(|line| format!("2026-01-01T00:00:00Z stdout F {line}\n")).collect();
        fill(&self.log(), text.as_bytes());
        self.put_web(ContainerState::Running { started_at }, status)
    }

    /// Where that container logs.
    fn log(&self) -> std::path::PathBuf {
        self.folder.path().join("logs/ns_web_u1/c/0.log")
    }
}

fn inputs(config: Config, api: &FakeApi, table: &PodTable, runtime: &FakeRuntime, metrics: &Metrics) -> Inputs {
    let clock = Clock::system();
    let stats = Stats::new(crate::stats::Inputs {
        node_name: "node".to_owned(),
        root: config.root.clone(),
        pod_logs: config.pod_logs.clone(),
        cgroup_root: "/".to_owned(),
        runtime: Arc::new(runtime.clone()),
        table: table.clone(),
        volumes: Volumes::new(&config, api.api(), clock.clone(), metrics.clone()),
        cgroups: None,
        clock: clock.clone(),
    });
    Inputs {
        config: Arc::new(config),
        api: api.api(),
        table: table.clone(),
        runtime: Arc::new(runtime.clone()),
        stats,
        metrics: metrics.clone(),
        clock,
        sync_loop: Box::new(|| Ok(())),
    }
}

fn fill(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    sys::fs::atomic_write(path, content, sys::fs::Durability::Rename, 0o600).unwrap();
}
