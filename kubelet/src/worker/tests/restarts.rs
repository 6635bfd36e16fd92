//! What ends is started again; what a kubelet finds running is left alone.

use super::*;
use crate::fakes::runtime as fake;
use crate::runtime::{Container, ContainerState, Sandbox};
use crate::spec;

#[tokio::test(start_paused = true)]
async fn a_crashing_container_waits_longer_each_time() {
    let mut stage = Stage::new().await;
    let web = web();
    stage.wants(&[&web]).await;
    stage.runtime.exit("web", 1);
    stage.pass(1).await;
    assert_eq!(stage.runtime.running(), ["web"], "the first restart is at once");
    for pause in [10, 20, 40] {
        stage.told();
        stage.runtime.exit("web", 1);
        stage.pass(pause - 1).await;
        assert_eq!(stage.state(&web, "web"), "waiting CrashLoopBackOff");
        assert_eq!(stage.told(), ["BackOff: Back-off restarting failed container web in pod web_default(uid-web)"]);
        stage.pass(2).await;
        assert_eq!(stage.state(&web, "web"), "running");
    }
    assert_eq!(stage.container(&web, "web").restart_count, 4);
}

#[tokio::test(start_paused = true)]
async fn ten_good_minutes_forgive_a_crash() {
    let stage = Stage::new().await;
    let web = web();
    stage.wants(&[&web]).await;
    stage.runtime.exit("web", 1);
    stage.pass(700).await;
    stage.runtime.exit("web", 1);
    stage.pass(1).await;
    assert_eq!(stage.runtime.running(), ["web"]);
}

