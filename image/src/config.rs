//! The image config (OCI `application/vnd.oci.image.config.v1+json`, Docker's is the same): what a runtime needs of it.
//!
//! The bytes are a stranger's: parsing is strict about shapes and lenient about unknown fields, as the spec asks.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::digest::Digest;

/// The most layers that an image may have; overlayfs stops at 500 itself.
pub const MAX_LAYERS: usize = 500;

/// What the image says about running it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// `uid`, `user`, `uid:gid` or `user:group`; empty means root.
    pub user: String,
    /// `KEY=value` lines.
    pub env: Vec<String>,
    /// The command's fixed part.
    pub entrypoint: Vec<String>,
    /// The command's default arguments.
    pub cmd: Vec<String>,
    /// Where the command starts; empty means `/`.
    pub working_dir: String,
    /// Paths that get a volume of their own.
    pub volumes: BTreeSet<String>,
    /// Such as `SIGTERM` or `15`; empty means SIGTERM.
    pub stop_signal: String,
    /// Free annotations. Never a source of settings: strangers write them (CVE-2026-53488).
    pub labels: BTreeMap<String, String>,
    /// Such as `80/tcp`; informative.
    pub exposed_ports: BTreeSet<String>,
    /// Such as `amd64`; empty where the image does not say.
    pub architecture: String,
    /// Such as `linux`; empty where the image does not say.
    pub os: String,
    /// RFC 3339, as the image says it; empty where it does not.
    pub created: String,
    /// The digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
}

/// Why an image config is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or a field of the wrong type.
    #[error("parse the image config")]
    Json(#[source] serde_json::Error),
    /// `rootfs.type` is something new.
    #[error("image config: rootfs.type is {0:?}, want \"layers\"")]
    RootfsType(String),
    /// More layers than an overlay can hold.
    #[error("image config: {0} layers, at most {MAX_LAYERS} work")]
    TooManyLayers(usize),
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    config: Option<WireConfig>,
    rootfs: WireRootfs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct WireConfig {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    stop_signal: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct WireRootfs {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

impl ImageConfig {
    /// Parses the bytes of a config blob.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let wire: Wire = serde_json::from_slice(bytes).map_err(ConfigError::Json)?;
        if let Some(kind) = wire.rootfs.kind
            && kind != "layers"
        {
            return Err(ConfigError::RootfsType(kind));
        }
        let diff_ids = wire.rootfs.diff_ids.unwrap_or_default();
        if diff_ids.len() > MAX_LAYERS {
            return Err(ConfigError::TooManyLayers(diff_ids.len()));
        }
        let config = wire.config.unwrap_or_default();
        Ok(Self {
            user: config.user.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            working_dir: config.working_dir.unwrap_or_default(),
            volumes: config.volumes.unwrap_or_default().into_keys().collect(),
            stop_signal: config.stop_signal.unwrap_or_default(),
            labels: config.labels.unwrap_or_default(),
            exposed_ports: config.exposed_ports.unwrap_or_default().into_keys().collect(),
            architecture: wire.architecture.unwrap_or_default(),
            os: wire.os.unwrap_or_default(),
            created: wire.created.unwrap_or_default(),
            diff_ids,
        })
    }

    /// The chain id of every layer, lowest first: a layer together with everything below it.
    pub fn chain_ids(&self) -> Vec<Digest> {
        let mut chain: Vec<Digest> = Vec::with_capacity(self.diff_ids.len());
        for diff_id in &self.diff_ids {
            let id = match chain.last() {
                None => diff_id.clone(),
                Some(parent) => Digest::sha256(format!("{parent} {diff_id}").as_bytes()),
            };
            chain.push(id);
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_full_config_is_read_and_nulls_are_empty() {
        let json = format!(
            r#"{{"architecture":"amd64","os":"linux","created":null,"history":[{{"x":1}}],
                "config":{{"User":"1:2","Env":["A=b"],"Entrypoint":null,"Cmd":["sh"],"Volumes":{{"/data":{{}}}},
                "StopSignal":"SIGQUIT","Labels":{{"a":"b"}},"ExposedPorts":{{"80/tcp":{{}}}},"ArgsEscaped":true}},
                "rootfs":{{"type":"layers","diff_ids":["{A}","{A}"]}}}}"#
        );
        let config = ImageConfig::parse(json.as_bytes()).unwrap();
        assert_eq!(config.user, "1:2");
        assert_eq!(config.cmd, ["sh"]);
        assert!(config.entrypoint.is_empty() && config.volumes.contains("/data"));
        let chain = config.chain_ids();
        assert_eq!(chain[0].as_str(), A);
        assert_eq!(chain[1], Digest::sha256(format!("{A} {A}").as_bytes()));
    }

    #[test]
    fn strange_configs_are_refused() {
        let many = vec![format!("\"{A}\""); MAX_LAYERS + 1].join(",");
        let bad = [
            String::new(),
            "[]".into(),
            "{}".into(),
            r#"{"rootfs":{"type":"squash"}}"#.into(),
            r#"{"rootfs":{"type":"layers","diff_ids":["../x"]}}"#.into(),
            r#"{"rootfs":{"type":"layers"},"config":{"User":7}}"#.into(),
            format!(r#"{{"rootfs":{{"diff_ids":[{many}]}}}}"#),
        ];
        for json in bad {
            assert!(ImageConfig::parse(json.as_bytes()).is_err(), "{:.80} was accepted", json);
        }
    }
}
