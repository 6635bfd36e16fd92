//! The lease against an API server in memory.

use super::*;
use crate::fakes::api::FakeApi;
use crate::node::tests::pass;
use k8s_openapi::api::core::v1::Node;

const DURATION: Duration = Duration::from_secs(40);

fn start(api: &FakeApi) -> tokio::task::JoinHandle<()> {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    tokio::spawn(Keeper::new(api.api(), clock, "n", DURATION).run())
}

fn node() -> Node {
    let metadata = ObjectMeta { name: Some("n".to_owned()), uid: Some("node-uid".to_owned()), ..ObjectMeta::default() };
    Node { metadata, ..Node::default() }
}

fn spec(api: &FakeApi) -> LeaseSpec {
    api.state().lease.clone().and_then(|lease| lease.spec).expect("there is a lease")
}

/// Second of the last renewal.
fn renewed_at(api: &FakeApi) -> i64 {
    spec(api).renew_time.unwrap().0.as_second() - 1_767_225_600
}

fn down() -> ApiError {
    ApiError::Unavailable("connection refused".to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_created_once_there_is_a_node_to_own_it() {
    let api = FakeApi::new();
    let keeper = start(&api);
    pass(5000).await;
    assert!(api.state().lease.is_none());
    api.put_node(node());
    pass(7000).await;
    let lease = api.state().lease.clone().unwrap();
    assert_eq!(lease.metadata.namespace.as_deref(), Some("kube-node-lease"));
    let owner = &lease.metadata.owner_references.unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.api_version.as_str(), owner.uid.as_str()), ("Node", "v1", "node-uid"));
    let spec = lease.spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some("n"), Some(40)));
    keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_every_quarter_of_its_duration() {
    let api = FakeApi::new();
    api.put_node(node());
    let keeper = start(&api);
    let mut renewals = Vec::new();
    for _ in 0..100 {
        pass(1000).await;
        renewals.push(renewed_at(&api));
    }
    renewals.dedup();
    assert!((9..=10).contains(&renewals.len()), "{renewals:?}");
    assert!(renewals.windows(2).all(|pair| (10..=11).contains(&(pair[1] - pair[0]))), "{renewals:?}");
    keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_else_changed_is_read_and_renewed_at_once() {
    let api = FakeApi::new();
    api.put_node(node());
    let keeper = start(&api);
    pass(100).await;
    api.fail("replace_lease", [ApiError::Conflict("changed".to_owned())]);
    pass(11_000).await;
    assert!((10..=11).contains(&renewed_at(&api)), "{}", renewed_at(&api));
    keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_within_a_period_of_the_end_of_an_outage() {
    let api = FakeApi::new();
    api.put_node(node());
    let keeper = start(&api);
    pass(100).await;
    // Longer than everything that is tried in it.
    api.fail("replace_lease", std::iter::repeat_with(down).take(1000));
    api.fail("lease", std::iter::repeat_with(down).take(1000));
    pass(180_000).await;
    assert_eq!(renewed_at(&api), 0);
    api.end_failures();
    pass(7000).await;
    assert!(renewed_at(&api) >= 180, "{}", renewed_at(&api));
    keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_deleted_is_created_again() {
    let api = FakeApi::new();
    api.put_node(node());
    let keeper = start(&api);
    pass(100).await;
    api.state().lease = None;
    api.fail("replace_lease", [ApiError::NotFound("gone".to_owned())]);
    pass(11_000).await;
    assert!(renewed_at(&api) >= 10);
    keeper.abort();
}

#[test]
fn a_renewal_says_the_duration_again_and_keeps_the_rest() {
    let old = LeaseSpec { holder_identity: Some("n".into()), lease_duration_seconds: Some(7), ..LeaseSpec::default() };
    let lease = Lease { spec: Some(old), ..Lease::default() };
    let spec = renewed(lease, DURATION, Timestamp::UNIX_EPOCH).spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some("n"), Some(40)));
    assert_eq!(spec.renew_time.unwrap().0, Timestamp::UNIX_EPOCH);
}

#[test]
fn a_period_is_a_quarter_of_the_duration_and_a_bit() {
    assert_eq!(period(DURATION, 0.0), Duration::from_secs(10));
    assert_eq!(period(DURATION, 1.0), Duration::from_millis(10_400));
}
