//! Indexes, manifests and configs on disk: files that are named by the digest of their bytes, and believed only if they
//! still have it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Inner, StoreError, file_error};
use crate::digest::Digest;
use crate::manifest::MAX_DOCUMENT;

/// Where the blob of the store in `root` lies.
pub(super) fn path(root: &Path, digest: &Digest) -> PathBuf {
    root.join("blobs").join(digest.algorithm().name()).join(digest.hex())
}

/// The blob, if it is there and its bytes are what its name says.
pub(super) fn read(root: &Path, digest: &Digest) -> Option<Bytes> {
    let bytes = sys::fs::read_bounded(path(root, digest), MAX_DOCUMENT).ok()?;
    let mut hasher = digest.algorithm().hasher();
    hasher.update(&bytes);
    (hasher.finish() == *digest).then(|| bytes.into())
}

impl Inner {
    /// Writes a blob under its digest, unless it is there and whole. `false` if it is surely on the disk: an image that
    /// was committed has it. What a failed pull left behind may never have been synced. The caller syncs.
    pub(super) fn write_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<bool, StoreError> {
        if read(&self.root, digest).is_some() {
            return Ok(!self.state().blobs().contains(digest));
        }
        let path = path(&self.root, digest);
        let fresh = path.with_extension("new");
        File::create(&fresh).and_then(|mut file| file.write_all(bytes)).map_err(file_error("write", &fresh))?;
        fs::rename(&fresh, &path).map_err(file_error("rename", &fresh))?;
        Ok(true)
    }
}
