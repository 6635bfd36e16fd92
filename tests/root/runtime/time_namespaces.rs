//! Containers whose clocks are not the host's.

use serde_json::json;
use tests::World;

use super::bundle::{Bundle, message};
use super::user_namespaces;

/// Seconds of `/proc/uptime` in a container, minus the host's.
fn offset(uptime: &str) -> i64 {
    let seconds = |text: &str| text.split(['.', ' ']).next().unwrap().parse::<i64>().unwrap();
    seconds(uptime) - seconds(&std::fs::read_to_string("/proc/uptime").unwrap())
}

#[track_caller]
fn check_near(seconds: i64, expected: i64) {
    assert!((seconds - expected).abs() < 60, "{seconds} is not about {expected}");
}

const OFFSETS: &str = r#"{"boottime": {"secs": 1000000, "nanosecs": 5}, "monotonic": {"secs": 86400}}"#;

fn add_time(bundle: &mut Bundle<'_>, path: Option<String>) {
    let mut namespace = json!({"type": "time"});
    namespace["path"] = json!(path.unwrap_or_default());
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(namespace);
}

#[test]
fn the_first_process_its_children_and_an_exec_have_the_offsets() {
    let world = World::enter();
    // The shell itself reads the file, then a child of it.
    let script = "read a < /proc/uptime; echo $a; cat /proc/uptime; readlink /proc/self/ns/time; readlink /proc/1/ns/time; \
                  cat /proc/self/timens_offsets";
    for user_namespace in [false, true] {
        let script = format!("({script}) > /seen; touch /ready; sleep 100");
        let mut bundle = match user_namespace {
            true => user_namespaces::bundle(&world, &script),
            false => Bundle::new(&world, &script),
        };
        add_time(&mut bundle, None);
        bundle.set("/linux/timeOffsets", serde_json::from_str(OFFSETS).unwrap());
        let running = bundle.start();
        let seen = std::fs::read_to_string(bundle.rootfs("seen")).unwrap();
        let lines: Vec<&str> = seen.lines().collect();
        check_near(offset(lines[0]), 1_000_000);
        check_near(offset(lines[1]), 1_000_000);
        assert_eq!(lines[2], lines[3]);
        assert_ne!(lines[2], std::fs::read_link("/proc/self/ns/time").unwrap().to_str().unwrap());
        let offsets: Vec<Vec<&str>> = lines[4..].iter().map(|line| line.split_ascii_whitespace().collect()).collect();
        assert_eq!(offsets, [["monotonic", "86400", "0"], ["boottime", "1000000", "5"]]);
        let exec = running.exec("cat /proc/uptime; readlink /proc/self/ns/time", json!({})).success();
        check_near(offset(&exec), 1_000_000);
        assert_eq!(exec.lines().nth(1), Some(lines[2]));
    }
}

#[test]
fn a_time_namespace_is_joined_by_its_path() {
    let world = World::enter();
    let mut first = Bundle::new(&world, "touch /ready; sleep 100");
    add_time(&mut first, None);
    first.set("/linux/timeOffsets", serde_json::from_str(OFFSETS).unwrap());
    let running = first.start();
    let path = format!("/proc/{}/ns/time", running.pid());
    let mut second = Bundle::new(&world, "cat /proc/uptime");
    add_time(&mut second, Some(path));
    check_near(offset(&second.run().success()), 1_000_000);
    second.set("/linux/timeOffsets", json!({"boottime": {"secs": 1}}));
    let refused = second.run();
    assert_ne!(refused.code, 0);
    drop(running);
}

#[test]
fn a_clock_that_would_stand_before_zero_is_refused_by_its_field() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "true");
    add_time(&mut bundle, None);
    bundle.set("/linux/timeOffsets", json!({"boottime": {"secs": -1_000_000_000}}));
    let refused = bundle.run();
    assert!(refused.code != 0 && message(&refused).contains("timeOffsets"), "{refused:?}");
}
