//! What a node takes, and in which words it refuses.

use super::*;
use crate::pod::Source;
use crate::runtime::ObservedPod;
use k8s_openapi::api::core::v1::PodStatus;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};
use std::sync::Arc;

fn pod(uid: &str, source: Source, spec: Value) -> Pod {
    let mut object = json!({
        "metadata": {"name": uid, "namespace": "default", "uid": uid, "labels": spec["labels"]},
        "spec": {"containers": [{"name": "c"}]},
        "status": {"phase": "Pending"},
    });
    crate::fakes::api::strategic_merge(&mut object["spec"], &spec);
    object["spec"].as_object_mut().unwrap().remove("labels");
    Pod::new(Arc::new(serde_json::from_value(object).unwrap()), source).unwrap()
}

fn requesting(cpu: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
}

fn with_port(port: Value) -> Value {
    json!({"containers": [{"name": "c", "ports": [port]}]})
}

/// A node with 2 CPUs and room for 3 pods, and what is on it.
struct Scene {
    others: Vec<Entry>,
    pressures: Pressures,
    source: Source,
    allowed: Vec<String>,
    apparmor: bool,
}

impl Scene {
    fn new() -> Scene {
        let pressures = Pressures::default();
        Scene { others: Vec::new(), pressures, source: Source::Api, allowed: Vec::new(), apparmor: false }
    }

    fn with(mut self, spec: Value, active: bool) -> Scene {
        let pod = pod(&format!("other{}", self.others.len()), Source::Api, spec);
        let (observed, status) = (Arc::new(ObservedPod::default()), Arc::new(PodStatus::default()));
        self.others.push(Entry { pod, observed, status, active });
        self
    }

    /// Admits a pod of this spec: nothing, or the reason and the message of its rejection.
    fn admit(&self, spec: Value) -> Option<(String, String)> {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n1", "labels": {"disk": "ssd", "cores": "8"}},
            "spec": {"taints": [{"key": "gone", "value": "yes", "effect": "NoExecute"}, {"key": "x", "effect": "NoSchedule"}]},
            "status": {"allocatable": {"example.com/gpu": "1", "cpu": "9"}},
        }))
        .unwrap();
        let allocatable = [("cpu", "2"), ("memory", "1Gi"), ("pods", "3")];
        let allocatable = allocatable.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).into();
        let facts = Facts { allocatable, ..Facts::default() };
        let place = Place {
            others: &self.others,
            facts: &facts,
            node: &node,
            pressures: self.pressures,
            allowed_sysctls: &self.allowed,
            runtime: &RuntimeStatus::default(),
            apparmor: self.apparmor,
        };
        let pod = pod("new", self.source, tolerating(spec));
        admit(&pod, &place).err().map(|rejection| (rejection.reason, rejection.message))
    }

    fn check(&self, spec: Value, expected: Option<(&str, &str)>) {
        let expected = expected.map(|(reason, message)| (reason.to_owned(), message.to_owned()));
        assert_eq!(self.admit(spec.clone()), expected, "{spec}");
    }
}

/// Most tests are not about the taint.
fn tolerating(mut spec: Value) -> Value {
    if spec.get("tolerations").is_none() {
        spec["tolerations"] = json!([{"key": "gone", "operator": "Exists"}]);
    }
    spec
}

const AFFINITY: Option<(&str, &str)> =
    Some(("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"));

#[test]
fn what_fits_is_admitted_and_what_does_not_says_how_much_there_was() {
    let scene = Scene::new().with(requesting("1500m"), true).with(requesting("2"), false);
    scene.check(requesting("500m"), None);
    let message = "Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000";
    scene.check(requesting("501m"), Some(("OutOfcpu", message)));
    let message = "Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824";
    let spec = json!({"containers": [{"name": "c", "resources": {"requests": {"memory": "2Gi"}}}]});
    scene.check(spec, Some(("OutOfmemory", message)));
}

#[test]
fn requests_beyond_all_numbers_do_not_make_room() {
    let scene = Scene::new().with(requesting("9223372036854775"), true).with(requesting("9223372036854775"), true);
    let message = "Node didn't have enough resource: cpu, requested: 1, used: 9223372036854775807, capacity: 2000";
    scene.check(requesting("1m"), Some(("OutOfcpu", message)));
}

#[test]
fn a_node_takes_no_more_pods_than_it_says() {
    let scene = Scene::new().with(json!({}), true).with(json!({}), true).with(json!({}), true);
    let message = "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3";
    scene.check(json!({}), Some(("OutOfpods", message)));
}

#[test]
fn an_extended_resource_counts_where_the_node_has_it() {
    let gpus = |name: &str| json!({"containers": [{"name": "c", "resources": {"requests": {name: "2"}}}]});
    let message = "Node didn't have enough resource: example.com/gpu, requested: 2, used: 0, capacity: 1";
    Scene::new().check(gpus("example.com/gpu"), Some(("OutOfexample.com/gpu", message)));
    Scene::new().check(gpus("example.com/of-the-cluster"), None);
}

