//! Reads the configuration files, lays one over the other and remembers where each value came from.
//!
//! A wrong key or a value of the wrong kind is refused with the file, the line and, for a key, the one that was
//! probably meant. What a key is and which kind it has is read off the defaults' own serialisation.

use super::Settings;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

/// Settings and where each value stands: dotted key to `file:line`, a flag, or `default`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layered {
    pub(crate) settings: Settings,
    pub(crate) origins: BTreeMap<String, String>,
}

/// A configuration that can't be used; prints itself with the place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A file that is there but can't be read, or was named and isn't there.
    #[error("read {path}", path = .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// A mistake inside a file, rendered with the lines around it.
    #[error("{0}")]
    Mistake(String),
    /// A value that is of the right kind but none of those allowed.
    #[error("{0}")]
    Value(#[from] toml::de::Error),
}

/// A value from the command line, which stands over all files.
#[derive(Debug, Clone)]
pub(crate) struct Flag {
    /// Dotted key.
    pub(crate) key: &'static str,
    /// As the user typed it: `--root`.
    pub(crate) name: &'static str,
    pub(crate) value: String,
}

/// Reads `config`, then the `conf.d/*.toml` beside it by name, then applies the flags.
///
/// A missing `config` is an error only if it was `named` by the user.
///
/// # Errors
/// The first mistake, with its place.
pub(crate) fn load(config: &Path, named: bool, flags: &[Flag]) -> Result<Layered, ConfigError> {
    let mut layers = Layers::new();
    if let Some(text) = read(config, named)? {
        layers.add(config, &text)?;
    }
    for path in drop_ins(config)? {
        if let Some(text) = read(&path, true)? {
            layers.add(&path, &text)?;
        }
    }
    for flag in flags {
        layers.set(flag.key, Value::String(flag.value.clone()), flag.name.to_owned());
    }
    Ok(Layered { settings: layers.values.try_into()?, origins: layers.origins })
}

fn read(path: &Path, required: bool) -> Result<Option<String>, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !required => Ok(None),
        Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
    }
}

fn drop_ins(config: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let folder = config.with_file_name("conf.d");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(ConfigError::Read { path: folder, source }),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| ConfigError::Read { path: folder.clone(), source })?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

struct Layers {
    values: Table,
    origins: BTreeMap<String, String>,
}

impl Layers {
    #[expect(clippy::expect_used, reason = "the defaults are ours; a unit test serialises them")]
    fn new() -> Self {
        let values = Table::try_from(Settings::default()).expect("the defaults are a TOML table");
        let mut origins = BTreeMap::new();
        for key in keys(&values, "") {
            origins.insert(key, "default".to_owned());
        }
        Self { values, origins }
    }

    fn add(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let file = File { path, text };
        let document = DeTable::parse(text).map_err(|e| file.mistake(e.message(), "here", e.span().unwrap_or(0..0)))?;
        self.merge(&file, document.get_ref(), "")
    }

    fn merge(&mut self, file: &File<'_>, table: &DeTable<'_>, prefix: &str) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = join(prefix, name.get_ref());
            let Some(known) = lookup(&self.values, &key) else {
                return Err(file.mistake(&format!("unknown key `{key}`"), &self.suggestion(&key), name.span()));
            };
            if let (Value::Table(_), DeValue::Table(inner)) = (known, value.get_ref()) {
                self.merge(file, inner, &key)?;
                continue;
            }
            let found = file.value(value.get_ref(), value.span())?;
            if !known.same_type(&found) {
                let wants = format!("wants {}, this is {}", article(known.type_str()), article(found.type_str()));
                return Err(file.mistake(&format!("`{key}` {wants}"), "", value.span()));
            }
            self.set(&key, found, format!("{}:{}", file.path.display(), file.line(value.span().start)));
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: Value, origin: String) {
        let mut table = &mut self.values;
        let mut rest = key;
        while let Some((head, tail)) = rest.split_once('.') {
            match table.get_mut(head) {
                Some(Value::Table(inner)) => table = inner,
                _ => return,
            }
            rest = tail;
        }
        table.insert(rest.to_owned(), value);
        self.origins.insert(key.to_owned(), origin);
    }

    fn suggestion(&self, key: &str) -> String {
        let likeness = |known: &String| (strsim::jaro_winkler(known, key) * 1000.0) as u32;
        match self.origins.keys().max_by_key(|known| likeness(known)) {
            Some(known) if likeness(known) > 800 => format!("did you mean `{known}`?"),
            _ => "`orlop config show` lists all keys".to_owned(),
        }
    }
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn line(&self, offset: usize) -> usize {
        self.text[..offset.min(self.text.len())].matches('\n').count() + 1
    }

    fn mistake(&self, title: &str, label: &str, span: Range<usize>) -> ConfigError {
        let path = self.path.display().to_string();
        let mut annotation = AnnotationKind::Primary.span(span);
        if !label.is_empty() {
            annotation = annotation.label(label);
        }
        let report = [Level::ERROR
            .primary_title(title)
            .element(Snippet::source(self.text).path(path.as_str()).annotation(annotation))];
        ConfigError::Mistake(Renderer::plain().render(&report).clone())
    }

    /// A leaf's value, through TOML's own text, which keeps the number formats' rules in one place.
    fn value(&self, value: &DeValue<'_>, span: Range<usize>) -> Result<Value, ConfigError> {
        if let DeValue::Table(_) = value {
            return Ok(Value::Table(Table::new()));
        }
        let text = &self.text[span.clone()];
        text.parse::<Value>().map_err(|e| self.mistake(e.message(), "here", span))
    }
}

