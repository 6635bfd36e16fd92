//! Security contexts, field by field.

use super::*;
use crate::pod::Source;
use serde_json::{Value, json};
use std::sync::Arc;

fn pod_of(source: Source, of_pod: &Value, own: &Value, annotations: &Value) -> Pod {
    let object = json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u-1", "annotations": annotations },
        "spec": { "securityContext": of_pod, "containers": [{ "name": "c", "securityContext": own }] },
    });
    Pod::new(Arc::new(serde_json::from_value(object).expect("a pod")), source).expect("a pod")
}

fn pod(of_pod: &Value, own: &Value) -> Pod {
    pod_of(Source::Api, of_pod, own, &json!({}))
}

fn image(uid: Option<i64>, username: &str) -> proto::Image {
    proto::Image { uid: uid.map(int64), username: username.to_owned(), ..proto::Image::default() }
}

fn context(pod: &Pod, image: &proto::Image) -> Result<proto::LinuxContainerSecurityContext, String> {
    let inputs = Inputs {
        pod,
        container: &pod.spec().containers[0],
        image,
        machine: &Machine { thermal_throttle: vec!["/sys/cpu0".to_owned()], ..Machine::default() },
        seccomp: profile(ProfileType::RuntimeDefault, ""),
    };
    container(inputs).map_err(|error| error.message)
}

/// Whom a container runs as: `uid`, `uid:gid` or `name`; or why it does not.
#[track_caller]
fn check_user(of_pod: Value, own: Value, image: &proto::Image, expected: Result<&str, &str>) {
    let user = context(&pod(&of_pod, &own), image).map(|context| {
        let id = context.run_as_user.map(|id| id.value.to_string()).unwrap_or_default();
        let group = context.run_as_group.map(|group| format!(":{}", group.value)).unwrap_or_default();
        format!("{id}{}{group}", context.run_as_username)
    });
    let at = " (pod: \"p_ns(u-1)\", container: c)";
    let expected = expected.map(str::to_owned).map_err(|text| format!("{text}{at}"));
    assert_eq!(user, expected, "{of_pod} {own}");
}

/// CVE-2019-11245: the image's user is taken at every start, from the image as it is now. Mutant: the image left out of
/// `user`, so that the runtime falls back to root.
#[test]
fn the_image_s_user_counts_where_nobody_says_otherwise() {
    let none = || json!({});
    check_user(none(), none(), &image(Some(1000), ""), Ok("1000"));
    check_user(none(), none(), &image(None, "www-data"), Ok("www-data"));
    check_user(none(), none(), &image(None, ""), Ok("0"));
    check_user(json!({ "runAsUser": 7 }), none(), &image(Some(1000), ""), Ok("7"));
    check_user(json!({ "runAsUser": 7 }), json!({ "runAsUser": 8 }), &image(None, "www-data"), Ok("8"));
    check_user(json!({ "runAsUser": 7, "runAsGroup": 9 }), none(), &image(None, ""), Ok("7:9"));
    check_user(json!({ "runAsGroup": 9 }), json!({ "runAsGroup": 10 }), &image(Some(3), ""), Ok("3:10"));
}

#[test]
fn non_root_is_verified_in_upstream_s_words() {
    let strict = || json!({ "runAsNonRoot": true });
    let none = || json!({});
    check_user(strict(), none(), &image(Some(1000), ""), Ok("1000"));
    check_user(strict(), none(), &image(Some(i64::from(i32::MAX)), ""), Ok("2147483647"));
    check_user(strict(), json!({ "runAsUser": 5 }), &image(Some(0), ""), Ok("5"));
    check_user(strict(), json!({ "runAsNonRoot": false }), &image(Some(0), ""), Ok("0"));
    let root = Err("container has runAsNonRoot and image will run as root");
    check_user(strict(), none(), &image(Some(0), ""), root);
    check_user(none(), strict(), &image(None, ""), root);
    let named = "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root";
    check_user(strict(), none(), &image(None, "app"), Err(named));
    check_user(
        strict(),
        json!({ "runAsUser": 0 }),
        &image(Some(5), ""),
        Err("container's runAsUser breaks non-root policy"),
    );
    for id in [1_i64 << 31, -1] {
        let error = context(&pod(&strict(), &none()), &image(Some(id), "")).expect_err("no such user");
        let text =
            format!("container has runAsNonRoot and image has an invalid user id ({id}). (Must be 1-(2147483647)): ");
        assert!(error.starts_with(&text), "{error}");
    }
}

