//! YAML or JSON as a tree in which every key and value knows its place.
//!
//! Files are small and not trusted: the parser gives up on deep nesting, many nodes and aliases that multiply
//! ([`budget`]), and a key that stands twice in one mapping is a mistake.

use super::ConfigError;
use super::source::{Place, Source};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Place,
}

/// What YAML can say.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A mapping's key.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) place: Place,
}

/// Parses one document.
///
/// # Errors
/// It is no YAML, more than one document, or too much of anything; with the place.
pub(crate) fn parse(source: &Arc<Source>) -> Result<Node, ConfigError> {
    let options = serde_saphyr::options! { budget: budget(), with_snippet: false };
    let raw: Spanned<Raw> = serde_saphyr::from_str_with_options(&source.text, options).map_err(|error| {
        let at = error.location().map_or(0, |location| offset(&source.text, &location));
        // The parser's words may quote what it stumbled over.
        let title =
            if source.secret { "this is not valid YAML, or a key stands twice".to_owned() } else { message(&error) };
        source.mistake(&title, "", at..at)
    })?;
    Ok(raw.value.placed(source, span(&raw.referenced)))
}

/// What a configuration may be at most: upstream's largest examples stay below a hundredth of it.
fn budget() -> Option<serde_saphyr::Budget> {
    serde_saphyr::budget! {
        max_depth: 32,
        flow_nesting_limit: 32,
        max_nodes: 20_000,
        max_events: 100_000,
        max_aliases: 100,
        max_anchors: 100,
        max_recorded_anchor_events: 20_000,
        max_documents: 1,
    }
}

/// The parser's words without its own account of the place, which the snippet shows.
fn message(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    first.split(" at line ").next().unwrap_or(first).trim_start_matches("error: ").to_owned()
}

/// Where a line and column are; the scanner's errors have no bytes.
fn offset(text: &str, location: &Location) -> usize {
    let index = |number: u64| usize::try_from(number.saturating_sub(1)).unwrap_or(0);
    let before: usize = text.split_inclusive('\n').take(index(location.line())).map(str::len).sum();
    let column = text[before..].char_indices().nth(index(location.column())).map_or(0, |(at, _)| at);
    before + column
}

fn span(location: &Location) -> Range<usize> {
    let bytes = location.span();
    let start = usize::try_from(bytes.byte_offset().unwrap_or(0)).unwrap_or(0);
    start..start + usize::try_from(bytes.byte_len().unwrap_or(0)).unwrap_or(0)
}

/// A node as the parser hands it over, before it knows its file.
enum Raw {
    Scalar(Value),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl Raw {
    fn placed(self, source: &Arc<Source>, at: Range<usize>) -> Node {
        let value = match self {
            Raw::Scalar(value) => value,
            Raw::List(items) => {
                Value::List(items.into_iter().map(|item| item.value.placed(source, span(&item.referenced))).collect())
            }
            Raw::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, item)| {
                        let place = Place::File(source.clone(), span(&key.referenced));
                        (Key { name: key.value, place }, item.value.placed(source, span(&item.referenced)))
                    })
                    .collect(),
            ),
        };
        Node { value, place: Place::File(source.clone(), at) }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Int(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        // No field of ours is as large: as a float it is of the wrong kind, or out of range, and refused as such.
        Ok(Raw::Scalar(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

impl Value {
    /// With its article, as an error says it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// The same without places.
    pub(crate) fn json(&self) -> serde_json::Value {
        match self {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Text(value) => value.clone().into(),
            Value::List(items) => items.iter().map(|item| item.value.json()).collect(),
            Value::Map(entries) => entries.iter().map(|(key, item)| (key.name.clone(), item.value.json())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::worked;
    use std::fmt::Write;

    fn source(text: &str) -> Arc<Source> {
        Arc::new(Source { path: "k.yaml".into(), text: text.to_owned(), secret: false })
    }

    #[track_caller]
    fn refused(text: &str, wants: &[&str]) {
        let error = parse(&source(text)).unwrap_err().to_string();
        for want in wants {
            assert!(error.contains(want), "{want:?} is not in:\n{error}");
        }
    }

    #[test]
    fn every_value_knows_its_bytes() {
        let source = source("a: 1\nb:\n  c: [x, true]\n");
        let Value::Map(top) = parse(&source).unwrap().value else { panic!() };
        let text = |place: &Place| match place {
            Place::File(_, span) => source.text[span.clone()].to_owned(),
            _ => panic!(),
        };
        assert_eq!((text(&top[0].0.place), text(&top[0].1.place)), ("a".to_owned(), "1".to_owned()));
        let Value::Map(inner) = &top[1].1.value else { panic!() };
        let Value::List(items) = &inner[0].1.value else { panic!() };
        assert_eq!((text(&inner[0].0.place), text(&items[1].place)), ("c".to_owned(), "true".to_owned()));
    }

    #[test]
    fn json_is_yaml_too() {
        let node = parse(&source("{\"a\": {\"b\": [1, 2.5, null, \"x\"]}}\n")).unwrap();
        assert_eq!(node.value.json(), serde_json::json!({"a": {"b": [1, 2.5, null, "x"]}}));
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_with_its_line() {
        refused("maxPods: 1\nport: 2\nmaxPods: 3\n", &["duplicate", "maxPods", "k.yaml:3"]);
    }

    #[test]
    fn broken_yaml_is_refused_with_its_line() {
        refused("a: 1\nb: [1, 2\nc: 3\n", &["k.yaml:"]);
        refused("a: 1\n\tb: 2\n", &["k.yaml:1", "tab"]);
    }

    #[test]
    fn a_second_document_is_refused() {
        refused("a: 1\n---\nb: 2\n", &["k.yaml:"]);
    }

    #[test]
    fn aliases_that_multiply_are_refused_at_once() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let references = vec![format!("*a{}", level - 1); 10].join(", ");
            writeln!(bomb, "a{level}: &a{level} [{references}]").unwrap();
        }
        let begin = worked();
        assert!(parse(&source(&bomb)).is_err());
        assert!(worked() - begin < std::time::Duration::from_secs(1));
    }

    #[test]
    fn deep_nesting_is_refused_and_costs_no_stack() {
        refused(&"[".repeat(100_000), &["k.yaml:1"]);
        let blocks: String = (0..2000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert!(parse(&source(&blocks)).is_err());
    }
}
