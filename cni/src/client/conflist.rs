//! Network configurations on disk: found, parsed, validated.
//!
//! Files with `.conflist`, `.conf` and `.json` are taken in the order of their names, and the first one is the
//! network: it either loads or is the reason why there is none. Falling through to the next file would put pods into
//! a network that nobody chose.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::caseless;
use crate::exec;
use crate::names::{check_network_name, is_plugin_type};
use crate::version::{self, Version};

/// The largest file that is read. Real ones have a few KiB.
const FILE_MAX: u64 = 1024 * 1024;

/// A network's configuration that parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkList {
    /// The network's name.
    pub name: String,
    /// The file that it came from; empty if it came from the result cache.
    pub file: PathBuf,
    /// The version in which all plugins are called.
    pub cni_version: String,
    /// CHECK is not to be run.
    pub disable_check: bool,
    /// The plugins, in the order of ADD.
    pub plugins: Vec<PluginConfig>,
    /// What the result cache keeps, so that DEL needs no file: the file's bytes, or, where plugins came from other
    /// files, an equivalent with all of them inline.
    pub(super) bytes: Vec<u8>,
}

/// One plugin's part.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginConfig {
    /// The name of its binary: one path component.
    pub kind: String,
    /// The whole part, handed to the plugin with its unknown keys.
    pub config: Map<String, Value>,
}

/// Why a configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigError {
    #[error("read {0}")]
    Read(PathBuf, #[source] std::io::Error),
    #[error("{0} has more than {FILE_MAX} bytes")]
    TooLong(PathBuf),
    #[error("{file}: {source}")]
    Json { file: PathBuf, source: serde_json::Error },
    #[error("{file}: {reason}")]
    Invalid { file: PathBuf, reason: String },
}

/// The first configuration file of a directory by name; `None` if there is none, or no directory.
pub(super) fn first_file(directory: &Path) -> std::io::Result<Option<PathBuf>> {
    let files = files_with(directory, &["conflist", "conf", "json"])?;
    Ok(files.into_iter().next())
}

/// The files with one of these extensions, sorted.
fn files_with(directory: &Path, extensions: &[&str]) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let wanted = |path: &Path| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| extensions.contains(&extension)) && !path.is_dir()
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if wanted(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<Vec<u8>, ConfigError> {
    let unreadable = |error| ConfigError::Read(file.into(), error);
    let mut bytes = Vec::new();
    let open = std::fs::File::open(file).map_err(unreadable)?;
    open.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(ConfigError::TooLong(file.into()));
    }
    Ok(bytes)
}

impl NetworkList {
    /// Loads a file, with the plugins of `<directory>/<network>/*.conf` if it allows that.
    pub(super) fn load(file: &Path) -> Result<NetworkList, ConfigError> {
        let bytes = read(file)?;
        let mut list = NetworkList::parse(file, bytes)?;
        let whole: Map<String, Value> = list.whole(file)?;
        if !list.flag(&whole, "loadOnlyInlinedPlugins")? {
            list.load_folder(file, whole)?;
        }
        if list.plugins.is_empty() {
            return Err(list.invalid("no plugins in it"));
        }
        Ok(list)
    }

    /// Parses a configuration list, or a single plugin's configuration as a list of one.
    pub(super) fn parse(file: &Path, bytes: Vec<u8>) -> Result<NetworkList, ConfigError> {
        let json = |source| ConfigError::Json { file: file.into(), source };
        let mut whole: Map<String, Value> = serde_json::from_slice(&bytes).map_err(json)?;
        let mut bytes = bytes;
        if caseless::get(&whole, "type").is_some() {
            whole = wrap(whole);
            bytes = Value::Object(whole.clone()).to_string().into_bytes();
        }
        let empty = NetworkList {
            name: String::new(),
            file: file.into(),
            cni_version: String::new(),
            disable_check: false,
            plugins: Vec::new(),
            bytes,
        };
        empty.fill(&whole)
    }

    fn fill(mut self, whole: &Map<String, Value>) -> Result<NetworkList, ConfigError> {
        self.name = self.text(whole, "name")?.ok_or_else(|| self.invalid("no \"name\""))?;
        check_network_name(&self.name).map_err(|error| self.invalid(&error.to_string()))?;
        self.cni_version = self.choose_version(whole)?;
        self.disable_check = self.flag(whole, "disableCheck")?;
        let inlined_only = self.flag(whole, "loadOnlyInlinedPlugins")?;
        let plugins = match caseless::get(whole, "plugins") {
            None if inlined_only => return Err(self.invalid("loadOnlyInlinedPlugins is true, and no \"plugins\"")),
            None => return Ok(self),
            Some(Value::Array(plugins)) if plugins.is_empty() => return Err(self.invalid("\"plugins\" is empty")),
            Some(Value::Array(plugins)) => plugins,
            Some(_) => return Err(self.invalid("\"plugins\" is no list")),
        };
        for (index, plugin) in plugins.iter().enumerate() {
            let parsed = self.plugin(&format!("plugin {index}"), plugin)?;
            self.plugins.push(parsed);
        }
        Ok(self)
    }

