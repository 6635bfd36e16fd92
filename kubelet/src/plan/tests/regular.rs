//! Regular containers: kept, started, replaced.

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
