//! Init containers, one after the other.

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

#[test]
fn a_container_of_an_earlier_sandbox_does_not_show_that_initialization_is_over() {
    check("Always: i | web", "sandbox.1 sandbox:dead web=created@0", "start i");
    check("Always: i | web", "sandbox.1 sandbox:dead web=exited1@0", "start i");
}

#[test]
fn a_container_that_ended_in_this_sandbox_shows_that_initialization_is_over() {
    check("Always: i | web", "sandbox web=exited1", "start web#1");
}
