//! How a node is registered, and what is put right on one that exists.

use super::*;
use crate::fakes::api::FakeApi;
use crate::node::status::tests::facts;
use crate::node::tests::World;

fn texts(pairs: &[(&str, &str)]) -> Texts {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn quantities(pairs: &[(&str, &str)]) -> Option<Resources> {
    Some(pairs.iter().map(|(name, value)| ((*name).to_owned(), Quantity((*value).to_owned()))).collect())
}

fn of_this_machine() -> Node {
    let facts = facts();
    let status = NodeStatus {
        capacity: Some(facts.capacity.clone()),
        allocatable: Some(facts.allocatable.clone()),
        ..NodeStatus::default()
    };
    initial(&World::new().config, &facts, status)
}

#[tokio::test]
async fn a_node_is_registered_with_labels_taints_and_annotations() {
    let mut config = World::new().config;
    config.node_labels = texts(&[("zone", "a"), ("kubernetes.io/hostname", "other")]);
    let taint = Taint { key: "own".to_owned(), effect: "NoExecute".to_owned(), ..Taint::default() };
    config.register_with_taints = vec![taint.clone()];
    config.provider_id = "p://1".to_owned();
    let node = initial(&config, &facts(), NodeStatus::default());
    let labels = node.metadata.labels.unwrap();
    let expected = [
        ("beta.kubernetes.io/arch", ARCHITECTURE),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", ARCHITECTURE),
        ("kubernetes.io/hostname", "other"),
        ("kubernetes.io/os", "linux"),
        ("zone", "a"),
    ];
    assert_eq!(labels, texts(&expected));
    assert_eq!(node.metadata.annotations.unwrap(), texts(&[ATTACHED_BY_CONTROLLER]));
    let spec = node.spec.unwrap();
    assert_eq!((spec.provider_id.as_deref(), spec.taints), (Some("p://1"), Some(vec![taint])));
}

#[tokio::test]
async fn a_node_of_a_cloud_waits_for_its_controller() {
    let mut config = World::new().config;
    config.external_cloud = true;
    let node = initial(&config, &facts(), NodeStatus::default());
    let taint = &node.spec.unwrap().taints.unwrap()[0];
    assert_eq!(taint.key, "node.cloudprovider.kubernetes.io/uninitialized");
    assert_eq!(node.metadata.annotations.unwrap()[PROVIDED_IP], "10.0.0.1");
}

/// What an existing node with such labels and capacity is given.
#[track_caller]
fn check(labels: &[(&str, &str)], capacity: &[(&str, &str)], expected: Option<Value>) {
    let initial = of_this_machine();
    let mut all = initial.metadata.labels.clone().unwrap();
    all.extend(texts(labels));
    let mut existing = initial.clone();
    existing.metadata.labels = Some(all);
    let status = existing.status.as_mut().unwrap();
    let merged = |of: &Option<Resources>| {
        of.iter()
            .chain(&quantities(capacity))
            .flatten()
            .map(|(name, quantity)| (name.clone(), quantity.clone()))
            .collect()
    };
    (status.capacity, status.allocatable) = (Some(merged(&status.capacity)), Some(merged(&status.allocatable)));
    assert_eq!(reconcile(&initial, &existing), expected, "{labels:?} {capacity:?}");
}

#[tokio::test]
async fn an_existing_node_keeps_what_is_not_the_kubelets() {
    check(&[], &[], None);
    check(&[("mine", "x")], &[("cpu", "64")], None);
    let os = json!({"metadata": {"labels": {"kubernetes.io/os": "linux"}}});
    check(&[("kubernetes.io/os", "plan9")], &[], Some(os));
    let zero = json!({"example.org/fpga": "0"});
    let zeroed = json!({"status": {"capacity": zero, "allocatable": zero}});
    check(&[], &[("example.org/fpga", "2"), ("example.org/none", "0")], Some(zeroed));
    let gone = json!({"hugepages-1Gi": null});
    check(&[], &[("hugepages-1Gi", "2Gi")], Some(json!({"status": {"capacity": gone, "allocatable": gone}})));
    let back = json!({"hugepages-2Mi": "0"});
    check(&[], &[("hugepages-2Mi", "8Mi")], Some(json!({"status": {"capacity": back, "allocatable": back}})));
}

#[tokio::test]
async fn the_annotation_of_the_attach_controller_comes_back() {
    let initial = of_this_machine();
    let mut existing = initial.clone();
    existing.metadata.annotations = None;
    let annotation = json!({"metadata": {"annotations": {ATTACHED_BY_CONTROLLER.0: "true"}}});
    assert_eq!(reconcile(&initial, &existing), Some(annotation));
}

#[tokio::test]
async fn a_node_that_exists_is_taken_over_and_one_that_may_not_be_made_too() {
    let node = of_this_machine();
    let mut existing = node.clone();
    existing.metadata.labels = None;
    existing.metadata.uid = Some("old".to_owned());
    let api = FakeApi::new();
    api.put_node(existing.clone());
    let taken = register(&api, &node).await.unwrap();
    assert_eq!((taken.metadata.uid.as_deref(), taken.metadata.labels), (Some("old"), node.metadata.labels.clone()));

    api.put_node(existing);
    api.fail("create_node", [ApiError::Refused { status: 403, message: "no".to_owned() }]);
    assert_eq!(register(&api, &node).await.unwrap().metadata.uid.as_deref(), Some("old"));
    api.fail("create_node", [ApiError::Refused { status: 422, message: "no".to_owned() }]);
    assert!(matches!(register(&api, &node).await, Err(ApiError::Refused { status: 422, .. })));
}

#[test]
fn pauses_double_up_to_seven_seconds() {
    let mut pause = None;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        pause = Some(next_pause(pause));
        pauses.push(pause.unwrap().as_millis());
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 7000]);
}
