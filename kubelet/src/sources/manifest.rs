//! A manifest of a static pod: text → [`Pod`], as the API server and upstream's file source would make it.
//!
//! The text is parsed into a tree that knows its lines (with caps on depth, nodes and aliases), read as a Pod whose every
//! field must be known, named and marked as static, defaulted and validated. A mistake is one line: file, line, field.

use super::defaults;
use super::mirror::HASH;
use super::validate;
use crate::config::source::{Place, Source as Text};
use crate::config::yaml::{self, Node, Value};
use crate::pod::{Pod, Source};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod as PodObject, PodStatus, Toleration};
use serde_json::Value as Json;
use std::path::Path;
use std::sync::Arc;

/// Annotation of a static pod: when its manifest was first seen in its present form.
pub(super) const SEEN: &str = "kubernetes.io/config.seen";

/// Why a manifest is no pod: `/etc/kubernetes/manifests/a.yaml:7: spec.containers[0].imag: unknown field`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct ManifestError(pub(super) String);

/// A place in an object: `["spec", "containers", "0", "image"]`.
type Field = Vec<String>;

/// The pod of a manifest, for a node of this name. `seen` is when the manifest was first seen in this form.
pub(super) fn parse(file: &Path, text: String, node_name: &str, seen: Timestamp) -> Result<Pod, ManifestError> {
    let text = Arc::new(Text { path: file.to_owned(), text, secret: false });
    let root = yaml::parse(&text).map_err(|error| ManifestError(condensed(&error.to_string())))?;
    let at = |path: &[String], problem: &str| mistake(file, &root, path, problem);
    let mut json = root.value.json();
    kind(&json).map_err(|(field, problem)| at(&[field.to_owned()], &problem))?;
    quantities(&mut json);
    let mut object: PodObject = serde_path_to_error::deserialize(&json)
        .map_err(|error| at(&segments(&error.path().to_string()), &error.inner().to_string()))?;
    let known = serde_json::to_value(&object).unwrap_or_default();
    if let Some(path) = unknown(&json, &known) {
        return Err(at(&path, "unknown field"));
    }
    if object.metadata.uid.as_deref().is_none_or(str::is_empty) {
        object.metadata.uid = Some(uid(&json, node_name, file));
    }
    defaults::apply(&mut object);
    validate::check(&object).map_err(|problem| at(&segments(&problem.field), &problem.message))?;
    mark(&mut object, node_name, seen);
    Pod::new(Arc::new(object), Source::File).map_err(|error| at(&[], &error.to_string()))
}

/// `apiVersion: v1, kind: Pod`.
fn kind(json: &Json) -> Result<(), (&'static str, String)> {
    for (field, expected) in [("apiVersion", "v1"), ("kind", "Pod")] {
        match json.get(field).and_then(Json::as_str) {
            Some(found) if found == expected => {}
            Some(found) => return Err((field, format!("is {found:?}; static pods have {field}: {expected}"))),
            None => return Err((field, format!("is missing; static pods have {field}: {expected}"))),
        }
    }
    Ok(())
}

/// Writes quantities that are numbers as the strings that they mean; the API server takes both.
fn quantities(json: &mut Json) {
    let text = |value: &mut Json| {
        if value.is_number() {
            *value = Json::String(value.to_string());
        }
    };
    match json {
        Json::Array(items) => items.iter_mut().for_each(quantities),
        Json::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), &mut *value) {
                    ("limits" | "requests" | "overhead", Json::Object(list)) => list.values_mut().for_each(text),
                    ("sizeLimit" | "divisor", value) => text(value),
                    ("annotations" | "labels" | "nodeSelector", _) => {}
                    (_, value) => quantities(value),
                }
            }
        }
        _ => {}
    }
}

