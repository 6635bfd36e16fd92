//! The records on disk: `<root>/cri/{sandboxes,containers}/<id>.json`.
//!
//! A record is one JSON object `{"version":1,"sha256":"…","body":{…}}` with the checksum of the body's bytes, replaced by
//! rename and not synced: it has to survive the daemon, and after a power cut a record that is torn shows it. One that
//! can't be read is set aside as `<id>.unreadable`, so that the daemon starts and the thing is cleaned up by its id.

use crate::failure::chain;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use sys::fs::Durability;

/// What this version writes; it reads no other.
const VERSION: u32 = 1;

/// A record longer than this is not ours.
const MAX_RECORD: u64 = 16 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    version: u32,
    sha256: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// Why a record can't be kept or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("write record {path}")]
    Write { path: PathBuf, source: sys::Error },
    #[error("set record {path} aside")]
    SetAside { path: PathBuf, source: io::Error },
    #[error("remove {path}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("list records in {path}")]
    List { path: PathBuf, source: io::Error },
    #[error("remove what a killed daemon left half written in {path}")]
    Leftovers { path: PathBuf, source: sys::Error },
    #[error("make directory {path}")]
    Directory { path: PathBuf, source: io::Error },
}

/// A directory of records of one kind.
#[derive(Debug)]
pub(crate) struct Records<T> {
    dir: PathBuf,
    kind: PhantomData<fn(T)>,
}

/// What a directory of records holds.
#[derive(Debug)]
pub(crate) struct Loaded<T> {
    /// Those that could be read.
    pub(crate) records: Vec<T>,
    /// The ids of those that could not, with the reason; they are set aside.
    pub(crate) unreadable: Vec<(String, String)>,
}

impl<T: Serialize + DeserializeOwned> Records<T> {
    /// The records in `dir`, which is made if it is missing, for root only.
    pub(crate) fn open(dir: PathBuf) -> Result<Records<T>, RecordError> {
        make_private_dir(&dir)?;
        sys::fs::remove_leftovers(&dir).map_err(|source| RecordError::Leftovers { path: dir.clone(), source })?;
        Ok(Records { dir, kind: PhantomData })
    }

    /// Where the thing's own files are.
    pub(crate) fn dir_of(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    /// Writes or replaces a record.
    pub(crate) fn put(&self, id: &str, record: &T) -> Result<(), RecordError> {
        let path = self.path_of(id);
        sys::fs::atomic_write(&path, encode(record).as_bytes(), Durability::Rename, 0o600)
            .map_err(|source| RecordError::Write { path, source })
    }

    /// Removes the thing's directory and then its record: as long as something of it is there, it is known.
    pub(crate) fn remove(&self, id: &str) -> Result<(), RecordError> {
        let dir = self.dir_of(id);
        gone(std::fs::remove_dir_all(&dir)).map_err(|source| RecordError::Remove { path: dir, source })?;
        let path = self.path_of(id);
        gone(std::fs::remove_file(&path)).map_err(|source| RecordError::Remove { path, source })
    }

    /// Reads everything. Directories that no record knows are removed: their thing was never acknowledged.
    pub(crate) fn load(&self) -> Result<Loaded<T>, RecordError> {
        let mut loaded = Loaded { records: Vec::new(), unreadable: Vec::new() };
        let list = |source| RecordError::List { path: self.dir.clone(), source };
        let mut dirs = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(list)? {
            let entry = entry.map_err(list)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().map_err(list)?.is_dir() {
                dirs.push(name);
            } else if let Some(id) = name.strip_suffix(".json") {
                match self.read(&entry.path()) {
                    Ok(record) => loaded.records.push(record),
                    Err(reason) => {
                        // A name that can't be changed is no reason not to start: it is found again the next time.
                        if let Err(error) = self.set_aside(&entry.path()) {
                            tracing::error!(error = chain(&error), "a record stays where it is");
                        }
                        loaded.unreadable.push((id.to_owned(), reason));
                    }
                }
            }
        }
        for orphan in dirs.iter().filter(|id| !self.path_of(id).exists()) {
            let dir = self.dir_of(orphan);
            if let Err(error) = gone(std::fs::remove_dir_all(&dir)) {
                tracing::error!(dir = %dir.display(), error = chain(&error), "remove what no record knows");
            }
        }
        Ok(loaded)
    }

    fn path_of(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    fn read(&self, path: &Path) -> Result<T, String> {
        decode(&sys::fs::read_bounded(path, MAX_RECORD).map_err(|error| chain(&error))?)
    }

    fn set_aside(&self, path: &Path) -> Result<(), RecordError> {
        std::fs::rename(path, path.with_extension("unreadable"))
            .map_err(|source| RecordError::SetAside { path: path.into(), source })
    }
}

/// Makes a directory and those above it, for root only.
pub(crate) fn make_private_dir(dir: &Path) -> Result<(), RecordError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| RecordError::Directory { path: dir.into(), source })
}

