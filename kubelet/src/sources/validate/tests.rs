//! What a static pod may not say of amounts and numbers.

use super::*;
use serde_json::{Value, json};

/// A pod with one container and one volume, and these fields instead of its own.
#[track_caller]
fn check_spec(fields: Value, expected: Option<(&str, &str)>) {
    let mut object = json!({
        "metadata": { "name": "p" },
        "spec": { "containers": [{ "name": "c", "image": "i" }] },
    });
    let spec = object["spec"].as_object_mut().expect("an object");
    spec.extend(fields.as_object().expect("an object").clone());
    let found = check(&serde_json::from_value(object).expect("a pod")).err();
    let found = found.as_ref().map(|problem| (problem.field.as_str(), problem.message.as_str()));
    assert_eq!(found, expected, "{fields}");
}

fn container(fields: Value) -> Value {
    let mut container = json!({ "name": "c", "image": "i" });
    container.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    json!({ "containers": [container] })
}

fn volume(kind: &str, source: Value) -> Value {
    json!({ "volumes": [{ "name": "v", kind: source }] })
}

/// Mutant: an amount that is none is dropped in silence, and the pod runs without its limit.
#[test]
fn amounts_of_the_pod_as_a_whole_are_checked_as_those_of_a_container() {
    check_spec(json!({ "resources": { "limits": { "memory": "1Gi" } } }), None);
    check_spec(
        json!({ "resources": { "limits": { "memory": "1Gb" } } }),
        Some(("spec.resources.limits.memory", "\"1Gb\" is not a quantity")),
    );
    check_spec(
        json!({ "resources": { "limits": { "cpu": "1" }, "requests": { "cpu": "2" } } }),
        Some(("spec.resources.requests.cpu", "is above the limit of 1")),
    );
    check_spec(json!({ "overhead": { "cpu": "-1" } }), Some(("spec.overhead.cpu", "is below 0")));
    check_spec(volume("emptyDir", json!({ "sizeLimit": "1Gi" })), None);
    check_spec(
        volume("emptyDir", json!({ "sizeLimit": "1Gb" })),
        Some(("spec.volumes[0].emptyDir.sizeLimit", "\"1Gb\" is not a quantity")),
    );
    check_spec(
        volume("emptyDir", json!({ "sizeLimit": "-1" })),
        Some(("spec.volumes[0].emptyDir.sizeLimit", "is below 0")),
    );
}

/// Mutant: -1n passes; rounded up it is 0, by which nothing can be divided.
#[test]
fn amounts_are_divided_by_their_units_alone() {
    const CPU: &str = "is neither 1m nor 1";
    const OTHER: &str = "is not 1, 1k, 1M, … 1E or 1Ki, 1Mi, … 1Ei";
    let selector =
        |resource: &str, divisor: &str| json!({ "containerName": "c", "resource": resource, "divisor": divisor });
    let check = |resource: &str, divisor: &str, expected: Option<&str>| {
        let selector = selector(resource, divisor);
        let env = container(json!({ "env": [{ "name": "V", "valueFrom": { "resourceFieldRef": selector } }] }));
        let field = "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor";
        check_spec(env, expected.map(|message| (field, message)));
        let items = json!({ "items": [{ "path": "p", "resourceFieldRef": selector }] });
        let field = "spec.volumes[0].downwardAPI.items[0].resourceFieldRef.divisor";
        check_spec(volume("downwardAPI", items.clone()), expected.map(|message| (field, message)));
        let field = "spec.volumes[0].projected.sources[0].downwardAPI.items[0].resourceFieldRef.divisor";
        let projected = volume("projected", json!({ "sources": [{ "downwardAPI": items }] }));
        check_spec(projected, expected.map(|message| (field, message)));
    };
    for divisor in ["0", "1", "1m", "1000m"] {
        check("limits.cpu", divisor, None);
    }
    for divisor in ["0", "1", "1k", "1E", "1Ki", "1Ei", "1024"] {
        check("limits.memory", divisor, None);
    }
    for divisor in ["-1n", "-0.1m", "2", "1k"] {
        check("limits.cpu", divisor, Some(CPU));
    }
    for divisor in ["-1n", "-1", "1m", "3Mi"] {
        check("requests.memory", divisor, Some(OTHER));
    }
    check("limits.memory", "1Gb", Some("\"1Gb\" is not a quantity"));
}

/// Mutant: -5 is no group and 4294967295 is all of them: the pod runs, and its volumes are not its group's.
#[test]
fn users_and_groups_are_numbers_that_the_kernel_has() {
    for (number, wrong) in [(0, false), (2_147_483_647, false), (-5, true), (4_294_967_295_i64, true)] {
        let check =
            |spec: Value, field: &str| check_spec(spec, wrong.then_some((field, "is not from 0 to 2147483647")));
        for name in ["runAsUser", "runAsGroup", "fsGroup"] {
            check(json!({ "securityContext": { name: number } }), &format!("spec.securityContext.{name}"));
        }
        let groups = json!({ "securityContext": { "supplementalGroups": [1, number] } });
        check(groups, "spec.securityContext.supplementalGroups[1]");
        for name in ["runAsUser", "runAsGroup"] {
            let container = container(json!({ "securityContext": { name: number } }));
            check(container, &format!("spec.containers[0].securityContext.{name}"));
        }
    }
}
