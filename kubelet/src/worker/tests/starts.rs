//! How pods come to run.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_pod_gets_a_sandbox_and_its_container() {
    let mut stage = Stage::new().await;
    let web = web();
    stage.wants(&[&web]).await;
    assert_eq!(stage.calls(), ["sandbox 0", "start web"]);
    assert_eq!(stage.told(), ["Created: Container created", "Started: Container started"]);
    let status = stage.status(&web);
    assert_eq!((status.phase.as_deref(), status.pod_ip.as_deref()), (Some("Running"), Some("10.0.0.2")));
    assert_eq!(stage.container(&web, "web").container_id.as_deref(), Some("fake://web-2"));
    assert!(stage.container(&web, "web").ready);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_done_for_a_pod_that_runs() {
    let stage = Stage::new().await;
    stage.wants(&[&web()]).await;
    stage.calls();
    stage.pass(3600).await;
    assert!(stage.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_to_their_end_one_after_the_other() {
    let stage = Stage::new().await;
    let pod = pod(
        "job",
        json!({
            "initContainers": [{"name": "a"}, {"name": "s", "restartPolicy": "Always"}, {"name": "b"}],
            "containers": [{"name": "web"}],
        }),
    );
    stage.wants(&[&pod]).await;
    assert_eq!(stage.calls(), ["sandbox 0", "start a"]);
    assert_eq!(stage.state(&pod, "web"), "waiting PodInitializing");
    stage.runtime.exit("a", 0);
    stage.pass(1).await;
    assert_eq!(stage.calls(), ["start s", "start b"]);
    stage.runtime.exit("b", 0);
    stage.pass(1).await;
    assert_eq!(stage.calls(), ["start web"]);
    assert_eq!(stage.status(&pod).phase.as_deref(), Some("Running"));
}

#[tokio::test(start_paused = true)]
async fn images_are_fetched_and_volumes_mounted_while_the_sandbox_is_made() {
    let stage = Stage::new().await;
    stage.host.state().image_takes = Duration::from_secs(5);
    stage.runtime.state().sandbox_takes = Duration::from_secs(5);
    let web = web();
    stage.wants(&[&web]).await;
    stage.pass(4).await;
    stage.pass(1).await;
    assert_eq!(stage.calls(), ["sandbox 0", "start web"], "both took five seconds together");
    assert_eq!(stage.host.state().calls, ["sandbox_config", "mount", "image web", "config web"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_refused_runs_nothing_and_says_why() {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let runtime = FakeRuntime::new(clock.clone());
    let gate = refuse("OutOfcpu", "Node didn't have enough resource: cpu");
    let mut stage = Stage::with(runtime, FakeHost::default(), clock, gate).await;
    let web = web();
    stage.wants(&[&web]).await;
    assert!(stage.calls().is_empty());
    assert_eq!(stage.told(), ["OutOfcpu: Node didn't have enough resource: cpu"]);
    let status = stage.status(&web);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("OutOfcpu")));
    assert!(!stage.table.get(uid(&web)).unwrap().active, "it uses nothing of the node");
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_can_not_be_made_is_told_and_tried_again() {
    let mut stage = Stage::new().await;
    stage.runtime.fail("RunPodSandbox", "no network");
    let web = web();
    stage.wants(&[&web]).await;
    assert_eq!(stage.calls(), ["sandbox 0"]);
    let told = "FailedCreatePodSandBox: Failed to create pod sandbox: rpc error: code = Unknown desc = no network";
    assert_eq!(stage.told(), [told]);
    assert_eq!(stage.state(&web, "web"), "waiting ContainerCreating");
    stage.pass(8).await;
    assert!(stage.calls().is_empty(), "not before ten seconds");
    stage.pass(7).await;
    assert_eq!(stage.calls(), ["sandbox 0", "start web"]);
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_can_not_be_mounted_holds_the_containers_up() {
    let mut stage = Stage::new().await;
    stage.host.fail("mount", "FailedMount", "MountVolume.SetUp failed for volume \"v\" : secret \"s\" not found");
    let web = web();
    stage.wants(&[&web]).await;
    let told = stage.told();
    assert_eq!(told[0], "FailedMount: MountVolume.SetUp failed for volume \"v\" : secret \"s\" not found");
    assert_eq!(stage.calls(), ["sandbox 0", "start web"], "the second try half a second later succeeded");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_can_not_be_made_says_why_and_is_tried_again() {
    let mut stage = Stage::new().await;
    stage.host.fail("container_config", "CreateContainerConfigError", "configmap \"c\" not found");
    let web = web();
    stage.wants(&[&web]).await;
    assert_eq!(stage.told(), ["Failed: Error: configmap \"c\" not found"]);
    assert_eq!(stage.state(&web, "web"), "waiting CreateContainerConfigError");
    stage.pass(15).await;
    assert_eq!(stage.calls(), ["sandbox 0", "start web"]);
    assert_eq!(stage.state(&web, "web"), "running");
}

#[tokio::test(start_paused = true)]
async fn what_a_failure_waits_for_ends_the_wait_when_it_comes() {
    let stage = Stage::new().await;
    stage.host.fail("container_config", "CreateContainerConfigError", "configmap \"c\" not found");
    let web = web();
    stage.wants(&[&web]).await;
    stage.wake.wake(web.uid());
    stage.pass(1).await;
    assert_eq!(stage.state(&web, "web"), "running");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_can_not_be_started_is_made_again() {
    let mut stage = Stage::new().await;
    stage.runtime.fail("StartContainer", "exec format error");
    let web = web();
    stage.wants(&[&web]).await;
    let told = ["Created: Container created", "Failed: Error: exec format error"];
    assert_eq!(stage.told(), told);
    assert_eq!(stage.state(&web, "web"), "waiting RunContainerError");
    stage.pass(15).await;
    assert_eq!(stage.state(&web, "web"), "running");
}

#[tokio::test(start_paused = true)]
async fn without_a_network_only_pods_of_the_host_run() {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let runtime = FakeRuntime::new(clock.clone());
    runtime.state().without_network = true;
    let mut stage = Stage::with(runtime, FakeHost::default(), clock, Arc::new(|_, _| Ok(()))).await;
    let web = web();
    let host = pod("host", json!({"hostNetwork": true, "containers": [{"name": "host"}]}));
    stage.wants(&[&web, &host]).await;
    assert!(stage.calls().contains(&"start host".to_owned()));
    assert!(!stage.runtime.running().contains(&"web".to_owned()));
    let told = stage.told();
    let why = "NetworkNotReady: network is not ready: container runtime network not ready: \
               NetworkReady=false reason: message:";
    assert!(told.iter().any(|event| event == why), "{told:?}");
    stage.runtime.state().without_network = false;
    stage.pass(2).await;
    assert!(stage.runtime.running().contains(&"web".to_owned()), "the network's coming wakes the pod");
}

#[tokio::test(start_paused = true)]
async fn while_the_runtime_is_away_pods_wait() {
    let stage = Stage::new().await;
    stage.runtime.state().down = true;
    let web = web();
    stage.wants(&[&web]).await;
    stage.pass(60).await;
    assert!(stage.calls().is_empty());
    stage.runtime.state().down = false;
    stage.pass(2).await;
    assert_eq!(stage.calls(), ["sandbox 0", "start web"]);
}

#[tokio::test(start_paused = true)]
async fn many_changes_while_a_worker_works_are_one() {
    let stage = Stage::new().await;
    stage.runtime.state().sandbox_takes = Duration::from_secs(10);
    let web = web();
    stage.wants(&[&web]).await;
    for _ in 0..100 {
        stage.wake.wake(web.uid());
    }
    stage.pass(20).await;
    assert_eq!(stage.calls(), ["sandbox 0", "start web"]);
    let configs = stage.host.state().calls.iter().filter(|call| *call == "config web").count();
    assert_eq!(configs, 1);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_was_fetched_for_an_older_spec_is_not_started() {
    let stage = Stage::new().await;
    for _ in 0..4 {
        stage.host.fail("mount", "FailedMount", "secret \"s\" not found");
    }
    stage.wants(&[&web()]).await;
    let other = pod("web", json!({"containers": [{"name": "web", "image": "j"}]}));
    stage.upsert(&other).await;
    stage.pass(30).await;
    assert_eq!(stage.calls(), ["sandbox 0", "start web"]);
    assert_eq!(stage.container(&other, "web").image, "j");
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_failed_while_volumes_were_waited_for_is_made_again() {
    let stage = Stage::new().await;
    stage.host.fail("image", "ErrImagePull", "not found");
    for _ in 0..4 {
        stage.host.fail("mount", "FailedMount", "secret \"s\" not found");
    }
    stage.wants(&[&web()]).await;
    stage.pass(8).await;
    assert_eq!(stage.calls(), ["sandbox 0", "start web"]);
}
