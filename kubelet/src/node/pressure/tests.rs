//! Thresholds to pressures and back.

use super::*;

const GIB: u64 = 1 << 30;

fn limits(hard: &[(&str, &str)], soft: &[(&str, &str)], transition: u64) -> Limits {
    let map =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Limits {
        max_pods: 110,
        pods_per_core: 0,
        pod_pids: None,
        kube_reserved: BTreeMap::new(),
        system_reserved: BTreeMap::new(),
        eviction_hard: map(hard),
        eviction_soft: map(soft),
        eviction_soft_grace: BTreeMap::new(),
        pressure_transition: Duration::from_secs(transition),
        cgroup_root: "/".to_owned(),
        enforce_allocatable: true,
        cpu_quota: true,
        cpu_quota_period: Duration::from_millis(100),
        cgroups_per_qos: true,
    }
}

/// Upstream's defaults for a machine on which everything has a capacity of 100 Gi or 100.
fn defaults() -> Limits {
    let hard = [
        ("memory.available", "100Mi"),
        ("nodefs.available", "10%"),
        ("nodefs.inodesFree", "5%"),
        ("imagefs.available", "15%"),
        ("imagefs.inodesFree", "5%"),
        ("pid.available", "10%"),
    ];
    limits(&hard, &[("memory.available", "1Gi")], 300)
}

fn reading(signal: Signal, available: u64, capacity: u64) -> Sample {
    Sample::from([(signal, Reading { available, capacity })])
}

/// Judges one reading after each so many seconds; the answer names the pressures: `m`, `d`, `p`.
#[track_caller]
fn check(limits: &Limits, signal: Signal, capacity: u64, script: &[(u64, u64, &str)]) {
    let mut judge = Judge::new(limits);
    let start = Instant::now();
    for (second, available, expected) in script {
        let now = start + Duration::from_secs(*second);
        let pressures = judge.judge(&reading(signal, *available, capacity), now);
        let named = [(pressures.memory, 'm'), (pressures.disk, 'd'), (pressures.pid, 'p')];
        let named: String = named.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
        assert_eq!(named, *expected, "{signal:?} at second {second}");
    }
}

#[test]
fn each_signal_drives_its_pressure_and_back_after_the_transition_period() {
    let d = defaults();
    check(
        &d,
        Signal::Memory,
        8 * GIB,
        &[(0, GIB, ""), (10, GIB - 1, "m"), (20, GIB, "m"), (309, GIB, "m"), (310, GIB, "")],
    );
    check(&d, Signal::AllocatableMemory, 8 * GIB, &[(0, 100 << 20, ""), (10, (100 << 20) - 1, "m"), (400, GIB, "")]);
    check(&d, Signal::NodeStorage, 100, &[(0, 10, ""), (10, 9, "d"), (20, 50, "d"), (310, 50, "")]);
    check(&d, Signal::NodeInodes, 1000, &[(0, 50, ""), (10, 49, "d"), (310, 50, "")]);
    check(&d, Signal::ImageStorage, 100, &[(0, 15, ""), (10, 14, "d"), (310, 15, "")]);
    check(&d, Signal::ImageInodes, 1000, &[(0, 50, ""), (10, 49, "d"), (310, 50, "")]);
    check(&d, Signal::Pids, 1000, &[(0, 100, ""), (10, 99, "p"), (310, 100, "")]);
}

#[test]
fn a_pressure_that_is_seen_again_lasts_from_then_on() {
    let script = [(0, 1, "p"), (290, 500, "p"), (299, 1, "p"), (310, 500, "p"), (598, 500, "p"), (599, 500, "")];
    check(&defaults(), Signal::Pids, 1000, &script);
}

#[test]
fn a_pressure_without_transition_period_is_what_is_seen() {
    let limits = limits(&[("pid.available", "10%")], &[], 0);
    check(&limits, Signal::Pids, 1000, &[(0, 1, "p"), (10, 500, ""), (20, 1, "p"), (30, 1, "p")]);
}

#[test]
fn what_could_not_be_read_or_is_switched_off_is_no_pressure() {
    let mut judge = Judge::new(&defaults());
    assert_eq!(judge.judge(&Sample::new(), Instant::now()), Pressures::default());
    let off = limits(&[("nodefs.available", "0%"), ("memory.available", "100%")], &[], 300);
    check(&off, Signal::NodeStorage, 100, &[(0, 0, "")]);
    check(&off, Signal::Memory, 100, &[(0, 0, "")]);
}

#[test]
fn allocatable_memory_counts_only_where_it_is_enforced() {
    let limits = Limits { enforce_allocatable: false, ..defaults() };
    check(&limits, Signal::AllocatableMemory, GIB, &[(0, 0, "")]);
}

#[test]
fn a_threshold_is_an_amount_or_a_part() {
    for (text, expected) in [
        ("100Mi", Some(Threshold::Amount(100 << 20))),
        ("1", Some(Threshold::Amount(1))),
        ("7.5%", Some(Threshold::Part(0.075))),
        ("0%", Some(Threshold::Never)),
        ("100%", Some(Threshold::Never)),
        ("101%", None),
        ("-1%", None),
        ("0", None),
        ("-1Gi", None),
        ("x", None),
        ("%", None),
    ] {
        assert_eq!(Threshold::parse(text), expected, "{text}");
    }
    // As upstream computes it, with a float of 32 bits.
    assert_eq!(Threshold::Part(0.1).quantity(100_000_000_000), 10_000_000_149);
}
