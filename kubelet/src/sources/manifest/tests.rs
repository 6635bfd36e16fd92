//! Manifests to static pods, and to the mistakes that a person sees.

use super::*;
use serde_json::json;

const FILE: &str = "/etc/kubernetes/manifests/web.yaml";

fn read(text: &str) -> Result<Pod, String> {
    let seen = "2026-01-01T00:00:00Z".parse().unwrap();
    parse(Path::new(FILE), text.to_owned(), "Node-1", seen).map_err(|error| error.to_string())
}

/// A manifest whose spec ends with `more`.
fn web(more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: c\n    image: \
         localhost:5000/busybox\n{more}"
    )
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let error = read(text).map(|pod| pod.to_string()).unwrap_err();
    assert_eq!(error, format!("{FILE}:{expected}"));
}

#[test]
fn a_static_pod_is_named_after_its_node_and_marked() {
    let pod = read(&web("")).unwrap();
    assert_eq!((pod.name(), pod.namespace()), ("web-node-1", "default"));
    assert_eq!(pod.spec().node_name.as_deref(), Some("Node-1"));
    assert_eq!(pod.annotation(HASH), Some(pod.uid().as_str()));
    assert_eq!(pod.annotation("kubernetes.io/config.source"), Some("file"));
    assert_eq!(pod.annotation("kubernetes.io/config.seen"), Some("2026-01-01T00:00:00Z"));
    let toleration = &pod.spec().tolerations.as_ref().unwrap()[0];
    assert_eq!((toleration.operator.as_deref(), toleration.effect.as_deref()), (Some("Exists"), Some("NoExecute")));
    assert!(pod.is_static());
}

#[test]
fn the_uid_is_of_the_content_and_not_of_its_form() {
    let uid = read(&web("")).unwrap().uid().to_string();
    assert_eq!(uid.len(), 32);
    assert_eq!(read(&format!("# a comment\n{}", web(""))).unwrap().uid().as_str(), uid);
    assert_ne!(read(&web("  hostNetwork: true\n")).unwrap().uid().as_str(), uid);
    let json = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web"}, "spec": {"containers":
        [{"image": "localhost:5000/busybox", "name": "c"}]}});
    assert_eq!(read(&json.to_string()).unwrap().uid().as_str(), uid);
    let named = web("").replace("name: web", "name: web\n  uid: mine");
    assert_eq!(read(&named).unwrap().uid().as_str(), "mine");
}

