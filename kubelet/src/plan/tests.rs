//! The table of cases. A case is three lines of text: the pod, what is seen of it, what has to happen.
//!
//! * Pod: `Always: i s* | web db`: restart policy, init containers (`*` marks a sidecar), regular containers.
//! * Seen, newest first: `sandbox` (ready, attempt 0), `sandbox.1`, `sandbox:dead`, `sandbox:no-ip`, `sandbox:host`;
//!   `web=running`, `web.3=exited1` (restart count 3, exit code 1), `web=created`, `web=unknown`; a running container may
//!   be `~changed`, `~liveness`, `~startup` (the probe gave up on it) or `~starting` (its startup probe has not passed).
//! * Expected: actions, then notes, then the time to ask again, separated by `; `.

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
        restart_count: count.parse().unwrap(),
        hash: if flag == "changed" { "old" } else { "hash" }.to_owned(),
        ..fake::container(&format!("{name}~{flag}"), name)
    }
}

fn observed(text: &str) -> ObservedPod {
    let (sandboxes, containers): (Vec<&str>, Vec<&str>) =
        text.split_whitespace().partition(|word| word.starts_with("sandbox"));
    ObservedPod {
        sandboxes: sandboxes.into_iter().map(sandbox).collect(),
        containers: containers.into_iter().map(container).collect(),
    }
}

