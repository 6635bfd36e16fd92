//! What an ADD left behind, in libcni's file: `<cache>/results/<network>-<container>-<interface>`.
//!
//! DEL and CHECK run with the configuration and result of the ADD, whatever the configuration is by then. The content
//! is libcni's (`cniCacheV1`), so that any runtime's tools can read it; unlike libcni's it is replaced atomically.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sys::fs::Durability;

use super::Attachment;
use crate::caseless;

const KIND: &str = "cniCacheV1";
/// The largest file that is read.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// A cached attachment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cached {
    kind: String,
    container_id: String,
    /// The configuration's bytes, base64.
    config: String,
    if_name: String,
    pub(super) network_name: String,
    #[serde(rename = "netns", default, skip_serializing_if = "String::is_empty")]
    netns: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cni_args: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    capability_args: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<Value>,
}

/// Why the cache could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file or directory could not be read, written or removed.
    #[error("{doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl Cached {
    /// What is known before the first plugin of an ADD. The result is added when there is one; libcni reads an entry
    /// without it as one with an empty result.
    pub(super) fn begun(attachment: &Attachment, network: &str, config: &[u8]) -> Cached {
        Cached {
            kind: KIND.into(),
            container_id: attachment.container_id.clone(),
            config: BASE64_STANDARD.encode(config),
            if_name: attachment.ifname.clone(),
            network_name: network.into(),
            netns: attachment.netns.display().to_string(),
            cni_args: attachment.args.clone(),
            capability_args: attachment.capabilities.clone(),
            result: None,
        }
    }

    /// What is known after it.
    pub(super) fn with_result(self, result: Value) -> Cached {
        Cached { result: Some(result), ..self }
    }

    /// The configuration's bytes.
    pub(super) fn config(&self) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(&self.config).ok()
    }

    /// The attachment with the arguments that the ADD had.
    pub(super) fn attachment(&self, asked: &Attachment) -> Attachment {
        let args = if self.cni_args.is_empty() { &asked.args } else { &self.cni_args };
        Attachment { args: args.clone(), capabilities: self.capability_args.clone(), ..asked.clone() }
    }
}

/// The directory of the results.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// The cache below `cache_dir`.
    pub(super) fn new(cache_dir: &Path) -> Cache {
        Cache { directory: cache_dir.join("results") }
    }

    fn path(&self, network: &str, attachment: &Attachment) -> PathBuf {
        self.directory.join(format!("{network}-{}-{}", attachment.container_id, attachment.ifname))
    }

    /// Keeps an attachment.
    pub(super) fn put(&self, attachment: &Attachment, cached: &Cached) -> Result<(), CacheError> {
        let failed = |doing, path: &Path, source| CacheError::Io { doing, path: path.into(), source };
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(|source| failed("create", &self.directory, source))?;
        let path = self.path(&cached.network_name, attachment);
        let text = serde_json::to_vec(cached).map_err(|error| failed("write", &path, error.into()))?;
        sys::fs::atomic_write(&path, &text, Durability::Rename, 0o600)
            .map_err(|error| failed("write", &path, error.into()))
    }

    /// Forgets an attachment.
    pub(super) fn remove(&self, network: &str, attachment: &Attachment) -> Result<(), CacheError> {
        let path = self.path(network, attachment);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(CacheError::Io { doing: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// All networks' entries of this container and interface. One that can't be read is passed over, as libcni does:
    /// a DEL then runs with what else is known.
    pub(super) fn find(&self, attachment: &Attachment) -> Result<Vec<Cached>, CacheError> {
        let failed = |source| CacheError::Io { doing: "list", path: self.directory.clone(), source };
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let suffix = format!("-{}-{}", attachment.container_id, attachment.ifname);
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if !entry.file_name().to_str().is_some_and(|name| name.ends_with(&suffix)) {
                continue;
            }
            found.extend(read(&entry.path()).filter(|cached| {
                // The dashes of names make the file's name ambiguous; its content is not.
                cached.container_id == attachment.container_id && cached.if_name == attachment.ifname
            }));
        }
        found.sort_by(|one, other| one.network_name.cmp(&other.network_name));
        Ok(found)
    }
}

fn read(path: &Path) -> Option<Cached> {
    let mut text = Vec::new();
    std::fs::File::open(path).ok()?.take(FILE_MAX).read_to_end(&mut text).ok()?;
    caseless::from_slice(&text).ok().filter(|cached: &Cached| cached.kind == KIND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn done(id: &str, network: &str, result: Value) -> Cached {
        Cached::begun(&attachment(id), network, b"{}").with_result(result)
    }

    fn attachment(id: &str) -> Attachment {
        Attachment {
            container_id: id.into(),
            netns: "/run/netns/a".into(),
            ifname: "eth0".into(),
            args: vec![("IgnoreUnknown".into(), "1".into())],
            capabilities: json!({"portMappings": []}).as_object().unwrap().clone(),
        }
    }

    #[test]
    fn the_file_is_that_of_libcni() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path());
        let cached = done("c1", "net", json!({"cniVersion": "1.0.0"}));
        cache.put(&attachment("c1"), &cached).unwrap();
        let text = std::fs::read_to_string(directory.path().join("results/net-c1-eth0")).unwrap();
        assert_eq!(
            text,
            r#"{"kind":"cniCacheV1","containerId":"c1","config":"e30=","ifName":"eth0","networkName":"net","#
                .to_owned()
                + r#""netns":"/run/netns/a","cniArgs":[["IgnoreUnknown","1"]],"capabilityArgs":{"portMappings":[]},"#
                + r#""result":{"cniVersion":"1.0.0"}}"#
        );
        assert_eq!(cache.find(&attachment("c1")).unwrap(), [cached]);
    }

    #[test]
    fn an_attachment_is_found_by_content_and_not_by_the_files_name_alone() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path());
        let cached = |id: &str, network: &str| done(id, network, json!({}));
        cache.put(&attachment("b-c1"), &cached("b-c1", "a")).unwrap();
        cache.put(&attachment("c1"), &cached("c1", "x")).unwrap();
        let found = cache.find(&attachment("c1")).unwrap();
        assert_eq!(found.iter().map(|cached| cached.network_name.as_str()).collect::<Vec<_>>(), ["x"]);
    }

    #[test]
    fn a_torn_file_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path());
        cache.put(&attachment("c1"), &done("c1", "net", json!({}))).unwrap();
        let path = directory.path().join("results/net-c1-eth0");
        std::fs::File::options().write(true).open(&path).unwrap().set_len(20).unwrap();
        assert_eq!(cache.find(&attachment("c1")).unwrap(), []);
        cache.remove("net", &attachment("c1")).unwrap();
        cache.remove("net", &attachment("c1")).unwrap();
        assert!(!path.exists());
    }
}
