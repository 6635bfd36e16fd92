//! Pods, health, metrics and usage.

use super::http::Client;
use super::{ALLOWED, Served};
use proto::{
    ContainerAttributes, ContainerStats, CpuUsage, MemoryUsage, PodSandboxAttributes, PodSandboxStats, UInt64Value,
};
use serde_json::Value;
use std::collections::BTreeMap;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn pods_are_a_list_with_our_statuses() {
    let served = Served::start().await;
    let empty = json(&served.get("/pods").await.body);
    assert_eq!((&empty["kind"], &empty["apiVersion"]), (&Value::from("PodList"), &Value::from("v1")));
    assert_eq!(empty["items"], serde_json::json!([]));
    served.put_running(&[]);
    let list = json(&served.get("/pods").await.body);
    assert_eq!(list["items"][0]["metadata"]["name"], "web");
    assert_eq!(list["items"][0]["spec"]["containers"][0]["name"], "c");
    assert_eq!(list["items"][0]["status"]["containerStatuses"][0]["containerID"], "orlop://id1");
}

#[tokio::test]
async fn the_private_socket_shows_the_same_to_root_alone() {
    use std::os::unix::fs::PermissionsExt;
    let served = Served::start().await;
    served.put_running(&[]);
    let path = served.folder.path().join("kubelet.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = Client::unix(&path).await;
    assert_eq!(client.send("GET", "/pods").await.body, served.get("/pods").await.body);
    assert_eq!(client.send("GET", "/healthz").await.body, "ok");
}

#[tokio::test]
async fn running_pods_are_those_of_the_runtime() {
    let served = Served::start().await;
    let uid = crate::pod::PodUid::parse("u").unwrap();
    let containers = vec![crate::fakes::runtime::container("i", "c")];
    served.runtime.put(&uid, "orphan", crate::fakes::runtime::sandbox("s"), containers);
    let list = json(&served.get("/runningpods/").await.body);
    assert_eq!(list["items"][0]["metadata"]["name"], "orphan");
    assert_eq!(list["items"][0]["spec"]["containers"][0]["name"], "c");
}

#[tokio::test]
async fn healthz_lists_its_checks() {
    let served = Served::start().await;
    let reply = served.get("/healthz?verbose").await;
    assert_eq!(reply.body, "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n");
}

#[tokio::test]
async fn configz_is_the_configuration_in_force() {
    let served = Served::start().await;
    let document = json(&served.get("/configz").await.body);
    assert!(document["kubeletconfig"].is_object(), "{document}");
}

/// Names that kubernetes-mixin's alerts and dashboards ask for; a series that has no events yet may be missing.
const MIXIN: [&str; 14] = [
    "kubelet_node_name",
    "kubelet_running_pods",
    "kubelet_running_containers",
    "kubelet_pleg_relist_duration_seconds_bucket",
    "kubelet_pleg_relist_interval_seconds_bucket",
    "kubelet_pod_worker_duration_seconds_bucket",
    "kubelet_pod_start_duration_seconds_bucket",
    "kubelet_runtime_operations_total",
    "kubelet_runtime_operations_errors_total",
    "kubelet_cgroup_manager_duration_seconds_bucket",
    "storage_operation_duration_seconds_bucket",
    "rest_client_requests_total",
    "kubelet_certificate_manager_server_ttl_seconds",
    "process_resident_memory_bytes",
];

/// Reads the classic text format as a scraper does; the samples by name.
fn scrape(text: &str) -> BTreeMap<String, Vec<(String, f64)>> {
    let mut families: BTreeMap<&str, &str> = BTreeMap::new();
    let mut samples: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(families.insert(name, kind), None, "{name} begins twice");
            assert!(["counter", "gauge", "histogram", "untyped"].contains(&kind), "{line}");
            continue;
        }
        if line.starts_with('#') {
            assert!(line.starts_with("# HELP "), "{line}");
            continue;
        }
        let name_end = line.find(['{', ' ']).unwrap();
        let (name, rest) = line.split_at(name_end);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once("} ").unwrap(),
            None => ("", rest.trim_start()),
        };
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let known = families.contains_key(name) || base.is_some_and(|base| families.get(base) == Some(&"histogram"));
        assert!(known, "{name} has no family");
        let value = rest.split(' ').next().unwrap();
        let value = if value == "+Inf" { f64::INFINITY } else { value.parse().unwrap_or_else(|_| panic!("{line}")) };
        samples.entry(name.to_owned()).or_default().push((labels.to_owned(), value));
    }
    samples
}