fn verdict(id: &str) -> Verdict {
    let flag = id.split_once('~').map_or("", |(_, flag)| flag);
    let failed = match flag {
        "liveness" => Some((Failed::Liveness, Some(Duration::from_secs(5)))),
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

mod sandboxes {
    use super::*;

    #[test]
    fn a_new_pod_gets_a_sandbox_first() {
        check("Always: web", "", "create sandbox 0");
        check("Never: web", "", "create sandbox 0");
        check("Always: i | web", "", "create sandbox 0");
    }

    #[test]
    fn a_sandbox_that_died_is_replaced_and_its_containers_go_first() {
        check(
            "Always: web",
            "sandbox:dead web=running",
            "kill web in 30s: Stopping container web; stop sandbox-0; create sandbox 1 anew",
        );
    }

    #[test]
    fn a_sandbox_without_an_address_is_replaced() {
        check("Always: web", "sandbox:no-ip", "stop sandbox-0; create sandbox 1 anew");
    }

    #[test]
    fn a_sandbox_in_the_wrong_network_is_replaced() {
        check("Always: web", "sandbox:host", "stop sandbox-0; create sandbox 1 anew");
    }

    #[test]
    fn of_two_ready_sandboxes_neither_is_trusted() {
        check("Always: web", "sandbox.1 sandbox", "stop sandbox-1; stop sandbox-0; create sandbox 2 anew");
    }

    #[test]
    fn an_old_dead_sandbox_beside_a_ready_one_is_no_matter() {
        check("Always: web", "sandbox.1 sandbox:dead web=running", "");
    }

    #[test]
    fn in_a_new_sandbox_initialization_begins_again() {
        check(
            "Always: i s* | web",
            "sandbox:dead web=exited137 s=exited137 i=exited0",
            "stop sandbox-0; remove s; remove i; create sandbox 1 anew",
        );
    }

    #[test]
    fn a_pod_that_never_restarts_is_over_when_its_sandbox_died() {
        check("Never: web", "sandbox:dead web=exited137", "end Completed");
        check("Never: web", "sandbox:dead web=running", "end Completed");
    }

    #[test]
    fn a_pod_that_never_restarts_but_never_ran_either_gets_another_sandbox() {
        check("Never: web", "sandbox:dead", "stop sandbox-0; create sandbox 1 anew");
    }

    #[test]
    fn no_sandbox_is_made_for_a_pod_whose_containers_all_succeeded() {
        check("OnFailure: web db", "sandbox:dead web=exited0 db=exited0", "end Completed");
        check("OnFailure: web db", "web=exited0 db=exited0", "end Completed");
    }

    #[test]
    fn a_sandbox_is_made_while_one_container_has_not_succeeded() {
        check("OnFailure: web db", "sandbox:dead web=exited0 db=exited1", "stop sandbox-0; create sandbox 1 anew");
        check("OnFailure: web db", "sandbox:dead web=exited0", "stop sandbox-0; create sandbox 1 anew");
    }

    #[test]
    fn a_pod_that_always_restarts_gets_a_sandbox_whatever_happened() {
        check("Always: web", "sandbox:dead web=exited0", "stop sandbox-0; create sandbox 1 anew");
    }

    #[test]
    fn a_sandbox_that_could_not_be_made_is_tried_again_later() {
        let later = |memory: &mut Memory, now: Now| memory.sandbox_retry_at = Some(now.mono + Duration::from_secs(7));
        assert_eq!(planned(&pod("Always: web"), "", None, later), "again in 7s");
        let over = |memory: &mut Memory, now: Now| memory.sandbox_retry_at = Some(now.mono);
        assert_eq!(planned(&pod("Always: web"), "", None, over), "create sandbox 0");
    }
}

mod regular {
    use super::*;

    #[test]
    fn all_regular_containers_start_in_order() {
        check("Always: web db", "sandbox", "start web; start db");
    }

    #[test]
    fn what_runs_is_left_alone() {
        check("Always: web db", "sandbox web=running db=running", "");
        check("Never: web", "sandbox web=running", "");
    }

    #[test]
    fn a_missing_container_is_started_beside_a_running_one() {
        check("Always: web db", "sandbox web=running", "start db");
        check("Never: web db", "sandbox web=running", "start db");
    }

    #[test]
    fn the_policy_decides_what_follows_an_end() {
        for (policy, code, expected) in [
            ("Always", 0, "start web#1"),
            ("Always", 1, "start web#1"),
            ("OnFailure", 0, "end Completed"),
            ("OnFailure", 1, "start web#1"),
            ("Never", 0, "end Completed"),
            ("Never", 1, "end Completed"),
        ] {
            check(&format!("{policy}: web"), &format!("sandbox web=exited{code}"), expected);
        }
    }

    #[test]
    fn one_end_does_not_end_the_pod() {
        check("Never: web db", "sandbox web=exited0 db=running", "");
        check("OnFailure: web db", "sandbox web=exited0 db=exited1", "start db#1");
    }

    #[test]
    fn the_newest_container_of_a_name_counts() {
        check("Always: web", "sandbox web.2=running web.1=exited1 web=exited1", "");
        check("Always: web", "sandbox web.2=exited1 web.1=exited1", "start web#3");
    }

    #[test]
    fn a_container_that_was_made_but_not_started_is_made_again() {
        check("Always: web", "sandbox web=created", "start web#1");
        check("Never: web", "sandbox web=created", "start web#1");
    }

    #[test]
    fn a_container_in_an_unknown_state_is_killed_before_another_one_starts() {
        check(
            "Always: web",
            "sandbox web=unknown",
            "kill web in 30s: Container is in \"unknown\" state, try killing it before restart; start web#1",
        );
    }

    #[test]
    fn a_changed_spec_replaces_the_container_whatever_the_policy() {
        for policy in ["Always", "OnFailure", "Never"] {
            check(
                &format!("{policy}: web"),
                "sandbox web=running~changed",
                "kill web in 30s: Container web definition changed, will be restarted; start web#1",
            );
        }
    }

    #[test]
    fn a_failed_liveness_probe_restarts_with_its_own_grace_period() {
        check(
            "Always: web db",
            "sandbox web=running~liveness db=running",
            "kill web in 5s: Container web failed liveness probe, will be restarted; start web#1",
        );
    }

    #[test]
    fn a_failed_startup_probe_restarts() {
        check(
            "OnFailure: web",
            "sandbox web=running~startup",
            "kill web in 30s: Container web failed startup probe, will be restarted; start web#1",
        );
    }

    #[test]
    fn a_failed_probe_ends_a_container_that_is_never_restarted() {
        check("Never: web", "sandbox web=running~liveness", "kill web in 5s: Container web failed liveness probe");
    }

    #[test]
    fn a_container_that_is_still_starting_is_left_alone() {
        check("Always: web", "sandbox web=running~starting", "");
    }

    #[test]
    fn two_that_fail_are_killed_at_the_same_time() {
        check(
            "Always: web db",
            "sandbox web=running~liveness db=running~changed",
            "kill web in 5s: Container web failed liveness probe, will be restarted & \
             kill db in 30s: Container db definition changed, will be restarted; start web#1; start db#1",
        );
    }

    #[test]
    fn a_container_of_a_pod_before_is_no_matter() {
        check("Always: web", "sandbox web=running old=exited1", "");
    }
}

mod init {
    use super::*;

    #[test]
    fn the_first_init_container_starts_alone() {
        check("Always: i j | web", "sandbox", "start i");
    }

    #[test]
    fn nothing_starts_while_an_init_container_runs() {
        check("Always: i j | web", "sandbox i=running", "");
    }

    #[test]
    fn the_next_one_starts_when_one_succeeded() {
        check("Always: i j | web", "sandbox i=exited0", "start j");
        check("Never: i j | web", "sandbox i=exited0", "start j");
    }

    #[test]
    fn regular_containers_start_after_the_last_one() {
        check("Always: i j | web db", "sandbox j=exited0 i=exited0", "start web; start db");
    }

    #[test]
    fn a_finished_init_container_may_be_gone() {
        check("Always: i j | web", "sandbox j=exited0", "start web");
        check("Always: i j | web", "sandbox web=running", "");
    }

    #[test]
    fn a_failed_init_container_is_started_again_or_ends_the_pod() {
        check("Always: i | web", "sandbox i=exited1", "start i#1");
        check("OnFailure: i | web", "sandbox i=exited1", "start i#1");
        check("Never: i | web", "sandbox i=exited1", "end Completed");
    }

    #[test]
    fn an_init_container_that_was_not_started_is_made_again() {
        check("Never: i | web", "sandbox i=created", "start i#1");
    }

    #[test]
    fn an_init_container_in_an_unknown_state_is_killed_first() {
        check(
            "Always: i | web",
            "sandbox i=unknown",
            "kill i in 30s: Init container is in \"unknown\" state, try killing it before restart; start i#1",
        );
        check("Never: i | web", "sandbox i=unknown", "end Completed");
    }

    #[test]
    fn a_crashing_container_does_not_initialize_the_pod_again() {
        check("Always: i | web", "sandbox web=exited1 i=exited0", "start web#1");
    }

    #[test]
    fn a_changed_init_container_that_is_done_is_no_matter() {
        check("Always: i | web", "sandbox web=running i=exited0~changed", "");
        check("Always: i | web", "sandbox i=running~changed", "");
    }
}

mod sidecars {
    use super::*;

    #[test]
    fn what_follows_a_sidecar_waits_until_it_is_started() {
        check("Always: s* i | web", "sandbox", "start s");
        check("Always: s* i | web", "sandbox s=running~starting", "");
        check("Always: s* i | web", "sandbox s=running", "start i");
        check("Always: s* | web", "sandbox s=running", "start web");
    }

    #[test]
    fn a_sidecar_is_restarted_whatever_the_policy() {
        for policy in ["Always", "OnFailure", "Never"] {
            check(&format!("{policy}: s* | web"), "sandbox web=running s=exited0", "start s#1");
        }
    }

    #[test]
    fn a_sidecar_that_vanished_is_started_again() {
        check("Always: s* | web", "sandbox web=running", "start s");
    }

    #[test]
    fn a_sidecar_that_ends_during_initialization_is_restarted_beside_it() {
        check("Always: s* i | web", "sandbox i=running s=exited1", "start s#1");
        check("Always: s* i j | web", "sandbox i=exited0 s=exited1", "start s#1; start j");
    }

    #[test]
    fn the_regular_containers_of_an_initialized_pod_do_not_wait_for_a_sidecar() {
        check("Always: s* | web db", "sandbox web=running s=exited1", "start s#1; start db");
    }

    #[test]
    fn a_sidecar_whose_probe_failed_is_replaced() {
        check(
            "Always: s* | web",
            "sandbox web=running s=running~liveness",
            "kill s in 5s: Init container s failed liveness probe; start s#1",
        );
        check(
            "Always: s* | web",
            "sandbox s=running~startup",
            "kill s in 30s: Init container s failed startup probe; start s#1",
        );
    }

    #[test]
    fn a_changed_sidecar_is_replaced() {
        check(
            "Always: s* | web",
            "sandbox web=running s=running~changed",
            "kill s in 30s: Init container s definition changed; start s#1",
        );
    }

    #[test]
    fn sidecars_do_not_keep_a_pod_alive() {
        check("Never: s* | web", "sandbox web=exited0 s=running", "end Completed");
        check("OnFailure: s* | web", "sandbox web=exited0 s=exited0", "end Completed");
    }
}

mod memory {
    use super::*;

    fn crashed(times: usize) -> impl FnOnce(&mut Memory, Now) {
        move |memory, now| {
            for _ in 0..times {
                memory.restarted("web", "hash", now.wall, now.wall);
            }
        }
    }

    #[test]
    fn a_crashing_container_waits_longer_each_time() {
        let what = pod("Always: web");
        let seen = "sandbox web=exited1";
        assert_eq!(planned(&what, seen, None, crashed(0)), "start web#1");
        assert_eq!(planned(&what, seen, None, crashed(1)), "web waits: CrashLoopBackOff; again in 10s");
        assert_eq!(planned(&what, seen, None, crashed(3)), "web waits: CrashLoopBackOff; again in 40s");
        assert_eq!(planned(&what, seen, None, crashed(9)), "web waits: CrashLoopBackOff; again in 300s");
    }

    #[test]
    fn the_message_names_the_pause_the_container_and_the_pod() {
        let what = pod("Always: web");
        let hashes = BTreeMap::from([("web".to_owned(), "hash".to_owned())]);
        let mut memory = Memory::new(Duration::from_secs(300));
        crashed(5)(&mut memory, now());
        let desired = Desired { pod: &what, hashes: &hashes, verdict: &verdict, start_time: None };
        let plan = plan(&desired, &observed("sandbox web=exited1"), &memory, now());
        assert_eq!(plan.notes["web"].message, "back-off 2m40s restarting failed container=web pod=p_n(u)");
    }

    #[test]
    fn a_crashing_container_does_not_hold_up_the_others() {
        let planned = planned(&pod("Always: web db"), "sandbox web=exited1", None, crashed(1));
        assert_eq!(planned, "start db; web waits: CrashLoopBackOff; again in 10s");
    }

    #[test]
    fn an_init_container_crashes_in_the_same_way() {
        let planned = planned(&pod("Always: web | db"), "sandbox web=exited1", None, crashed(2));
        assert_eq!(planned, "web waits: CrashLoopBackOff; again in 20s");
    }

    #[test]
    fn a_failed_probe_of_a_container_that_crashed_before_kills_now_and_starts_later() {
        let planned = planned(&pod("Always: web"), "sandbox web.1=running~liveness web=exited1", None, crashed(1));
        assert_eq!(
            planned,
            "kill web in 5s: Container web failed liveness probe, will be restarted; \
             web waits: CrashLoopBackOff; again in 10s"
        );
    }

    fn failed_to_start(after: u64) -> impl FnOnce(&mut Memory, Now) {
        move |memory, now| {
            let waiting = Waiting { reason: "ErrImagePull", message: "no such image".to_owned() };
            memory.failed("web", Failure { waiting, retry_at: now.mono + Duration::from_secs(after) });
        }
    }

    #[test]
    fn a_container_that_could_not_be_made_is_tried_again_later_and_says_why_until_it_runs() {
        let what = pod("Always: web db");
        assert_eq!(
            planned(&what, "sandbox", None, failed_to_start(7)),
            "start db; web waits: ErrImagePull; again in 7s"
        );
        assert_eq!(planned(&what, "sandbox", None, failed_to_start(0)), "start web; start db; web waits: ErrImagePull");
        assert_eq!(planned(&what, "sandbox web=running db=running", None, failed_to_start(7)), "");
    }

    #[test]
    fn an_active_deadline_ends_the_pod() {
        let mut object = pod("Always: web").object().clone();
        object.spec.as_mut().unwrap().active_deadline_seconds = Some(60);
        let what = Pod::new(Arc::new(object), Source::Api).unwrap();
        let began = |seconds| Some(wall() - SignedDuration::from_secs(seconds));
        assert_eq!(planned(&what, "sandbox web=running", began(60), |_, _| {}), "end DeadlineExceeded");
        assert_eq!(planned(&what, "sandbox web=running", began(50), |_, _| {}), "again in 10s");
        assert_eq!(planned(&what, "", began(50), |_, _| {}), "create sandbox 0; again in 10s");
        assert_eq!(planned(&what, "sandbox web=running", None, |_, _| {}), "");
    }

    #[test]
    fn a_kubelet_that_restarts_knows_the_pause_from_the_status() {
        let mut object = pod("Always: web").object().clone();
        object.status = Some(
            serde_json::from_value(json!({"containerStatuses": [{
                "name": "web", "image": "", "imageID": "", "ready": false, "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff",
                    "message": "back-off 1m20s restarting failed container=web pod=p_n(u)"}},
                "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:00Z"}},
            }]}))
            .unwrap(),
        );
        let what = Pod::new(Arc::new(object), Source::Api).unwrap();
        let hashes = BTreeMap::from([("web".to_owned(), "hash".to_owned())]);
        let recall = |memory: &mut Memory, _: Now| memory.recall(&what, &hashes);
        assert_eq!(planned(&what, "sandbox web.3=exited1", None, recall), "web waits: CrashLoopBackOff; again in 80s");
    }
}

