//! Requests and limits to what the kernel takes.

use super::*;
use crate::pod::Source;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn settings() -> Limits {
    Limits {
        max_pods: 110,
        pods_per_core: 0,
        pod_pids: None,
        kube_reserved: BTreeMap::new(),
        system_reserved: BTreeMap::new(),
        eviction_hard: BTreeMap::new(),
        eviction_soft: BTreeMap::new(),
        eviction_soft_grace: BTreeMap::new(),
        pressure_transition: Duration::from_secs(300),
        cgroup_root: "/".to_owned(),
        enforce_allocatable: true,
        cpu_quota: true,
        cpu_quota_period: Duration::from_millis(100),
        cgroups_per_qos: true,
    }
}

fn machine() -> Machine {
    Machine { memory_bytes: 8_000_000_000, huge_page_sizes: vec!["2MB".into(), "1GB".into()], ..Machine::default() }
}

fn pod(spec: &Value) -> Pod {
    let object = json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u" }, "spec": spec });
    Pod::new(Arc::new(serde_json::from_value(object).expect("a pod")), Source::Api).expect("a pod")
}

fn one(resources: &Value) -> Pod {
    pod(&json!({ "containers": [{ "name": "c", "resources": resources }] }))
}

fn container_of(pod: &Pod) -> proto::LinuxContainerResources {
    container(pod, &pod.spec().containers[0], &settings(), &machine())
}

#[test]
fn shares_are_1024_for_each_cpu_within_what_the_kernel_takes() {
    for (milli, expected) in
        [(0, 2), (1, 2), (100, 102), (1000, 1024), (2500, 2560), (256_000, 262_144), (999_999, 262_144)]
    {
        assert_eq!(shares(milli), expected, "{milli}");
    }
}

#[test]
fn a_quota_is_a_part_of_the_period_of_at_least_a_millisecond() {
    for (milli, period, expected) in [(0, 100_000, 0), (5, 100_000, 1000), (200, 100_000, 20_000), (1500, 5000, 7500)] {
        assert_eq!(quota(milli, period), expected, "{milli} {period}");
    }
}

#[test]
fn a_container_has_its_own_limits() {
    let found =
        container_of(&one(&json!({ "requests": { "cpu": "250m" }, "limits": { "cpu": "1", "memory": "64Mi" } })));
    assert_eq!((found.cpu_shares, found.cpu_quota, found.cpu_period), (256, 100_000, 100_000));
    assert_eq!(found.memory_limit_in_bytes, 64 << 20);
    let found = container_of(&one(&json!({})));
    assert_eq!((found.cpu_shares, found.cpu_quota, found.memory_limit_in_bytes), (2, 0, 0));
    let found = container_of(&one(&json!({ "limits": { "cpu": "2" } })));
    assert_eq!((found.cpu_shares, found.cpu_quota), (2048, 200_000));
}

#[test]
fn without_quotas_nothing_is_said_of_them() {
    let pod = one(&json!({ "limits": { "cpu": "2" } }));
    let settings = Limits { cpu_quota: false, ..settings() };
    let found = container(&pod, &pod.spec().containers[0], &settings, &machine());
    assert_eq!((found.cpu_quota, found.cpu_period, found.cpu_shares), (0, 0, 2048));
}

#[test]
fn every_size_of_huge_pages_has_a_limit() {
    let found = container_of(&one(&json!({ "limits": { "hugepages-2Mi": "8Mi", "cpu": "1", "memory": "1Gi" } })));
    let limits: Vec<_> = found.hugepage_limits.iter().map(|page| (page.page_size.as_str(), page.limit)).collect();
    assert_eq!(limits, [("2MB", 8 << 20), ("1GB", 0)]);
}

