//! Whether a value is of a field's kind.

use super::ConfigError;
use super::duration;
use super::fields::Kind;
use super::yaml::{Key, Node, Value};
use crate::spec::quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::net::IpAddr;
use std::time::Duration;

/// The signals of eviction thresholds.
const SIGNALS: [&str; 10] = [
    "memory.available",
    "allocatableMemory.available",
    "nodefs.available",
    "nodefs.inodesFree",
    "imagefs.available",
    "imagefs.inodesFree",
    "containerfs.available",
    "containerfs.inodesFree",
    "pid.available",
    "allocatableNodeFs.available",
];

/// Checks a value, with all that is in it, against a kind.
///
/// # Errors
/// What it should have been, at its place.
pub(super) fn check(path: &str, kind: Kind, node: &Node) -> Result<(), ConfigError> {
    match (kind, &node.value) {
        (Kind::Bool, Value::Bool(_)) | (Kind::Text | Kind::Path, Value::Text(_)) => Ok(()),
        (Kind::Int(min, max), Value::Int(value)) => {
            range(path, node, (min..=max).contains(value), &format!("between {min} and {max}"), value)
        }
        (Kind::Float(min, max), Value::Int(_) | Value::Float(_)) => {
            let value = float(&node.value);
            range(path, node, value > min && value <= max, &format!("greater than {min} and at most {max}"), &value)
        }
        (Kind::OneOf(allowed), Value::Text(text)) => {
            let listed: Vec<_> =
                allowed.iter().filter(|value| !value.is_empty()).map(|value| format!("{value:?}")).collect();
            range(
                path,
                node,
                allowed.contains(&text.as_str()),
                &format!("one of {}", listed.join(", ")),
                &format_args!("{text:?}"),
            )
        }
        (Kind::Ip, Value::Text(text)) => {
            range(path, node, text.parse::<IpAddr>().is_ok(), "an IP address", &format_args!("{text:?}"))
        }
        (Kind::Duration(min, max), Value::Text(text)) => check_duration(path, node, text, min, max),
        (Kind::SignedDuration, Value::Text(text)) => {
            check_duration(path, node, text.strip_prefix('-').unwrap_or(text), 0, 0)
        }
        (Kind::DurationOrInt, Value::Int(_)) => Ok(()),
        (Kind::DurationOrInt, Value::Text(text)) => check_duration(path, node, text, 0, 0),
        (Kind::Quantity, Value::Text(text)) => check_quantity(path, node, text),
        (Kind::Quantity, Value::Int(_)) => Ok(()),
        (Kind::Texts, Value::List(items)) => each(path, Kind::Text, items),
        (Kind::Ints, Value::List(items)) => each(path, Kind::Int(0, i64::from(i32::MAX)), items),
        (Kind::Ips, Value::List(items)) => each(path, Kind::Ip, items),
        (Kind::Map(_), Value::Map(entries)) => each_named(path, Kind::Text, entries),
        (Kind::Quantities, Value::Map(entries)) => each_named(path, Kind::Quantity, entries),
        (Kind::Headers, Value::Map(entries)) => each_named(path, Kind::Texts, entries),
        (Kind::Gates, Value::Map(entries)) => each_named(path, Kind::Bool, entries),
        (Kind::Durations, Value::Map(entries)) => {
            signals(path, entries)?;
            each_named(path, Kind::Duration(1, 0), entries)
        }
        (Kind::Thresholds, Value::Map(entries)) => {
            signals(path, entries)?;
            entries.iter().try_for_each(|(key, node)| check_threshold(&format!("{path}.{}", key.name), node))
        }
        (Kind::Taints, Value::List(items)) => each(
            path,
            Kind::Records(&[("key", Kind::Text), ("value", Kind::Text), ("effect", Kind::OneOf(&EFFECTS))]),
            items,
        ),
        (Kind::Records(fields), Value::List(items)) => items.iter().try_for_each(|item| record(path, fields, item)),
        (Kind::Records(fields), Value::Map(_)) => record(path, fields, node),
        (kind, other) => {
            Err(node.place.mistake(&format!("`{path}` wants {}, this is {}", name(kind), other.kind()), ""))
        }
    }
}

/// The effects of a taint.
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "a boolean",
        Kind::Int(..) => "an integer",
        Kind::Float(..) => "a number",
        Kind::Text | Kind::OneOf(_) | Kind::Path => "a string",
        Kind::Ip => "an IP address",
        Kind::Duration(..) | Kind::SignedDuration => "a duration such as \"1m30s\"",
        Kind::DurationOrInt => "a duration or nanoseconds",
        Kind::Quantity => "a quantity such as \"10Mi\"",
        Kind::Texts | Kind::Ints | Kind::Ips | Kind::Taints => "a list",
        Kind::Records(_) => "a list of mappings",
        Kind::Map(_) | Kind::Quantities | Kind::Durations | Kind::Thresholds | Kind::Headers | Kind::Gates => {
            "a mapping"
        }
    }
}

