//! What is served where. A path that is not in a port's table is not served there: no profiling on the health port.

use super::answer::{json, refuse, text};
use super::authentication::{Unauthenticated, User};
use super::authorization::Attributes;
use super::listen::Peer;
use super::state::State;
use super::{healthz, logs, pods, usage};
use crate::metrics::HttpRequest;
use axum::Router;
use axum::extract::{Extension, Request, State as Extract};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, get, post};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Paths that run something in a pod, and the shapes of their addresses.
const STREAMS: [(&str, &str, &[&str]); 4] = [
    ("exec", "kubectl exec and cp", &["/{namespace}/{pod}/{container}", "/{namespace}/{pod}/{uid}/{container}"]),
    ("attach", "kubectl attach", &["/{namespace}/{pod}/{container}", "/{namespace}/{pod}/{uid}/{container}"]),
    ("run", "/run", &["/{namespace}/{pod}/{container}", "/{namespace}/{pod}/{uid}/{container}"]),
    ("portForward", "kubectl port-forward", &["/{namespace}/{pod}", "/{namespace}/{pod}/{uid}"]),
];

/// :10250: everything, for whom the API server allows it.
pub(super) fn https(state: &Arc<State>) -> Router {
    everything(state)
        .layer(from_fn_with_state(Arc::clone(state), admit))
        .layer(from_fn_with_state(Arc::clone(state), count))
        .with_state(Arc::clone(state))
}

/// :10248: whether we answer at all, for everybody on this machine. What restarts a kubelet that is not well looks here: a
/// runtime that is down is no reason.
pub(super) fn healthz(state: &Arc<State>) -> Router {
    let ping = Router::new().route("/healthz", get(healthz::ping)).route("/healthz/ping", get(|| async { text("ok") }));
    answering(ping).with_state(Arc::clone(state))
}

/// The private socket: everything, for root.
pub(super) fn local(state: &Arc<State>) -> Router {
    everything(state).with_state(Arc::clone(state))
}

fn health() -> Router<Arc<State>> {
    Router::new().route("/healthz", get(healthz::all)).route("/healthz/{check}", get(healthz::one))
}

fn everything(state: &State) -> Router<Arc<State>> {
    let always = health()
        .route("/pods", get(pods::desired))
        .route("/stats/summary", get(usage::summary))
        .route("/metrics", get(usage::own))
        .route("/metrics/resource", get(usage::resource))
        .route("/metrics/cadvisor", get(usage::cadvisor))
        .route("/metrics/probes", get(usage::probes));
    let rest = if state.inputs.config.debugging_handlers { debugging() } else { disabled() };
    answering(always.merge(rest))
}

/// What `enableDebuggingHandlers` serves.
fn debugging() -> Router<Arc<State>> {
    let mut routes = Router::new()
        .route("/runningpods", get(pods::running))
        .route("/runningpods/", get(pods::running))
        .route("/configz", get(configz))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::get))
        .route("/checkpoint/{namespace}/{pod}/{container}", post(checkpoint));
    for (path, what, shapes) in STREAMS {
        for shape in shapes {
            let answer = move || async move { not_yet(what) };
            let methods = if path == "run" { post(answer) } else { get(answer).post(answer) };
            routes = routes.route(&format!("/{path}{shape}"), methods);
        }
    }
    routes
}