#[test]
fn labels_and_affinity_are_checked_again() {
    let scene = Scene::new();
    let required = |expression: Value| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}}})
    };
    scene.check(json!({"nodeSelector": {"disk": "ssd"}}), None);
    scene.check(json!({"nodeSelector": {"disk": "hdd"}}), AFFINITY);
    scene.check(required(json!({"key": "disk", "operator": "In", "values": ["ssd", "nvme"]})), None);
    scene.check(required(json!({"key": "disk", "operator": "NotIn", "values": ["ssd"]})), AFFINITY);
    scene.check(required(json!({"key": "rack", "operator": "NotIn", "values": ["1"]})), None);
    scene.check(required(json!({"key": "rack", "operator": "Exists"})), AFFINITY);
    scene.check(required(json!({"key": "rack", "operator": "DoesNotExist"})), None);
    scene.check(required(json!({"key": "cores", "operator": "Gt", "values": ["4"]})), None);
    scene.check(required(json!({"key": "cores", "operator": "Lt", "values": ["4"]})), AFFINITY);
    let by_name = |name: &str| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms":
            [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}, {}]}}}})
    };
    scene.check(by_name("n1"), None);
    scene.check(by_name("n2"), AFFINITY);
}

#[test]
fn a_port_of_the_host_has_one_owner() {
    let taken =
        Some(("NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"));
    let scene = Scene::new()
        .with(with_port(json!({"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.1"})), true)
        .with(with_port(json!({"containerPort": 80, "hostPort": 9090})), false);
    scene.check(with_port(json!({"containerPort": 80, "hostPort": 8080})), taken);
    scene.check(with_port(json!({"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.2"})), None);
    scene.check(with_port(json!({"containerPort": 80, "hostPort": 8080, "protocol": "UDP"})), None);
    scene.check(with_port(json!({"containerPort": 8080})), None);
    scene.check(with_port(json!({"containerPort": 80, "hostPort": 9090})), None);
}

#[test]
fn a_taint_that_ends_pods_must_be_tolerated_unless_the_pod_is_static() {
    let message = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
    let mut scene = Scene::new();
    for tolerations in [
        json!([]),
        json!([{"key": "gone", "value": "no"}]),
        json!([{"key": "gone", "operator": "Exists", "effect": "NoSchedule"}]),
    ] {
        scene.check(json!({"tolerations": tolerations}), Some(("TaintToleration", message)));
    }
    scene.check(json!({"tolerations": [{"key": "gone", "value": "yes", "effect": "NoExecute"}]}), None);
    scene.check(json!({"tolerations": [{"operator": "Exists"}]}), None);
    scene.source = Source::File;
    scene.check(json!({"tolerations": []}), None);
}

#[test]
fn a_node_under_pressure_takes_what_it_must() {
    let mut scene = Scene::new();
    scene.pressures = Pressures { memory: true, ..Pressures::default() };
    scene.check(json!({}), Some(("Evicted", "The node had condition: [MemoryPressure]. ")));
    scene.check(requesting("1m"), None);
    scene.check(json!({"priority": 2_000_000_000}), None);
    let tolerates = json!([{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}, {"key": "gone", "operator": "Exists"}]);
    scene.check(json!({"tolerations": tolerates}), None);
    scene.pressures.disk = true;
    scene.check(requesting("1m"), Some(("Evicted", "The node had condition: [MemoryPressure DiskPressure]. ")));
    scene.source = Source::File;
    scene.check(json!({}), None);
}

#[test]
fn kernel_parameters_are_the_pods_own_and_allowed() {
    let set = |name: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
    let mut scene = Scene::new();
    scene.check(set("net.ipv4.tcp_syncookies"), None);
    scene.check(set("net/ipv4/tcp_syncookies"), None);
    scene.check(set("kernel.msgmax"), Some(("SysctlForbidden", "forbidden sysctl: \"kernel.msgmax\" not allowlisted")));
    scene.allowed = vec!["kernel.msg*".to_owned()];
    scene.check(set("kernel.msgmax"), None);
    let mut shared = set("net.ipv4.tcp_syncookies");
    shared["hostNetwork"] = json!(true);
    let message = "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host Net enabled";
    scene.check(shared, Some(("SysctlForbidden", message)));
    let mut shared = set("kernel.shm_rmid_forced");
    shared["hostIPC"] = json!(true);
    let message = "forbidden sysctl: \"kernel.shm_rmid_forced\" not allowed with host IPC enabled";
    scene.check(shared, Some(("SysctlForbidden", message)));
}

#[test]
fn a_profile_that_cannot_be_enforced_is_refused() {
    let profile = |kind: &str| json!({"securityContext": {"appArmorProfile": {"type": kind}}});
    let mut scene = Scene::new();
    let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
    scene.check(profile("RuntimeDefault"), Some(("AppArmor", message)));
    scene.check(profile("Unconfined"), None);
    scene.apparmor = true;
    scene.check(profile("RuntimeDefault"), None);
    scene.check(
        profile("Localhost"),
        Some(("AppArmor", "Cannot enforce AppArmor: invalid empty AppArmor profile name")),
    );
}