#[test]
fn swap_is_none_in_the_words_of_the_host_s_cgroups() {
    let pod = one(&json!({ "limits": { "memory": "64Mi" } }));
    let found = |machine: Machine| container(&pod, &pod.spec().containers[0], &settings(), &machine);
    assert_eq!(found(machine()).memory_swap_limit_in_bytes, 0);
    let v1 = found(Machine { swap_accounting: true, ..machine() });
    assert_eq!((v1.memory_swap_limit_in_bytes, v1.unified.len()), (64 << 20, 0));
    let v2 = found(Machine { swap_accounting: true, cgroup_v2: true, ..machine() });
    let unified: Vec<_> = v2.unified.iter().map(|(file, value)| (file.as_str(), value.as_str())).collect();
    assert_eq!(unified, [("memory.oom.group", "1"), ("memory.swap.max", "0")]);
    assert_eq!(v2.memory_swap_limit_in_bytes, 0);
}

#[track_caller]
fn check_score(spec: Value, name: &str, expected: i64) {
    let pod = pod(&spec);
    let (_, container) = pod.container(name).expect("a container");
    assert_eq!(oom_score_adj(&pod, container, 8_000_000_000), expected, "{spec}");
}

fn asking(memory: &str) -> Value {
    json!({ "requests": { "memory": memory } })
}

#[test]
fn who_asks_for_more_is_killed_later() {
    let one = |resources: Value| json!({ "containers": [{ "name": "c", "resources": resources }] });
    check_score(one(json!({})), "c", 1000);
    check_score(one(json!({ "limits": { "cpu": "1", "memory": "1G" } })), "c", -997);
    check_score(one(json!({ "requests": { "cpu": "1" } })), "c", 999);
    check_score(one(asking("4G")), "c", 500);
    check_score(one(asking("8G")), "c", 3);
    check_score(one(asking("1")), "c", 999);
    let critical = json!({
        "priority": 2_000_001_000, "priorityClassName": "system-node-critical", "containers": [{ "name": "c" }],
    });
    check_score(critical, "c", -997);
    let named_only = json!({ "priorityClassName": "system-node-critical", "containers": [{ "name": "c" }] });
    check_score(named_only, "c", 1000);
}

#[test]
fn a_sidecar_is_not_killed_before_whom_it_serves() {
    let spec = json!({
        "initContainers": [
            { "name": "side", "restartPolicy": "Always", "resources": asking("1G") },
            { "name": "big", "restartPolicy": "Always", "resources": asking("6G") },
            { "name": "init", "resources": asking("1G") },
        ],
        "containers": [{ "name": "a", "resources": asking("4G") }, { "name": "b", "resources": asking("2G") }],
    });
    check_score(spec.clone(), "side", 750);
    check_score(spec.clone(), "big", 250);
    check_score(spec.clone(), "init", 875);
    check_score(spec, "b", 750);
}

#[test]
fn what_the_pod_asks_for_as_a_whole_is_divided_among_its_containers() {
    let spec = json!({
        "resources": { "requests": { "memory": "4G" } },
        "containers": [{ "name": "a", "resources": asking("2G") }, { "name": "b" }],
    });
    check_score(spec.clone(), "a", 625);
    check_score(spec, "b", 875);
}

#[track_caller]
fn check_sums(spec: Value, requests: (i64, i64), limits: (i64, i64)) {
    let pod = pod(&spec);
    let sums = |amounts: &Amounts| (amounts.milli("cpu").unwrap_or(-1), amounts.units("memory").unwrap_or(-1));
    assert_eq!((sums(&pod_requests(&pod)), sums(&pod_limits(&pod))), (requests, limits), "{spec}");
}

#[test]
fn a_pod_asks_for_the_most_that_it_has_at_a_time() {
    let cpu = |amount: &str| json!({ "requests": { "cpu": amount, "memory": "10" } });
    check_sums(
        json!({ "containers": [{ "name": "a", "resources": cpu("1") }, { "name": "b", "resources": cpu("2") }] }),
        (3000, 20),
        (-1, -1),
    );
    let spec = json!({
        "initContainers": [
            { "name": "i1", "resources": cpu("3") },
            { "name": "s1", "restartPolicy": "Always", "resources": cpu("1") },
            { "name": "i2", "resources": cpu("4") },
            { "name": "s2", "restartPolicy": "Always", "resources": cpu("500m") },
        ],
        "containers": [{ "name": "c", "resources": cpu("1") }],
    });
    // i2 beside s1 needs 5; afterwards c, s1 and s2 need 2.5.
    check_sums(spec, (5000, 30), (-1, -1));
}