fn range(path: &str, node: &Node, fine: bool, wants: &str, found: &dyn std::fmt::Display) -> Result<(), ConfigError> {
    if fine { Ok(()) } else { Err(node.place.mistake(&format!("`{path}` must be {wants}, this is {found}"), "")) }
}

fn each(path: &str, kind: Kind, items: &[Node]) -> Result<(), ConfigError> {
    items.iter().enumerate().try_for_each(|(index, item)| match (kind, &item.value) {
        (Kind::Records(fields), _) => record(&format!("{path}[{index}]"), fields, item),
        _ => check(&format!("{path}[{index}]"), kind, item),
    })
}

fn each_named(path: &str, kind: Kind, entries: &[(Key, Node)]) -> Result<(), ConfigError> {
    entries.iter().try_for_each(|(key, node)| match node.value {
        Value::Null => Ok(()),
        _ => check(&format!("{path}.{}", key.name), kind, node),
    })
}

fn record(path: &str, fields: &[(&str, Kind)], node: &Node) -> Result<(), ConfigError> {
    let Value::Map(entries) = &node.value else {
        return Err(node.place.mistake(&format!("`{path}` wants a mapping, this is {}", node.value.kind()), ""));
    };
    entries.iter().try_for_each(|(key, value)| match fields.iter().find(|(name, _)| *name == key.name) {
        None => {
            let known: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
            let known = format!("known are {}", known.join(", "));
            Err(key.place.mistake(&format!("unknown field `{path}.{}`", key.name), &known))
        }
        Some((_, _)) if matches!(value.value, Value::Null) => Ok(()),
        Some((name, kind)) => check(&format!("{path}.{name}"), *kind, value),
    })
}

fn check_duration(path: &str, node: &Node, text: &str, min: u64, max: u64) -> Result<(), ConfigError> {
    let Some(duration) = duration::parse(text) else {
        return range(path, node, false, "a duration such as \"1m30s\"", &format_args!("{text:?}"));
    };
    let (least, most) = (Duration::from_millis(min), Duration::from_millis(max));
    let wants = match max {
        0 => format!("at least {}", duration::format(least)),
        _ => format!("between {} and {}", duration::format(least), duration::format(most)),
    };
    range(path, node, duration >= least && (max == 0 || duration <= most), &wants, &text)
}

fn check_quantity(path: &str, node: &Node, text: &str) -> Result<(), ConfigError> {
    let fine = quantity::nano(&Quantity(text.to_owned())).is_ok_and(|amount| amount >= 0);
    range(path, node, fine, "a quantity such as \"10Mi\"", &format_args!("{text:?}"))
}

fn signals(path: &str, entries: &[(Key, Node)]) -> Result<(), ConfigError> {
    entries.iter().try_for_each(|(key, _)| {
        if SIGNALS.contains(&key.name.as_str()) {
            return Ok(());
        }
        let known = format!("known are {}", SIGNALS.join(", "));
        Err(key.place.mistake(&format!("`{path}` has no eviction signal `{}`", key.name), &known))
    })
}

fn check_threshold(path: &str, node: &Node) -> Result<(), ConfigError> {
    let Value::Text(text) = &node.value else {
        return range(path, node, false, "a quantity or a percentage", &node.value.kind());
    };
    let fine = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().is_ok_and(|percent| (0.0..=100.0).contains(&percent)),
        None => quantity::nano(&Quantity(text.clone())).is_ok_and(|amount| amount > 0),
    };
    range(path, node, fine, "a quantity such as \"100Mi\" or a percentage such as \"10%\"", &format_args!("{text:?}"))
}

fn float(value: &Value) -> f64 {
    match value {
        Value::Int(value) => *value as f64,
        Value::Float(value) => *value,
        _ => f64::NAN,
    }
}

/// Whether two values of one kind say the same: `60s` is `1m`.
pub(super) fn same(kind: Kind, a: &Value, b: &Value) -> bool {
    match (kind, a, b) {
        (Kind::Duration(..) | Kind::SignedDuration | Kind::DurationOrInt, Value::Text(a), Value::Text(b)) => {
            a == b || duration::parse(a).is_some_and(|duration| duration::parse(b) == Some(duration))
        }
        (Kind::Float(..), _, _) => (float(a) - float(b)).abs() < f64::EPSILON,
        _ => a.json() == b.json(),
    }
}