mod ends {
    use super::*;

    #[test]
    fn regular_containers_end_at_the_same_time_and_the_sandbox_last() {
        check_end(
            "Always: web db",
            "sandbox web=running db=running",
            "kill web in 30s: Stopping container web & kill db in 30s: Stopping container db; stop sandbox-0",
        );
    }

    #[test]
    fn sidecars_end_after_the_others_in_reverse_order() {
        check_end(
            "Always: a* i b* | web",
            "sandbox web=running b=running a=running",
            "kill web in 30s: Stopping container web; kill b in 30s: Stopping container b; \
             kill a in 30s: Stopping container a; stop sandbox-0",
        );
    }

    #[test]
    fn an_init_container_that_runs_ends_with_the_regular_ones() {
        check_end(
            "Always: s* i | web",
            "sandbox i=running s=running",
            "kill i in 30s: Stopping container i; kill s in 30s: Stopping container s; stop sandbox-0",
        );
    }

    #[test]
    fn dead_containers_and_sandboxes_need_nothing() {
        check_end("Always: web", "sandbox:dead web=exited0", "");
        check_end("Always: web", "", "");
        check_end("Always: web", "sandbox web=exited0", "stop sandbox-0");
    }

    #[test]
    fn a_container_that_was_made_and_not_started_goes_with_its_sandbox() {
        check_end("Always: web", "sandbox web=created", "stop sandbox-0");
    }

