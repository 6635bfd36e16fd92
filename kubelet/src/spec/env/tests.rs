//! Environment variables of all kinds.

use super::*;
use crate::fakes::api::FakeApi;
use crate::pod::Source;
use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), namespace: Some("ns".to_owned()), ..ObjectMeta::default() }
}

fn api() -> FakeApi {
    let api = FakeApi::new();
    api.put_config_map(ConfigMap {
        metadata: metadata("settings"),
        data: Some(BTreeMap::from([("a", "1"), ("b", "2")].map(|(key, value)| (key.to_owned(), value.to_owned())))),
        ..ConfigMap::default()
    });
    api.put_secret(Secret {
        metadata: metadata("keys"),
        data: Some(BTreeMap::from([
            ("token".to_owned(), ByteString(b"t0p".to_vec())),
            ("binary".to_owned(), ByteString(vec![0xff])),
        ])),
        ..Secret::default()
    });
    let service = json!({
        "metadata": { "name": "web", "namespace": "ns" },
        "spec": { "clusterIP": "10.0.0.1", "ports": [{ "port": 80 }] },
    });
    api.state().services = Arc::new(vec![serde_json::from_value(service).expect("a service")]);
    api
}

fn pod(container: &Value, spec: &Value) -> Pod {
    let mut object = json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u", "labels": { "tier": "one" } },
        "spec": { "enableServiceLinks": false, "nodeName": "node-1", "containers": [{ "name": "c" }] },
    });
    let merge = |into: &mut Value, from: &Value| {
        let from = from.as_object().expect("an object").clone();
        into.as_object_mut().expect("an object").extend(from);
    };
    merge(&mut object["spec"], spec);
    merge(&mut object["spec"]["containers"][0], container);
    Pod::new(Arc::new(serde_json::from_value(object).expect("a pod")), Source::Api).expect("a pod")
}

async fn environment_of(api: &FakeApi, pod: &Pod) -> Result<BTreeMap<String, String>, SpecError> {
    let inputs = EnvInputs {
        pod,
        container: &pod.spec().containers[0],
        pod_ips: &["10.1.0.7".parse().expect("an address")],
        host_ips: &["192.168.0.9".parse().expect("an address")],
        allocatable: &BTreeMap::from([("memory".to_owned(), Quantity("2Gi".to_owned()))]),
    };
    environment(&*api.api(), &inputs).await
}

