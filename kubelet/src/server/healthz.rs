//! `/healthz`: whether we do our work; each check also by its name.

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

/// All checks but those that `?exclude=` names; `?verbose` lists them.
pub(super) async fn all(Extract(state): Extract<Arc<State>>, Query(pairs): Query<Vec<(String, String)>>) -> Response {
    let excluded = |name: &str| pairs.iter().any(|(key, value)| key == "exclude" && value == name);
    let mut lines = String::new();
    let mut failed = false;
    for name in CHECKS {
        if excluded(name) {
            lines += &format!("[+]{name} excluded: ok\n");
        } else if let Err(reason) = check(&state, name) {
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
