//! The table of cases. A case is three lines of text: the pod, what is seen of it, what has to happen.
//!
//! * Pod: `Always: i s* | web db`: restart policy, init containers (`*` marks a sidecar), regular containers.
//! * Seen, newest first: `sandbox` (ready, attempt 0), `sandbox.1`, `sandbox:dead`, `sandbox:no-ip`, `sandbox:host`;
//!   `web=running`, `web.3=exited1` (restart count 3, exit code 1), `web=created`, `web=unknown`; a running container may
//!   be `~changed`, `~liveness`, `~liveness-endless` (with such a grace period), `~startup` (the probe gave up on it) or
//!   `~starting` (its startup probe has not passed). A container is in the newest sandbox; `web=created@0` is in that of
//!   attempt 0.
//! * Expected: actions, then notes, then the time to ask again, separated by `; `.

mod ends;
mod init;
mod memory;
mod regular;
mod sandboxes;
mod sidecars;

use super::*;
use crate::fakes::runtime as fake;
use crate::pod::Source;
use crate::runtime::{Exit, Sandbox};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::sync::Arc;

fn wall() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn now() -> Now {
    Now { wall: wall(), mono: Instant::now() }
}

fn pod(text: &str) -> Pod {
    let (policy, rest) = text.split_once(": ").unwrap();
    let (init, regular) = rest.split_once('|').unwrap_or(("", rest));
    let container = |name: &str| match name.strip_suffix('*') {
        Some(name) => json!({"name": name, "restartPolicy": "Always"}),
        None => json!({"name": name}),
    };
    let containers = |names: &str| names.split_whitespace().map(container).collect::<Vec<_>>();
    let object = json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"restartPolicy": policy, "initContainers": containers(init), "containers": containers(regular)},
    });
    Pod::new(Arc::new(serde_json::from_value(object).unwrap()), Source::Api).unwrap()
}

fn sandbox(text: &str) -> Sandbox {
    let (head, how) = text.split_once(':').unwrap_or((text, ""));
    let attempt = head.strip_prefix("sandbox").unwrap().strip_prefix('.').map_or(0, |digits| digits.parse().unwrap());
    Sandbox {
        attempt,
        ready: how != "dead",
        ips: if matches!(how, "no-ip" | "host") { Vec::new() } else { vec!["10.0.0.2".parse().unwrap()] },
        host_network: how == "host",
        ..fake::sandbox(&format!("sandbox-{attempt}"))
    }
}

/// A container ended ten seconds after it started, just now.
fn container(text: &str) -> Container {
    let (head, how) = text.split_once('=').unwrap();
    let (name, count) = head.split_once('.').unwrap_or((head, "0"));
    let (how, place) = how.split_once('@').unwrap_or((how, ""));
    let (state, flag) = how.split_once('~').unwrap_or((how, ""));
    let state = match state {
        "created" => ContainerState::Created,
        "running" => ContainerState::Running { started_at: wall() },
        "unknown" => ContainerState::Unknown,
        exited => ContainerState::Exited(Exit {
            started_at: Some(wall() - SignedDuration::from_secs(10)),
            finished_at: wall(),
            code: exited.strip_prefix("exited").unwrap().parse().unwrap(),
            reason: String::new(),
            message: String::new(),
        }),
    };
    Container {
        state,
        sandbox_id: if place.is_empty() { String::new() } else { format!("sandbox-{place}") },
        restart_count: count.parse().unwrap(),
        hash: if flag == "changed" { "old" } else { "hash" }.to_owned(),
        ..fake::container(&format!("{name}~{flag}"), name)
    }
}

fn observed(text: &str) -> ObservedPod {
    let (sandboxes, containers): (Vec<&str>, Vec<&str>) =
        text.split_whitespace().partition(|word| word.starts_with("sandbox"));
    let sandboxes: Vec<Sandbox> = sandboxes.into_iter().map(sandbox).collect();
    let mut containers: Vec<Container> = containers.into_iter().map(container).collect();
    if let Some(newest) = sandboxes.first() {
        let unplaced = containers.iter_mut().filter(|container| container.sandbox_id.is_empty());
        unplaced.for_each(|container| container.sandbox_id.clone_from(&newest.id));
    }
    ObservedPod { sandboxes, containers }
}

fn verdict(id: &str) -> Verdict {
    let flag = id.split_once('~').map_or("", |(_, flag)| flag);
    let failed = match flag {
        "liveness" => Some((Failed::Liveness, Some(Duration::from_secs(5)))),
        "liveness-endless" => Some((Failed::Liveness, Some(Duration::from_secs(i64::MAX as u64)))),
        "startup" => Some((Failed::Startup, None)),
        _ => None,
    };
    Verdict { started: !matches!(flag, "starting" | "startup"), failed }
}

fn show_kill(kill: &Kill, now: Now) -> String {
    format!("kill {} in {}s: {}", kill.name, (kill.until - now.mono).as_secs(), kill.message)
}

fn show_action(action: &Action, now: Now) -> String {
    match action {
        Action::Kill(kills) => kills.iter().map(|kill| show_kill(kill, now)).collect::<Vec<_>>().join(" & "),
        Action::StopSandbox { id } => format!("stop {id}"),
        Action::RemoveContainer { id } => format!("remove {}", id.split('~').next().unwrap()),
        Action::CreateSandbox { attempt, replaces } => {
            format!("create sandbox {attempt}{}", if *replaces { " anew" } else { "" })
        }
        Action::Start(start) => {
            let count = start.restart_count.map(|count| format!("#{count}")).unwrap_or_default();
            format!("start {}{count}", start.name)
        }
    }
}

fn show(plan: &Plan, now: Now) -> String {
    let actions = plan.actions.iter().map(|action| show_action(action, now));
    let notes = plan.notes.iter().map(|(name, note)| format!("{name} waits: {}", note.reason));
    let end = plan.end.iter().map(|end| format!("end {end:?}"));
    let wake = plan.wake_at.iter().map(|at| format!("again in {}s", (*at - now.mono).as_secs()));
    actions.chain(notes).chain(end).chain(wake).collect::<Vec<_>>().join("; ")
}

/// What is planned, with a memory that `remember` prepared.
fn planned(pod: &Pod, seen: &str, start_time: Option<Timestamp>, remember: impl FnOnce(&mut Memory, Now)) -> String {
    let now = now();
    let hashes = pod.containers().map(|(_, container)| (container.name.clone(), "hash".to_owned())).collect();
    let mut memory = Memory::new(Duration::from_secs(300));
    remember(&mut memory, now);
    let desired = Desired { pod, hashes: &hashes, verdict: &verdict, start_time };
    show(&plan(&desired, &observed(seen), &memory, now), now)
}

#[track_caller]
fn check(what: &str, seen: &str, expected: &str) {
    assert_eq!(planned(&pod(what), seen, None, |_, _| {}), expected);
}

fn names(pod: &Pod, seen: &str, grace: u64) -> String {
    let now = now();
    let actions = terminate(pod, &observed(seen), now.mono, Duration::from_secs(grace), now);
    actions.iter().map(|action| show_action(action, now)).collect::<Vec<_>>().join("; ")
}

#[track_caller]
fn check_end(what: &str, seen: &str, expected: &str) {
    assert_eq!(names(&pod(what), seen, 30), expected);
}