#[test]
fn defaults_are_those_of_the_api_server() {
    let text = web(
        "    ports: [{containerPort: 80}]\n    livenessProbe: {httpGet: {port: 80}}\n    resources: {limits: {cpu: 1}}\n    \
         volumeMounts: [{name: v, mountPath: /v}]\n  - {name: d, image: busybox:1.36}\n  - {name: e, image: 'busybox@sha256:0'}\n  \
         hostNetwork: true\n  volumes: [{name: v}, {name: h, hostPath: {path: /h}}]\n",
    );
    let pod = read(&text).unwrap();
    let spec = serde_json::to_value(pod.spec()).unwrap();
    let expected = json!({
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
        "terminationGracePeriodSeconds": 30, "enableServiceLinks": true, "securityContext": {},
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&spec[field], value, "{field}");
    }
    let first = &spec["containers"][0];
    assert_eq!(first["imagePullPolicy"], "Always");
    assert_eq!(first["terminationMessagePath"], "/dev/termination-log");
    assert_eq!(first["terminationMessagePolicy"], "File");
    assert_eq!(first["ports"][0], json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"}));
    assert_eq!(
        first["livenessProbe"],
        json!({"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3})
    );
    assert_eq!(first["resources"], json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}));
    assert_eq!(spec["containers"][1]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(spec["containers"][2]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(
        spec["volumes"],
        json!([{"name": "v", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/h", "type": ""}}])
    );
}

#[test]
fn a_mistake_is_one_line_with_file_line_and_field() {
    refused("", "1: apiVersion: is missing; static pods have apiVersion: v1");
    refused("apiVersion: v1\nkind: Service\n", "2: kind: is \"Service\"; static pods have kind: Pod");
    refused(&web("    imag: x\n"), "9: spec.containers[0].imag: unknown field");
    refused(&web("  restart: x\n"), "9: spec.restart: unknown field");
    refused(&web("    args: [1]\n"), "9: spec.containers[0].args[0]: invalid type: integer `1`, expected a string");
    refused(
        &web("  restartPolicy: Sometimes\n"),
        "9: spec.restartPolicy: is \"Sometimes\"; it is one of Always, OnFailure, Never",
    );
    refused(&web("").replace("name: c", "name: C"), "7: spec.containers[0].name: \"C\" is not a DNS label");
    refused(&web("").replace("name: web", "name: Web"), "4: metadata.name: \"Web\" is not a lower-case DNS subdomain");
    refused(&web("").replace("  name: web", "  labels: {}"), "3: metadata.name: is missing");
    refused(
        &web("    ports: [{containerPort: 70000}]\n"),
        "9: spec.containers[0].ports[0].containerPort: is not from 1 to 65535",
    );
    refused(&web("  - {name: c, image: x}\n"), "9: spec.containers[1].name: \"c\" is there twice");
    refused(
        &web("    volumeMounts: [{name: v, mountPath: /v}]\n"),
        "9: spec.containers[0].volumeMounts[0].name: there is no volume \"v\"",
    );
    refused(
        &web("    livenessProbe: {periodSeconds: 1}\n"),
        "9: spec.containers[0].livenessProbe: has 0 handlers; it needs one",
    );
    refused(
        &web("    resources: {limits: {cpu: x}}\n"),
        "9: spec.containers[0].resources.limits.cpu: \"x\" is not a quantity",
    );
    refused(
        &web("  volumes: [{name: v, hostPath: {path: /a/../b}}]\n"),
        "9: spec.volumes[0].hostPath.path: must not contain '..'",
    );
}

#[test]
fn text_that_is_no_yaml_says_where() {
    let error = read("apiVersion: v1\nkind: [\n").map(|pod| pod.to_string()).unwrap_err();
    assert!(error.starts_with(&format!("{FILE}:")) && !error.contains('\n'), "{error}");
    let error = read(&web("").replace("kind: Pod", "kind: Pod\nkind: Pod")).map(|pod| pod.to_string()).unwrap_err();
    assert!(error.starts_with(&format!("{FILE}:3")) && error.contains("kind"), "{error}");
}

#[test]
fn nothing_at_the_api_server_can_be_referred_to() {
    let of = |what: &str, field: &str| format!("9: {field}: static pods may not reference {what}");
    refused(&web("  serviceAccountName: x\n"), &of("serviceaccounts", "spec.serviceAccountName"));
    refused(&web("  imagePullSecrets: [{name: x}]\n"), &of("secrets", "spec.imagePullSecrets"));
    refused(
        &web("  volumes: [{name: v, secret: {secretName: x}}]\n"),
        &of("secrets (via secret volumes)", "spec.volumes[0].secret"),
    );
    refused(
        &web("  volumes: [{name: v, configMap: {name: x}}]\n"),
        &of("configmaps (via configmap volumes)", "spec.volumes[0].configMap"),
    );
    refused(
        &web("  volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}]\n"),
        &of("serviceaccounts (via projected volumes)", "spec.volumes[0].projected.sources[0].serviceAccountToken"),
    );
    refused(
        &web("    env: [{name: A, valueFrom: {secretKeyRef: {name: x, key: k}}}]\n"),
        &of("secrets", "spec.containers[0].env[0].valueFrom.secretKeyRef"),
    );
    refused(
        &web("    envFrom: [{configMapRef: {name: x}}]\n"),
        &of("configmaps", "spec.containers[0].envFrom[0].configMapRef"),
    );
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let refers = vec![format!("*a{}", level - 1); 10].join(", ");
        aliases.push_str(&format!("a{level}: &a{level} [{refers}]\n"));
    }
    let deep = format!("a: {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    let many = format!("a: [{}]\n", "x, ".repeat(500_000));
    for bomb in [aliases, deep, many] {
        let start = crate::fakes::worked();
        assert!(read(&bomb).is_err());
        assert!(crate::fakes::worked() - start < std::time::Duration::from_secs(5));
    }
}
