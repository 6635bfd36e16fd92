//! Sidecars: started in their place, kept running, never the reason to live.

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
