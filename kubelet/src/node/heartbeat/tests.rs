//! When a node speaks, and what makes it speak sooner.

use super::*;

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
