//! Manifests and indexes, Docker's and the OCI's: a body is read as exactly one of the two, or refused.
//!
//! The same bytes read as a manifest by one program and as an index by another were CVE-2021-41190, so a body that
//! has the fields of both, or whose own media type contradicts the registry's header, is an error.

use serde::Deserialize;

use crate::config::MAX_LAYERS;
use crate::digest::Digest;
use crate::platform::Platform;

/// The largest manifest, index or config that is read: what registries accept themselves.
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;
/// Indexes inside indexes, at most.
pub(crate) const MAX_INDEX_DEPTH: usize = 4;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1";

/// The `Accept` header of a manifest request.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A pointer to content: what it is, its digest and its size in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<DescriptorPlatform>,
}

/// What an index says about the platform of an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct DescriptorPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

/// A parsed body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

/// One platform's image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    /// Lowest first.
    pub(crate) layers: Vec<Descriptor>,
}

/// Why a body is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or a field of the wrong type.
    #[error("parse the manifest")]
    Json(#[source] serde_json::Error),
    /// Schema 1 is not content-addressed; registries and peers have dropped it.
    #[error("the manifest is of Docker's schema 1, which is obsolete: push the image again with a current tool")]
    Schema1,
    /// The body and the header, or the body and itself, disagree on what it is.
    #[error("the manifest is ambiguous: {0}")]
    Ambiguous(String),
    /// Neither manifest nor index.
    #[error("media type {0:?} is neither an image manifest nor an index")]
    MediaType(String),
    /// An artifact: a chart, a signature, a model.
    #[error("not an image that can run: its config is {0:?}")]
    Artifact(String),
    /// A layer that only a key opens.
    #[error("layer {digest} is encrypted ({media_type}): encrypted images are not built yet")]
    Encrypted {
        /// The layer.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// A layer that is no tar.
    #[error("layer {digest} is {media_type:?}, which is no tar layer")]
    LayerType {
        /// The layer.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// More layers than an overlay can hold.
    #[error("{0} layers, at most {MAX_LAYERS} work")]
    TooManyLayers(usize),
    /// No entry of the index runs here.
    #[error("no image for {wanted} in the index, only for {found}")]
    NoPlatform {
        /// What was looked for.
        wanted: String,
        /// What the index has.
        found: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default, rename = "fsLayers")]
    fs_layers: Option<serde_json::Value>,
}

impl Document {
    /// Reads `body`, which the registry's header or an index called `declared` (empty where it said nothing).
    pub(crate) fn parse(body: &[u8], declared: &str) -> Result<Self, ManifestError> {
        let wire: Wire = serde_json::from_slice(body).map_err(ManifestError::Json)?;
        let own = wire.media_type.as_deref().unwrap_or("");
        if wire.schema_version == Some(1) || wire.fs_layers.is_some() || own.starts_with(SCHEMA1) {
            return Err(ManifestError::Schema1);
        }
        if !own.is_empty() && is_document(declared) && own != declared {
            return Err(ManifestError::Ambiguous(format!("it calls itself {own:?} but was announced as {declared:?}")));
        }
        let looks_like_manifest = wire.config.is_some() || wire.layers.is_some();
        match (wire.manifests, looks_like_manifest) {
            (Some(_), true) => Err(ManifestError::Ambiguous("it has both manifests and a config or layers".into())),
            (Some(entries), false) => {
                expect(&[OCI_INDEX, DOCKER_INDEX], own, declared)?;
                Ok(Self::Index(entries))
            }
            (None, true) => {
                expect(&[OCI_MANIFEST, DOCKER_MANIFEST], own, declared)?;
                if let Some(kind) = wire.artifact_type.filter(|kind| kind != OCI_CONFIG) {
                    return Err(ManifestError::Artifact(kind));
                }
                let Some(config) = wire.config else {
                    return Err(ManifestError::Ambiguous("it has layers but no config".into()));
                };
                Manifest::checked(config, wire.layers.unwrap_or_default()).map(Self::Manifest)
            }
            (None, false) => Err(ManifestError::MediaType(if own.is_empty() { declared } else { own }.to_owned())),
        }
    }
}

impl Manifest {
    fn checked(config: Descriptor, layers: Vec<Descriptor>) -> Result<Self, ManifestError> {
        if !matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
            return Err(ManifestError::Artifact(config.media_type));
        }
        if layers.len() > MAX_LAYERS {
            return Err(ManifestError::TooManyLayers(layers.len()));
        }
        layers.iter().try_for_each(check_layer_type)?;
        Ok(Self { config, layers })
    }
}

fn is_document(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | OCI_INDEX | DOCKER_MANIFEST | DOCKER_INDEX)
}

/// The body's shape says one of `shapes`; what it calls itself, or is called, must not say the other.
fn expect(shapes: &[&str], own: &str, declared: &str) -> Result<(), ManifestError> {
    for named in [own, declared] {
        if is_document(named) && !shapes.contains(&named) {
            return Err(ManifestError::Ambiguous(format!(
                "it has the fields of {:?} but is called {named:?}",
                shapes[0]
            )));
        }
    }
    match own {
        "" => Ok(()),
        own if shapes.contains(&own) => Ok(()),
        other => Err(ManifestError::MediaType(other.to_owned())),
    }
}

