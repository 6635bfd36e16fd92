//! The status of a node, field by field.

use super::*;
use crate::fakes::api::strategic_merge;
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

pub(in crate::node) fn facts() -> Facts {
    let resources = |cpu: &str| {
        [("cpu", cpu), ("memory", "8Gi"), ("pods", "110"), ("ephemeral-storage", "1Gi"), ("hugepages-2Mi", "0")]
            .map(|(name, value)| (name.to_owned(), Quantity(value.to_owned())))
            .into()
    };
    Facts {
        name: "n".to_owned(),
        hostname: "n".to_owned(),
        host_ips: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        cpus: 4,
        boot_id: "boot-1".to_owned(),
        swap_bytes: 1024,
        capacity: resources("4"),
        allocatable: resources("3900m"),
        ..Facts::default()
    }
}

pub(in crate::node) fn condition(kind: &str, status: bool) -> proto::RuntimeCondition {
    proto::RuntimeCondition { r#type: kind.to_owned(), status, reason: "Why".to_owned(), message: "so".to_owned() }
}

/// A runtime that is well, as of now.
pub(in crate::node) fn well() -> Health {
    let handler = |name: &str| proto::RuntimeHandler { name: name.to_owned(), ..proto::RuntimeHandler::default() };
    let now = Instant::now();
    Health {
        status: Some(RuntimeStatus {
            conditions: vec![condition("RuntimeReady", true), condition("NetworkReady", true)],
            handlers: vec![handler("runc"), handler("")],
            supplemental_groups_policy: true,
        }),
        known: None,
        error: None,
        last_ready: Some(now),
        last_relist: Some(now),
        blocked_by: None,
    }
}

fn observed<'a>(facts: &'a Facts, health: &'a Health) -> Observed<'a> {
    Observed {
        facts,
        kubelet_version: "v1.36.3",
        port: 10250,
        max_images: Some(50),
        external_cloud: false,
        runtime: None,
        health,
        images: None,
        pressures: Pressures::default(),
    }
}

fn at(wall: &str) -> Now {
    Now { wall: wall.parse().unwrap(), mono: Instant::now() }
}

const EARLY: &str = "2026-01-01T00:00:00Z";
const LATE: &str = "2026-01-01T00:01:00Z";

fn find<'a>(status: &'a api::NodeStatus, kind: &str) -> &'a api::NodeCondition {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind).unwrap()
}

fn reasons(told: &[Told]) -> Vec<&str> {
    told.iter().map(|told| told.reason).collect()
}

#[test]
fn a_new_node_has_four_conditions_with_ready_last() {
    let (facts, health) = (facts(), well());
    let (status, told) = status(&api::NodeStatus::default(), &observed(&facts, &health), at(EARLY));
    let kinds: Vec<&str> = status.conditions.iter().flatten().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(kinds, ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]);
    let ready = find(&status, "Ready");
    assert_eq!(ready.reason.as_deref(), Some("KubeletReady"));
    assert_eq!(ready.message.as_deref(), Some("kubelet is posting ready status"));
    assert_eq!(reasons(&told), ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"]);
    assert_eq!(told[0].message, "Node n status is now: NodeHasSufficientMemory");
    let addresses: Vec<String> =
        status.addresses.iter().flatten().map(|one| format!("{}={}", one.type_, one.address)).collect();
    assert_eq!(addresses, ["InternalIP=10.0.0.1", "InternalIP=fd00::1", "Hostname=n"]);
    let handlers: Vec<_> =
        status.runtime_handlers.iter().flatten().map(|handler| handler.name.clone().unwrap()).collect();
    assert_eq!(handlers, ["", "runc"]);
    let info = status.node_info.unwrap();
    assert_eq!((info.container_runtime_version.as_str(), info.kube_proxy_version.as_str()), ("://Unknown", ""));
    assert_eq!(info.swap.unwrap().capacity, Some(1024));
}

