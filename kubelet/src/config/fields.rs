//! What KubeletConfiguration v1beta1 can say: every field with its kind, its default, its flag and its effect.
//!
//! The [`table`] is the only list of fields. Files, flags, defaults, `/configz` and the list of what has no effect yet are
//! all read off it.

pub(super) mod table;

use super::duration;
use super::yaml::Value;

/// One field.
#[derive(Debug)]
pub(super) struct Field {
    /// Dotted path in the document.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    /// Upstream's default in the flag's syntax; the empty text is none.
    pub(super) default: &'static str,
    /// When the default stands in.
    pub(super) unset: Unset,
    /// Upstream's flag without dashes; empty where it has none.
    pub(super) flag: &'static str,
    pub(super) effect: Effect,
}

/// What counts as not given. Upstream's structs differ in it: a value's zero is unset, a pointer's is a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unset {
    /// Absent, null, or Go's zero value: `0`, `""`, `0s`, `false`.
    Zero,
    /// Absent or null.
    Absent,
}

/// What kind of value a field takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Bool,
    /// Between these two, inclusive.
    Int(i64, i64),
    /// Between these two, inclusive.
    Float(f64, f64),
    Text,
    OneOf(&'static [&'static str]),
    /// A file or folder; relative ones start at the configuration file.
    Path,
    Ip,
    /// Go's syntax, at least so many milliseconds and at most so many (0: no limit).
    Duration(u64, u64),
    /// A duration that a sign may make negative.
    SignedDuration,
    /// A duration or a number of nanoseconds, as logging's flushFrequency is.
    DurationOrInt,
    Quantity,
    Texts,
    Ints,
    Ips,
    /// Name → text. The flag separates the two by this character.
    Map(char),
    /// Name → quantity.
    Quantities,
    /// Name → duration.
    Durations,
    /// Eviction signal → quantity or percentage.
    Thresholds,
    /// Name → list of texts.
    Headers,
    /// Name → boolean.
    Gates,
    Taints,
    /// A list of mappings with these fields.
    Records(&'static [(&'static str, Kind)]),
}

/// What comes of a value that is not the default.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    /// What it says.
    Now,
    /// Nothing yet, and nobody is harmed: it is listed as not yet effective.
    Later,
    /// Nothing ever, as upstream's own documentation or our construction has it; it is not worth a line in the log.
    Moot,
    /// The node would not be what was asked for, in a way that is found out too late: refused, with the reason.
    Refused(&'static str),
    /// These values are fine, all others are refused with the reason.
    Only(&'static [&'static str], &'static str),
}

/// The field of this path.
pub(super) fn find(path: &str) -> Option<&'static Field> {
    table::FIELDS.iter().find(|field| field.path == path)
}

/// Whether some field's path goes through this one.
pub(super) fn is_group(path: &str) -> bool {
    table::FIELDS.iter().any(|field| field.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

impl Field {
    /// Whether a value stands for "not given"; one of another kind never does.
    pub(super) fn is_unset(&self, value: &Value) -> bool {
        let zero = match (self.kind, value) {
            (_, Value::Null) => return true,
            (Kind::Bool, Value::Bool(value)) => !value,
            (Kind::Int(..), Value::Int(value)) => *value == 0,
            (Kind::Float(..), _) => matches!(value, Value::Int(0)),
            (Kind::Duration(..) | Kind::SignedDuration | Kind::DurationOrInt, Value::Text(text)) => {
                duration::parse(text).is_some_and(|duration| duration.is_zero())
            }
            (Kind::Text | Kind::OneOf(_) | Kind::Path | Kind::Ip | Kind::Quantity, Value::Text(text)) => {
                text.is_empty()
            }
            _ => false,
        };
        zero && self.unset == Unset::Zero
    }
}