#[tokio::test]
async fn metrics_have_the_names_that_alerts_ask_for() {
    use std::time::Duration;
    let served = Served::start().await;
    served.put_running(&[]);
    let (metrics, second) = (&served.metrics, Duration::from_secs(1));
    metrics.runtime_operation("run_podsandbox", second, false);
    metrics.pod_worker("sync", second);
    metrics.cgroup("create", second);
    metrics.storage_operation("volume_mount", "kubernetes.io/configmap", second, true);
    metrics.rest_client("GET", "127.0.0.1:6443", "200", second);
    let reply = served.get("/metrics").await;
    assert_eq!(reply.content_type, "text/plain; version=0.0.4; charset=utf-8");
    let samples = scrape(&reply.body);
    for name in MIXIN {
        assert!(samples.contains_key(name), "{name} is missing of {:?}", samples.keys());
    }
    assert_eq!(samples["kubelet_running_pods"], [(String::new(), 1.0)]);
    assert_eq!(samples["kubelet_running_containers"], [("container_state=\"running\"".to_owned(), 1.0)]);
    assert!(samples["kubelet_certificate_manager_server_ttl_seconds"][0].1 > 300.0 * 86400.0);
    assert!(!samples.keys().any(|name| name.starts_with("go_")));
}

fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

/// Usage of pod `ns/web` and its container, read at a certain second.
fn put_usage(served: &Served, second: i64) {
    let at = second * 1_000_000_000;
    let cpu = CpuUsage { timestamp: at, usage_core_nano_seconds: value(2_500_000_000), ..CpuUsage::default() };
    let memory = MemoryUsage {
        timestamp: at,
        working_set_bytes: value(1000),
        usage_bytes: value(1500),
        rss_bytes: value(700),
        ..MemoryUsage::default()
    };
    served.runtime.state().container_stats = vec![ContainerStats {
        attributes: Some(ContainerAttributes { id: "id1".into(), ..ContainerAttributes::default() }),
        cpu: Some(cpu),
        memory: Some(memory),
        writable_layer: Some(proto::FilesystemUsage {
            used_bytes: value(40),
            inodes_used: value(2),
            ..Default::default()
        }),
        ..ContainerStats::default()
    }];
    let linux = proto::LinuxPodSandboxStats {
        cpu: Some(cpu),
        memory: Some(memory),
        network: Some(proto::NetworkUsage {
            timestamp: at,
            default_interface: Some(proto::NetworkInterfaceUsage {
                name: "eth0".into(),
                rx_bytes: value(11),
                tx_bytes: value(22),
                ..Default::default()
            }),
            interfaces: Vec::new(),
        }),
        ..Default::default()
    };
    served.runtime.state().sandbox_stats = vec![PodSandboxStats {
        attributes: Some(PodSandboxAttributes { id: "sb1".into(), ..PodSandboxAttributes::default() }),
        linux: Some(linux),
        windows: None,
    }];
}

#[tokio::test]
async fn the_summary_counts_what_a_pod_can_write() {
    let served = Served::start().await;
    served.put_running(&["a line"]);
    put_usage(&served, 1_767_225_600);
    let summary = json(&served.get("/stats/summary").await.body);
    let (node, pod) = (&summary["node"], &summary["pods"][0]);
    assert_eq!(node["nodeName"], "node");
    for field in ["cpu", "memory", "fs", "rlimit", "runtime", "swap", "startTime"] {
        assert!(!node[field].is_null(), "{field} of {node}");
    }
    assert!(node["rlimit"]["maxpid"].as_i64() > Some(0) && node["rlimit"]["curproc"].as_i64() > Some(0));
    assert_eq!(pod["podRef"], serde_json::json!({ "name": "web", "namespace": "ns", "uid": "u1" }));
    assert_eq!(pod["network"]["name"], "eth0");
    assert_eq!(pod["network"]["interfaces"][0]["rxBytes"], 11);
    let container = &pod["containers"][0];
    assert_eq!(container["name"], "c");
    assert_eq!(container["cpu"]["time"], "2026-01-01T00:00:00Z");
    assert_eq!(container["cpu"]["usageCoreNanoSeconds"], 2_500_000_000_u64);
    assert_eq!(container["memory"]["workingSetBytes"], 1000);
    assert_eq!(container["rootfs"]["usedBytes"], 40);
    let logs = container["logs"]["usedBytes"].as_u64().unwrap();
    assert!(logs >= 4096, "{logs}");
    assert!(pod["ephemeral-storage"]["usedBytes"].as_u64().unwrap() >= 40 + logs);
    let brief = json(&served.get("/stats/summary?only_cpu_and_memory=true").await.body);
    let pod = &brief["pods"][0];
    assert!(
        pod["ephemeral-storage"].is_null() && pod["containers"][0]["logs"].is_null() && brief["node"]["fs"].is_null()
    );
    assert_eq!(pod["containers"][0]["memory"]["workingSetBytes"], 1000);
}

