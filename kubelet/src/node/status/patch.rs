//! The difference of two statuses as a strategic merge patch: what others change at the same time stays.

use k8s_openapi::api::core::v1::NodeStatus;
use serde_json::{Map, Value, json};

/// Whether two statuses say the same. When a condition was last confirmed does not count.
pub(in crate::node) fn resembles(one: &NodeStatus, other: &NodeStatus) -> bool {
    without_heartbeats(one) == without_heartbeats(other)
}

fn without_heartbeats(status: &NodeStatus) -> Value {
    let mut status = status.clone();
    let conditions = status.conditions.get_or_insert_default();
    conditions.sort_by(|one, other| one.type_.cmp(&other.type_));
    for condition in conditions {
        condition.last_heartbeat_time = None;
    }
    // As JSON, times are cut to seconds, as the API server's are.
    let mut value = serde_json::to_value(status).unwrap_or_default();
    prune(&mut value);
    value
}

/// An empty list or map is what the API server leaves out.
fn prune(value: &mut Value) {
    let Value::Object(fields) = value else { return };
    for field in fields.values_mut() {
        prune(field);
    }
    fields.retain(|_, field| match field {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    });
}

/// The patch that makes `new` of `old`.
pub(in crate::node) fn patch(old: &NodeStatus, new: &NodeStatus) -> Value {
    let (Ok(Value::Object(old)), Ok(Value::Object(new))) = (serde_json::to_value(old), serde_json::to_value(new))
    else {
        return json!({});
    };
    let mut changes = Map::new();
    for (name, value) in &new {
        let before = old.get(name).unwrap_or(&Value::Null);
        if before == value {
            continue;
        }
        let change = match (name.as_str(), value) {
            // Merged by type otherwise: a dual-stack node has two of one type.
            ("addresses", Value::Array(list)) => {
                json!([[json!({"$patch": "replace"})].as_slice(), list.as_slice()].concat())
            }
            // A list that is replaced as a whole, or merged by the server.
            (_, Value::Object(fields)) => object(before, fields),
            _ => value.clone(),
        };
        changes.insert(name.clone(), change);
    }
    json!({ "status": changes })
}

/// The fields that differ; those that are gone as null.
fn object(before: &Value, fields: &Map<String, Value>) -> Value {
    let mut change = Map::new();
    for (name, value) in fields {
        if before.get(name) != Some(value) {
            change.insert(name.clone(), value.clone());
        }
    }
    for name in before.as_object().into_iter().flat_map(Map::keys) {
        if !fields.contains_key(name) {
            change.insert(name.clone(), Value::Null);
        }
    }
    Value::Object(change)
}