#[tokio::test(start_paused = true)]
async fn a_runtime_without_events_is_listed_every_second() {
    listed_every_second(|runtime| runtime.state().silent = true).await;
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_answers_with_its_first_event_is_listed_until_then() {
    listed_every_second(|runtime| runtime.state().speechless = true).await;
}

async fn listed_every_second(make: impl FnOnce(&FakeRuntime)) {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let runtime = FakeRuntime::new(clock.clone());
    make(&runtime);
    let stage = Stage::with(runtime, FakeHost::default(), clock, Arc::new(|_, _| Ok(()))).await;
    stage.wants(&[&web()]).await;
    stage.runtime.exit("web", 1);
    stage.pass(2).await;
    assert_eq!(stage.runtime.running(), ["web"]);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_died_unnoticed_is_replaced_after_the_next_list() {
    let mut stage = Stage::new().await;
    stage.wants(&[&web()]).await;
    stage.calls();
    stage.told();
    stage.runtime.kill_sandboxes();
    stage.pass(31).await;
    assert_eq!(stage.calls(), ["stop web 30", "ended web", "stop sandbox", "sandbox 1", "start web"]);
    let told = stage.told();
    assert!(told.contains(&"SandboxChanged: Pod sandbox changed, it will be killed and re-created.".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn another_image_replaces_the_container() {
    let mut stage = Stage::new().await;
    stage.wants(&[&web()]).await;
    stage.calls();
    stage.told();
    stage.upsert(&pod("web", json!({"containers": [{"name": "web", "image": "j"}]}))).await;
    assert_eq!(stage.calls(), ["stop web 30", "ended web", "start web"]);
    assert_eq!(stage.told()[0], "Killing: Container web definition changed, will be restarted");
}

#[tokio::test(start_paused = true)]
async fn the_echo_of_our_own_status_changes_nothing() {
    let stage = Stage::new().await;
    let web = web();
    stage.host.fail("container_config", "CreateContainerConfigError", "no");
    stage.wants(&[&web]).await;
    let configs = || stage.host.state().calls.iter().filter(|call| *call == "config web").count();
    let before = configs();
    let mut object = web.object().clone();
    object.status = Some(stage.status(&web));
    object.metadata.resource_version = Some("2".into());
    stage.upsert(&Pod::new(Arc::new(object), Source::Api).unwrap()).await;
    assert_eq!(configs(), before, "the back-off goes on");
}

/// A runtime in which `web` has run for long.
fn running(clock: &Clock, hash: &str) -> FakeRuntime {
    let runtime = FakeRuntime::new(clock.clone());
    let sandbox = Sandbox { ips: vec!["10.0.0.2".parse().unwrap()], ..fake::sandbox("sandbox-1") };
    let container = Container {
        sandbox_id: "sandbox-1".into(),
        hash: hash.into(),
        state: ContainerState::Running { started_at: clock.now().wall },
        ..fake::container("web-1", "web")
    };
    runtime.put(uid(&web()), "web", sandbox, vec![container]);
    runtime
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_starts_touches_nothing_that_runs() {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let web = web();
    let runtime = running(&clock, &spec::container_hash(&web.spec().containers[0]));
    // Whoever runs already is not asked whether it may.
    let gate = refuse("OutOfcpu", "no");
    let mut stage = Stage::with(runtime, FakeHost::default(), clock, gate).await;
    stage.wants(&[&web]).await;
    stage.pass(600).await;
    assert!(stage.calls().is_empty());
    assert!(stage.told().is_empty());
    assert_eq!(stage.status(&web).phase.as_deref(), Some("Running"));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_wants_is_ended_once_every_source_was_heard() {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let runtime = running(&clock, "any");
    let stage = Stage::with(runtime, FakeHost::default(), clock, Arc::new(|_, _| Ok(()))).await;
    stage.pass(120).await;
    assert!(stage.calls().is_empty(), "the API server has not been heard");
    stage.wants(&[]).await;
    assert_eq!(stage.calls(), ["stop web 30", "ended web", "stop sandbox"]);
    assert_eq!(stage.host.state().calls, ["release"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_phase_is_final_is_never_started_again() {
    let stage = Stage::new().await;
    let mut object = web().object().clone();
    object.status = Some(PodStatus { phase: Some("Succeeded".into()), ..PodStatus::default() });
    stage.wants(&[&Pod::new(Arc::new(object), Source::Api).unwrap()]).await;
    assert!(stage.calls().is_empty());
    assert_eq!(stage.status(&web()).phase.as_deref(), Some("Succeeded"));
}

#[tokio::test(start_paused = true)]
async fn readiness_holds_over_a_restart_until_a_probe_disagrees() {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let spec = json!({"containers": [{"name": "web", "image": "i",
        "readinessProbe": {"exec": {"command": ["true"]}, "initialDelaySeconds": 30}}]});
    let mut object = pod("web", spec).object().clone();
    let status = json!({"phase": "Running", "containerStatuses": [{
        "name": "web", "image": "i", "imageID": "", "ready": true, "started": true, "restartCount": 0,
        "containerID": "fake://web-1", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    }]});
    object.status = Some(serde_json::from_value(status).unwrap());
    let web = Pod::new(Arc::new(object), Source::Api).unwrap();
    let runtime = running(&clock, &spec::container_hash(&web.spec().containers[0]));
    let stage = Stage::with(runtime, FakeHost::default(), clock, Arc::new(|_, _| Ok(()))).await;
    stage.wants(&[&web]).await;
    assert!(stage.container(&web, "web").ready);
}

#[tokio::test(start_paused = true)]
async fn a_back_off_goes_on_over_a_restart_and_is_not_told_again() {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let mut object = web().object().clone();
    let status = json!({"phase": "Running", "containerStatuses": [{
        "name": "web", "image": "i", "imageID": "", "ready": false, "started": false, "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff",
            "message": "back-off 1m20s restarting failed container=web pod=web_default(uid-web)"}},
        "lastState": {"terminated": {
            "exitCode": 1, "finishedAt": "2026-01-01T00:00:00Z", "containerID": "fake://web-1"}},
    }]});
    object.status = Some(serde_json::from_value(status).unwrap());
    let web = Pod::new(Arc::new(object), Source::Api).unwrap();
    let runtime = running(&clock, &spec::container_hash(&web.spec().containers[0]));
    runtime.exit("web", 1);
    let mut stage = Stage::with(runtime, FakeHost::default(), clock, Arc::new(|_, _| Ok(()))).await;
    stage.wants(&[&web]).await;
    stage.pass(75).await;
    assert!(stage.calls().is_empty() && stage.told().is_empty());
    assert_eq!(stage.state(&web, "web"), "waiting CrashLoopBackOff");
    stage.pass(5).await;
    assert_eq!(stage.calls(), ["start web"]);
}

/// A pod that asks for something that this kubelet does not build.
fn sandboxed() -> Pod {
    pod("web", json!({"runtimeClassName": "gvisor", "containers": [{"name": "web", "image": "i"}]}))
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_made_anew_after_a_reboot_is_asked_again_whether_it_is_built() {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let web = sandboxed();
    let runtime = running(&clock, &spec::container_hash(&web.spec().containers[0]));
    runtime.exit("web", 137);
    runtime.kill_sandboxes();
    let stage = Stage::with(runtime, FakeHost::default(), clock, Arc::new(|_, _| Ok(()))).await;
    stage.wants(&[&web]).await;
    stage.pass(60).await;
    assert!(stage.calls().is_empty());
    assert_eq!(stage.status(&web).phase.as_deref(), Some("Failed"));
}

#[tokio::test(start_paused = true)]
async fn what_runs_is_left_alone_and_never_made_anew_without_what_it_asks_for() {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let web = sandboxed();
    let runtime = running(&clock, &spec::container_hash(&web.spec().containers[0]));
    let mut stage = Stage::with(runtime, FakeHost::default(), clock, Arc::new(|_, _| Ok(()))).await;
    stage.wants(&[&web]).await;
    stage.pass(60).await;
    assert!(stage.calls().is_empty());
    assert_eq!(stage.state(&web, "web"), "running");
    stage.runtime.exit("web", 1);
    stage.pass(1).await;
    assert!(stage.told().iter().any(|event| event.contains("runtimeClassName")));
    stage.runtime.kill_sandboxes();
    stage.pass(120).await;
    assert!(!stage.calls().iter().any(|call| call.starts_with("sandbox") || call.starts_with("start")));
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_can_not_be_replaced_yet_is_not_told_as_changed() {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let web = web();
    let runtime = running(&clock, &spec::container_hash(&web.spec().containers[0]));
    runtime.exit("web", 137);
    runtime.kill_sandboxes();
    runtime.state().without_network = true;
    let mut stage = Stage::with(runtime, FakeHost::default(), clock, Arc::new(|_, _| Ok(()))).await;
    stage.wants(&[&web]).await;
    stage.pass(30).await;
    assert!(!stage.told().iter().any(|event| event.starts_with("SandboxChanged")));
    stage.runtime.state().without_network = false;
    stage.pass(10).await;
    assert_eq!(stage.told().iter().filter(|event| event.starts_with("SandboxChanged")).count(), 1);
}
