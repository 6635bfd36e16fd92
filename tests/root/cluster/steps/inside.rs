//! What a process sees from inside its pod: environment, names, identity, limits, token.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::cluster::stage::{POD_DEADLINE, Stage, container, runs, script};

pub(super) fn the_environment_holds_every_kind_of_variable(stage: &Stage<'_, '_>) {
    // First: a pod is told of the services that its kubelet has heard of.
    stage.ok("create service clusterip shop --tcp=80:8080");
    stage.ok("create configmap settings --from-literal=colour=blue --from-literal=not.a.c.identifier=kept");
    stage.ok("create secret generic keys --from-literal=token=s3cret");
    let from_field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    // Run without a shell, which would drop names that are not identifiers.
    let mut main = script("env");
    main["resources"] = json!({ "limits": { "cpu": "250m", "memory": "64Mi" }, "requests": { "cpu": "100m" } });
    main["env"] = json!([
        { "name": "PLAIN", "value": "plain" },
        { "name": "COMPOSED", "value": "$(PLAIN)-$(COLOUR)-$(ABSENT)-$$(PLAIN)" },
        { "name": "COLOUR", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "colour" } } },
        { "name": "LATE", "value": "$(COLOUR)" },
        { "name": "TOKEN", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "token" } } },
        { "name": "OPTIONAL", "valueFrom": { "secretKeyRef": { "name": "none", "key": "x", "optional": true } } },
        { "name": "POD", "valueFrom": from_field("metadata.name") },
        { "name": "NAMESPACE", "valueFrom": from_field("metadata.namespace") },
        { "name": "UID", "valueFrom": from_field("metadata.uid") },
        { "name": "APP", "valueFrom": from_field("metadata.labels['app']") },
        { "name": "NODE", "valueFrom": from_field("spec.nodeName") },
        { "name": "ACCOUNT", "valueFrom": from_field("spec.serviceAccountName") },
        { "name": "HOST_IP", "valueFrom": from_field("status.hostIP") },
        { "name": "POD_IP", "valueFrom": from_field("status.podIP") },
        { "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu", "divisor": "1m" } } },
        { "name": "MEMORY", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory", "divisor": "1Mi" } } },
        { "name": "REQUEST", "valueFrom": { "resourceFieldRef": { "resource": "requests.cpu", "divisor": "1m" } } },
    ]);
    main["envFrom"] = json!([
        { "configMapRef": { "name": "settings" }, "prefix": "FROM_" },
        { "secretRef": { "name": "keys" } },
        { "configMapRef": { "name": "none", "optional": true } },
    ]);
    let printed = stage.output_of("env", &json!({ "containers": [main] }));
    let environment: BTreeMap<&str, &str> = printed.lines().filter_map(|line| line.split_once('=')).collect();
    let pod = stage.pod("env").expect("the pod");
    let status = |field: &str| pod["status"][field].as_str().unwrap_or_default().to_owned();
    let uid = pod["metadata"]["uid"].as_str().expect("a uid");
    let (host_ip, pod_ip) = (status("hostIP"), status("podIP"));
    let service = stage.object("api/v1", "services/shop").expect("the service")["spec"]["clusterIP"].clone();
    let service = service.as_str().expect("its address");
    let url = format!("tcp://{service}:80");
    let expected = [
        ("PLAIN", "plain"),
        ("COMPOSED", "plain-$(COLOUR)-$(ABSENT)-$(PLAIN)"),
        ("COLOUR", "blue"),
        ("LATE", "blue"),
        ("TOKEN", "s3cret"),
        ("POD", "env"),
        ("NAMESPACE", &stage.namespace),
        ("UID", uid),
        ("APP", "env"),
        ("NODE", stage.node.name()),
        ("ACCOUNT", "default"),
        ("HOST_IP", &host_ip),
        ("POD_IP", &pod_ip),
        ("CPU", "250"),
        ("MEMORY", "64"),
        ("REQUEST", "100"),
        ("FROM_colour", "blue"),
        ("FROM_not.a.c.identifier", "kept"),
        ("token", "s3cret"),
        ("SHOP_SERVICE_HOST", service),
        ("SHOP_SERVICE_PORT", "80"),
        ("SHOP_PORT_80_TCP", &url),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
        ("HOSTNAME", "env"),
    ];
    let wrong: Vec<String> = expected
        .iter()
        .filter(|(name, value)| environment.get(name) != Some(value))
        .map(|(name, value)| format!("{name}: {:?} instead of {value:?}", environment.get(name)))
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(environment.get("OPTIONAL"), None);
}

