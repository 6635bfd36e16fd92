//! Files and flags as people write them, to the configuration or to the mistake that they see.

use super::flags::{Flags, arguments};
use super::*;
use std::fmt::Write as _;

const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

/// A folder with files; what may run on this machine is not what is tested.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        sys::fs::atomic_write(&path, text.as_bytes(), sys::fs::Durability::Rename, 0o600).unwrap();
    }
    folder
}

fn flags(given: &[(&str, &str)]) -> Flags {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Flags {
        given: [("hostname-override", "node"), ("node-ip", "192.0.2.1")].iter().chain(given).map(owned).collect(),
        defaults: vec![("failCgroupV1", "false".into()), ("failSwapOn", "false".into())],
        local_socket: None,
    }
}

fn load_file(text: &str) -> Result<Config, String> {
    let folder = folder(&[("kubelet.yaml", &format!("{HEAD}{text}"))]);
    let path = folder.path().join("kubelet.yaml");
    load(&flags(&[("config", path.to_str().unwrap())])).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(text: &str, wants: &[&str]) {
    let error = load_file(text).unwrap_err();
    for want in wants {
        assert!(error.contains(want), "{want:?} is not in:\n{error}");
    }
}

#[track_caller]
fn flag_refused(given: &[(&str, &str)], wants: &[&str]) {
    let error = load(&flags(given)).unwrap_err().to_string();
    for want in wants {
        assert!(error.contains(want), "{want:?} is not in:\n{error}");
    }
}

#[test]
fn a_file_that_says_nothing_gives_upstreams_defaults() {
    let config = load_file("").unwrap();
    let strings = [
        (config.root.to_str().unwrap(), "/var/lib/kubelet"),
        (config.pod_logs.to_str().unwrap(), "/var/log/pods"),
        (config.container_logs.to_str().unwrap(), "/var/log/containers"),
        (config.runtime_socket.to_str().unwrap(), "/run/containerd/containerd.sock"),
        (config.image_socket.to_str().unwrap(), "/run/containerd/containerd.sock"),
        (config.cert_dir.to_str().unwrap(), "/var/lib/kubelet/pki"),
        (config.dns.resolv_conf.as_ref().unwrap().to_str().unwrap(), "/etc/resolv.conf"),
        (&config.dns.domain, ""),
        (&config.limits.cgroup_root, "/"),
    ];
    for (found, wants) in strings {
        assert_eq!(found, wants);
    }
    let seconds = [
        (config.sync_frequency, 60),
        (config.file_check_frequency, 20),
        (config.runtime_request_timeout, 120),
        (config.heartbeat.status_update, 10),
        (config.heartbeat.status_report, 300),
        (config.heartbeat.lease_duration, 40),
        (config.limits.pressure_transition, 300),
        (config.max_container_restart_period, 300),
    ];
    for (found, wants) in seconds {
        assert_eq!(found, Duration::from_secs(wants));
    }
    assert_eq!(config.limits.cpu_quota_period, Duration::from_millis(100));
    assert_eq!(config.listen, "0.0.0.0:10250".parse().unwrap());
    assert_eq!(config.healthz_listen, Some("127.0.0.1:10248".parse().unwrap()));
    assert_eq!((config.limits.max_pods, config.limits.pods_per_core, config.limits.pod_pids), (110, 0, None));
    assert_eq!((config.container_log_max_size, config.container_log_max_files), (10 << 20, 5));
    assert_eq!((config.images.serialize, config.images.registry_qps, config.images.registry_burst), (true, 5, 10));
    assert_eq!((config.heartbeat.max_images, config.oom_score_adj), (Some(50), -999));
    let flags = (config.register_node, config.seccomp_default, config.debugging_handlers, config.limits.cpu_quota);
    assert_eq!(flags, (true, false, true, true));
    assert_eq!((config.limits.enforce_allocatable, config.limits.cgroups_per_qos), (true, true));
    assert!(config.serving.access_review.is_some() && !config.serving.anonymous);
    assert_eq!(config.limits.eviction_hard.len(), 5);
    assert_eq!(config.limits.eviction_hard["nodefs.inodesFree"], "5%");
    assert_eq!(config.not_yet_effective, Vec::<String>::new());
}

#[test]
fn what_kubeadm_writes_is_taken() {
    let config = load_file(include_str!("testdata/kubeadm.yaml")).unwrap();
    assert_eq!(config.dns.servers, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
    assert_eq!(config.sync_frequency, Duration::from_secs(60));
    assert_eq!(config.static_pods.unwrap().to_str(), Some("/etc/kubernetes/manifests"));
    assert_eq!(config.runtime_socket.to_str(), Some("/run/containerd/containerd.sock"));
    assert_eq!(config.not_yet_effective, ["rotateCertificates"]);
}

#[test]
fn an_unknown_field_is_refused_with_file_line_and_the_field_that_was_meant() {
    refused("maxPod: 5\n", &["unknown field `maxPod`", "kubelet.yaml:3:1", "did you mean `maxPods`?", "maxPod: 5"]);
    refused(
        "authentication:\n  webhok:\n    enabled: false\n",
        &["kubelet.yaml:4:3", "did you mean `authentication.webhook`?"],
    );
    refused("authentication:\n  webhook:\n    enable: false\n", &["did you mean `authentication.webhook.enabled`?"]);
    refused(
        "registerWithTaints:\n- {key: a, efect: NoSchedule}\n",
        &["`registerWithTaints[0].efect`", "key, value, effect"],
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_both_kinds() {
    refused("maxPods: many\n", &["`maxPods` wants an integer, this is a string", "kubelet.yaml:3:10"]);
    refused("maxPods: \"\"\n", &["`maxPods` wants an integer, this is a string"]);
    refused("clusterDNS: 10.0.0.1\n", &["`clusterDNS` wants a list, this is a string"]);
    refused("authentication: true\n", &["`authentication` wants a mapping, this is a boolean"]);
    refused("syncFrequency: 60\n", &["`syncFrequency` wants a duration such as \"1m30s\", this is an integer"]);
    refused("systemReserved: {cpu: [1]}\n", &["`systemReserved.cpu` wants a quantity"]);
    refused("featureGates: {NodeSwap: \"true\"}\n", &["`featureGates.NodeSwap` wants a boolean, this is a string"]);
}

#[test]
fn a_value_out_of_its_range_is_refused_with_the_range() {
    refused("port: 70000\n", &["`port` must be between 1 and 65535, this is 70000"]);
    refused("nodeLeaseDurationSeconds: -1\n", &["between 1 and"]);
    refused("syncFrequency: 1x\n", &["`syncFrequency` must be a duration such as \"1m30s\", this is \"1x\""]);
    refused("crashLoopBackOff:\n  maxContainerRestartPeriod: 10m\n", &["between 1s and 5m0s", "kubelet.yaml:4"]);
    refused("authorization: {mode: RBAC}\n", &["`authorization.mode` must be one of \"AlwaysAllow\", \"Webhook\""]);
    refused("evictionHard: {memory.free: 1Mi}\n", &["no eviction signal `memory.free`", "memory.available"]);
    refused("evictionHard: {memory.available: 120%}\n", &["`evictionHard.memory.available`"]);
    refused("containerLogMaxFiles: 1\n", &["between 2 and"]);
    refused("containerRuntimeEndpoint: tcp://1.2.3.4:5\n", &["not the path of a Unix socket", "kubelet.yaml:3"]);
    refused("podLogsDir: /var/../log\n", &["podLogsDir", "normalized"]);
    refused("podLogsDir: logs\n", &["podLogsDir"]);
}

#[test]
fn fields_that_do_not_go_together_are_refused() {
    refused("tlsCertFile: /a\n", &["`tlsCertFile` is given without `tlsPrivateKeyFile`", "kubelet.yaml:3"]);
    refused("evictionSoft: {memory.available: 1Gi}\n", &["grace period must be specified"]);
    refused("imageGCHighThresholdPercent: 80\n", &["must be less than"]);
    refused("serializeImagePulls: true\nmaxParallelImagePulls: 3\n", &["can't be larger than 1"]);
    refused("cgroupsPerQOS: false\n", &["`cgroupsPerQOS` must be true"]);
    refused("kubeReserved: {gpu: 1}\n", &["cannot reserve \"gpu\" resource"]);
    refused("enforceNodeAllocatable: [pods, pods]\n", &["names \"pods\" twice"]);
}

#[test]
fn what_would_harm_if_it_were_ignored_is_refused_with_the_reason() {
    for field in [
        "cpuManagerPolicy: static",
        "memoryManagerPolicy: Static",
        "topologyManagerPolicy: restricted",
        "serverTLSBootstrap: true",
        "staticPodURL: http://a/b",
        "enforceNodeAllocatable: [pods, system-reserved]",
        "memorySwap: {swapBehavior: LimitedSwap}",
        "imagePullCredentialsVerificationPolicy: AlwaysVerify",
        "reservedSystemCPUs: 0-1",
        "reservedMemory: [{numaNode: 0, limits: {memory: 1Gi}}]",
        "runOnce: true",
    ] {
        refused(&format!("{field}\n"), &["is not supported", "kubelet.yaml:3"]);
    }
    flag_refused(
        &[("cpu-manager-policy", "static")],
        &["`cpuManagerPolicy: \"static\"` is not supported", "--cpu-manager-policy"],
    );
    flag_refused(
        &[("image-credential-provider-config", "/x")],
        &["--image-credential-provider-config", "not supported"],
    );
}

#[test]
fn what_has_no_effect_yet_is_listed_unless_it_is_the_default() {
    let config =
        load_file("imageGCHighThresholdPercent: 90\nshutdownGracePeriod: 30s\nreadOnlyPort: 0\nkubeAPIQPS: 50\n")
            .unwrap();
    assert_eq!(config.not_yet_effective, ["imageGCHighThresholdPercent", "shutdownGracePeriod"]);
}

#[test]
fn gates_are_known_by_name_and_default() {
    refused(
        "featureGates: {NodeSwop: true}\n",
        &["unrecognized feature gate: NodeSwop", "did you mean NodeSwap?", "kubelet.yaml:3"],
    );
    refused(
        "featureGates: {NodeSwap: false}\n",
        &["cannot set feature gate NodeSwap to false, feature is locked to true"],
    );
    refused(
        "featureGates: {KubeletInUserNamespace: true}\n",
        &["feature gate KubeletInUserNamespace is not supported"],
    );
    let config = load_file("featureGates: {NodeSwap: true, EventedPLEG: true, EnvFiles: true, KMSv1: true}\n").unwrap();
    assert_eq!(config.not_yet_effective, ["featureGates.EventedPLEG"]);
}

#[test]
fn a_file_without_kind_or_of_another_kind_is_refused() {
    let folder =
        folder(&[("empty", ""), ("none", "maxPods: 1\n"), ("other", "apiVersion: v1\nkind: Pod\n"), ("list", "- a\n")]);
    for (name, wants) in [
        ("empty", "KubeletConfiguration"),
        ("none", "`apiVersion` is missing"),
        ("other", "`apiVersion` is not"),
        ("list", "not a Kubelet"),
    ] {
        let path = folder.path().join(name);
        flag_refused(&[("config", path.to_str().unwrap())], &[wants, path.to_str().unwrap()]);
    }
    flag_refused(&[("config", "/nowhere/k.yaml")], &["read /nowhere/k.yaml"]);
}

#[test]
fn drop_ins_are_merged_in_lexical_order_and_flags_stand_over_all() {
    let drop_in = |text: &str| format!("{HEAD}{text}");
    let folder = folder(&[
        (
            "k.yaml",
            &drop_in(
                "maxPods: 10\nport: 1\nclusterDNS: [10.0.0.1]\nfeatureGates: {EventedPLEG: true}\nsyncFrequency: 5m\n",
            ),
        ),
        ("d/20.conf", &drop_in("maxPods: 30\nclusterDNS: [10.0.0.2, 10.0.0.3]\nsyncFrequency: 0s\n")),
        ("d/10.conf", &drop_in("maxPods: 20\nport: 2\nfeatureGates: {PodsAPI: true}\n")),
        ("d/30.yaml", "no configuration at all"),
    ]);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let config = load(&flags(&[
        ("config", &path("k.yaml")),
        ("config-dir", &path("d")),
        ("port", "3"),
        ("feature-gates", "MemoryQoS=false"),
    ]));
    let config = config.unwrap();
    assert_eq!((config.limits.max_pods, config.listen.port()), (30, 3));
    assert_eq!(config.dns.servers.len(), 2);
    assert_eq!(config.sync_frequency, Duration::from_secs(60));
    assert_eq!(config.not_yet_effective, ["featureGates.EventedPLEG", "featureGates.PodsAPI"]);
}

#[test]
fn a_mistake_in_a_drop_in_names_the_drop_in() {
    let folder = folder(&[("d/10.conf", &format!("{HEAD}prot: 1\n"))]);
    flag_refused(
        &[("config-dir", folder.path().join("d").to_str().unwrap())],
        &["10.conf:3:1", "did you mean `port`?"],
    );
}

#[test]
fn relative_paths_start_at_the_file() {
    let folder = folder(&[("sub/k.yaml", &format!("{HEAD}staticPodPath: manifests\n"))]);
    let path = folder.path().join("sub/k.yaml");
    let config = load(&flags(&[("config", path.to_str().unwrap())])).unwrap();
    assert_eq!(config.static_pods.unwrap(), folder.path().join("sub/manifests"));
}

#[test]
fn flags_are_read_as_upstream_reads_them() {
    let config = load(&flags(&[
        ("eviction-hard", "memory.available<200Mi,nodefs.available<5%"),
        ("system-reserved", "cpu=200m,memory=500Mi"),
        ("cluster-dns", "10.0.0.1,10.0.0.2"),
        ("cluster-dns", "10.0.0.3"),
        ("register-with-taints", "a=b:NoSchedule,c:NoExecute"),
        ("node-labels", "zone=a"),
        ("node-labels", "disk=ssd"),
        ("pod-max-pids", "0"),
        ("v", "4"),
        ("pod-infra-container-image", "registry.k8s.io/pause:3.10"),
        ("resolv-conf", ""),
        ("cloud-provider", "external"),
    ]));
    let config = config.unwrap();
    assert_eq!(config.limits.eviction_hard.len(), 2);
    assert_eq!(config.limits.system_reserved["cpu"], "200m");
    assert_eq!(config.dns.servers.len(), 3);
    assert_eq!(config.dns.resolv_conf, None);
    assert_eq!((config.register_with_taints.len(), config.node_labels.len(), config.logging.verbosity), (2, 2, 4));
    assert!(config.external_cloud);
    assert_eq!(config.limits.pod_pids, None);
    flag_refused(&[("max-pods", "x")], &["--max-pods", "`maxPods` wants an integer"]);
    flag_refused(&[("register-with-taints", "a=b:Never")], &["--register-with-taints"]);
    flag_refused(&[("cloud-provider", "aws")], &["unsupported cloud provider \"aws\""]);
    flag_refused(&[("bootstrap-kubeconfig", "/nowhere")], &["TLS bootstrap", "--bootstrap-kubeconfig"]);
    flag_refused(&[("hostname-override", "A_B")], &["can't be a node's name"]);
}

#[test]
fn what_stands_below_the_files_gives_way_to_them() {
    let folder = folder(&[("k.yaml", &format!("{HEAD}port: 5\n"))]);
    let mut flags = flags(&[("config", folder.path().join("k.yaml").to_str().unwrap())]);
    flags.defaults.push(("port", "4".into()));
    flags.defaults.push(("containerRuntimeEndpoint", "unix:///run/orlop/orlop.sock".into()));
    let config = load(&flags).unwrap();
    assert_eq!((config.listen.port(), config.runtime_socket.to_str()), (5, Some("/run/orlop/orlop.sock")));
}

#[test]
fn a_node_alone_opens_no_port_that_lets_nobody_in() {
    assert!(!load_file("").unwrap().serve);
    assert!(load_file("authorization: {mode: AlwaysAllow}\n").unwrap().serve);
    assert!(!load_file("authorization: {mode: AlwaysAllow}\nenableServer: false\n").unwrap().serve);
}

#[test]
fn reports_follow_updates_where_only_those_are_given() {
    assert_eq!(load_file("nodeStatusUpdateFrequency: 3s\n").unwrap().heartbeat.status_report, Duration::from_secs(3));
    assert!(!load_file("maxParallelImagePulls: 4\n").unwrap().images.serialize);
}

#[test]
fn the_document_in_force_has_the_defaults_and_what_was_given() {
    let document = load_file("authentication: {anonymous: {enabled: true}}\n").unwrap().document;
    assert_eq!(document["authentication"]["anonymous"]["enabled"], true);
    assert_eq!(document["authentication"]["webhook"]["cacheTTL"], "2m");
    assert_eq!(document["enforceNodeAllocatable"], serde_json::json!(["pods"]));
}

/// A broken file must be shown, never be the end of the process: spans of mistakes lie where they may.
#[test]
fn no_damage_to_a_file_is_worse_than_a_mistake() {
    let good = format!("{HEAD}{}featureGates: {{NodeSwap: true}}\n# äöü€\n", include_str!("testdata/kubeadm.yaml"));
    let mut seed: u64 = 1;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let marks: Vec<char> = "{}[]:,-#&*!|>'\"%@`\\ \n\t\0é€a1".chars().collect();
    for _ in 0..800 {
        let mut text: Vec<char> = good.chars().collect();
        for _ in 0..=random(3) {
            let at = random(text.len());
            match random(3) {
                0 => text[at] = marks[random(marks.len())],
                1 => drop(text.remove(at)),
                _ => text.truncate(at.max(1)),
            }
        }
        let source = source::Source { path: "k.yaml".into(), text: text.into_iter().collect(), secret: false };
        if let Err(error) = Document::defaults().add(&std::sync::Arc::new(source)) {
            assert!(error.to_string().contains("k.yaml"), "{error}");
        }
    }
}

#[test]
fn json_with_tabs_is_a_configuration_too() {
    let text = "{\n\t\"apiVersion\": \"kubelet.config.k8s.io/v1beta1\",\n\t\"kind\": \"KubeletConfiguration\",\n\t\"maxPods\": 7\n}\n";
    let folder = folder(&[("k.json", text)]);
    let config = load(&flags(&[("config", folder.path().join("k.json").to_str().unwrap())])).unwrap();
    assert_eq!(config.limits.max_pods, 7);
}

#[test]
fn no_flag_stands_twice() {
    let mut names: Vec<_> = arguments().map(|argument| argument.name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    let mut text = String::from(HEAD);
    while text.len() <= 1 << 20 {
        writeln!(text, "# {}", "x".repeat(4000)).unwrap();
    }
    let folder = folder(&[("k.yaml", &text)]);
    flag_refused(&[("config", folder.path().join("k.yaml").to_str().unwrap())], &["larger than 1 MiB"]);
}

#[test]
fn a_cipher_suite_is_one_that_somebody_knows_and_of_several_one_is_spoken() {
    let given = |names| load(&flags(&[("tls-cipher-suites", names)]));
    let (old, new) = ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256");
    assert_eq!(given(old).unwrap().serving.cipher_suites, [new]);
    let some = given(&format!("{new},TLS_RSA_WITH_AES_128_GCM_SHA256")).unwrap();
    assert_eq!(some.not_yet_effective, ["tlsCipherSuites:TLS_RSA_WITH_AES_128_GCM_SHA256"]);
    let unknown = ["doesn't know \"TLS_ECDHE_RSA\"", "--tls-cipher-suites", "TLS_AES_128_GCM_SHA256"];
    flag_refused(&[("tls-cipher-suites", "TLS_ECDHE_RSA")], &unknown);
    flag_refused(&[("tls-cipher-suites", "TLS_RSA_WITH_AES_128_GCM_SHA256")], &["nothing that is supported"]);
}
