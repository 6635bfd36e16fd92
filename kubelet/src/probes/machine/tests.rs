//! Results of probes to verdicts.

use super::*;
use Outcome::{Errored, Failure, Success};

/// A probe that is asked each second, fails at the third failure and succeeds at the first success.
fn rules(kind: Kind) -> Rules {
    Rules {
        kind,
        period: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        initial_delay: Duration::ZERO,
        successes: 1,
        failures: 3,
    }
}

fn settled(rules: Rules, verdict: Verdict) -> Machine {
    let now = Instant::now();
    Machine::new(rules, Start { begins: now, settles: now }, verdict, now)
}

/// Gives the answers one after the other, each when it is due, and compares the verdict after each.
#[track_caller]
fn check(mut machine: Machine, script: &[(Outcome, Option<Verdict>)]) -> Machine {
    for (number, (outcome, verdict)) in script.iter().enumerate() {
        let due = machine.due().unwrap_or_else(|| panic!("answer {number} is never asked for"));
        let effects;
        (machine, effects) = machine.step(*outcome, due);
        assert_eq!(effects.verdict, *verdict, "answer {number}");
        assert_eq!(effects.told, *outcome != Success, "answer {number}");
    }
    machine
}

#[test]
fn a_verdict_needs_its_threshold_in_a_row() {
    let success = Some(Verdict::Success);
    let failure = Some(Verdict::Failure);
    let machine = settled(rules(Kind::Readiness), Verdict::Failure);
    check(machine, &[(Success, success), (Success, None)]);
    check(
        machine,
        &[(Success, success), (Failure, None), (Failure, None), (Success, None), (Failure, None), (Failure, None)],
    );
    check(machine, &[(Success, success), (Failure, None), (Failure, None), (Failure, failure), (Success, success)]);
    let slow = settled(Rules { successes: 2, failures: 1, ..rules(Kind::Readiness) }, Verdict::Failure);
    check(slow, &[(Success, None), (Success, success), (Failure, failure), (Success, None), (Failure, None)]);
}

#[test]
fn an_answer_that_could_not_be_had_counts_neither_way() {
    let machine = settled(rules(Kind::Liveness), Verdict::Success);
    check(
        machine,
        &[(Failure, None), (Failure, None), (Errored, None), (Errored, None), (Failure, Some(Verdict::Failure))],
    );
}

#[test]
fn a_failed_liveness_probe_is_never_asked_again() {
    let machine = settled(rules(Kind::Liveness), Verdict::Success);
    let failed =
        check(machine, &[(Success, None), (Failure, None), (Failure, None), (Failure, Some(Verdict::Failure))]);
    assert_eq!(failed.due(), None);
    assert_eq!(failed.step(Success, Instant::now()), (failed, Effects::default()));
}

#[test]
fn a_startup_probe_ends_with_either_verdict() {
    let machine = settled(rules(Kind::Startup), Verdict::Unknown);
    assert_eq!(check(machine, &[(Failure, None), (Success, Some(Verdict::Success))]).due(), None);
    let failed = check(machine, &[(Failure, None), (Failure, None), (Failure, Some(Verdict::Failure))]);
    assert_eq!(failed.due(), None);
}

#[test]
fn a_container_that_was_ready_stays_so_until_the_threshold() {
    let machine = settled(rules(Kind::Readiness), Verdict::Success);
    check(machine, &[(Success, None), (Failure, None), (Failure, None), (Failure, Some(Verdict::Failure))]);
}

#[test]
fn questions_come_each_period_and_at_once_after_a_slow_answer() {
    let machine = settled(rules(Kind::Liveness), Verdict::Success);
    let first = machine.due().unwrap();
    let (machine, _) = machine.step(Success, first + Duration::from_millis(300));
    assert_eq!(machine.due(), Some(first + Duration::from_secs(1)));
    let late = first + Duration::from_millis(2700);
    let (machine, _) = machine.step(Success, late);
    assert_eq!(machine.due(), Some(late));
}

