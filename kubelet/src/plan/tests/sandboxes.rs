//! When a sandbox is made, replaced, or not needed any more.

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

#[test]
fn a_broken_sandbox_is_left_alone_until_the_next_one_may_be_made() {
    let later = |memory: &mut Memory, now: Now| memory.sandbox_retry_at = Some(now.mono + Duration::from_secs(7));
    assert_eq!(planned(&pod("Always: web"), "sandbox:dead", None, later), "again in 7s");
    assert_eq!(planned(&pod("Always: web"), "sandbox:no-ip", None, later), "stop sandbox-0; again in 7s");
}
