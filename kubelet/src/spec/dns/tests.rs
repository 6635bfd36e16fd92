//! DNS policies to resolv.conf.

use super::*;
use crate::pod::Source;
use serde_json::{Value, json};
use std::sync::Arc;

fn pod(spec: &Value) -> Pod {
    let mut object = json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u-1" },
        "spec": { "containers": [{ "name": "c" }] },
    });
    let fields = spec.as_object().expect("an object").clone();
    object["spec"].as_object_mut().expect("an object").extend(fields);
    Pod::new(Arc::new(serde_json::from_value(object).expect("a pod")), Source::Api).expect("a pod")
}

fn cluster() -> config::Dns {
    config::Dns {
        servers: vec!["10.96.0.10".parse().expect("an address")],
        domain: "cluster.local".to_owned(),
        resolv_conf: Some("/etc/resolv.conf".into()),
    }
}

fn host() -> ResolvConf {
    parse("nameserver 1.1.1.1\nsearch example.com\noptions edns0").expect("a resolv.conf")
}

/// Servers, searches and options in one line each.
#[track_caller]
fn check(dns: &config::Dns, spec: &Value, expected: [&str; 3]) -> Vec<Warning> {
    let PodDns { config, warnings } = pod_dns(dns, &pod(spec), &host());
    let lines = [config.servers.join(" "), config.searches.join(" "), config.options.join(" ")];
    assert_eq!(lines, expected, "{spec}");
    warnings
}

const CLUSTER: [&str; 3] =
    ["10.96.0.10", "ns.svc.cluster.local svc.cluster.local cluster.local example.com", "ndots:5"];
const HOST: [&str; 3] = ["1.1.1.1", "example.com", "edns0"];

#[test]
fn each_policy_has_its_servers() {
    for (spec, expected) in [
        (json!({}), CLUSTER),
        (json!({ "dnsPolicy": "ClusterFirst" }), CLUSTER),
        (json!({ "dnsPolicy": "ClusterFirst", "hostNetwork": true }), HOST),
        (json!({ "dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true }), CLUSTER),
        (json!({ "dnsPolicy": "Default" }), HOST),
        (json!({ "dnsPolicy": "None", "dnsConfig": { "nameservers": ["9.9.9.9"] } }), ["9.9.9.9", "", ""]),
    ] {
        assert_eq!(check(&cluster(), &spec, expected), []);
    }
}

#[test]
fn without_a_cluster_domain_the_host_s_search_list_stays() {
    let dns = config::Dns { domain: String::new(), ..cluster() };
    check(&dns, &json!({}), ["10.96.0.10", "example.com", "ndots:5"]);
}

#[test]
fn without_cluster_dns_a_pod_gets_the_host_s_and_is_told() {
    let dns = config::Dns { servers: Vec::new(), ..cluster() };
    let warnings = check(&dns, &json!({}), HOST);
    assert_eq!(
        warnings,
        [Warning {
            reason: "MissingClusterDNS",
            message: "pod: \"p_ns(u-1)\". kubelet does not have ClusterDNS IP configured and cannot create Pod using \
                \"ClusterFirst\" policy. Falling back to \"Default\" policy."
                .to_owned(),
        }]
    );
}

#[test]
fn without_a_resolv_conf_a_pod_asks_itself() {
    let dns = config::Dns { resolv_conf: None, ..cluster() };
    check(&dns, &json!({ "dnsPolicy": "Default" }), ["127.0.0.1", ".", ""]);
}

#[test]
fn a_pod_s_own_settings_are_added_and_go_before_options() {
    let own = json!({
        "nameservers": ["10.96.0.10", "8.8.8.8"],
        "searches": ["cluster.local", "own.example"],
        "options": [{ "name": "ndots", "value": "2" }, { "name": "debug" }],
    });
    let searches = "ns.svc.cluster.local svc.cluster.local cluster.local example.com own.example";
    check(&cluster(), &json!({ "dnsConfig": own }), ["10.96.0.10 8.8.8.8", searches, "debug ndots:2"]);
}

#[test]
fn what_resolvers_can_t_take_is_left_out_and_told() {
    let domain = "x".repeat(60);
    let searches: Vec<String> = (0..40).map(|number| format!("{number:02}.{domain}")).collect();
    let own = json!({
        "nameservers": ["1.0.0.1", "1.0.0.2", "1.0.0.3", "1.0.0.4"],
        "searches": std::iter::once("y".repeat(254)).chain(searches.clone()).collect::<Vec<_>>(),
    });
    // 31 of 63 characters and the spaces between them are 1983; one more would be 2047, but 32 were counted already.
    let kept = searches[..31].join(" ");
    let warnings =
        check(&cluster(), &json!({ "dnsPolicy": "None", "dnsConfig": own }), ["1.0.0.1 1.0.0.2 1.0.0.3", &kept, ""]);
    let texts: Vec<&str> = warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(
        texts,
        [
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: \
             1.0.0.1 1.0.0.2 1.0.0.3",
            &format!(
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {kept}"
            ),
        ]
    );
}

#[test]
fn a_search_line_is_2048_characters_at_most() {
    let mut searches: Vec<String> = (0..20).map(|number| format!("{number:02}{}", "x".repeat(198))).collect();
    assert!(limit_searches(&mut searches).is_some());
    assert_eq!(searches.len(), 10);
    assert!(limit_searches(&mut searches).is_none());
}

#[track_caller]
fn check_file(text: &str, servers: &[&str], searches: &[&str], options: &[&str]) {
    let conf = parse(text).expect("a resolv.conf");
    assert_eq!(
        (conf.servers, conf.searches, conf.options),
        (owned(servers), owned(searches), owned(options)),
        "{text}"
    );
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|&entry| entry.to_owned()).collect()
}

#[test]
fn the_last_search_line_counts_and_servers_add_up() {
    check_file("", &[], &[], &[]);
    check_file(
        "# nameserver 1.2.3.4\n;x\n \t\nnameserver\t1.2.3.4 # c\n  nameserver fd00::1",
        &["1.2.3.4", "fd00::1"],
        &[],
        &[],
    );
    check_file("search a b.\nsearch c. . d", &[], &["c", "d"], &[]);
    check_file("search .\n", &[], &[], &[]);
    check_file("options ndots:5 attempts:1\noptions ndots:3 rotate", &[], &[], &["attempts:1", "ndots:3", "rotate"]);
    parse("nameserver\n").expect_err("no server");
}