    fn whole(&self, file: &Path) -> Result<Map<String, Value>, ConfigError> {
        serde_json::from_slice(&self.bytes).map_err(|source| ConfigError::Json { file: file.into(), source })
    }

    fn plugin(&self, place: &str, plugin: &Value) -> Result<PluginConfig, ConfigError> {
        let Value::Object(config) = plugin else { return Err(self.invalid(&format!("{place} is no object"))) };
        let kind = self.text(config, "type")?.ok_or_else(|| self.invalid(&format!("{place} has no \"type\"")))?;
        if !is_plugin_type(&kind) {
            let reason = format!("{place}: type {kind:?} is not the name of a file in the plugin directories");
            return Err(self.invalid(&reason));
        }
        // No list is nested in a list: it would be run as a plugin and lose its own.
        if caseless::get(config, "plugins").is_some() {
            return Err(self.invalid(&format!("{place} is a configuration list")));
        }
        Ok(PluginConfig { kind, config: config.clone() })
    }

    /// Appends the plugins of the folder that has the network's name.
    fn load_folder(&mut self, file: &Path, mut whole: Map<String, Value>) -> Result<(), ConfigError> {
        let folder = file.parent().unwrap_or(Path::new("")).join(&self.name);
        let files = files_with(&folder, &["conf"]).map_err(|error| ConfigError::Read(folder.clone(), error))?;
        if files.is_empty() {
            return Ok(());
        }
        for path in files {
            let json = |source| ConfigError::Json { file: path.clone(), source };
            let plugin: Value = serde_json::from_slice(&read(&path)?).map_err(json)?;
            let parsed = self.plugin(&path.display().to_string(), &plugin)?;
            self.plugins.push(parsed);
        }
        let all = self.plugins.iter().map(|plugin| Value::Object(plugin.config.clone())).collect();
        whole.retain(|key, _| !key.eq_ignore_ascii_case("plugins"));
        whole.insert("plugins".into(), Value::Array(all));
        whole.insert("loadOnlyInlinedPlugins".into(), Value::Bool(true));
        self.bytes = Value::Object(whole).to_string().into_bytes();
        Ok(())
    }

    /// The highest of `cniVersion` and `cniVersions` that is not above ours (SPEC §1).
    fn choose_version(&self, whole: &Map<String, Value>) -> Result<String, ConfigError> {
        let parse = |text: &str| text.parse::<Version>().map_err(|error| self.invalid(&error.to_string()));
        let single = self.text(whole, "cniVersion")?.unwrap_or_default();
        let mut known = vec![(parse(&single)?, single.clone())];
        match caseless::get(whole, "cniVersions") {
            None => {}
            Some(Value::Array(offered)) => {
                for version in offered {
                    let text = version.as_str().ok_or_else(|| self.invalid("\"cniVersions\" holds more than texts"))?;
                    known.push((parse(text)?, text.to_owned()));
                }
            }
            Some(_) => return Err(self.invalid("\"cniVersions\" is no list")),
        }
        let ours = known.into_iter().filter(|(version, _)| *version <= Version::CURRENT);
        match ours.max_by_key(|(version, _)| *version) {
            Some((_, text)) => Ok(text),
            None => Err(self.invalid(&format!("cniVersion {single:?} is newer than our {}", version::CURRENT))),
        }
    }

