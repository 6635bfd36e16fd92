//! What is remembered of pulls, so that a private image that is on the node is not a gift to every pod of it.
//!
//! `<root>/image_manager/pulled/sha256-…` says with which secrets an image was pulled, `pulling/sha256-…` that a pull was
//! begun: after a crash in between, the image counts as pulled with credentials that nobody knows. An image without
//! either was there before the kubelet and is for all (`imagePullCredentialsVerificationPolicy:
//! NeverVerifyPreloadedImages`). Files and format are upstream's: a node keeps them when it changes its kubelet.

use super::keyring::{Coordinates, Credential};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use sys::fs::Durability;

/// A record is some hundred bytes for each repository and secret.
const MAX_RECORD: u64 = 1 << 20;
/// Secrets that are remembered of one image.
const MAX_SECRETS: usize = 100;

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Records {
    folder: PathBuf,
}

/// `ImagePulledRecord`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pulled {
    kind: String,
    api_version: String,
    last_updated_time: String,
    image_ref: String,
    #[serde(default)]
    credential_mapping: BTreeMap<String, Access>,
}

/// `ImagePullCredentials`: who may use an image under one name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Access {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kubernetes_secrets: Vec<KnownSecret>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    node_pods_accessible: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KnownSecret {
    #[serde(flatten)]
    secret: Coordinates,
    #[serde(default)]
    credential_hash: String,
}

/// `ImagePullIntent`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Intent {
    kind: String,
    api_version: String,
    image: String,
}

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";

/// Who may use an image that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everybody.
    Everybody,
    /// Whoever has one of these.
    Holders(Holders),
    /// Whoever can pull it.
    Pullers,
}

/// Secrets with which an image was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holders(Vec<KnownSecret>);

impl Holders {
    /// Whether one of a pod's credentials is among them: the same secret, though it may have been renewed, or the same
    /// user and password in another one.
    pub(super) fn include(&self, credentials: &[Credential]) -> bool {
        credentials.iter().any(|own| {
            let fingerprint = own.fingerprint();
            self.0.iter().any(|known| known.credential_hash == fingerprint || known.secret == own.secret)
        })
    }
}

impl Records {
    pub(super) fn below(root: &Path) -> Records {
        Records { folder: root.join("image_manager") }
    }

    /// Who may use the image `id` under `name`. `image` is what was asked for.
    pub(super) fn verdict(&self, image: &str, name: &str, id: &str) -> Verdict {
        match self.read(id) {
            Ok(Some(record)) => match record.credential_mapping.get(name) {
                Some(access) if access.node_pods_accessible => Verdict::Everybody,
                Some(access) if !access.kubernetes_secrets.is_empty() => {
                    Verdict::Holders(Holders(access.kubernetes_secrets.clone()))
                }
                _ => Verdict::Pullers,
            },
            Ok(None) if self.pulling(image).exists() => Verdict::Pullers,
            Ok(None) => Verdict::Everybody,
            Err(reason) => {
                tracing::warn!(image, reason, "a record of a pull can't be read: the image is pulled again");
                Verdict::Pullers
            }
        }
    }

    /// A pull begins. True if an earlier one did already, and it is not known how it ended.
    pub(super) fn begin(&self, image: &str) -> sys::Result<bool> {
        let in_doubt = self.pulling(image).exists();
        let (kind, api_version) = ("ImagePullIntent".to_owned(), API_VERSION.to_owned());
        let intent = Intent { kind, api_version, image: image.to_owned() };
        write(&self.pulling(image), &serde_json::to_vec(&intent).expect("texts alone"))?;
        Ok(in_doubt)
    }