#[test]
fn every_field_reaches_the_runtime() {
    let of_pod = json!({
        "fsGroup": 2000, "supplementalGroups": [1, 2], "supplementalGroupsPolicy": "Strict",
        "seLinuxOptions": { "level": "s0" }, "appArmorProfile": { "type": "Localhost", "localhostProfile": "k8s-x" },
    });
    let own = json!({
        "capabilities": { "add": ["NET_ADMIN"], "drop": ["ALL"] }, "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false, "seLinuxOptions": { "type": "t", "user": "u", "role": "r" },
    });
    let context = context(&pod(&of_pod, &own), &image(None, "")).expect("a context");
    let capabilities = context.capabilities.expect("capabilities");
    assert_eq!(
        (capabilities.add_capabilities, capabilities.drop_capabilities),
        (vec!["NET_ADMIN".into()], vec!["ALL".into()])
    );
    assert!(context.readonly_rootfs && context.no_new_privs && !context.privileged);
    assert_eq!(context.supplemental_groups, [2000, 1, 2]);
    assert_eq!(context.supplemental_groups_policy, i32::from(proto::SupplementalGroupsPolicy::Strict));
    assert_eq!(context.selinux_options.expect("a label").r#type, "t");
    assert_eq!(context.apparmor, Some(profile(ProfileType::Localhost, "k8s-x")));
    assert_eq!(context.masked_paths.len(), 13);
    assert_eq!(context.masked_paths[12], "/sys/cpu0");
    assert_eq!(context.readonly_paths, READ_ONLY);
}

#[test]
fn nothing_said_is_no_privilege_and_no_restriction() {
    let context = context(&pod(&json!({}), &json!({})), &image(None, "")).expect("a context");
    assert!(!context.privileged && !context.no_new_privs && !context.readonly_rootfs);
    assert_eq!((context.capabilities, context.apparmor, context.selinux_options), (None, None, None));
}

#[track_caller]
fn check_seccomp(of_pod: Value, own: Value, default: bool, expected: Result<Seccomp, &str>) {
    let pod = pod(&of_pod, &own);
    let found = seccomp(&pod, &pod.spec().containers[0], default).map_err(|error| error.message);
    match (&found, &expected) {
        (Err(error), Err(text)) => assert!(error.contains(text), "{error}"),
        _ => assert_eq!(found.as_ref().ok(), expected.as_ref().ok(), "{of_pod} {own} {found:?}"),
    }
}

fn localhost(name: Option<&str>) -> Value {
    json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": name } })
}

#[test]
fn the_container_s_seccomp_profile_goes_before_the_pod_s_and_the_node_s() {
    let (none, default) = (|| json!({}), || json!({ "seccompProfile": { "type": "RuntimeDefault" } }));
    let unconfined = || json!({ "seccompProfile": { "type": "Unconfined" } });
    check_seccomp(none(), none(), false, Ok(Seccomp::Unconfined));
    check_seccomp(none(), none(), true, Ok(Seccomp::RuntimeDefault));
    check_seccomp(default(), none(), false, Ok(Seccomp::RuntimeDefault));
    check_seccomp(default(), unconfined(), true, Ok(Seccomp::Unconfined));
    check_seccomp(none(), localhost(Some("dir/p.json")), true, Ok(Seccomp::Localhost("dir/p.json".into())));
}

/// CVE-2023-2431: a profile that is not named is not "no profile". Mutant: an empty name read as `Unconfined`.
#[test]
fn a_localhost_profile_is_named_and_below_its_folder() {
    for (name, text) in [
        (None, "localhostProfile must be set"),
        (Some(""), "localhostProfile must be set"),
        (Some("/etc/passwd"), "must be a path below"),
        (Some("../p.json"), "must be a path below"),
        (Some("a/../../p.json"), "must be a path below"),
        (Some("."), "must be a path below"),
        (Some("a\0b"), "must be a path below"),
    ] {
        check_seccomp(json!({}), localhost(name), true, Err(text));
        check_seccomp(localhost(name), json!({}), false, Err(text));
    }
    check_seccomp(
        json!({}),
        json!({ "seccompProfile": { "type": "localhost" } }),
        true,
        Err("unknown seccomp profile"),
    );
}

#[test]
fn a_static_pod_s_apparmor_annotation_counts() {
    let annotated = |source, text: &str| {
        let annotations = json!({ "container.apparmor.security.beta.kubernetes.io/c": text });
        let pod = pod_of(source, &json!({}), &json!({}), &annotations);
        context(&pod, &image(None, "")).expect("a context").apparmor
    };
    assert_eq!(annotated(Source::File, "localhost/x"), Some(profile(ProfileType::Localhost, "x")));
    assert_eq!(annotated(Source::File, "runtime/default"), Some(profile(ProfileType::RuntimeDefault, "")));
    assert_eq!(annotated(Source::Api, "localhost/x"), None);
}

fn with_spec(fields: &Value) -> Pod {
    let mut object = json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u-1" },
        "spec": { "containers": [{ "name": "c" }] },
    });
    object["spec"].as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    Pod::new(Arc::new(serde_json::from_value(object).expect("a pod")), Source::Api).expect("a pod")
}

#[test]
fn namespaces_are_the_pod_s_the_container_s_or_the_host_s() {
    use NamespaceMode::{Container, Node, Pod};
    for (fields, network, pid, ipc) in [
        (json!({}), Pod, Container, Pod),
        (json!({ "hostNetwork": true, "hostIPC": true }), Node, Container, Node),
        (json!({ "hostPID": true, "shareProcessNamespace": true }), Pod, Node, Pod),
        (json!({ "shareProcessNamespace": true }), Pod, Pod, Pod),
    ] {
        let found = namespaces(&with_spec(&fields)).expect("namespaces");
        assert_eq!((found.network(), found.pid(), found.ipc()), (network, pid, ipc), "{fields}");
    }
}

#[test]
fn what_needs_user_namespaces_is_refused_by_name() {
    let error = namespaces(&with_spec(&json!({ "hostUsers": false }))).expect_err("not built");
    assert_eq!(error.message, "spec.hostUsers: false is not supported by this kubelet");
    let error =
        context(&pod(&json!({}), &json!({ "procMount": "Unmasked" })), &image(None, "")).expect_err("not built");
    assert!(error.starts_with("securityContext.procMount: Unmasked"), "{error}");
}

#[test]
fn a_sandbox_is_privileged_if_any_container_is() {
    let found = sandbox(&pod(&json!({ "runAsGroup": 5 }), &json!({ "privileged": true }))).expect("a context");
    assert!(found.privileged);
    assert_eq!((found.run_as_user, found.run_as_group), (None, None));
    assert_eq!(found.seccomp, Some(profile(ProfileType::RuntimeDefault, "")));
    assert!(!sandbox(&pod(&json!({}), &json!({}))).expect("a context").privileged);
}
