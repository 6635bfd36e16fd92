//! An image in one file, as engines import it: a tar archive of an OCI image layout.

use std::path::Path;

use serde_json::json;

use super::{Compression, Image, Layer, digest, hex_of};

/// The archive of one image under its full name, for `ctr image import` and `podman load`.
pub fn archive(image: &Image, name: &str) -> Vec<u8> {
    let manifest = image.manifest();
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": image.media_type(),
            "digest": digest(&manifest),
            "size": manifest.len(),
            "platform": {"os": "linux", "architecture": image.architecture},
            "annotations": {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name},
        }],
    });
    let mut archive = Layer::new()
        .file("oci-layout", 0o644, json!({"imageLayoutVersion": "1.0.0"}).to_string())
        .file("index.json", 0o644, index.to_string())
        .dir("blobs", 0o755)
        .dir("blobs/sha256", 0o755);
    let blobs = [image.config_blob(), manifest].into_iter().chain(image.layers.iter().map(|layer| layer.bytes.clone()));
    for blob in blobs {
        let path = Path::new("blobs/sha256").join(hex_of(&digest(&blob)));
        archive = archive.file(&path.to_string_lossy(), 0o644, blob);
    }
    archive.finish(Compression::None).bytes
}