pub(super) fn names_and_addresses_are_as_the_pod_says(stage: &Stage<'_, '_>) {
    const SHOW: &str = "hostname; echo --; cat /etc/hosts; echo --; cat /etc/resolv.conf";
    let mut spec = runs(SHOW);
    spec["hostAliases"] = json!([{ "ip": "10.1.2.3", "hostnames": ["db", "database"] }]);
    spec["hostname"] = json!("alice");
    spec["subdomain"] = json!("team");
    let printed = stage.output_of("cluster-first", &spec);
    let pod = stage.pod("cluster-first").expect("the pod");
    let ip = pod["status"]["podIP"].as_str().expect("an address").to_owned();
    let namespace = &stage.namespace;
    let [hostname, hosts, resolv] = parts(&printed);
    assert_eq!(hostname, "alice\n");
    let expected = format!(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n\
         {ip}\talice.team.{namespace}.svc.cluster.local\talice\n\n# Entries added by HostAliases.\n10.1.2.3\tdb\tdatabase\n"
    );
    assert_eq!(hosts, expected);
    let searches = format!("{namespace}.svc.cluster.local svc.cluster.local cluster.local node.example");
    assert_eq!(
        lines(resolv),
        [format!("search {searches}"), "nameserver 10.96.0.10".into(), "options ndots:5".into()].into()
    );

    let mut spec = runs(SHOW);
    spec["dnsPolicy"] = json!("Default");
    let printed = stage.output_of("default", &spec);
    let [hostname, hosts, resolv] = parts(&printed);
    assert_eq!(hostname, "default\n");
    assert!(hosts.contains("\tdefault\n"), "{hosts}");
    assert_eq!(lines(resolv), ["search node.example".to_owned(), "nameserver 192.0.2.53".into()].into());

    let mut spec = runs(SHOW);
    spec["dnsPolicy"] = json!("None");
    spec["dnsConfig"] = json!({ "nameservers": ["192.0.2.1"], "searches": ["own.example"], "options": [{ "name": "timeout", "value": "3" }] });
    let printed = stage.output_of("none", &spec);
    let [_, _, resolv] = parts(&printed);
    let expected = ["search own.example".to_owned(), "nameserver 192.0.2.1".into(), "options timeout:3".into()];
    assert_eq!(lines(resolv), expected.into());

    let mut spec = runs(SHOW);
    spec["hostNetwork"] = json!(true);
    let printed = stage.output_of("host", &spec);
    let [_, hosts, _] = parts(&printed);
    assert!(hosts.starts_with("# Kubernetes-managed hosts file (host network).\n"), "{hosts}");
}

fn parts(printed: &str) -> [&str; 3] {
    let parts: Vec<&str> = printed.split("--\n").collect();
    parts.try_into().unwrap_or_else(|parts| panic!("three parts: {parts:?}"))
}