#[test]
fn a_heartbeat_moves_each_time_and_a_transition_only_with_the_status() {
    let (facts, health) = (facts(), well());
    let mut observed = observed(&facts, &health);
    let (first, _) = status(&api::NodeStatus::default(), &observed, at(EARLY));
    let (second, told) = status(&first, &observed, at(LATE));
    assert_eq!((resembles(&first, &second), told.len()), (true, 0));
    let time = |text: &str| Some(text.parse::<Timestamp>().unwrap());
    for kind in ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"] {
        let condition = find(&second, kind);
        assert_eq!(condition.last_heartbeat_time.as_ref().map(|time| time.0), time(LATE), "{kind}");
        assert_eq!(condition.last_transition_time.as_ref().map(|time| time.0), time(EARLY), "{kind}");
    }
    observed.pressures = Pressures { memory: true, disk: true, pid: true };
    let (third, told) = status(&second, &observed, at(LATE));
    assert!(!resembles(&second, &third));
    assert_eq!(reasons(&told), ["NodeHasInsufficientMemory", "NodeHasDiskPressure", "NodeHasInsufficientPID"]);
    let disk = find(&third, "DiskPressure");
    assert_eq!(
        (disk.reason.as_deref(), disk.message.as_deref()),
        (Some("KubeletHasDiskPressure"), Some("kubelet has disk pressure"))
    );
    assert_eq!(disk.last_transition_time.as_ref().map(|time| time.0), time(LATE));
    observed.pressures = Pressures::default();
    let (_, told) = status(&third, &observed, at(LATE));
    assert_eq!(reasons(&told), ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"]);
}