/// What stands in their place.
fn disabled() -> Router<Arc<State>> {
    let mut routes = Router::new();
    for path in ["run", "exec", "attach", "portForward", "containerLogs", "runningpods", "debug/pprof", "logs"] {
        let answer = || async { refuse(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.\n") };
        routes = routes.route(&format!("/{path}/"), any(answer)).route(&format!("/{path}/{{*rest}}"), any(answer));
    }
    routes
}

fn answering(routes: Router<Arc<State>>) -> Router<Arc<State>> {
    let method = || async { refuse(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed") };
    routes.fallback(not_found).method_not_allowed_fallback(method)
}

pub(super) async fn not_found() -> Response {
    refuse(StatusCode::NOT_FOUND, "404: Page Not Found")
}

/// Refused by name until the runtime streams.
fn not_yet(what: &str) -> Response {
    let text = format!(
        "{what} needs the CRI's streaming server (Exec, Attach, PortForward), which this version of Orlop does not have yet\n"
    );
    refuse(StatusCode::NOT_IMPLEMENTED, text)
}

async fn checkpoint() -> Response {
    let text = "checkpointing needs the CRI's CheckpointContainer, which this version of Orlop does not have yet\n";
    refuse(StatusCode::NOT_IMPLEMENTED, text)
}

/// `/configz`: the configuration in force.
async fn configz(Extract(state): Extract<Arc<State>>) -> Response {
    let document = serde_json::json!({ "kubeletconfig": state.inputs.config.document });
    json(&state, || serde_json::to_vec(&document)).await
}

/// Lets nobody past who is not known and allowed, to whatever path.
async fn admit(
    Extract(state): Extract<Arc<State>>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let user = match state.authenticator.authenticate(&peer, request.headers()).await {
        Ok(user) => user,
        Err(error) => return unauthorized(&error),
    };
    peer.known.store(true, Ordering::Relaxed);
    let wanted = Attributes::of(request.method(), request.uri().path());
    match state.authorizer.allows(&user, &wanted).await {
        Ok(true) => next.run(request).await,
        Ok(false) => forbidden(&user, &wanted),
        Err(error) => {
            tracing::warn!(error = &error as &dyn Error, "a request could not be authorised");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
    }
}

fn unauthorized(error: &Unauthenticated) -> Response {
    match error {
        // Ours to repair, not the caller's.
        Unauthenticated::Review(_) | Unauthenticated::Timeout => {
            tracing::warn!(error = error as &dyn Error, "a request could not be authenticated");
        }
        _ => tracing::debug!(error = error as &dyn Error, "a request was not authenticated"),
    }
    refuse(StatusCode::UNAUTHORIZED, "Unauthorized")
}

fn forbidden(user: &User, wanted: &Attributes) -> Response {
    tracing::debug!(user = user.name, verb = wanted.verb, subresources = ?wanted.subresources, "forbidden");
    refuse(StatusCode::FORBIDDEN, wanted.forbidden(&user.name))
}

/// Counts requests and how long their answers took.
async fn count(Extract(state): Extract<Arc<State>>, request: Request, next: Next) -> Response {
    let counted = counted(request.method(), request.uri().path());
    let metrics = state.inputs.metrics.clone();
    metrics.http_arrived(counted);
    let _answered = Answered { metrics, counted, began: Instant::now() };
    next.run(request).await
}

/// Counts an answer when it is made, or when its client left before.
struct Answered {
    metrics: crate::metrics::Metrics,
    counted: HttpRequest,
    began: Instant,
}

impl Drop for Answered {
    fn drop(&mut self) {
        let elapsed: Duration = self.began.elapsed();
        self.metrics.http_answered(self.counted, elapsed);
    }
}

/// Labels of closed sets: whatever clients send, there are no more series than these.
fn counted(method: &Method, path: &str) -> HttpRequest {
    const METHODS: [&str; 8] = ["OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT"];
    const PATHS: [&str; 17] = [
        "healthz",
        "pods",
        "stats",
        "metrics",
        "metrics/cadvisor",
        "metrics/probes",
        "metrics/resource",
        "logs",
        "debug",
        "run",
        "exec",
        "attach",
        "portForward",
        "containerLogs",
        "configz",
        "runningpods",
        "checkpoint",
    ];
    let path = path.trim_start_matches('/');
    let root = path.split('/').next().unwrap_or_default();
    let bucket = if root == "metrics" { path.trim_end_matches('/') } else { root };
    let find = |set: &[&'static str], name: &str| set.iter().copied().find(|one| *one == name).unwrap_or("other");
    let path = find(&PATHS, bucket);
    HttpRequest {
        method: find(&METHODS, method.as_str()),
        path,
        long_running: matches!(path, "exec" | "attach" | "portForward" | "debug"),
    }
}