/// `NotFound` is what a removal wants.
pub(crate) fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn encode<T: Serialize>(record: &T) -> String {
    let body = serde_json::value::to_raw_value(record).expect("records have string keys only");
    let envelope = Envelope { version: VERSION, sha256: checksum(body.get()), body: &body };
    serde_json::to_string(&envelope).expect("an envelope is always JSON")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if envelope.version != VERSION {
        return Err(format!("version {} is not {VERSION}", envelope.version));
    }
    if checksum(envelope.body.get()) != envelope.sha256 {
        return Err("the checksum does not match".into());
    }
    serde_json::from_str(envelope.body.get()).map_err(|error| error.to_string())
}

fn checksum(body: &str) -> String {
    Sha256::digest(body.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Map = std::collections::BTreeMap<String, String>;

    fn record() -> Map {
        Map::from([("k".to_owned(), "v".to_owned())])
    }

    #[test]
    fn a_record_reads_back_and_every_flipped_bit_is_noticed() {
        let text = encode(&record());
        assert_eq!(decode::<Map>(text.as_bytes()).unwrap(), record());
        for index in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[index] ^= 0x01;
            assert!(decode::<Map>(&bytes).is_err() || bytes == text.as_bytes(), "byte {index} of {text}");
        }
    }

    #[test]
    fn a_torn_record_is_set_aside_and_the_others_load() {
        let dir = tempfile::tempdir().unwrap();
        let records: Records<Map> = Records::open(dir.path().join("things")).unwrap();
        records.put("a", &record()).unwrap();
        records.put("b", &record()).unwrap();
        let torn = dir.path().join("things/b.json");
        std::fs::OpenOptions::new().write(true).open(&torn).unwrap().set_len(20).unwrap();
        let loaded = records.load().unwrap();
        assert_eq!(loaded.records, [record()]);
        assert_eq!(loaded.unreadable.len(), 1);
        assert_eq!(loaded.unreadable[0].0, "b");
        assert!(dir.path().join("things/b.unreadable").exists());
        assert!(records.load().unwrap().unreadable.is_empty());
    }

    #[test]
    fn a_record_that_the_disk_does_not_give_keeps_nothing_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let records: Records<Map> = Records::open(dir.path().join("things")).unwrap();
        records.put("a", &record()).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("things/b.json")).unwrap();
        let loaded = records.load().unwrap();
        assert_eq!(loaded.records, [record()]);
        assert_eq!(loaded.unreadable.len(), 1);
        assert_eq!(loaded.unreadable[0].0, "b");
    }

    #[test]
    fn a_directory_without_a_record_was_never_acknowledged_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let records: Records<Map> = Records::open(dir.path().join("things")).unwrap();
        std::fs::create_dir_all(records.dir_of("half").join("fs")).unwrap();
        records.load().unwrap();
        assert!(!records.dir_of("half").exists());
    }
}
