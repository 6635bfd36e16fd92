//! When a node speaks, and what makes it speak sooner.

use super::*;
use futures_util::FutureExt as _;

#[test]
fn the_first_report_and_each_change_spread_the_next_one() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut schedule = Schedule { frequency: Duration::from_secs(300), due: None };
    assert!(schedule.is_due(start));
    schedule.written(start, false, 0.0);
    assert_eq!((schedule.is_due(at(149)), schedule.is_due(at(150))), (false, true));
    schedule.written(at(150), false, 0.9);
    assert_eq!((schedule.is_due(at(449)), schedule.is_due(at(450))), (false, true));
    schedule.written(at(200), true, 0.5);
    assert_eq!((schedule.is_due(at(499)), schedule.is_due(at(500))), (false, true));
}

#[tokio::test(start_paused = true)]
async fn pods_that_can_not_be_listed_longer_and_longer_are_no_news() {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap());
    let began = Instant::now();
    let (sender, mut health) =
        watch::channel(Health { last_ready: Some(began), last_relist: Some(began), ..Health::default() });
    tokio::time::advance(Duration::from_secs(240)).await;
    let told = unready(&health.borrow_and_update(), clock.now().mono);
    assert_eq!(told, [Unready::Down, Unready::NotListed]);
    for _ in 0..10 {
        tokio::time::advance(Duration::from_millis(500)).await;
        sender.send_modify(|health| health.error = Some("rpc error".to_owned()));
        assert!(other_health(&mut health, &clock, &told).now_or_never().is_none());
    }
    sender.send_modify(|health| health.last_relist = Some(Instant::now()));
    assert!(other_health(&mut health, &clock, &told).now_or_never().is_some());
}