#[test]
fn overhead_is_added_to_requests_and_to_limits_that_there_are() {
    let spec = json!({
        "overhead": { "cpu": "100m", "memory": "5" },
        "containers": [{ "name": "c", "resources": { "requests": { "memory": "10" }, "limits": { "cpu": "1" } } }],
    });
    check_sums(spec, (1100, 15), (1100, -1));
}

#[test]
fn resources_of_the_whole_pod_go_before_sums() {
    let spec = json!({
        "resources": { "requests": { "cpu": "4" }, "limits": { "memory": "100" } },
        "containers": [{ "name": "c", "resources": { "limits": { "cpu": "1", "memory": "10" } } }],
    });
    check_sums(spec, (4000, 100), (1000, 100));
}

#[track_caller]
fn check_cgroup(spec: Value, shares: u64, quota: Option<i64>, memory: Option<i64>) {
    let found = pod_cgroup(&pod(&spec), &settings());
    assert_eq!((found.shares, found.cpu.map(|(quota, _)| quota), found.memory), (shares, quota, memory), "{spec}");
}

#[test]
fn a_pod_s_cgroup_is_limited_where_every_container_is() {
    let full = || json!({ "limits": { "cpu": "500m", "memory": "10Mi" } });
    let two = |other: Value| json!({ "containers": [{ "name": "a", "resources": full() }, { "name": "b", "resources": other }] });
    check_cgroup(two(full()), 1024, Some(100_000), Some(20 << 20));
    check_cgroup(two(json!({})), 512, None, None);
    check_cgroup(two(json!({ "limits": { "memory": "1Mi" } })), 512, None, Some(11 << 20));
    check_cgroup(json!({ "containers": [{ "name": "a" }] }), 2, None, None);
    let whole = json!({
        "resources": { "limits": { "cpu": "2", "memory": "1Gi" } },
        "containers": [{ "name": "a", "resources": full() }, { "name": "b" }],
    });
    check_cgroup(whole, 2048, Some(200_000), Some(1 << 30));
    let init = json!({
        "initContainers": [{ "name": "i" }],
        "containers": [{ "name": "a", "resources": full() }],
    });
    check_cgroup(init, 512, None, None);
}

#[test]
fn a_sandbox_is_told_of_the_pod_and_the_overhead_apart() {
    let spec = json!({
        "overhead": { "cpu": "250m", "memory": "120Mi" },
        "containers": [{ "name": "c", "resources": { "limits": { "cpu": "1", "memory": "1Gi" } } }],
    });
    let (resources, overhead) = sandbox(&pod(&spec), &settings(), &machine());
    assert_eq!((resources.cpu_shares, resources.cpu_quota, resources.memory_limit_in_bytes), (1024, 100_000, 1 << 30));
    assert_eq!((overhead.cpu_shares, overhead.cpu_quota, overhead.memory_limit_in_bytes), (256, 25_000, 120 << 20));
    let (_, overhead) = sandbox(&one(&json!({})), &settings(), &machine());
    assert_eq!(overhead, proto::LinuxContainerResources::default());
}

#[test]
fn sizes_of_huge_pages_have_the_kernel_s_names() {
    for (bytes, name) in [(2 << 20, "2MB"), (1 << 30, "1GB"), (64 << 10, "64KB"), (16_u64 << 30, "16GB")] {
        assert_eq!(page_size_name(bytes), name);
    }
}

#[test]
fn a_request_beyond_all_numbers_makes_a_score_and_no_overflow() {
    let spec = json!({
        "resources": { "requests": { "memory": "8E" } },
        "containers": [{ "name": "c", "resources": { "requests": { "memory": "99999999999E" } } }],
    });
    let pod = pod(&spec);
    assert_eq!(oom_score_adj(&pod, &pod.spec().containers[0], 8_000_000_000), 3);
}