#[test]
fn another_system_is_refused() {
    let scene = Scene::new();
    let message = "Failed to admit pod as the OS field doesn't match node OS";
    scene.check(json!({"os": {"name": "windows"}}), Some(("PodOSNotSupported", message)));
    scene.check(json!({"os": {"name": "linux"}}), None);
    let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
    let labelled = json!({"labels": {"kubernetes.io/os": "windows"}});
    scene.check(labelled, Some(("PodOSSelectorNodeLabelDoesNotMatch", message)));
    let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
    let strict = json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}});
    scene.check(strict, Some(("SupplementalGroupsPolicyNotSupported", message)));
}

#[test]
fn what_is_not_built_is_refused_by_the_name_of_its_field() {
    let container = |fields: Value| {
        let mut container = json!({"name": "c"});
        crate::fakes::api::strategic_merge(&mut container, &fields);
        container
    };
    let regular = |fields: Value| json!({"containers": [{"name": "first"}, container(fields)]});
    let init = |fields: Value| json!({"initContainers": [container(fields)]});
    let hook = json!({"exec": {"command": ["true"]}});
    let cases = [
        (json!({"hostUsers": false}), "spec.hostUsers: false"),
        (json!({"runtimeClassName": "gvisor"}), "spec.runtimeClassName"),
        (json!({"resourceClaims": [{"name": "r"}]}), "spec.resourceClaims"),
        (json!({"ephemeralContainers": [{"name": "e"}]}), "spec.ephemeralContainers"),
        (regular(json!({"lifecycle": {"preStop": hook}})), "spec.containers[1].lifecycle.preStop"),
        (regular(json!({"lifecycle": {"postStart": hook}})), "spec.containers[1].lifecycle.postStart"),
        (regular(json!({"lifecycle": {"stopSignal": "SIGUSR1"}})), "spec.containers[1].lifecycle.stopSignal"),
        (init(json!({"lifecycle": {"preStop": hook}})), "spec.initContainers[0].lifecycle.preStop"),
        (regular(json!({"restartPolicy": "Never"})), "spec.containers[1].restartPolicy"),
        (init(json!({"restartPolicy": "OnFailure"})), "spec.initContainers[0].restartPolicy"),
        (
            regular(json!({"restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart"}]})),
            "spec.containers[1].restartPolicyRules",
        ),
        (
            regular(json!({"volumeDevices": [{"name": "d", "devicePath": "/dev/x"}]})),
            "spec.containers[1].volumeDevices",
        ),
        (
            regular(json!({"securityContext": {"procMount": "Unmasked"}})),
            "spec.containers[1].securityContext.procMount: Unmasked",
        ),
        (regular(json!({"resources": {"claims": [{"name": "r"}]}})), "spec.containers[1].resources.claims"),
        (
            regular(json!({"env": [{"name": "A"}, {"name": "B", "valueFrom":
                {"fileKeyRef": {"key": "k", "path": "p", "volumeName": "v"}}}]})),
            "spec.containers[1].env[1].valueFrom.fileKeyRef",
        ),
    ];
    for (spec, field) in cases {
        let message = format!("{field} is not supported by this kubelet");
        Scene::new().check(spec, Some(("PodFeatureUnsupported", &message)));
    }
    Scene::new().check(init(json!({"restartPolicy": "Always"})), None);
    Scene::new().check(regular(json!({"securityContext": {"procMount": "Default"}})), None);
}

#[test]
fn every_volume_that_is_not_built_is_refused_by_its_name() {
    let volumes = [
        json!({"persistentVolumeClaim": {"claimName": "x"}}),
        json!({"csi": {"driver": "x"}}),
        json!({"nfs": {"server": "x", "path": "/"}}),
        json!({"iscsi": {"targetPortal": "x", "iqn": "x", "lun": 0}}),
        json!({"gitRepo": {"repository": "x"}}),
        json!({"image": {"reference": "x"}}),
        json!({"ephemeral": {}}),
        json!({"fc": {}}),
        json!({"flexVolume": {"driver": "x"}}),
    ];
    for volume in volumes {
        let kind = volume.as_object().unwrap().keys().next().unwrap().clone();
        let mut named = volume;
        named["name"] = json!("v");
        let (reason, message) = Scene::new().admit(json!({"volumes": [named]})).expect(&kind);
        assert_eq!(
            (reason.as_str(), message),
            ("PodFeatureUnsupported", format!("spec.volumes[0].{kind} is not supported by this kubelet"))
        );
    }
}

#[test]
fn a_debug_container_does_not_end_the_pod_that_it_was_added_to() {
    let mut object = pod("u", Source::Api, json!({"ephemeralContainers": [{"name": "e"}]})).object().clone();
    let status = json!({"phase": "Running", "containerStatuses": [
        {"name": "c", "ready": true, "restartCount": 0, "image": "", "imageID": ""}]});
    object.status = Some(serde_json::from_value(status).unwrap());
    assert_eq!(unsupported(&Pod::new(Arc::new(object), Source::Api).unwrap()), None);
}