/// Lines without their order: runtimes write resolv.conf in different ones.
fn lines(text: &str) -> std::collections::BTreeSet<String> {
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

pub(super) fn the_security_context_is_what_the_process_has(stage: &Stage<'_, '_>) {
    const SHOW: &str = "grep -E '^(Uid|Gid|Groups|CapEff|NoNewPrivs|Seccomp):' /proc/self/status; touch /file 2>&1; \
                        touch /data/file && stat -c '%u %g %a' /data/file; stat -c '%g %a' /data";
    let mut main = script(SHOW);
    main["securityContext"] = json!({
        "runAsUser": 1234, "runAsGroup": 2345, "runAsNonRoot": true, "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
    });
    main["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
    let pod_context = json!({ "fsGroup": 3456, "supplementalGroups": [4567] });
    let volumes = json!([{ "name": "data", "emptyDir": {} }]);
    let spec = json!({ "containers": [main], "securityContext": pod_context, "volumes": volumes });
    let printed = stage.output_of("tight", &spec);
    let of = |name: &str| -> Vec<String> {
        let line = printed.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().skip(1).map(str::to_owned).collect()
    };
    assert_eq!(of("Uid:"), ["1234"; 4], "{printed}");
    assert_eq!(of("Gid:"), ["2345"; 4], "{printed}");
    let mut groups = of("Groups:");
    groups.retain(|group| group != "2345");
    groups.sort();
    assert_eq!(groups, ["3456", "4567"], "{printed}");
    assert_eq!(of("CapEff:"), ["0000000000000000"], "{printed}");
    assert_eq!(of("NoNewPrivs:"), ["1"], "{printed}");
    assert_eq!(of("Seccomp:"), ["2"], "{printed}");
    assert!(printed.contains("Read-only file system"), "{printed}");
    assert!(printed.contains("1234 3456 644\n"), "a file gets the volume's group: {printed}");
    assert!(printed.contains("3456 2777\n"), "the volume is the group's: {printed}");

    let mut main = script("grep CapEff /proc/self/status; ls /dev | wc -l");
    main["securityContext"] = json!({ "privileged": true });
    let printed = stage.output_of("privileged", &json!({ "containers": [main] }));
    assert!(!printed.contains("00000000a80425fb"), "all capabilities, not the default set: {printed}");

    let mut main = script("true");
    main["securityContext"] = json!({ "runAsNonRoot": true });
    stage.create("root", &json!({ "containers": [main] }));
    let pod = stage.wait_for("root", "CreateContainerConfigError", POD_DEADLINE, |pod| {
        container(pod, "main")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    });
    let message = container(&pod, "main")["state"]["waiting"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.starts_with("container has runAsNonRoot and image will run as root"), "{message}");

    let mounts = json!([{ "name": "data", "mountPath": "/data" }]);
    // By its name alone: the shell's own command line holds whatever it looks for.
    let mut main = script("until pgrep -x sleep > /dev/null; do usleep 50000; done; id -u; touch /data/seen");
    let mut other = script("until test -e /data/seen; do sleep 1; done");
    other["name"] = json!("other");
    main["volumeMounts"] = mounts.clone();
    other["volumeMounts"] = mounts;
    let spec = json!({ "containers": [main, other], "volumes": [{ "name": "data", "emptyDir": {} }],
        "shareProcessNamespace": true, "securityContext": { "runAsUser": 1000 } });
    stage.create("shared", &spec);
    stage.wait_until_succeeded("shared");
    assert_eq!(stage.ok("logs shared -c main"), "1000\n", "it sees its neighbour's process");
}

pub(super) fn resources_become_cgroup_limits(stage: &Stage<'_, '_>) {
    // The own cgroup, through the cgroup file system that the runtime mounts: v1 or v2.
    const SHOW: &str = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; \
                        cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null; cat /proc/self/oom_score_adj";
    let pod = |limits: Value, requests: Value| {
        let mut main = script(SHOW);
        main["resources"] = json!({ "limits": limits, "requests": requests });
        json!({ "containers": [main] })
    };
    let guaranteed = pod(json!({ "cpu": "250m", "memory": "64Mi" }), Value::Null);
    let printed = stage.output_of("guaranteed", &guaranteed);
    let printed: Vec<&str> = printed.lines().collect();
    assert_eq!(&printed[..2], ["67108864", if printed[1].contains(' ') { "25000 100000" } else { "25000" }]);
    let burstable = pod(json!({ "memory": "64Mi" }), json!({ "cpu": "100m", "memory": "32Mi" }));
    stage.create("burstable", &burstable);
    stage.create("best-effort", &pod(Value::Null, Value::Null));
    for (name, class) in [("guaranteed", "Guaranteed"), ("burstable", "Burstable"), ("best-effort", "BestEffort")] {
        let pod = stage.wait_until_succeeded(name);
        assert_eq!(pod["status"]["qosClass"], json!(class), "{name}");
    }
}

pub(super) fn the_service_account_token_is_valid_and_bound_to_the_pod(stage: &Stage<'_, '_>) {
    const DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    let mut main = script(&format!(
        "cat {DIR}/token; echo; cat {DIR}/namespace; echo; head -1 {DIR}/ca.crt; cat /own/token; echo; sleep 1000"
    ));
    main["volumeMounts"] = json!([{ "name": "own", "mountPath": "/own" }]);
    let source = json!({ "serviceAccountToken": { "path": "token", "audience": "vault", "expirationSeconds": 600 } });
    let volumes = json!([{ "name": "own", "projected": { "sources": [source] } }]);
    stage.create("account", &json!({ "containers": [main], "volumes": volumes }));
    let pod = stage.wait_until_ready("account");
    let printed = tests::eventually("five lines", POD_DEADLINE, || {
        let printed = stage.logs("account").ok()?;
        (printed.lines().count() == 4 && printed.ends_with('\n')).then_some(printed)
    });
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!((lines[1], lines[2]), (stage.namespace.as_str(), "-----BEGIN CERTIFICATE-----"));
    let uid = pod["metadata"]["uid"].clone();
    for (token, audience) in [(lines[0], "https://kubernetes.default.svc"), (lines[3], "vault")] {
        let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": { "token": token, "audiences": [audience] } });
        let review = stage.api().post("/apis/authentication.k8s.io/v1/tokenreviews", &review).expect("a review");
        assert_eq!(review["status"]["authenticated"], json!(true), "{}", review["status"]);
        let user = &review["status"]["user"];
        assert_eq!(user["username"], json!(format!("system:serviceaccount:{}:default", stage.namespace)));
        assert_eq!(user["extra"]["authentication.kubernetes.io/pod-uid"], json!([uid]));
        assert_eq!(user["extra"]["authentication.kubernetes.io/node-name"], json!([stage.node.name()]));
    }
}
