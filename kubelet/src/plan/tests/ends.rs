//! How a pod ends.

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

#[test]
fn a_grace_period_that_no_clock_can_count_is_cut() {
    let endless = |change: fn(&mut k8s_openapi::api::core::v1::Pod)| {
        let mut object = pod("Always: web").object().clone();
        change(&mut object);
        Pod::new(Arc::new(object), Source::Api).unwrap()
    };
    let of_spec = endless(|pod| pod.spec.as_mut().unwrap().termination_grace_period_seconds = Some(i64::MAX));
    let of_deletion = endless(|pod| pod.metadata.deletion_grace_period_seconds = Some(i64::MAX));
    for pod in [of_spec, of_deletion] {
        let grace = grace_period(&pod);
        assert_eq!(grace, Duration::from_secs(2_147_483_647));
        assert_eq!(names(&pod, "web=running", grace.as_secs()), "kill web in 2147483647s: Stopping container web");
        let changed = "kill web in 2147483647s: Container web definition changed, will be restarted; start web#1";
        assert_eq!(planned(&pod, "sandbox web=running~changed", None, |_, _| {}), changed);
        let mut lifecycle = Lifecycle::Syncing;
        for _ in 0..2 {
            lifecycle.terminate(crate::status::Termination::Deleted, grace, Instant::now());
        }
    }
    let endless = "kill web in 2147483647s: Container web failed liveness probe, will be restarted; start web#1";
    check("Always: web", "sandbox web=running~liveness-endless", endless);
}