    /// It failed, or what it was is written down.
    pub(super) fn end(&self, image: &str) {
        if let Err(error) = std::fs::remove_file(self.pulling(image))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(image, %error, "the note that an image is being pulled stays");
        }
    }

    /// The images of which a pull was begun and did not end, as they were asked for.
    pub(super) fn begun(&self) -> Vec<String> {
        let notes = std::fs::read_dir(self.folder.join("pulling")).into_iter().flatten().flatten();
        let read = |path: PathBuf| {
            let bytes = sys::fs::read_bounded(&path, MAX_RECORD).ok()?;
            serde_json::from_slice::<Intent>(&bytes).ok().map(|intent| intent.image)
        };
        notes.filter_map(|note| read(note.path())).collect()
    }

    /// Ends a pull that nobody goes on with. If the image came, as `id`, it is for those who can pull it.
    pub(super) fn inherit(&self, image: &str, id: Option<&str>, now: Timestamp) {
        let written = match id {
            // What is known of it from before still holds.
            Some(id) if !matches!(self.read(id), Ok(Some(_))) => self.write(&Pulled::nothing_known(id), now),
            _ => Ok(()),
        };
        match written {
            Ok(()) => self.end(image),
            Err(error) => tracing::warn!(image, %error, "a pull that was cut short is not written down"),
        }
    }

    /// It was pulled, with this credential or without any.
    pub(super) fn pulled(&self, name: &str, id: &str, with: Option<&Credential>, now: Timestamp) -> sys::Result<()> {
        let mut record = self.read(id).ok().flatten().unwrap_or_else(|| Pulled::nothing_known(id));
        let before = record.credential_mapping.clone();
        record.credential_mapping.entry(name.to_owned()).or_default().grant(with);
        if record.credential_mapping == before { Ok(()) } else { self.write(&record, now) }
    }

    fn write(&self, record: &Pulled, now: Timestamp) -> sys::Result<()> {
        let last_updated_time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let record = Pulled { last_updated_time, ..record.clone() };
        write(&self.file("pulled", &record.image_ref), &serde_json::to_vec(&record).expect("texts alone"))
    }

    fn read(&self, id: &str) -> Result<Option<Pulled>, String> {
        let bytes = match sys::fs::read_bounded(self.file("pulled", id), MAX_RECORD) {
            Err(error) if error.is(sys::Errno::ENOENT) => return Ok(None),
            bytes => bytes.map_err(|error| error.to_string())?,
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| error.to_string())
    }

    fn pulling(&self, image: &str) -> PathBuf {
        self.file("pulling", image)
    }

    fn file(&self, folder: &str, name: &str) -> PathBuf {
        let hash: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(folder).join(format!("sha256-{hash}"))
    }
}

impl Pulled {
    /// A record without anybody who may use the image.
    fn nothing_known(id: &str) -> Pulled {
        Pulled {
            kind: "ImagePulledRecord".to_owned(),
            api_version: API_VERSION.to_owned(),
            last_updated_time: String::new(),
            image_ref: id.to_owned(),
            credential_mapping: BTreeMap::new(),
        }
    }
}

impl Access {
    fn grant(&mut self, with: Option<&Credential>) {
        let Some(credential) = with.filter(|_| !self.node_pods_accessible) else {
            *self = Access { kubernetes_secrets: Vec::new(), node_pods_accessible: true };
            return;
        };
        let known = KnownSecret { secret: credential.secret.clone(), credential_hash: credential.fingerprint() };
        self.kubernetes_secrets.retain(|other| other.secret != known.secret);
        self.kubernetes_secrets.push(known);
        let surplus = self.kubernetes_secrets.len().saturating_sub(MAX_SECRETS);
        self.kubernetes_secrets.drain(..surplus);
    }
}

/// It has to outlive a power cut, as the image does.
fn write(path: &Path, content: &[u8]) -> sys::Result<()> {
    match sys::fs::atomic_write(path, content, Durability::Synced, 0o600) {
        Err(error) if error.is(sys::Errno::ENOENT) => {
            let folder = path.parent().unwrap_or(path);
            // What fails here makes the next write fail, which is told.
            let _ = std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
                .recursive(true)
                .create(folder);
            sys::fs::atomic_write(path, content, Durability::Synced, 0o600)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests;
