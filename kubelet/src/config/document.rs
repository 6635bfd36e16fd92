//! The KubeletConfiguration in force: defaults, then the file, then the drop-ins, then the flags.
//!
//! Each layer is checked by itself, so that a mistake is shown where it was made even if a later layer hides it.

use super::ConfigError;
use super::fields::table::FIELDS;
use super::fields::{self, Effect, Field, Kind};
use super::flags::{self, Given};
use super::source::{Place, Source};
use super::values;
use super::yaml::{self, Key, Node, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The value of every field that has one, by its path.
#[derive(Debug)]
pub(super) struct Document {
    values: BTreeMap<&'static str, Node>,
}

impl Document {
    /// Upstream's defaults.
    pub(super) fn defaults() -> Document {
        let default = |field: &'static Field| Some((field.path, default(field)?));
        Document { values: FIELDS.iter().filter_map(default).collect() }
    }

    /// Puts other defaults in the place of upstream's: dotted path and value as the flag takes it.
    ///
    /// # Errors
    /// A value that is not of the field's kind.
    pub(super) fn add_defaults(&mut self, defaults: &[(&'static str, String)]) -> Result<(), ConfigError> {
        for (path, text) in defaults {
            let field =
                fields::find(path).ok_or_else(|| Place::Default.mistake(&format!("unknown field `{path}`"), ""))?;
            let node = flags::parse(field, text, Place::Default)?;
            values::check(field.path, field.kind, &node)?;
            self.values.insert(field.path, node);
        }
        Ok(())
    }

    /// Lays a file over what is there.
    ///
    /// # Errors
    /// The first mistake in it.
    pub(super) fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        self.add(&Source::read(path)?)
    }

    pub(super) fn add(&mut self, source: &Arc<Source>) -> Result<(), ConfigError> {
        let root = yaml::parse(source)?;
        let Value::Map(entries) = root.value else {
            return Err(source.mistake("this is not a KubeletConfiguration", KIND_HELP, 0..0));
        };
        check_type(source, &entries)?;
        for (key, node) in entries {
            if !matches!(key.name.as_str(), "apiVersion" | "kind") {
                self.add_entry(&key.name, &key.place, node)?;
            }
        }
        Ok(())
    }

    fn add_entry(&mut self, path: &str, place: &Place, node: Node) -> Result<(), ConfigError> {
        if let Some(field) = fields::find(path) {
            return self.merge(field, node);
        }
        if !fields::is_group(path) {
            return Err(place.mistake(&format!("unknown field `{path}`"), &suggestion(path)));
        }
        match node.value {
            Value::Null => Ok(()),
            Value::Map(entries) => entries
                .into_iter()
                .try_for_each(|(key, node)| self.add_entry(&format!("{path}.{}", key.name), &key.place, node)),
            other => Err(node.place.mistake(&format!("`{path}` wants a mapping, this is {}", other.kind()), "")),
        }
    }

    /// A mapping's entries go over those of the layers below, as a JSON merge patch does; everything else replaces.
    fn merge(&mut self, field: &'static Field, node: Node) -> Result<(), ConfigError> {
        if field.is_unset(&node.value) {
            match default(field) {
                Some(node) => self.values.insert(field.path, node),
                None => self.values.remove(field.path),
            };
            return Ok(());
        }
        values::check(field.path, field.kind, &node)?;
        self.lay(field, node);
        Ok(())
    }

    fn lay(&mut self, field: &'static Field, node: Node) {
        let below = self.values.get_mut(field.path).filter(|below| below.place.given());
        match (below, node) {
            (Some(Node { value: Value::Map(below), .. }), Node { value: Value::Map(entries), .. }) => {
                entries.into_iter().for_each(|entry| put(below, entry));
            }
            (_, node) => {
                self.values.insert(field.path, node);
            }
        }
    }

    /// Lays flags over what is there: they replace, but feature gates are added and a list's flag may be repeated.
    ///
    /// # Errors
    /// A value that is of the wrong kind.
    pub(super) fn add_flags(&mut self, given: &Given) -> Result<(), ConfigError> {
        for (field, node) in given.fields()? {
            values::check(field.path, field.kind, &node)?;
            if matches!(field.kind, Kind::Gates) {
                self.lay(field, node);
            } else {
                self.values.insert(field.path, node);
            }
        }
        Ok(())
    }

    /// The value of a field that has a default, or is given.
    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        debug_assert!(fields::find(path).is_some(), "{path} is no field");
        self.values.get(path)
    }

    /// Whether somebody gave a field.
    pub(super) fn given(&self, path: &str) -> bool {
        self.get(path).is_some_and(|node| node.place.given())
    }

    /// Refuses what would harm, and names what has no effect yet.
    ///
    /// # Errors
    /// The first field that is refused, with its place and the reason.
    pub(super) fn effects(&self) -> Result<Vec<String>, ConfigError> {
        let mut later = Vec::new();
        for field in FIELDS {
            let Some(node) = self.changed(field) else { continue };
            match field.effect {
                Effect::Now | Effect::Moot => {}
                Effect::Later => later.push(field.path.to_owned()),
                Effect::Refused(reason) => return Err(refusal(field, node, reason)),
                Effect::Only(fine, reason) => {
                    if !matches!(&node.value, Value::Text(text) if fine.contains(&text.as_str())) {
                        return Err(refusal(field, node, reason));
                    }
                }
            }
        }
        Ok(later)
    }

    /// A field's value if it was given and is another than the default.
    fn changed(&self, field: &'static Field) -> Option<&Node> {
        let node = self.values.get(field.path).filter(|node| node.place.given())?;
        let same = match default(field) {
            Some(default) => values::same(field.kind, &default.value, &node.value),
            None => {
                matches!(&node.value, Value::List(items) if items.is_empty())
                    || matches!(&node.value, Value::Map(entries) if entries.is_empty())
                    || field.is_unset(&node.value)
            }
        };
        (!same).then_some(node)
    }

    /// As upstream's `/configz` shows it.
    pub(super) fn json(&self) -> serde_json::Value {
        let mut root = serde_json::Map::new();
        for (path, node) in &self.values {
            let (groups, name) = path.rsplit_once('.').unwrap_or(("", path));
            let mut table = &mut root;
            for group in groups.split('.').filter(|group| !group.is_empty()) {
                let inner = table.entry(group).or_insert_with(|| serde_json::Value::Object(serde_json::Map::new()));
                match inner {
                    serde_json::Value::Object(inner) => table = inner,
                    _ => unreachable!("a group is made by the line above"),
                }
            }
            table.insert(name.to_owned(), node.value.json());
        }
        serde_json::Value::Object(root)
    }
}

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";
const KIND_HELP: &str = "it begins with `apiVersion: kubelet.config.k8s.io/v1beta1` and `kind: KubeletConfiguration`";

fn check_type(source: &Source, entries: &[(Key, Node)]) -> Result<(), ConfigError> {
    for (name, wants) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        match entries.iter().find(|(key, _)| key.name == name) {
            None => return Err(source.mistake(&format!("`{name}` is missing"), KIND_HELP, 0..0)),
            Some((_, Node { value: Value::Text(text), .. })) if text == wants => {}
            Some((_, node)) => return Err(node.place.mistake(&format!("`{name}` is not {wants}"), "")),
        }
    }
    Ok(())
}

