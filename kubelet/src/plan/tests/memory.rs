//! Back-offs, failures and deadlines.

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
    assert_eq!(planned(&what, "sandbox", None, failed_to_start(7)), "start db; web waits: ErrImagePull; again in 7s");
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
