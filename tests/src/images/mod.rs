//! Container images built in code: layers, configuration, manifests, and the registry directory that serves them.
//!
//! Everything is deterministic: the same calls give the same digests, so that a test can say what it expects.

mod agnhost;
mod archive;
mod busybox;
mod layer;
pub mod upstream;

pub use agnhost::{AGNHOST, agnhost};
pub use archive::archive;
pub use busybox::{busybox, busybox_layer, workload_layer};
pub use layer::{Blob, Compression, Layer};

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::write;

/// Which of the two manifest formats an image is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OCI image manifest and configuration.
    Oci,
    /// Docker image manifest v2, schema 2.
    Docker,
}

/// One platform's image: its layers from bottom to top and the `config` part of its configuration.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest format.
    pub format: Format,
    /// The layers, bottom first.
    pub layers: Vec<Blob>,
    /// What the configuration holds under `config`: `Cmd`, `Env`, `User`, `Labels`, ….
    pub config: Value,
    /// `architecture` of the configuration.
    pub architecture: String,
}

impl Image {
    /// An OCI image for this machine that runs `command`.
    pub fn new(layers: Vec<Blob>, command: &[&str]) -> Image {
        let config =
            json!({ "Cmd": command, "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] });
        Image { format: Format::Oci, layers, config, architecture: "amd64".to_owned() }
    }

    /// The same image with `key` of its `config` set to `value`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Image {
        self.config[key] = value.into();
        self
    }

    /// The configuration blob. Its digest is the image's id.
    pub fn config_blob(&self) -> Vec<u8> {
        let diff_ids: Vec<&str> = self.layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        config.to_string().into_bytes()
    }

    /// The image's id: `sha256:` and the digest of its configuration.
    pub fn id(&self) -> String {
        digest(&self.config_blob())
    }

    /// The manifest blob.
    pub fn manifest(&self) -> Vec<u8> {
        let config = self.config_blob();
        let layers = self.layers.iter().map(|layer| {
            json!({ "mediaType": layer.media_type(self.format), "digest": layer.digest, "size": layer.bytes.len() })
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": self.media_type(),
            "config": { "mediaType": self.config_media_type(), "digest": digest(&config), "size": config.len() },
            "layers": layers.collect::<Vec<_>>(),
        });
        manifest.to_string().into_bytes()
    }

    /// The manifest's digest: what follows the `@` in a reference by digest.
    pub fn digest(&self) -> String {
        digest(&self.manifest())
    }

    /// The manifest's media type.
    pub fn media_type(&self) -> &'static str {
        match self.format {
            Format::Oci => "application/vnd.oci.image.manifest.v1+json",
            Format::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    fn config_media_type(&self) -> &'static str {
        match self.format {
            Format::Oci => "application/vnd.oci.image.config.v1+json",
            Format::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    /// Stores the image in the registry directory `dir` under `repository:tag` and returns the manifest's digest.
    pub fn store(&self, dir: &Path, repository: &str, tag: &str) -> String {
        for layer in &self.layers {
            store_blob(dir, repository, &layer.bytes);
        }
        store_blob(dir, repository, &self.config_blob());
        store_manifest(dir, repository, tag, &self.manifest())
    }
}

/// An index over images of several platforms, each given as (image, architecture).
pub fn index(format: Format, images: &[&Image]) -> Vec<u8> {
    let manifests = images.iter().map(|image| {
        json!({
            "mediaType": image.media_type(),
            "digest": image.digest(),
            "size": image.manifest().len(),
            "platform": { "os": "linux", "architecture": image.architecture },
        })
    });
    let media_type = match format {
        Format::Oci => "application/vnd.oci.image.index.v1+json",
        Format::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
    };
    let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests.collect::<Vec<_>>() });
    index.to_string().into_bytes()
}

/// Stores a layer or configuration blob in the registry directory `dir` and returns its digest.
pub fn store_blob(dir: &Path, repository: &str, bytes: &[u8]) -> String {
    let digest = digest(bytes);
    let hex = hex_of(&digest);
    let blob = registry(dir).join("blobs/sha256").join(&hex[..2]).join(hex).join("data");
    create(&blob, bytes);
    link(&registry(dir).join("repositories").join(repository).join("_layers/sha256").join(hex), &digest);
    digest
}

/// Stores a manifest or index in the registry directory `dir` under `repository:tag` and returns its digest. What it
/// refers to must be stored in the same repository.
pub fn store_manifest(dir: &Path, repository: &str, tag: &str, bytes: &[u8]) -> String {
    let digest = store_blob(dir, repository, bytes);
    let manifests = registry(dir).join("repositories").join(repository).join("_manifests");
    link(&manifests.join("revisions/sha256").join(hex_of(&digest)), &digest);
    link(&manifests.join("tags").join(tag).join("index/sha256").join(hex_of(&digest)), &digest);
    link(&manifests.join("tags").join(tag).join("current"), &digest);
    digest
}

/// The file in the registry directory `dir` that holds the blob `digest`, for tests that damage it.
pub fn blob_path(dir: &Path, digest: &str) -> std::path::PathBuf {
    let hex = hex_of(digest);
    registry(dir).join("blobs/sha256").join(&hex[..2]).join(hex).join("data")
}

/// `sha256:` and the hexadecimal digest of `bytes`.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn registry(dir: &Path) -> std::path::PathBuf {
    dir.join("docker/registry/v2")
}

fn hex_of(digest: &str) -> &str {
    digest.strip_prefix("sha256:").expect("a sha256 digest")
}

fn link(dir: &Path, digest: &str) {
    create(&dir.join("link"), digest.as_bytes());
}

fn create(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a file in a directory")).expect("registry directory");
    write(path, bytes);
}
