//! Pods to their sandbox configs.

use super::*;
use crate::pod::Source;
use crate::spec::files::tests::config;
use serde_json::{Value, json};
use std::sync::Arc;

fn pod(name: &str, spec: &Value) -> Pod {
    let mut object = json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": "u-1",
            "labels": { "app": "x", "io.kubernetes.pod.uid": "forged" }, "annotations": { "note": "y" },
        },
        "spec": { "containers": [{ "name": "c" }] },
    });
    object["spec"].as_object_mut().expect("an object").extend(spec.as_object().expect("an object").clone());
    Pod::new(Arc::new(serde_json::from_value(object).expect("a pod")), Source::Api).expect("a pod")
}

fn config_of(pod: &Pod) -> Result<proto::PodSandboxConfig, SpecError> {
    sandbox_config(&SandboxInputs {
        config: &config(std::path::Path::new("/root")),
        machine: &Machine::default(),
        pod,
        attempt: 3,
        cgroup_parent: "/kubepods/podu-1",
        dns: &proto::DnsConfig::default(),
    })
}

#[test]
fn a_sandbox_is_known_again_by_labels_that_nobody_forges() {
    let found = config_of(&pod("p", &json!({}))).expect("a config");
    let labels: Vec<_> = found.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(
        labels,
        [
            ("app", "x"),
            ("io.kubernetes.pod.name", "p"),
            ("io.kubernetes.pod.namespace", "ns"),
            ("io.kubernetes.pod.uid", "u-1"),
        ]
    );
    assert_eq!(found.annotations["note"], "y");
    assert_eq!(found.metadata.expect("metadata").attempt, 3);
    assert_eq!(found.log_directory, "/root/logs/ns_p_u-1");
    assert_eq!(found.linux.expect("linux").cgroup_parent, "/kubepods/podu-1");
}

#[track_caller]
fn check_hostname(name: &str, spec: Value, expected: Result<&str, &str>) {
    let found = config_of(&pod(name, &spec)).map(|config| config.hostname).map_err(|error| error.message);
    match (&found, &expected) {
        (Err(error), Err(text)) => assert!(error.contains(text), "{error}"),
        _ => assert_eq!(found.as_deref().ok(), expected.ok(), "{spec} {found:?}"),
    }
}

#[test]
fn a_hostname_is_what_the_pod_says_or_its_name_cut_to_a_label() {
    let long = format!("{}.-{}", "a".repeat(61), "b".repeat(20));
    check_hostname("web", json!({}), Ok("web"));
    check_hostname(&long, json!({}), Ok(&"a".repeat(61)));
    check_hostname("web", json!({ "hostname": "own" }), Ok("own"));
    check_hostname("web", json!({ "hostNetwork": true, "hostname": "own" }), Ok(""));
    check_hostname("web", json!({ "hostnameOverride": "a.b.c" }), Ok("a.b.c"));
    check_hostname("web", json!({ "subdomain": "sub" }), Ok("web"));
    check_hostname("web", json!({ "hostname": "No" }), Err("pod Hostname \"No\" is not a valid DNS label"));
    check_hostname("web", json!({ "subdomain": "a.b" }), Err("pod Subdomain \"a.b\" is not a valid DNS label"));
    check_hostname("web", json!({ "hostnameOverride": "a..b" }), Err("HostnameOverride"));
}

#[test]
fn a_whole_name_fits_the_kernel_or_the_pod_does_not_start() {
    let whole = |subdomain: &str| json!({ "subdomain": subdomain, "setHostnameAsFQDN": true });
    check_hostname("web", whole("sub"), Ok("web.sub.ns.svc.cluster.local"));
    check_hostname("web", json!({ "setHostnameAsFQDN": true }), Ok("web"));
    let long = "s".repeat(60);
    let text = format!(
        "failed to construct FQDN from pod hostname and cluster domain, FQDN web.{long}.ns.svc.cluster.local is too long \
         (64 characters is the max, 85 characters requested)"
    );
    check_hostname("web", whole(&long), Err(&text));
}

#[test]
fn a_name_that_is_a_path_is_no_name() {
    check_hostname("../../etc", json!({}), Err("is not a name"));
    check_hostname("..", json!({}), Err("is not a name"));
}

#[test]
fn ports_are_mapped_once_for_each_name_and_family() {
    let spec = json!({ "containers": [{ "name": "c", "ports": [
        { "containerPort": 80, "hostPort": 8080, "protocol": "TCP" },
        { "containerPort": 80, "hostPort": 8080, "protocol": "TCP" },
        { "containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1" },
        { "containerPort": 80, "hostPort": 8080, "hostIP": "::1" },
        { "containerPort": 53, "protocol": "UDP", "name": "dns" },
        { "containerPort": 54, "protocol": "UDP", "name": "dns" },
        { "containerPort": 9, "protocol": "SCTP" },
    ] }] });
    let found = config_of(&pod("p", &spec)).expect("a config").port_mappings;
    let ports: Vec<_> = found
        .iter()
        .map(|port| (port.protocol().as_str_name(), port.host_ip.as_str(), port.host_port, port.container_port))
        .collect();
    assert_eq!(
        ports,
        [
            ("TCP", "", 8080, 80),
            ("TCP", "127.0.0.1", 8080, 80),
            ("TCP", "::1", 8080, 80),
            ("UDP", "", 0, 53),
            ("SCTP", "", 0, 9),
        ]
    );
}

#[test]
fn sysctls_reach_the_sandbox() {
    let spec = json!({ "securityContext": { "sysctls": [{ "name": "net.ipv4.tcp_syncookies", "value": "0" }] } });
    let found = config_of(&pod("p", &spec)).expect("a config").linux.expect("linux");
    assert_eq!(found.sysctls, BTreeMap::from([("net.ipv4.tcp_syncookies".to_owned(), "0".to_owned())]));
}
