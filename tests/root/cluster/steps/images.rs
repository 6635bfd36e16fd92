//! Images that can't be had.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tests::{eventually, images};

use crate::cluster::stage::{POD_DEADLINE, Stage, container, script};

/// Nothing has this one; its registry answers.
const ABSENT: &str = "registry.k8s.io/e2e-test-images/absent:1";

pub(super) fn an_image_that_does_not_exist_backs_off(stage: &Stage<'_, '_>) {
    let mut main = script("true");
    main["image"] = json!(ABSENT);
    stage.create("absent", &json!({ "containers": [main], "restartPolicy": "Always" }));
    // The two alternate; a look may miss the shorter one, so the events must tell of both.
    let seen = RefCell::new(BTreeSet::new());
    eventually("ErrImagePull or ImagePullBackOff is shown", Duration::from_secs(60), || {
        let pod = stage.pod("absent")?;
        let waiting = &container(&pod, "main")["state"]["waiting"];
        let reason = waiting["reason"].as_str().unwrap_or_default().to_owned();
        seen.borrow_mut().insert(reason.clone());
        let backs_off = reason == "ImagePullBackOff"
            && waiting["message"]
                .as_str()
                .is_some_and(|message| message.starts_with(&format!("Back-off pulling image \"{ABSENT}\"")));
        if backs_off { Ok(()) } else { Err(waiting.to_string()) }
    });
    let strange: Vec<String> = seen
        .into_inner()
        .into_iter()
        .filter(|reason| !["", "ContainerCreating", "ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()))
        .collect();
    assert_eq!(strange, Vec::<String>::new());
    stage.wait_for_event("absent", "Pulling", &format!("Pulling image \"{ABSENT}\""));
    stage.wait_for_event("absent", "Failed", &format!("Failed to pull image \"{ABSENT}\": "));
    stage.wait_for_event("absent", "Failed", "Error: ErrImagePull");
    stage.wait_for_event("absent", "BackOff", &format!("Back-off pulling image \"{ABSENT}\""));
    stage.wait_for_event("absent", "Failed", "Error: ImagePullBackOff");
    let pulls = |events: Vec<crate::cluster::stage::Event>| {
        events.iter().filter(|event| event.reason == "Pulling").map(|event| event.count).sum::<u64>()
    };
    eventually("the image is asked for again", Duration::from_secs(60), || pulls(stage.events("absent")) >= 2);
}

pub(super) fn pull_policies_and_bad_names_are_told_apart(stage: &Stage<'_, '_>) {
    let pod = |image: &str, policy: &str| {
        let mut main = script("true");
        main["image"] = json!(image);
        main["imagePullPolicy"] = json!(policy);
        json!({ "containers": [main] })
    };
    stage.create("never", &pod(ABSENT, "Never"));
    stage.create("bad-name", &pod("NOT/a:valid/name", "IfNotPresent"));
    stage.create("always", &pod(images::upstream::BUSYBOX, "Always"));
    stage.wait_until_succeeded("always");
    stage.wait_for_event(
        "always",
        "Pulled",
        &format!("Successfully pulled image \"{}\" in ", images::upstream::BUSYBOX),
    );
    stage.create("present", &pod(images::upstream::BUSYBOX, "IfNotPresent"));
    stage.wait_until_succeeded("present");
    stage.wait_for_event(
        "present",
        "Pulled",
        &format!(
            "Container image \"{}\" already present on machine and can be accessed by the pod",
            images::upstream::BUSYBOX
        ),
    );
    for (name, reason, message) in [
        (
            "never",
            "ErrImageNeverPull",
            format!("Container image \"{ABSENT}\" is not present with pull policy of Never"),
        ),
        ("bad-name", "InvalidImageName", "Failed to apply default image tag \"NOT/a:valid/name\": ".to_owned()),
    ] {
        let shown = stage
            .wait_for(name, reason, POD_DEADLINE, |pod| container(pod, "main")["state"]["waiting"]["reason"] == reason);
        let text = container(&shown, "main")["state"]["waiting"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(text.starts_with(&message), "{text}");
    }
}