/// The first field of `given` that reading it as a Pod has lost.
fn unknown(given: &Json, known: &Json) -> Option<Field> {
    let found = |name: String, inner: Field| [vec![name], inner].concat();
    match (given, known) {
        (Json::Object(given), Json::Object(known)) => {
            given.iter().filter(|(_, value)| !value.is_null()).find_map(|(name, value)| match known.get(name) {
                None => Some(vec![name.clone()]),
                Some(known) => unknown(value, known).map(|inner| found(name.clone(), inner)),
            })
        }
        (Json::Array(given), Json::Array(known)) => given
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(index, (given, known))| unknown(given, known).map(|inner| found(index.to_string(), inner))),
        _ => None,
    }
}

/// A UID that is the same as long as manifest, file and node are: FNV-1a of 128 bits, as upstream's are.
fn uid(json: &Json, node_name: &str, file: &Path) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    // Keys of a `serde_json::Value` are sorted: order and comments of the file don't count.
    let text = format!("{json}host:{node_name}file:{}", file.display());
    let hash = text.bytes().fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}

/// Name, node, annotations and toleration of a static pod.
fn mark(object: &mut PodObject, node_name: &str, seen: Timestamp) {
    let meta = &mut object.metadata;
    let name = meta.name.take().unwrap_or_default();
    meta.name = Some(format!("{name}-{}", node_name.to_lowercase()));
    meta.namespace = Some(meta.namespace.take().filter(|given| !given.is_empty()).unwrap_or_else(|| "default".into()));
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(HASH.to_owned(), meta.uid.clone().unwrap_or_default());
    annotations.insert("kubernetes.io/config.source".to_owned(), "file".to_owned());
    annotations.insert(SEEN.to_owned(), seen.to_string());
    let spec = object.spec.get_or_insert_default();
    spec.node_name = Some(node_name.to_owned());
    let lasting = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    let tolerations = spec.tolerations.get_or_insert_default();
    if !tolerations.contains(&lasting) {
        tolerations.push(lasting);
    }
    object.status = Some(PodStatus { phase: Some("Pending".to_owned()), ..PodStatus::default() });
}

/// One line that names file, line and field.
fn mistake(file: &Path, root: &Node, path: &[String], problem: &str) -> ManifestError {
    let line = line(root, path).map(|line| format!(":{line}")).unwrap_or_default();
    let field = shown(path);
    let field = if field.is_empty() { field } else { format!(" {field}:") };
    ManifestError(format!("{}{line}:{field} {problem}", file.display()))
}

/// `spec.containers[0].image`.
fn shown(path: &[String]) -> String {
    let mut text = String::new();
    for part in path {
        match (part.bytes().all(|byte| byte.is_ascii_digit()), text.is_empty()) {
            (true, _) => text.push_str(&format!("[{part}]")),
            (false, true) => text.push_str(part),
            (false, false) => text.push_str(&format!(".{part}")),
        }
    }
    text
}

/// The way back: what [`shown`] shows.
fn segments(field: &str) -> Field {
    field.split(['.', '[', ']']).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// The line of a field, or of the last of its parents that the manifest has.
fn line(root: &Node, path: &[String]) -> Option<usize> {
    let (mut node, mut place) = (root, &root.place);
    for part in path {
        let next = match &node.value {
            Value::Map(entries) => {
                entries.iter().find(|(key, _)| &key.name == part).map(|(key, node)| (node, &key.place))
            }
            Value::List(items) => {
                part.parse().ok().and_then(|index: usize| items.get(index)).map(|node| (node, &node.place))
            }
            _ => None,
        };
        let Some((inner, at)) = next else { break };
        (node, place) = (inner, at);
    }
    match place {
        Place::File(source, span) => {
            let before = source.text.get(..span.start).unwrap_or_default();
            Some(before.matches('\n').count() + 1)
        }
        _ => None,
    }
}

/// The parser's report in one line: it draws the place, which a log line can't show.
fn condensed(report: &str) -> String {
    let title = report.lines().next().unwrap_or_default().trim_start_matches("error: ");
    let place = report.lines().find_map(|line| line.trim_start().strip_prefix("--> "));
    format!("{}: {title}", place.unwrap_or_default())
}

#[cfg(test)]
mod tests;
