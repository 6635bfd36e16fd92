//! The Node object: what it says of the machine, and that it is kept fresh.

use std::time::Duration;

use serde_json::{Value, json};
use tests::cluster::{Node, Settings};
use tests::eventually;

use crate::cluster::stage::{Stage, condition};

pub(super) fn the_node_describes_the_machine(stage: &Stage<'_, '_>) {
    let node = stage.node.object(stage.cluster).expect("the node");
    for (kind, status, reason, message) in [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ] {
        let found = condition(&node, kind);
        let found = ["status", "reason", "message"].map(|field| found[field].as_str().unwrap_or_default());
        assert_eq!(found, [status, reason, message], "{kind}");
    }
    let name = stage.node.name();
    let labels = &node["metadata"]["labels"];
    for (label, value) in
        [("kubernetes.io/hostname", name), ("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "amd64")]
    {
        assert_eq!(labels[label], json!(value), "{label}");
    }
    let status = &node["status"];
    let ip = stage.node.kubelet().ip().to_string();
    assert_eq!(
        status["addresses"],
        json!([{ "type": "InternalIP", "address": ip }, { "type": "Hostname", "address": name }])
    );
    assert_eq!(status["daemonEndpoints"]["kubeletEndpoint"]["Port"], json!(stage.node.kubelet().port()));
    let info = &status["nodeInfo"];
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    assert_eq!(info["bootID"], json!(read("/proc/sys/kernel/random/boot_id")));
    assert_eq!(info["kernelVersion"], json!(read("/proc/sys/kernel/osrelease")));
    assert!(info["kubeletVersion"].as_str().is_some_and(|version| version.starts_with("v1.36.")), "{info}");
    assert!(info["containerRuntimeVersion"].as_str().is_some_and(|version| version.contains("://")), "{info}");
    assert_eq!((&info["operatingSystem"], &info["architecture"]), (&json!("linux"), &json!("amd64")));
    let cpus = std::thread::available_parallelism().expect("CPUs").get().to_string();
    assert_eq!(status["capacity"]["cpu"], json!(cpus));
    assert_eq!(status["capacity"]["pods"], json!("110"));
    let memory = |kind: &str| {
        let text = status[kind]["memory"].as_str().unwrap_or_default();
        text.strip_suffix("Ki")
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap_or_else(|| panic!("{kind} memory {text:?}"))
    };
    assert_eq!(memory("capacity") - memory("allocatable"), 50 << 10, "the hard eviction threshold is set aside");
    let described = stage.kubectl().ok(&["describe", "node", name]);
    assert!(described.contains("KubeletReady"), "{described}");
    stage.kubectl().ok(&[
        "get",
        "--raw",
        &format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}"),
    ]);
}

pub(super) fn the_lease_is_renewed_and_the_conditions_are_fresh(stage: &Stage<'_, '_>) {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{}", stage.node.name());
    let lease = || stage.api().get(&path);
    let first = eventually("the node has a lease", Duration::from_secs(30), lease);
    assert_eq!(first["spec"]["holderIdentity"], json!(stage.node.name()));
    assert_eq!(first["spec"]["leaseDurationSeconds"], json!(40));
    let owner = &first["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["name"]), (&json!("Node"), &json!(stage.node.name())));
    let images = |node: &Value| -> Vec<String> {
        let images = node["status"]["images"].as_array().cloned().unwrap_or_default();
        images.iter().map(|image| image["names"].to_string()).collect()
    };
    eventually("the node lists the images of its pods", Duration::from_secs(60), || {
        let images = images(&stage.node.object(stage.cluster)?);
        if images.iter().any(|names| names.contains("agnhost")) { Ok(()) } else { Err(images.join(" ")) }
    });
    let mut renewed = Vec::new();
    eventually("the lease is renewed twice", Duration::from_secs(40), || {
        let time = lease()?["spec"]["renewTime"].as_str().unwrap_or_default().to_owned();
        if renewed.last() != Some(&time) {
            renewed.push(time);
        }
        if renewed.len() > 2 { Ok(()) } else { Err(format!("{renewed:?}")) }
    });
}

/// Thresholds that every machine crosses; soft ones, so that nothing is set aside for them and nobody evicts.
pub(super) fn a_node_that_runs_short_is_tainted_until_it_does_not(stage: &Stage<'_, '_>) {
    let signals = [("memory.available", "99.9%"), ("nodefs.available", "1Pi"), ("pid.available", "99.9999%")];
    let map = |value: fn(&'static str) -> &'static str| -> Value {
        signals.iter().map(|(signal, threshold)| ((*signal).to_owned(), json!(value(threshold)))).collect()
    };
    let thresholds = json!({
        "evictionSoft": map(|threshold| threshold),
        "evictionSoftGracePeriod": map(|_| "1h"),
        "evictionPressureTransitionPeriod": "5s",
    });
    let settings = Settings { name: "short", reserved: true, config: thresholds, ..stage.settings.clone() };
    let node = Node::start(stage.world, stage.cluster, stage.registry, &settings);
    let becomes = |status: &str, reasons: [&str; 3], tainted: bool| {
        eventually(&format!("the pressures are {status}"), Duration::from_secs(60), || {
            let object = node.object(stage.cluster)?;
            let told = ["MemoryPressure", "DiskPressure", "PIDPressure"].map(|kind| condition(&object, kind));
            let taints = object["spec"]["taints"].as_array().cloned().unwrap_or_default();
            let taint = |kind: &str| taints.iter().any(|taint| taint["key"] == format!("node.kubernetes.io/{kind}"));
            let taints = ["memory-pressure", "disk-pressure", "pid-pressure"].map(taint);
            let said =
                told.iter().zip(reasons).all(|(told, reason)| told["status"] == status && told["reason"] == reason);
            if said && taints == [tainted; 3] { Ok(()) } else { Err(format!("{told:?} {taints:?}")) }
        });
    };
    becomes("True", ["KubeletHasInsufficientMemory", "KubeletHasDiskPressure", "KubeletHasInsufficientPID"], true);
    node.kubelet().kill();
    node.kubelet().configure(&json!({ "evictionSoft": {}, "evictionSoftGracePeriod": {} }));
    node.kubelet().restart();
    becomes("False", ["KubeletHasSufficientMemory", "KubeletHasNoDiskPressure", "KubeletHasSufficientPID"], false);
    node.retire(stage.cluster);
}
