//! How pods end.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_ends_to_the_end() {
    let mut stage = Stage::new().await;
    let web = web();
    stage.wants(&[&web]).await;
    stage.calls();
    stage.told();
    stage.host.state().calls.clear();
    stage.upsert(&deleted(&web, 30)).await;
    assert_eq!(stage.calls(), ["stop web 30", "ended web", "stop sandbox"]);
    assert_eq!(stage.told(), ["Killing: Stopping container web"]);
    assert_eq!(stage.host.state().calls, ["release"]);
    assert_eq!(stage.state(&web, "web"), "terminated 143");
    stage.gone(&web).await;
    assert!(stage.table.get(uid(&web)).is_none());
}

#[tokio::test(start_paused = true)]
async fn sidecars_end_after_the_others_with_what_is_left_of_the_grace_period() {
    let stage = Stage::new().await;
    let pod = pod(
        "web",
        json!({
            "initContainers": [{"name": "a", "restartPolicy": "Always"}, {"name": "b", "restartPolicy": "Always"}],
            "containers": [{"name": "web"}],
        }),
    );
    stage.wants(&[&pod]).await;
    stage.calls();
    stage.runtime.state().stop_takes = Duration::from_secs(12);
    stage.upsert(&deleted(&pod, 30)).await;
    stage.pass(60).await;
    assert_eq!(
        stage.calls(),
        ["stop web 30", "ended web", "stop b 18", "ended b", "stop a 6", "ended a", "stop sandbox"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_forced_deletion_cuts_the_grace_period_short() {
    let mut stage = Stage::new().await;
    let web = web();
    stage.wants(&[&web]).await;
    stage.calls();
    stage.told();
    stage.runtime.state().stop_takes = Duration::from_secs(1000);
    stage.upsert(&deleted(&web, 600)).await;
    stage.pass(5).await;
    assert_eq!(stage.calls(), ["stop web 600"]);
    stage.upsert(&deleted(&web, 0)).await;
    stage.pass(3).await;
    assert_eq!(stage.calls(), ["stop web 2", "ended web", "stop sandbox"]);
    assert_eq!(stage.told(), ["Killing: Stopping container web"], "told once");
}

/// Whether what the pod had of the machine was given back.
fn is_released(stage: &Stage) -> bool {
    stage.host.state().calls.last().is_some_and(|call| call == "release")
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_is_being_made_is_stopped_before_its_pod_is_given_up() {
    let stage = Stage::new().await;
    stage.runtime.state().sandbox_takes = Duration::from_secs(5);
    let web = web();
    stage.wants(&[&web]).await;
    stage.upsert(&deleted(&web, 30)).await;
    assert!(!is_released(&stage));
    stage.pass(5).await;
    assert_eq!(stage.calls(), ["sandbox 0", "stop sandbox"]);
    assert!(is_released(&stage));
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_volumes_hang_beside_its_sandbox_can_be_deleted() {
    let stage = Stage::new().await;
    stage.host.state().mount_takes = Duration::from_secs(1000);
    let web = web();
    stage.wants(&[&web]).await;
    stage.pass(3).await;
    stage.upsert(&deleted(&web, 30)).await;
    stage.pass(3).await;
    assert_eq!(stage.calls(), ["sandbox 0", "stop sandbox"]);
    assert!(is_released(&stage));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_does_not_wait_long_for_a_sandbox_that_is_being_made() {
    let stage = Stage::new().await;
    stage.runtime.state().sandbox_takes = Duration::from_secs(100);
    let web = web();
    stage.wants(&[&web]).await;
    stage.upsert(&deleted(&web, 30)).await;
    stage.pass(15).await;
    assert!(is_released(&stage));
    assert!(stage.calls().is_empty());
    stage.pass(90).await;
    assert_eq!(stage.calls(), ["sandbox 0", "stop sandbox"], "it comes late, and is found");
    assert!(is_released(&stage));
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_comes_when_its_pod_is_gone_is_ended_at_once() {
    let stage = Stage::new().await;
    stage.runtime.state().sandbox_takes = Duration::from_secs(100);
    let web = web();
    stage.wants(&[&web]).await;
    stage.upsert(&deleted(&web, 30)).await;
    stage.pass(15).await;
    stage.gone(&web).await;
    assert!(stage.table.get(uid(&web)).is_none());
    // 18 s have passed; the next list would come after two minutes.
    stage.pass(84).await;
    assert_eq!(stage.calls(), ["sandbox 0", "stop sandbox"]);
}

#[tokio::test(start_paused = true)]
async fn what_happens_to_a_pod_that_is_ending_is_told() {
    let stage = Stage::new().await;
    let pod = pod("web", json!({"containers": [{"name": "web"}, {"name": "db"}]}));
    stage.wants(&[&pod]).await;
    stage.runtime.state().stop_takes = Duration::from_secs(100);
    stage.upsert(&deleted(&pod, 600)).await;
    stage.runtime.exit("db", 3);
    stage.pass(1).await;
    assert_eq!((stage.state(&pod, "web").as_str(), stage.state(&pod, "db").as_str()), ("running", "terminated 3"));
    assert!(!stage.container(&pod, "db").ready);
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_says_it_stopped_what_still_runs_is_asked_again_now_and_then() {
    let stage = Stage::new().await;
    let web = web();
    stage.wants(&[&web]).await;
    stage.calls();
    stage.runtime.state().deaf = true;
    stage.upsert(&deleted(&web, 0)).await;
    stage.pass(60).await;
    let asked = stage.calls().iter().filter(|call| *call == "stop web 2").count();
    assert!((10..40).contains(&asked), "asked {asked} times");
    stage.runtime.state().deaf = false;
    stage.pass(3).await;
    assert!(is_released(&stage));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_does_not_wait_for_a_back_off() {
    let stage = Stage::new().await;
    let web = web();
    stage.wants(&[&web]).await;
    for _ in 0..2 {
        stage.runtime.exit("web", 1);
        stage.pass(1).await;
    }
    stage.calls();
    stage.upsert(&deleted(&web, 30)).await;
    assert_eq!(stage.calls(), ["stop sandbox"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ran_to_its_end_is_taken_down_and_its_containers_stay() {
    let stage = Stage::new().await;
    let job = pod("job", json!({"restartPolicy": "Never", "containers": [{"name": "web"}]}));
    stage.wants(&[&job]).await;
    stage.calls();
    stage.runtime.exit("web", 0);
    stage.pass(1).await;
    assert_eq!(stage.calls(), ["stop sandbox"]);
    assert_eq!(stage.status(&job).phase.as_deref(), Some("Succeeded"));
    assert_eq!(stage.state(&job, "web"), "terminated 0");
    assert_eq!(stage.host.state().calls.last().map(String::as_str), Some("release"));
    assert!(!stage.table.get(uid(&job)).unwrap().active);
}

#[tokio::test(start_paused = true)]
async fn an_active_deadline_ends_a_pod() {
    let mut stage = Stage::new().await;
    let spec = json!({"activeDeadlineSeconds": 60, "containers": [{"name": "web"}]});
    let job = pod("job", spec);
    stage.wants(&[&job]).await;
    stage.told();
    stage.pass(58).await;
    assert_eq!(stage.runtime.running(), ["web"]);
    stage.pass(3).await;
    assert!(stage.runtime.running().is_empty());
    let status = stage.status(&job);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_taken_down_is_tried_again() {
    let mut stage = Stage::new().await;
    let web = web();
    stage.wants(&[&web]).await;
    stage.told();
    for _ in 0..3 {
        stage.host.fail("release", "FailedUnmount", "device busy");
    }
    stage.upsert(&deleted(&web, 30)).await;
    stage.pass(10).await;
    let releases = stage.host.state().calls.iter().filter(|call| *call == "release").count();
    assert_eq!(releases, 4);
    assert_eq!(stage.told(), ["Killing: Stopping container web", "FailedUnmount: device busy"], "told once");
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_does_not_stop_a_container_is_asked_again() {
    let stage = Stage::new().await;
    let web = web();
    stage.wants(&[&web]).await;
    stage.calls();
    stage.runtime.fail("StopContainer", "shim is gone");
    stage.upsert(&deleted(&web, 30)).await;
    stage.pass(5).await;
    assert!(stage.runtime.running().is_empty());
    assert_eq!(stage.runtime.ready_sandboxes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_waits_for_the_one_before_it_of_the_same_name() {
    let stage = Stage::new().await;
    stage.wants(&[]).await;
    let spec = json!({"containers": [{"name": "web"}]});
    let old = object("web", Source::File, &spec, &json!({"uid": "old"}));
    let new = object("web", Source::File, &spec, &json!({"uid": "new"}));
    let set = |pods: Vec<Pod>| Update::Set { source: Source::File, pods };
    stage.updates.send(set(vec![old])).await.unwrap();
    stage.pass(1).await;
    stage.runtime.state().stop_takes = Duration::from_secs(10);
    stage.updates.send(set(vec![new.clone()])).await.unwrap();
    stage.pass(5).await;
    assert_eq!(stage.calls(), ["sandbox 0", "start web", "stop web 30"]);
    stage.pass(10).await;
    assert_eq!(stage.calls(), ["ended web", "stop sandbox", "sandbox 0", "start web"]);
    assert_eq!(stage.status(&new).phase.as_deref(), Some("Running"));
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_whose_file_comes_back_while_it_ends_runs_again() {
    let stage = Stage::new().await;
    stage.wants(&[]).await;
    let web = object("web", Source::File, &json!({"containers": [{"name": "web"}]}), &json!({}));
    let set = |pods: Vec<Pod>| Update::Set { source: Source::File, pods };
    stage.updates.send(set(vec![web.clone()])).await.unwrap();
    stage.pass(1).await;
    stage.runtime.state().stop_takes = Duration::from_secs(10);
    stage.updates.send(set(vec![])).await.unwrap();
    stage.pass(5).await;
    stage.updates.send(set(vec![web.clone()])).await.unwrap();
    stage.pass(10).await;
    assert_eq!(
        stage.calls(),
        [
            "sandbox 0",
            "start web",
            "stop web 30",
            "ended web",
            "stop sandbox",
            "stop sandbox",
            "sandbox 1",
            "start web"
        ]
    );
    assert_eq!(stage.status(&web).phase.as_deref(), Some("Running"));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_comes_back_and_goes_again_while_its_pod_ends_runs_nothing() {
    let stage = Stage::new().await;
    stage.wants(&[]).await;
    let web = object("web", Source::File, &json!({"containers": [{"name": "web"}]}), &json!({}));
    let set = |pods: Vec<Pod>| Update::Set { source: Source::File, pods };
    stage.updates.send(set(vec![web.clone()])).await.unwrap();
    stage.pass(1).await;
    stage.runtime.state().stop_takes = Duration::from_secs(10);
    for pods in [vec![], vec![web.clone()], vec![]] {
        stage.updates.send(set(pods)).await.unwrap();
    }
    stage.pass(60).await;
    assert!(stage.runtime.running().is_empty());
    assert!(stage.table.get(uid(&web)).is_none());
}