#[tokio::test]
async fn a_hosts_file_that_grows_counts_as_the_pods_storage() {
    let served = Served::start().await;
    served.put_running(&[]);
    put_usage(&served, 1_767_225_600);
    super::fill(&served.folder.path().join("root/pods/u1/etc-hosts"), &vec![b'#'; 3 << 20]);
    // Volumes are counted beside requests: the first answer may come too early.
    let counted = async {
        loop {
            let summary = json(&served.get("/stats/summary").await.body);
            if summary["pods"][0]["ephemeral-storage"]["usedBytes"].as_u64() >= Some(3 << 20) {
                break;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), counted).await.expect("the file is counted");
}

#[tokio::test]
async fn resource_metrics_have_their_stable_names_and_times() {
    let served = Served::start().await;
    served.put_running(&[]);
    put_usage(&served, 1_767_225_600);
    let text = served.get("/metrics/resource").await.body;
    scrape(&text);
    for line in [
        "container_cpu_usage_seconds_total{container=\"c\",pod=\"web\",namespace=\"ns\"} 2.5 1767225600000",
        "container_memory_working_set_bytes{container=\"c\",pod=\"web\",namespace=\"ns\"} 1000 1767225600000",
        "container_start_time_seconds{container=\"c\",pod=\"web\",namespace=\"ns\"} 0",
        "pod_cpu_usage_seconds_total{pod=\"web\",namespace=\"ns\"} 2.5 1767225600000",
        "pod_memory_working_set_bytes{pod=\"web\",namespace=\"ns\"} 1000 1767225600000",
        "resource_scrape_error 0",
        "# TYPE container_cpu_usage_seconds_total counter",
    ] {
        assert!(text.lines().any(|one| one == line), "{line:?} is missing:\n{text}");
    }
    assert!(text.contains("node_cpu_usage_seconds_total ") && text.contains("node_memory_working_set_bytes "));
}

#[tokio::test]
async fn cadvisor_metrics_have_the_labels_that_dashboards_select() {
    let served = Served::start().await;
    served.put_running(&[]);
    put_usage(&served, 1_767_225_600);
    let samples = scrape(&served.get("/metrics/cadvisor").await.body);
    let container =
        "container=\"c\",id=\"/kubepods/besteffort/podu1/id1\",image=\"\",name=\"id1\",namespace=\"ns\",pod=\"web\"";
    let pod = "container=\"\",id=\"/kubepods/besteffort/podu1\",image=\"\",name=\"\",namespace=\"ns\",pod=\"web\"";
    let has = |name: &str, labels: &str, value: f64| {
        assert!(samples[name].contains(&(labels.to_owned(), value)), "{name} {labels}: {:?}", samples[name]);
    };
    has("container_memory_working_set_bytes", container, 1000.0);
    has("container_memory_cache", container, 800.0);
    has("container_cpu_usage_seconds_total", &format!("{container},cpu=\"total\""), 2.5);
    has("container_network_receive_bytes_total", &format!("{pod},interface=\"eth0\""), 11.0);
    assert!(samples.contains_key("machine_cpu_cores") && samples.contains_key("machine_memory_bytes"));
}

#[tokio::test]
async fn many_readers_share_one_pass() {
    let served = Served::start().await;
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut client = served.client(Some(ALLOWED)).await;
        readers.spawn(async move { client.send("GET", "/metrics/resource").await.status });
    }
    assert!(readers.join_all().await.into_iter().all(|status| status == 200));
    assert_eq!(served.runtime.state().stats_asked, 1);
}

#[tokio::test]
async fn probes_have_a_page_and_are_forgotten_with_their_pod() {
    let served = Served::start().await;
    let pod = served.put_running(&[]);
    served.metrics.probe(&pod, "c", "Readiness", "successful", std::time::Duration::from_millis(3));
    served.metrics.probe(&pod, "c", "Readiness", "failed", std::time::Duration::from_secs(1));
    let samples = scrape(&served.get("/metrics/probes").await.body);
    let labels =
        "probe_type=\"Readiness\",result=\"successful\",container=\"c\",pod=\"web\",namespace=\"ns\",pod_uid=\"u1\"";
    let total = &samples["prober_probe_total"];
    assert!(total.len() == 2 && total.contains(&(labels.to_owned(), 1.0)), "{total:?}");
    assert_eq!(samples["prober_probe_duration_seconds_count"][0].1, 1.0, "a failure is not timed");
    served.metrics.probes_forgotten(pod.uid());
    assert!(!scrape(&served.get("/metrics/probes").await.body).contains_key("prober_probe_total"));
}