#[test]
fn a_container_that_just_started_is_asked_quickly_and_only_success_counts() {
    let now = Instant::now();
    let settles = now + SETTLE;
    let at = |millis| now + Duration::from_millis(millis);
    let start = Start { begins: now, settles };
    let slow = Rules { period: Duration::from_secs(10), ..rules(Kind::Readiness) };
    let mut machine = Machine::new(slow, start, Verdict::Failure, now);
    for due in [0, 100, 300, 700, 1000] {
        assert_eq!(machine.due(), Some(at(due)));
        let (next, effects) = machine.step(Failure, at(due));
        assert_eq!(effects, Effects { verdict: None, told: due == 1000 }, "at {due} ms");
        machine = next;
    }
    assert_eq!(machine.due(), Some(at(11_000)));

    let machine = Machine::new(slow, start, Verdict::Failure, now);
    let (machine, effects) = machine.step(Success, at(5));
    assert_eq!(effects.verdict, Some(Verdict::Success));
    assert_eq!(machine.due(), Some(at(10_005)));

    let liveness = Machine::new(rules(Kind::Liveness), start, Verdict::Success, now);
    assert_eq!(liveness.due(), Some(settles));
}

#[test]
fn a_slow_question_does_not_outlast_the_settling() {
    let now = Instant::now();
    let start = Start { begins: now, settles: now + SETTLE };
    let machine = Machine::new(rules(Kind::Startup), start, Verdict::Unknown, now);
    let late = now + Duration::from_millis(1400);
    let (machine, effects) = machine.step(Failure, late);
    assert_eq!((machine.due(), effects), (Some(late), Effects::default()));
}

/// When a container that is `age` seconds old, of a kubelet that is `uptime` old, is asked first, and from when on
/// failures count; in milliseconds from now.
#[track_caller]
fn check_start(delay: u64, age: i64, uptime: u64, expected: (u128, u128)) {
    let mono = Instant::now() + Duration::from_secs(1000);
    let wall: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let uptime = Duration::from_secs(uptime);
    let kubelet = Now { mono: mono - uptime, wall: wall - uptime };
    let rules =
        Rules { initial_delay: Duration::from_secs(delay), period: Duration::from_secs(10), ..rules(Kind::Readiness) };
    let started_at = wall - jiff::SignedDuration::from_secs(age);
    let start = Start::of(&rules, started_at, kubelet, Now { mono, wall }, 0.5);
    let from_now = |at: Instant| (at - mono).as_millis();
    assert_eq!((from_now(start.begins), from_now(start.settles)), expected);
}

#[test]
fn the_first_question_waits_for_the_delay_and_after_a_restart_for_a_random_part_of_the_period() {
    check_start(0, 0, 100, (0, 1000));
    check_start(5, 0, 100, (5000, 5000));
    check_start(5, 2, 100, (3000, 3000));
    check_start(5, 60, 100, (0, 0));
    // Its clock may be ahead of ours.
    check_start(5, -3, 100, (5000, 5000));
    // It ran before this kubelet did.
    check_start(0, 60, 3, (5000, 5000));
    check_start(30, 20, 3, (10_000, 10_000));
    // It did not.
    check_start(0, 2, 3, (0, 0));
    // The restart was long ago.
    check_start(0, 60, 10, (0, 0));
}

#[test]
fn what_a_probe_does_not_say_is_upstreams_default() {
    let read = Rules::of(Kind::Liveness, &Probe::default());
    assert_eq!(read, Rules { period: Duration::from_secs(10), ..rules(Kind::Liveness) });
    let probe = Probe { initial_delay_seconds: Some(7), timeout_seconds: Some(0), ..Probe::default() };
    let read = Rules::of(Kind::Startup, &probe);
    assert_eq!((read.initial_delay, read.timeout), (Duration::from_secs(7), Duration::from_secs(1)));
}