/// Compression is told by the bytes, not by this name (images are mislabelled often enough), so any tar will do.
/// Foreign layers are fetched from the registry like all others; their `urls` are never contacted.
fn check_layer_type(layer: &Descriptor) -> Result<(), ManifestError> {
    let media_type = layer.media_type.as_str();
    if media_type.contains("+encrypted") {
        return Err(ManifestError::Encrypted { digest: layer.digest.clone(), media_type: media_type.to_owned() });
    }
    const TARS: [&str; 4] = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    let is_tar = TARS.iter().any(|tar| {
        media_type.strip_prefix(tar).is_some_and(|rest| matches!(rest, "" | ".gzip" | "+gzip" | ".zstd" | "+zstd"))
    });
    match is_tar {
        true => Ok(()),
        false => Err(ManifestError::LayerType { digest: layer.digest.clone(), media_type: media_type.to_owned() }),
    }
}

/// The entry of an index that fits `platform` best; among equals the first. Attestations (`unknown/unknown`) never fit.
pub(crate) fn choose<'a>(entries: &'a [Descriptor], platform: &Platform) -> Result<&'a Descriptor, ManifestError> {
    let mut best: Option<(u8, &Descriptor)> = None;
    for entry in entries {
        let named = entry.platform.clone().unwrap_or_default();
        if let Some(fit) = platform.fit(&named.os, &named.architecture, &named.variant)
            && best.is_none_or(|(best, _)| fit > best)
        {
            best = Some((fit, entry));
        }
    }
    best.map(|(_, entry)| entry)
        .ok_or_else(|| ManifestError::NoPlatform { wanted: platform.to_string(), found: described(entries) })
}

fn described(entries: &[Descriptor]) -> String {
    let mut names: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .map(|p| match p.variant.as_str() {
            "" => format!("{}/{}", p.os, p.architecture),
            variant => format!("{}/{}/{variant}", p.os, p.architecture),
        })
        .collect();
    names.dedup();
    names.truncate(12);
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn descriptor(media_type: &str, extra: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{D}","size":3{extra}}}"#)
    }

    fn manifest(layer_type: &str) -> String {
        let (config, layer) = (descriptor(OCI_CONFIG, ""), descriptor(layer_type, ""));
        format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{config},"layers":[{layer}]}}"#)
    }

    #[test]
    fn manifests_of_both_kinds_are_read() {
        for layer in
            ["application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.docker.image.rootfs.diff.tar.gzip"]
        {
            let parsed = Document::parse(manifest(layer).as_bytes(), OCI_MANIFEST);
            assert!(matches!(parsed, Ok(Document::Manifest(m)) if m.layers.len() == 1), "{layer}");
        }
    }

    #[test]
    fn ambiguous_and_foreign_bodies_are_refused_by_name() {
        let (config, entry) = (descriptor(OCI_CONFIG, ""), descriptor(OCI_MANIFEST, ""));
        let cases = [
            (format!(r#"{{"config":{config},"layers":[],"manifests":[]}}"#), "", "both manifests and"),
            (format!(r#"{{"mediaType":"{OCI_MANIFEST}","manifests":[{entry}]}}"#), "", "fields of"),
            (manifest("application/vnd.oci.image.layer.v1.tar"), OCI_INDEX, "announced as"),
            (format!(r#"{{"config":{config},"layers":[]}}"#), OCI_INDEX, "fields of"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), "", "schema 1"),
            (r#"{"schemaVersion":2}"#.into(), "text/html", "neither"),
            (manifest("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"), "", "encrypted"),
            (manifest("application/vnd.erofs.layer.v1"), "", "no tar layer"),
            (
                format!(r#"{{"config":{},"layers":[]}}"#, descriptor("application/vnd.cncf.helm.config.v1+json", "")),
                "",
                "helm",
            ),
            (r#"{"layers":[{"digest":"sha256:../..","size":1}]}"#.into(), "", "parse the manifest"),
            (r#"{"layers":[{"digest":"x","size":-1}]}"#.into(), "", "parse the manifest"),
            ("<html>".into(), "", "parse the manifest"),
        ];
        for (body, declared, want) in cases {
            let error = Document::parse(body.as_bytes(), declared).unwrap_err();
            assert!(error.to_string().contains(want), "{body}: {error}");
        }
    }

    #[test]
    fn the_platform_is_chosen_by_fit_and_attestations_never() {
        let entry = |os: &str, arch: &str, variant: &str, size: u64| Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: D.parse().unwrap(),
            size,
            platform: Some(DescriptorPlatform { os: os.into(), architecture: arch.into(), variant: variant.into() }),
        };
        let here = Platform { os: "linux".into(), architecture: "amd64".into(), level: 2 };
        let entries = [
            entry("unknown", "unknown", "", 1),
            entry("linux", "arm64", "v8", 2),
            entry("linux", "amd64", "v3", 3),
            entry("linux", "amd64", "", 4),
            entry("linux", "amd64", "v2", 5),
        ];
        assert_eq!(choose(&entries, &here).unwrap().size, 5);
        let error = choose(&entries[..2], &here).unwrap_err().to_string();
        assert_eq!(error, "no image for linux/amd64 in the index, only for unknown/unknown, linux/arm64/v8");
    }
}