#[track_caller]
fn sorted(variables: &BTreeMap<String, String>) -> Vec<String> {
    variables.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Variables of a container whose fields are these.
async fn check(container: Value, expected: &[&str]) {
    let variables = environment_of(&api(), &pod(&container, &json!({}))).await;
    assert_eq!(sorted(&variables.expect("an environment")), expected, "{container}");
}

async fn check_error(container: Value, expected: &str) {
    let error = environment_of(&api(), &pod(&container, &json!({}))).await.expect_err("no environment");
    assert_eq!((error.reason, error.message.as_str()), ("CreateContainerConfigError", expected), "{container}");
}

fn key(kind: &str, name: &str, key: &str, optional: bool) -> Value {
    json!({ "env": [{ "name": "V", "valueFrom": { kind: { "name": name, "key": key, "optional": optional } } }] })
}

#[tokio::test]
async fn variables_refer_to_those_before_them() {
    let env = json!([
        { "name": "A", "value": "1" },
        { "name": "B", "value": "$(A)-$(C)-$$(A)" },
        { "name": "C", "value": "late" },
        { "name": "A", "value": "$(A)2" },
        { "name": "EMPTY" },
    ]);
    check(json!({ "env": env }), &["A=12", "B=1-$(C)-$(A)", "C=late", "EMPTY="]).await;
}

#[tokio::test]
async fn whole_objects_are_overridden_by_single_variables() {
    let from = json!([
        { "prefix": "X_", "configMapRef": { "name": "settings" } },
        { "configMapRef": { "name": "settings" } },
        { "configMapRef": { "name": "absent", "optional": true } },
    ]);
    let env = json!([{ "name": "a", "value": "own $(X_b)" }]);
    check(json!({ "envFrom": from, "env": env }), &["X_a=1", "X_b=2", "a=own 2", "b=2"]).await;
}

#[tokio::test]
async fn keys_fields_and_resources_are_sources() {
    check(key("configMapKeyRef", "settings", "b", false), &["V=2"]).await;
    check(key("secretKeyRef", "keys", "token", false), &["V=t0p"]).await;
    check(key("secretKeyRef", "keys", "absent", true), &[]).await;
    check(key("configMapKeyRef", "absent", "a", true), &[]).await;
    let field = |path: &str| json!({ "env": [{ "name": "V", "valueFrom": { "fieldRef": { "fieldPath": path } } }] });
    check(field("metadata.labels['tier']"), &["V=one"]).await;
    check(field("status.podIP"), &["V=10.1.0.7"]).await;
    check(field("status.hostIP"), &["V=192.168.0.9"]).await;
    let resource = json!({ "resource": "limits.memory", "divisor": "1Mi" });
    check(json!({ "env": [{ "name": "V", "valueFrom": { "resourceFieldRef": resource } }] }), &["V=2048"]).await;
}

#[tokio::test]
async fn a_pod_in_the_host_s_network_has_the_host_s_address() {
    let container = json!({ "env": [{ "name": "V", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }] });
    let variables = environment_of(&api(), &pod(&container, &json!({ "hostNetwork": true }))).await;
    assert_eq!(sorted(&variables.expect("an environment")), ["V=192.168.0.9"]);
}

#[tokio::test]
async fn what_is_missing_is_named_in_upstream_s_words() {
    check_error(key("secretKeyRef", "keys", "x", false), "couldn't find key x in Secret ns/keys").await;
    check_error(key("configMapKeyRef", "settings", "x", false), "couldn't find key x in ConfigMap ns/settings").await;
    check_error(key("secretKeyRef", "absent", "x", false), "secret \"absent\" not found").await;
    check_error(key("configMapKeyRef", "absent", "x", false), "configmap \"absent\" not found").await;
    let from = json!({ "envFrom": [{ "secretRef": { "name": "absent" } }] });
    check_error(from, "secret \"absent\" not found").await;
}

#[tokio::test]
async fn what_no_process_can_be_given_is_refused_without_its_value() {
    let binary = "key binary in Secret ns/keys is not UTF-8: it can be mounted, but not be a variable";
    check_error(key("secretKeyRef", "keys", "binary", false), binary).await;
    let file = json!({ "volumeName": "v", "path": "f", "key": "k" });
    let source = json!({ "env": [{ "name": "V", "valueFrom": { "fileKeyRef": file } }] });
    check_error(source, "env \"V\": valueFrom.fileKeyRef is not supported by this kubelet").await;
    let error =
        environment_of(&api(), &pod(&json!({ "env": [{ "name": "V", "value": "hun\0ter2" }] }), &json!({}))).await;
    assert!(!error.expect_err("a NUL").message.contains("ter2"));
}

#[tokio::test]
async fn services_are_named_where_a_pod_wants_links_and_never_override() {
    let container = json!({ "env": [
        { "name": "WEB_SERVICE_PORT", "value": "own" },
        { "name": "HOST", "value": "$(WEB_SERVICE_HOST)" },
    ] });
    let linked = environment_of(&api(), &pod(&container, &json!({ "enableServiceLinks": true }))).await;
    let linked = linked.expect("an environment");
    assert_eq!((linked["WEB_SERVICE_PORT"].as_str(), linked["HOST"].as_str()), ("own", "10.0.0.1"));
    let alone = environment_of(&api(), &pod(&container, &json!({}))).await.expect("an environment");
    assert_eq!(sorted(&alone), ["HOST=$(WEB_SERVICE_HOST)", "WEB_SERVICE_PORT=own"]);
}

#[tokio::test]
async fn a_pod_waits_until_services_are_known_unless_it_is_static() {
    let api = api();
    let down = || [ApiError::Unavailable("no answer".to_owned())];
    api.fail("services", down());
    let error = environment_of(&api, &pod(&json!({}), &json!({}))).await.expect_err("services are not known");
    assert_eq!(error.message, "services have not yet been read at least once, cannot construct envvars");
    api.fail("services", down());
    let object = pod(&json!({}), &json!({})).object().clone();
    let pod = Pod::new(Arc::new(object), Source::File).expect("a pod");
    assert!(environment_of(&api, &pod).await.expect("an environment").is_empty());
}

/// A few hundred bytes of spec that were 16 GiB of environment, and the end of the process.
#[tokio::test]
async fn variables_that_double_each_other_end_where_a_process_could_not_be_given_them() {
    let doubled = |number: u32| {
        let before = number.wrapping_sub(1);
        let value = if number == 0 { "x".repeat(16) } else { format!("$(V{before})$(V{before})") };
        json!({ "name": format!("V{number}"), "value": value })
    };
    let env: Vec<Value> = (0..30).map(doubled).collect();
    let expected = "environment variable \"V13\" can't be passed to a process: it is longer than 131071 bytes, the most \
        that a process can be given in one";
    check_error(json!({ "env": env }), expected).await;
}

#[tokio::test]
async fn variables_that_are_too_many_are_refused_by_the_first_that_has_no_room() {
    let mut env = vec![json!({ "name": "LONG", "value": "x".repeat(130_000) })];
    env.extend((0..60).map(|number| json!({ "name": format!("V{number}"), "value": "$(LONG)" })));
    let expected = "environment variable \"V47\" can't be passed to a process: with it, arguments and variables are \
        longer than 6291456 bytes, the most that a process can be given";
    check_error(json!({ "env": env }), expected).await;
}

#[tokio::test]
async fn a_variable_that_is_set_again_takes_its_room_once() {
    let again = || json!({ "name": "LONG", "value": "x".repeat(130_000) });
    let env: Vec<Value> = (0..60).map(|_| again()).collect();
    let variables = environment_of(&api(), &pod(&json!({ "env": env }), &json!({}))).await.expect("an environment");
    assert_eq!(variables["LONG"].len(), 130_000);
}
