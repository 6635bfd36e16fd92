//! One probe of one running container as a pure state machine: when to ask, and what the answers mean.
//!
//! ```text
//!            success, or the container has settled
//!  Settling ──────────────────────────────────────▶ Counting ──▶ Held
//!                                                    liveness: as many failures as allowed in a row
//!                                                    startup: either threshold
//! ```
//! A held probe is never asked again: its container is on its way out, or started for good. The next container of that
//! name has another id, and so a machine of its own.
//!
//! **Settling.** Upstream learns of a started container from a list that it makes each second, and then asks for
//! readiness at once; a container has up to a second to open its port before its first probe. We know of it at once:
//! asking then, failing, and waiting a whole period would make pods ready later than upstream does. So in the first
//! second readiness and startup are asked for quickly and again, and only a success counts.

use super::Kind;
use crate::clock::Now;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Probe;
use std::time::Duration;
use tokio::time::Instant;

/// How long a container may take to open its port without being called unhealthy.
const SETTLE: Duration = Duration::from_secs(1);
/// The first pause between two questions in that time; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// What the spec says of a probe, with upstream's defaults for what it does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    /// Which probe it is.
    pub(super) kind: Kind,
    /// Between two questions.
    pub(super) period: Duration,
    /// How long an answer may take.
    pub(super) timeout: Duration,
    /// From the container's start to the first question.
    pub(super) initial_delay: Duration,
    /// Successes in a row that make a success.
    pub(super) successes: u32,
    /// Failures in a row that make a failure.
    pub(super) failures: u32,
}

/// What the probe as a whole says, thresholds counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    Unknown,
    /// It is as it should be.
    Success,
    /// It is not.
    Failure,
}

/// What one question came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Yes.
    Success,
    /// No.
    Failure,
    /// It could not be asked; upstream counts that neither way.
    Errored,
}

/// What follows from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Effects {
    /// The verdict, if it is another one now.
    pub(super) verdict: Option<Verdict>,
    /// Whether an event tells of a failed answer.
    pub(super) told: bool,
}

/// Where a probe is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The container was started a moment ago: only a success counts.
    Settling { due: Instant, pause: Duration, until: Instant },
    /// Asked every period.
    Counting { due: Instant },
    /// Not asked any more.
    Held,
}

/// One probe of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Machine {
    rules: Rules,
    verdict: Verdict,
    /// The last answer, and how often in a row it was given.
    run: (Verdict, u32),
    phase: Phase,
}

/// When a probe begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    /// Not asked earlier.
    begins: Instant,
    /// From then on a failure counts.
    settles: Instant,
}

impl Rules {
    /// Reads a probe's numbers.
    pub(super) fn of(kind: Kind, probe: &Probe) -> Rules {
        let at_least_one = |value: Option<i32>, default: u32| match value.map(u32::try_from) {
            Some(Ok(number)) if number > 0 => number,
            _ => default,
        };
        let seconds = |value, default| Duration::from_secs(u64::from(at_least_one(value, default)));
        Rules {
            kind,
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            successes: at_least_one(probe.success_threshold, 1),
            failures: at_least_one(probe.failure_threshold, 3),
        }
    }
}

impl Start {
    /// When to begin with a container that has run since `started_at`. After a restart of the kubelet all containers are
    /// found at the same time: their first questions are spread over a period, `random` of it, as upstream does.
    pub(super) fn of(rules: &Rules, started_at: Timestamp, kubelet: Now, now: Now, random: f64) -> Start {
        let age = Duration::try_from(now.wall.duration_since(started_at)).unwrap_or_default();
        let begins = now.mono + rules.initial_delay.saturating_sub(age);
        if started_at < kubelet.wall && now.mono - kubelet.mono < rules.period {
            let begins = begins.max(now.mono + rules.period.mul_f64(random));
            return Start { begins, settles: begins };
        }
        Start { begins, settles: begins.max(now.mono + SETTLE.saturating_sub(age)) }
    }
}

impl Machine {
    /// A probe that begins as `start` says; `verdict` is what it says until it has something to say.
    pub(super) fn new(rules: Rules, start: Start, verdict: Verdict, now: Instant) -> Machine {
        let begins = start.begins.max(now);
        let phase = match rules.kind {
            Kind::Startup | Kind::Readiness if begins < start.settles => {
                Phase::Settling { due: begins, pause: FIRST_PAUSE, until: start.settles }
            }
            _ => Phase::Counting { due: begins.max(start.settles) },
        };
        Machine { rules, verdict, run: (Verdict::Unknown, 0), phase }
    }

    /// When to ask next; `None` if never.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Settling { due, .. } | Phase::Counting { due } => Some(due),
            Phase::Held => None,
        }
    }

    /// Takes an answer that came at `now`.
    #[must_use]
    pub(super) fn step(self, outcome: Outcome, now: Instant) -> (Machine, Effects) {
        match (self.phase, outcome) {
            (Phase::Held, _) => (self, Effects::default()),
            (Phase::Settling { due, pause, until }, Outcome::Failure | Outcome::Errored) => {
                let next = (due + pause).max(now);
                let phase = if next < until {
                    Phase::Settling { due: next, pause: pause * 2, until }
                } else {
                    Phase::Counting { due: until.max(now) }
                };
                (Machine { phase, ..self }, Effects::default())
            }
            (Phase::Settling { .. }, Outcome::Success) => self.count(Verdict::Success, now + self.rules.period),
            (Phase::Counting { due }, outcome) => {
                let next = (due + self.rules.period).max(now);
                match outcome {
                    Outcome::Success => self.count(Verdict::Success, next),
                    Outcome::Failure => self.count(Verdict::Failure, next),
                    Outcome::Errored => (
                        Machine { phase: Phase::Counting { due: next }, ..self },
                        Effects { verdict: None, told: true },
                    ),
                }
            }
        }
    }

    fn count(self, answer: Verdict, next: Instant) -> (Machine, Effects) {
        let times = if self.run.0 == answer { self.run.1.saturating_add(1) } else { 1 };
        let told = answer == Verdict::Failure;
        let phase = Phase::Counting { due: next };
        let needed = if told { self.rules.failures } else { self.rules.successes };
        let counted = Machine { run: (answer, times), phase, ..self };
        if times < needed {
            return (counted, Effects { verdict: None, told });
        }
        let held = self.rules.kind == Kind::Startup || (self.rules.kind == Kind::Liveness && told);
        let phase = if held { Phase::Held } else { phase };
        let verdict = (self.verdict != answer).then_some(answer);
        (Machine { verdict: answer, phase, ..counted }, Effects { verdict, told })
    }
}

#[cfg(test)]
mod tests;