fn default(field: &'static Field) -> Option<Node> {
    if field.default.is_empty() {
        return None;
    }
    #[expect(clippy::expect_used, reason = "the defaults are ours; a unit test parses them all")]
    let node = flags::parse(field, field.default, Place::Default).expect("the table's defaults are of their kinds");
    Some(node)
}

/// Puts an entry into a mapping; `null` takes the one below away.
fn put(map: &mut Vec<(Key, Node)>, entry: (Key, Node)) {
    map.retain(|(key, _)| key.name != entry.0.name);
    if !matches!(entry.1.value, Value::Null) {
        map.push(entry);
    }
}

fn refusal(field: &Field, node: &Node, reason: &str) -> ConfigError {
    let value = match &node.value {
        Value::List(_) | Value::Map(_) => String::new(),
        other => format!(": {}", other.json()),
    };
    node.place.mistake(&format!("`{}{value}` is not supported", field.path), reason)
}

fn suggestion(path: &str) -> String {
    let depth = path.matches('.').count();
    let likeness = |known: &str| (strsim::jaro_winkler(known, path) * 1000.0) as u32;
    let siblings = FIELDS.iter().map(|field| match field.path.match_indices('.').nth(depth) {
        Some((end, _)) => &field.path[..end],
        None => field.path,
    });
    match siblings.max_by_key(|known| likeness(known)) {
        Some(known) if likeness(known) > 800 => format!("did you mean `{known}`?"),
        _ => "kubelet.config.k8s.io/v1beta1 of Kubernetes 1.36 has no such field".to_owned(),
    }
}

/// The drop-ins of a folder and the folders in it: `*.conf`, in lexical order.
///
/// # Errors
/// A folder that can't be read.
pub(super) fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |source| ConfigError::Read { path: folder.to_owned(), source };
    let mut found = Vec::new();
    let mut entries = std::fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type().map_err(failed)?.is_dir() {
            found.extend(drop_ins(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "conf") {
            found.push(path);
        }
    }
    Ok(found)
}
