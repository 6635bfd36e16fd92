//! `/healthz`: whether we do our work; each check also by its name. On the port for this machine alone: whether we answer.

use super::answer::{refuse, text};
use super::state::State;
use axum::extract::{Path, Query, State as Extract};
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;

/// `ping`: we answer. `log`: upstream's log flushes; ours has nothing that could stick. `syncloop`: pods are looked after.
const CHECKS: [&str; 3] = ["ping", "log", "syncloop"];

fn check(state: &State, name: &str) -> Result<(), String> {
    if name == "syncloop" { (state.inputs.sync_loop)() } else { Ok(()) }
}

/// All checks.
pub(super) async fn all(Extract(state): Extract<Arc<State>>, Query(pairs): Query<Vec<(String, String)>>) -> Response {
    answer(&state, &CHECKS, &pairs)
}

/// `ping` alone.
pub(super) async fn ping(Extract(state): Extract<Arc<State>>, Query(pairs): Query<Vec<(String, String)>>) -> Response {
    answer(&state, &CHECKS[..1], &pairs)
}

/// These checks but for those that `?exclude=` names; `?verbose` lists them.
fn answer(state: &State, checks: &[&str], pairs: &[(String, String)]) -> Response {
    let excluded = |name: &str| pairs.iter().any(|(key, value)| key == "exclude" && value == name);
    let mut lines = String::new();
    let mut failed = false;
    for name in checks {
        if excluded(name) {
            lines += &format!("[+]{name} excluded: ok\n");
        } else if let Err(reason) = check(state, name) {
            failed = true;
            tracing::warn!(check = name, reason, "healthz check failed");
            lines += &format!("[-]{name} failed: reason withheld\n");
        } else {
            lines += &format!("[+]{name} ok\n");
        }
    }
    if failed {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}healthz check failed\n"));
    }
    if pairs.iter().any(|(key, _)| key == "verbose") {
        return text(format!("{lines}healthz check passed\n"));
    }
    text("ok")
}

/// One check.
pub(super) async fn one(Extract(state): Extract<Arc<State>>, Path(name): Path<String>) -> Response {
    if !CHECKS.contains(&name.as_str()) {
        return super::routes::not_found().await;
    }
    match check(&state, &name) {
        Ok(()) => text("ok"),
        Err(reason) => refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {reason}\n")),
    }
}
