//! The strategic merge patch that turns one pod status into another.
//!
//! Lists merge by a key or are replaced as a whole, as the API's types say: conditions by `type`, `podIPs` and `hostIPs`
//! by `ip`; the lists of container statuses are atomic.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// The patch for `pods/<name>/status`, or `None` if nothing differs. It applies to the pod of this UID only.
pub(super) fn diff(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let status = object(&fields(old), &fields(new));
    (!status.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": status}))
}

fn fields(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        // A struct of strings, numbers and lists: it is always an object.
        _ => Map::new(),
    }
}

/// What differs between two objects; a field that is gone is null.
fn object(old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in new {
        match (old.get(name), value) {
            (Some(before), value) if before == value => {}
            (Some(Value::Object(before)), Value::Object(after)) => {
                patch.insert(name.clone(), Value::Object(object(before, after)));
            }
            (before, Value::Array(after)) if merge_key(name).is_some() => {
                let before = before.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                list(&mut patch, name, merge_key(name).unwrap_or_default(), before, after);
            }
            (_, value) => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    patch
}

/// The key by which the elements of a list are the same.
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "conditions" => Some("type"),
        "podIPs" | "hostIPs" => Some("ip"),
        "resourceClaimStatuses" => Some("name"),
        _ => None,
    }
}

/// The elements that are new, changed or gone, and the order that all shall have.
fn list(patch: &mut Map<String, Value>, name: &str, key: &str, old: &[Value], new: &[Value]) {
    let find = |all: &[Value], id: &Value| all.iter().find(|element| &element[key] == id).cloned();
    let mut changes = Vec::new();
    for element in new {
        match (find(old, &element[key]), element) {
            (Some(before), after) if &before == after => {}
            (Some(Value::Object(before)), Value::Object(after)) => {
                let mut change = object(&before, after);
                change.insert(key.to_owned(), element[key].clone());
                changes.push(Value::Object(change));
            }
            (_, after) => changes.push(after.clone()),
        }
    }
    let gone = old.iter().filter(|element| find(new, &element[key]).is_none());
    changes.extend(gone.map(|element| json!({"$patch": "delete", key: element[key]})));
    let order = new.iter().map(|element| json!({key: element[key]})).collect();
    patch.insert(format!("$setElementOrder/{name}"), Value::Array(order));
    if !changes.is_empty() {
        patch.insert(name.to_owned(), Value::Array(changes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::api::strategic_merge;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    /// The patch is as expected, and applied to the old status it makes the new one.
    fn check(old: Value, new: Value, expected: Value) {
        let (old, new) = (status(old), status(new));
        let patch = diff("u", &old, &new);
        assert_eq!(patch.as_ref().map_or(Value::Null, |patch| patch["status"].clone()), expected);
        let mut applied = serde_json::to_value(&old).unwrap();
        strategic_merge(&mut applied, &patch.map_or(json!({}), |patch| patch["status"].clone()));
        assert_eq!(status(applied), new);
    }

    #[test]
    fn equal_statuses_need_no_patch() {
        check(json!({"phase": "Running"}), json!({"phase": "Running"}), Value::Null);
    }

    #[test]
    fn a_field_that_is_gone_is_null() {
        check(
            json!({"phase": "Pending", "message": "m"}),
            json!({"phase": "Running"}),
            json!({"phase": "Running", "message": null}),
        );
    }

    #[test]
    fn conditions_merge_by_type_and_say_what_they_lost() {
        check(
            json!({"conditions": [{"type": "Mine", "status": "True"}, {"type": "Ready", "status": "False", "reason": "R"}]}),
            json!({"conditions": [{"type": "Mine", "status": "True"}, {"type": "Ready", "status": "True"}]}),
            json!({
                "$setElementOrder/conditions": [{"type": "Mine"}, {"type": "Ready"}],
                "conditions": [{"type": "Ready", "status": "True", "reason": null}],
            }),
        );
    }

    #[test]
    fn a_condition_that_is_gone_is_deleted() {
        check(
            json!({"conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "True"}]}),
            json!({"conditions": [{"type": "B", "status": "True"}]}),
            json!({
                "$setElementOrder/conditions": [{"type": "B"}],
                "conditions": [{"$patch": "delete", "type": "A"}],
            }),
        );
    }

    #[test]
    fn addresses_are_replaced_one_by_one() {
        check(
            json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}),
            json!({"podIPs": [{"ip": "10.0.0.2"}, {"ip": "fd00::1"}]}),
            json!({
                "$setElementOrder/podIPs": [{"ip": "10.0.0.2"}, {"ip": "fd00::1"}],
                "podIPs": [{"ip": "10.0.0.2"}, {"$patch": "delete", "ip": "10.0.0.1"}],
            }),
        );
    }

    #[test]
    fn container_statuses_are_sent_as_a_whole() {
        let container = |name: &str, ready: bool| json!({"name": name, "ready": ready, "restartCount": 0, "image": "i", "imageID": ""});
        let new = json!([container("a", true), container("b", false)]);
        check(
            json!({"containerStatuses": [container("a", false), container("b", false)]}),
            json!({"containerStatuses": new}),
            json!({"containerStatuses": new}),
        );
    }
}