#[track_caller]
fn check_ready(health: &Health, expected: &str) {
    let facts = facts();
    let was = status(&api::NodeStatus::default(), &observed(&facts, &well()), at(EARLY)).0;
    let (status, told) = status(&was, &observed(&facts, health), at(LATE));
    let ready = find(&status, "Ready");
    if expected.is_empty() {
        return assert_eq!((ready.status.as_str(), told.len()), ("True", 0), "{ready:?}");
    }
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("KubeletNotReady")));
    assert_eq!(ready.message.as_deref(), Some(expected));
    assert_eq!(reasons(&told), ["NodeNotReady"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_ready_says_why() {
    check_ready(&well(), "");
    check_ready(
        &Health::default(),
        "[container runtime status check may not have completed yet, PLEG is not healthy: pleg has yet to be \
         successful, network state unknown]",
    );
    let mut network = well();
    network.status.as_mut().unwrap().conditions[1] = condition("NetworkReady", false);
    check_ready(&network, "container runtime network not ready: NetworkReady=false reason:Why message:so");
    let mut runtime = well();
    runtime.status.as_mut().unwrap().conditions[0] = condition("RuntimeReady", false);
    check_ready(&runtime, "container runtime not ready: RuntimeReady=false reason:Why message:so");
    let mut nothing = well();
    nothing.status.as_mut().unwrap().conditions.clear();
    check_ready(&nothing, "[container runtime not ready: <nil>, container runtime network not ready: <nil>]");

    let began = well();
    let later = |seconds| {
        let health = began.clone();
        async move {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            health
        }
    };
    let silent = Health { status: None, ..later(29).await };
    check_ready(&silent, "");
    let silent = Health { status: None, last_relist: well().last_relist, ..later(1).await };
    check_ready(&silent, "container runtime is down");
    tokio::time::advance(Duration::from_secs(151)).await;
    let hanging = Health { last_relist: began.last_relist, blocked_by: None, ..well() };
    check_ready(&hanging, "PLEG is not healthy: pleg was last seen active 3m1s ago; threshold is 3m0s");
    let blocked = Health { blocked_by: Some("ContainerStatus of default/web".to_owned()), ..hanging };
    check_ready(
        &blocked,
        "PLEG is not healthy: pleg was last seen active 3m1s ago; threshold is 3m0s, blocked by ContainerStatus of \
         default/web",
    );
    // Something hangs, and the others are listed nevertheless.
    check_ready(&Health { blocked_by: Some("ExecSync of default/web".to_owned()), ..well() }, "");
}

#[test]
fn a_node_without_a_resource_is_not_ready() {
    let mut facts = facts();
    facts.capacity.remove("memory");
    facts.capacity.remove("pods");
    let health = well();
    let (status, _) = status(&api::NodeStatus::default(), &observed(&facts, &health), at(EARLY));
    let message = find(&status, "Ready").message.clone().unwrap();
    assert_eq!(message, "missing node capacity for resources: memory, pods");
}

#[test]
fn what_others_put_into_a_status_stays() {
    let (facts, health) = (facts(), well());
    let quantity = |text: &str| Quantity(text.to_owned());
    let old = api::NodeStatus {
        capacity: Some(
            [("example.org/fpga".to_owned(), quantity("2")), ("hugepages-1Gi".to_owned(), quantity("0"))].into(),
        ),
        allocatable: Some([("gone.org/x".to_owned(), quantity("1"))].into()),
        conditions: Some(vec![api::NodeCondition { type_: "NetworkUnavailable".to_owned(), ..Default::default() }]),
        volumes_in_use: Some(vec!["v".to_owned()]),
        ..Default::default()
    };
    let (status, _) = status(&old, &observed(&facts, &health), at(EARLY));
    let capacity = status.capacity.unwrap();
    assert_eq!(
        capacity.keys().collect::<Vec<_>>(),
        ["cpu", "ephemeral-storage", "example.org/fpga", "hugepages-2Mi", "memory", "pods"]
    );
    let allocatable = status.allocatable.unwrap();
    assert_eq!(allocatable.keys().collect::<Vec<_>>(), capacity.keys().collect::<Vec<_>>());
    assert_eq!((allocatable["cpu"].0.as_str(), allocatable["example.org/fpga"].0.as_str()), ("3900m", "2"));
    assert_eq!(status.conditions.unwrap()[0].type_, "NetworkUnavailable");
    assert_eq!(status.volumes_in_use, old.volumes_in_use);
}

#[test]
fn a_cloud_sets_the_addresses_where_there_is_one() {
    let (facts, health) = (facts(), well());
    let observed = Observed { external_cloud: true, ..observed(&facts, &health) };
    let (fresh, _) = status(&api::NodeStatus::default(), &observed, at(EARLY));
    assert_eq!(fresh.addresses.as_ref().unwrap().len(), 3);
    let cloud = vec![api::NodeAddress { type_: "ExternalIP".to_owned(), address: "192.0.2.1".to_owned() }];
    let old = api::NodeStatus { addresses: Some(cloud.clone()), ..Default::default() };
    assert_eq!(status(&old, &observed, at(EARLY)).0.addresses, Some(cloud));
}

#[test]
fn a_reboot_is_told() {
    let (facts, health) = (facts(), well());
    let with = |boot_id: &str| api::NodeStatus {
        node_info: Some(api::NodeSystemInfo { boot_id: boot_id.to_owned(), ..Default::default() }),
        ..Default::default()
    };
    for (before, is_told) in [("", false), ("boot-1", false), ("boot-0", true)] {
        let (_, told) = status(&with(before), &observed(&facts, &health), at(EARLY));
        let rebooted = Told {
            kind: Kind::Warning,
            reason: "Rebooted",
            message: "Node n has been rebooted, boot id: boot-1".to_owned(),
        };
        assert_eq!(told.contains(&rebooted), is_told, "{before:?}");
    }
}

#[test]
fn the_largest_images_are_told_with_their_first_names() {
    let (facts, health) = (facts(), well());
    let image = |id: &str, size, digests: usize, tags: usize| proto::Image {
        id: id.to_owned(),
        size,
        repo_digests: (0..digests).map(|number| format!("{id}@{number}")).collect(),
        repo_tags: (0..tags).map(|number| format!("{id}:{number}")).collect(),
        ..Default::default()
    };
    let all = [image("a", 1, 1, 1), image("b", 5, 4, 4), image("c", 5, 0, 1), image("d", 2, 0, 0)];
    let observed = Observed { max_images: Some(3), images: Some(&all), ..observed(&facts, &health) };
    let (status, _) = status(&api::NodeStatus::default(), &observed, at(EARLY));
    let names: Vec<Vec<String>> = status.images.unwrap().into_iter().map(|image| image.names.unwrap()).collect();
    assert_eq!(names, [vec!["b@0", "b@1", "b@2", "b@3", "b:0"], vec!["c:0"], vec![]]);
}

#[test]
fn a_patch_makes_the_new_status_of_the_old_and_says_no_more() {
    let (facts, health) = (facts(), well());
    let (old, _) = status(&api::NodeStatus::default(), &observed(&facts, &health), at(EARLY));
    let mut changed = facts.clone();
    changed.host_ips.pop();
    changed.swap_bytes = 0;
    changed.capacity.remove("hugepages-2Mi");
    changed.allocatable.remove("hugepages-2Mi");
    let (new, _) = status(&old, &observed(&changed, &health), at(LATE));
    let patch = patch(&old, &new);
    let fields: Vec<&String> = patch["status"].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["addresses", "allocatable", "capacity", "conditions", "nodeInfo"]);
    assert_eq!(patch["status"]["capacity"], serde_json::json!({"hugepages-2Mi": null}));
    assert_eq!(patch["status"]["nodeInfo"], serde_json::json!({"swap": null}));
    let mut node = serde_json::json!({ "status": old });
    strategic_merge(&mut node, &patch);
    let patched: api::NodeStatus = serde_json::from_value(node["status"].clone()).unwrap();
    assert!(resembles(&patched, &new), "{patched:?}\n{new:?}");
}
