//! One probe at work: waits until it is due, asks, tells.

use super::check::{Answer, Asker, Check};
use super::machine::{Machine, Outcome, Rules, Start, Verdict};
use super::table::Table;
use super::{Kind, World};
use crate::api::events::Kind as EventKind;
use crate::random::random;
use jiff::Timestamp;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep_until;

/// How often a question is asked again at once if it could not be asked.
const TRIES: usize = 3;

/// A probe of a running container.
pub(super) struct Asked {
    pub(super) container_id: String,
    pub(super) rules: Rules,
    pub(super) check: Check,
    /// The probe's own grace period.
    pub(super) grace: Option<Duration>,
    /// The container's start.
    pub(super) started_at: Timestamp,
    /// What it says until it has something to say.
    pub(super) initial: Verdict,
}

/// Asks until the probe is held or the task aborted, which the table does when the container is gone.
pub(super) async fn run(world: Arc<World>, table: Weak<Table>, asked: Asked, mut started: watch::Receiver<bool>) {
    let kind = asked.rules.kind;
    if kind != Kind::Startup && started.wait_for(|started| *started).await.is_err() {
        return;
    }
    let now = world.clock.now();
    let start = Start::of(&asked.rules, asked.started_at, world.began, now, random());
    let mut machine = Machine::new(asked.rules, start, asked.initial, now.mono);
    while let Some(due) = machine.due() {
        sleep_until(due).await;
        let asking = world.clock.now().mono;
        // Boxed: a question is far larger than what waits for the next one.
        let answer = Box::pin(ask(&world, &asked)).await;
        let answered = world.clock.now().mono;
        let Some(table) = table.upgrade() else { return };
        let effects;
        (machine, effects) = machine.step(outcome(&answer), answered);
        tell(&world, &table, &asked, &answer, effects.told, answered - asking);
        if let Some(verdict) = effects.verdict {
            table.decide(&asked.container_id, kind, verdict, asked.grace);
        }
    }
}

async fn ask(world: &World, asked: &Asked) -> Answer {
    let asker = Asker { runtime: &*world.runtime, tls: &world.tls };
    let mut tries = 1;
    loop {
        match asked.check.ask(&asker, &asked.container_id, asked.rules.timeout).await {
            Answer::Errored { .. } if tries < TRIES => tries += 1,
            answer => return answer,
        }
    }
}

fn outcome(answer: &Answer) -> Outcome {
    match answer {
        Answer::Success | Answer::Warning(_) => Outcome::Success,
        Answer::Failure(_) => Outcome::Failure,
        Answer::Errored { .. } => Outcome::Errored,
    }
}

/// Counts the answer and records its event. `told` says whether a failure is worth one.
fn tell(world: &World, table: &Table, asked: &Asked, answer: &Answer, told: bool, elapsed: Duration) {
    let Some((pod, role, name)) = table.subject(&asked.container_id) else { return };
    let kind = asked.rules.kind.name();
    match outcome(answer) {
        Outcome::Success => world.metrics.probe(&pod, &name, kind, "successful", elapsed),
        Outcome::Failure if told => world.metrics.probe(&pod, &name, kind, "failed", elapsed),
        Outcome::Failure | Outcome::Errored => {}
    }
    let (reason, message) = match answer {
        Answer::Warning(output) => ("ProbeWarning", format!("{kind} probe warning: {output}")),
        Answer::Failure(output) if told => ("Unhealthy", format!("{kind} probe failed: {output}")),
        Answer::Errored { state, message } if told => {
            ("Unhealthy", format!("{kind} probe errored and resulted in {state} state: {message}"))
        }
        _ => return,
    };
    world.recorder.container(&pod, role, &name, EventKind::Warning, reason, message);
}