    #[test]
    fn a_container_of_unknown_state_is_killed() {
        check_end("Always: web", "web=unknown", "kill web in 30s: Stopping container web");
    }

    #[test]
    fn a_container_that_the_spec_does_not_have_is_killed_with_the_regular_ones() {
        check_end(
            "Always: web",
            "sandbox old=running web=running",
            "kill old in 30s: Stopping container old & kill web in 30s: Stopping container web; stop sandbox-0",
        );
    }

    #[test]
    fn every_ready_sandbox_is_stopped() {
        check_end("Always: web", "sandbox.1 sandbox", "stop sandbox-1; stop sandbox-0");
    }

    #[test]
    fn nobody_gets_less_than_two_seconds() {
        let names = names(&pod("Always: web"), "sandbox web=running", 0);
        assert_eq!(names, "kill web in 2s: Stopping container web; stop sandbox-0");
    }

    #[test]
    fn the_grace_period_counts_from_the_first_moment() {
        let now = now();
        let since = now.mono - Duration::from_secs(20);
        let seen = observed("web=running");
        let actions = terminate(&pod("Always: web"), &seen, since, Duration::from_secs(30), now);
        assert_eq!(show_action(&actions[0], now), "kill web in 10s: Stopping container web");
    }

    #[test]
    fn a_deletion_overrides_the_grace_period_of_the_spec() {
        for (deletion, spec, expected) in [(None, None, 30), (None, Some(60), 60), (Some(5), Some(60), 5)] {
            let mut object = pod("Always: web").object().clone();
            object.metadata.deletion_grace_period_seconds = deletion;
            object.spec.as_mut().unwrap().termination_grace_period_seconds = spec;
            let pod = Pod::new(Arc::new(object), Source::Api).unwrap();
            assert_eq!(grace_period(&pod), Duration::from_secs(expected));
        }
    }
}