    fn text(&self, map: &Map<String, Value>, key: &str) -> Result<Option<String>, ConfigError> {
        match caseless::get(map, key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.invalid(&format!("{key:?} is no text"))),
        }
    }

    /// A boolean, or one of the texts "true" and "false", as libcni allows.
    fn flag(&self, map: &Map<String, Value>, key: &str) -> Result<bool, ConfigError> {
        match caseless::get(map, key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(other) => Err(self.invalid(&format!("{key:?} is {other}, not true or false"))),
        }
    }

    fn invalid(&self, reason: &str) -> ConfigError {
        ConfigError::Invalid { file: self.file.clone(), reason: reason.to_owned() }
    }

    /// The first plugin that has no binary in the directories.
    pub(super) fn missing_plugin(&self, bin_dirs: &[PathBuf]) -> Option<&str> {
        let kinds = self.plugins.iter().map(|plugin| plugin.kind.as_str());
        kinds.into_iter().find(|kind| exec::find(kind, bin_dirs).is_none_or(|path| !is_executable(&path)))
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

/// A single plugin's configuration as a list of one.
fn wrap(single: Map<String, Value>) -> Map<String, Value> {
    let mut whole = Map::new();
    for key in ["name", "cniVersion"] {
        whole.extend(caseless::get(&single, key).map(|value| (key.to_owned(), value.clone())));
    }
    whole.insert("plugins".into(), Value::Array(vec![Value::Object(single)]));
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn parse(text: &str) -> Result<NetworkList, String> {
        NetworkList::parse(Path::new("/etc/cni/net.d/10-x.conflist"), text.into()).map_err(|error| error.to_string())
    }

    fn check_refused(text: &str, expected: &str) {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with("/etc/cni/net.d/10-x.conflist: "), "{error}");
        assert!(error.contains(expected), "{error}");
    }

    fn put(directory: &Path, name: &str, text: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path
    }

    #[test]
    fn a_list_is_read_with_its_flags() {
        let list = parse(r#"{"name":"n","cniVersion":"0.4.0","disableCheck":"TRUE","plugins":[{"type":"bridge"}]}"#);
        let list = list.unwrap();
        assert_eq!((list.name.as_str(), list.cni_version.as_str(), list.disable_check), ("n", "0.4.0", true));
        assert_eq!(list.plugins[0].kind, "bridge");
    }

    #[test]
    fn a_single_configuration_becomes_a_list_of_one() {
        let list = parse(r#"{"name":"n","cniVersion":"0.3.1","type":"ptp","mtu":1400}"#).unwrap();
        assert_eq!((list.plugins.len(), list.plugins[0].config["mtu"].as_u64()), (1, Some(1400)));
        let again = NetworkList::parse(&list.file, list.bytes.clone()).unwrap();
        assert_eq!(again, list, "what is cached parses to the same");
    }

    #[test]
    fn the_highest_version_that_we_speak_is_chosen() {
        let version = |keys: &str| parse(&format!(r#"{{"name":"n",{keys},"plugins":[{{"type":"x"}}]}}"#));
        let chosen = version(r#""cniVersion":"0.4.0","cniVersions":["1.0.0","0.3.1","9.0.0"]"#).unwrap();
        assert_eq!(chosen.cni_version, "1.0.0");
        assert!(version(r#""cniVersion":"2.0.0""#).unwrap_err().contains("newer than our 1.1.0"));
        assert!(version(r#""cniVersions":[1]"#).is_err());
    }

    #[test]
    fn what_is_wrong_is_told_with_the_file() {
        check_refused("{", "EOF while parsing an object at line 1 column 1");
        check_refused(r#"{"plugins":[]}"#, "no \"name\"");
        check_refused(r#"{"name":"../n","plugins":[]}"#, "invalid characters found in network name; ../n");
        check_refused(r#"{"name":"n","plugins":[]}"#, "\"plugins\" is empty");
        check_refused(r#"{"name":"n","plugins":{}}"#, "\"plugins\" is no list");
        check_refused(r#"{"name":"n","plugins":[{}]}"#, "plugin 0 has no \"type\"");
        check_refused(r#"{"name":"n","plugins":[{"type":"x","plugins":[]}]}"#, "plugin 0 is a configuration list");
        check_refused(
            r#"{"name":"n","disableCheck":"maybe","plugins":[{"type":"x"}]}"#,
            "\"disableCheck\" is \"maybe\"",
        );
    }

    #[test]
    fn a_type_that_leaves_the_plugin_directories_is_refused() {
        for kind in ["../../bin/sh", "/bin/sh", "a/b", "..", "."] {
            let text = format!(r#"{{"name":"n","plugins":[{{"type":"{kind}"}}]}}"#);
            check_refused(&text, "is not the name of a file in the plugin directories");
        }
    }

    #[test]
    fn files_are_taken_in_the_order_of_their_names() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(first_file(&directory.path().join("missing")).unwrap(), None);
        put(directory.path(), "00-readme.txt", "");
        put(directory.path(), "20-b.conf", "");
        std::fs::create_dir(directory.path().join("01-dir.conflist")).unwrap();
        let first = put(directory.path(), "10-a.conflist", "");
        assert_eq!(first_file(directory.path()).unwrap(), Some(first));
    }

    #[test]
    fn plugins_of_the_networks_folder_are_appended_and_cached_inline() {
        let directory = tempfile::tempdir().unwrap();
        let file = put(directory.path(), "10.conflist", r#"{"name":"n","plugins":[{"type":"a"}]}"#);
        put(directory.path(), "n/20-c.conf", r#"{"type":"c"}"#);
        put(directory.path(), "n/10-b.conf", r#"{"type":"b"}"#);
        let list = NetworkList::load(&file).unwrap();
        let kinds = |list: &NetworkList| list.plugins.iter().map(|plugin| plugin.kind.clone()).collect::<Vec<_>>();
        assert_eq!(kinds(&list), ["a", "b", "c"]);
        assert_eq!(kinds(&NetworkList::parse(&file, list.bytes).unwrap()), ["a", "b", "c"]);
        put(directory.path(), "10.conflist", r#"{"name":"n","loadOnlyInlinedPlugins":true,"plugins":[{"type":"a"}]}"#);
        assert_eq!(kinds(&NetworkList::load(&file).unwrap()), ["a"]);
    }
}