fn article(kind: &str) -> String {
    match kind {
        "integer" | "array" => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((head, tail)) => lookup(table.get(head)?.as_table()?, tail),
    }
}

/// The dotted keys of all leaves.
pub(crate) fn keys(table: &Table, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in table {
        let key = join(prefix, name);
        match value {
            Value::Table(inner) => found.extend(keys(inner, &key)),
            _ => found.push(key),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("conf.d")).unwrap();
        for (name, text) in files {
            std::fs::File::create(folder.path().join(name)).unwrap().write_all(text.as_bytes()).unwrap();
        }
        folder
    }

    #[track_caller]
    fn refused(text: &str, wants: &[&str]) {
        let folder = folder(&[("config.toml", text)]);
        let error = load(&folder.path().join("config.toml"), true, &[]).unwrap_err().to_string();
        for want in wants {
            assert!(error.contains(want), "{want:?} is not in:\n{error}");
        }
    }

    #[test]
    fn without_files_all_values_are_defaults() {
        let folder = folder(&[]);
        let layered = load(&folder.path().join("config.toml"), false, &[]).unwrap();
        assert_eq!(layered.settings, Settings::default());
        assert!(layered.origins.values().all(|origin| origin == "default"));
    }

    #[test]
    fn a_named_file_that_is_missing_is_refused() {
        let folder = folder(&[]);
        let error = load(&folder.path().join("config.toml"), true, &[]).unwrap_err();
        assert!(matches!(error, ConfigError::Read { .. }));
    }

    #[test]
    fn drop_ins_stand_over_the_file_in_the_order_of_their_names_and_flags_over_all() {
        let folder = folder(&[
            ("config.toml", "root = \"/a\"\n[cni]\nbin_dirs = [\"/x\", \"/y\"]\n"),
            ("conf.d/20.toml", "[cni]\nconf_dir = \"/late\"\n"),
            ("conf.d/10.toml", "\n[cni]\nconf_dir = \"/early\"\nbin_dirs = [\"/z\"]\n"),
            ("conf.d/30.txt", "not toml at all"),
        ]);
        let flag = Flag { key: "root", name: "--root", value: "/flag".into() };
        let layered = load(&folder.path().join("config.toml"), true, &[flag]).unwrap();
        assert_eq!(layered.settings.root, Path::new("/flag"));
        assert_eq!(layered.settings.cni.conf_dir, Path::new("/late"));
        assert_eq!(layered.settings.cni.bin_dirs, [Path::new("/z")]);
        assert_eq!(layered.origins["root"], "--root");
        assert!(layered.origins["cni.bin_dirs"].ends_with("conf.d/10.toml:4"), "{:?}", layered.origins);
        assert_eq!(layered.origins["state"], "default");
    }

    #[test]
    fn an_unknown_key_is_refused_with_file_line_and_the_key_that_was_meant() {
        refused(
            "state = \"/s\"\n[cni]\nconf_dri = \"/x\"\n",
            &["unknown key `cni.conf_dri`", "config.toml:3", "did you mean `cni.conf_dir`?"],
        );
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused_with_both_kinds() {
        refused("root = 7\n", &["`root` wants a string, this is an integer", "config.toml:1"]);
        refused("cni = \"x\"\n", &["`cni` wants a table, this is a string"]);
        refused("root = { a = 1 }\n", &["`root` wants a string, this is a table"]);
    }

    #[test]
    fn broken_toml_is_refused_with_its_place() {
        refused("root = \"/a\"\nstate = \n", &["config.toml:2"]);
    }

    #[test]
    fn a_value_outside_its_list_is_refused() {
        refused("[log]\nformat = \"xml\"\n", &["xml"]);
    }
}
