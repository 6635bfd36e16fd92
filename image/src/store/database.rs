//! The one file that says what is true: redb, two-phase commit, nothing else writes to it.
//!
//! Two-phase commit because labels and names in it are a stranger's (redb's design.md asks for it then). The file is
//! created under another name and renamed when whole: a kill inside redb's own creation leaves a file that never opens
//! again.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ImageId;
use super::records::{Change, ImageRecord, SnapshotRecord};
use crate::digest::Digest;

const FILE: &str = "store.redb";
/// redb keeps this many bytes of pages in memory. (Its own default is 1 GiB.)
const CACHE: usize = 8 << 20;
const VERSION: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const IMAGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("images");
const SNAPSHOTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshots");

/// Why the database can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// A file system call around it.
    #[error("{what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// redb's own error.
    #[error("{what} {path}")]
    Redb {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<redb::Error>,
    },
    /// A row is not what we write.
    #[error("read the row {key:?} of {path}")]
    Row {
        /// The row's key.
        key: String,
        /// The database.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// It could not be opened again after a failed write.
    #[error("{path} is closed since a write to it failed")]
    Closed {
        /// The database.
        path: PathBuf,
    },
    /// A newer program has been here.
    #[error("{path} has version {found}; this program reads version {VERSION}")]
    Version {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
}

impl DatabaseError {
    /// True if redb takes nothing more before it is opened again, and what the last commit did is unknown.
    pub(super) fn is_latched(&self) -> bool {
        match self {
            Self::Redb { source, .. } => matches!(**source, redb::Error::Io(_) | redb::Error::PreviousIo),
            Self::Closed { .. } => true,
            _ => false,
        }
    }
}

/// All rows.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) images: BTreeMap<ImageId, ImageRecord>,
    pub(super) snapshots: BTreeMap<Digest, SnapshotRecord>,
}

/// The open database.
pub(super) struct Database {
    /// `None` if it could not be opened again after a failed write.
    redb: Mutex<Option<redb::Database>>,
    path: PathBuf,
}

impl Database {
    /// Opens the database in `root`, or makes an empty one.
    pub(super) fn open(root: &Path) -> Result<Self, DatabaseError> {
        let path = root.join(FILE);
        if !path.exists() {
            create(root, &path)?;
        }
        let redb = Mutex::new(Some(open(&path)?));
        Ok(Self { redb, path })
    }

    /// Opens the file again: redb refuses everything after a failed write, a full disk included.
    pub(super) fn reopen(&self) -> Result<(), DatabaseError> {
        let mut redb = self.lock();
        *redb = None; // it holds the file's lock
        *redb = Some(open(&self.path)?);
        Ok(())
    }

    /// Every row.
    pub(super) fn read(&self) -> Result<Rows, DatabaseError> {
        let fail = |error: redb::Error| failed("read", &self.path)(error);
        let redb = self.lock();
        let transaction = self.opened(&redb)?.begin_read().map_err(|e| fail(e.into()))?;
        let meta = transaction.open_table(META).map_err(|e| fail(e.into()))?;
        let found = meta.get("version").map_err(|e| fail(e.into()))?.map_or(0, |version| version.value());
        if found != VERSION {
            return Err(DatabaseError::Version { path: self.path.clone(), found });
        }
        let mut rows = Rows::default();
        let table = transaction.open_table(IMAGES).map_err(|e| fail(e.into()))?;
        for row in table.iter().map_err(|e| fail(e.into()))? {
            let (key, value) = row.map_err(|e| fail(e.into()))?;
            let record: ImageRecord = self.row(key.value(), value.value())?;
            rows.images.insert(record.id.clone(), record);
        }
        let table = transaction.open_table(SNAPSHOTS).map_err(|e| fail(e.into()))?;
        for row in table.iter().map_err(|e| fail(e.into()))? {
            let (key, value) = row.map_err(|e| fail(e.into()))?;
            let record = self.row(key.value(), value.value())?;
            let chain: Digest = self.row(key.value(), format!("{:?}", key.value()).as_bytes())?;
            rows.snapshots.insert(chain, record);
        }
        Ok(rows)
    }

    /// Makes `change` durable, all of it or nothing.
    pub(super) fn commit(&self, change: &Change) -> Result<(), DatabaseError> {
        write(self.opened(&self.lock())?, change).map_err(failed("write", &self.path))
    }

    fn lock(&self) -> MutexGuard<'_, Option<redb::Database>> {
        self.redb.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened<'a>(&self, redb: &'a Option<redb::Database>) -> Result<&'a redb::Database, DatabaseError> {
        redb.as_ref().ok_or_else(|| DatabaseError::Closed { path: self.path.clone() })
    }

    fn row<T: DeserializeOwned>(&self, key: &str, value: &[u8]) -> Result<T, DatabaseError> {
        let wrong = |source| DatabaseError::Row { key: key.to_owned(), path: self.path.clone(), source };
        serde_json::from_slice(value).map_err(wrong)
    }
}

fn open(path: &Path) -> Result<redb::Database, DatabaseError> {
    let opened = redb::Database::builder().set_cache_size(CACHE).open(path);
    opened.map_err(|error| failed("open", path)(error.into()))
}

fn write(redb: &redb::Database, change: &Change) -> Result<(), redb::Error> {
    let mut transaction = redb.begin_write()?;
    transaction.set_two_phase_commit(true);
    {
        transaction.open_table(META)?.insert("version", VERSION)?;
        let mut images = transaction.open_table(IMAGES)?;
        for record in &change.put_images {
            images.insert(record.id.0.as_str(), json(record).as_slice())?;
        }
        for id in &change.delete_images {
            images.remove(id.0.as_str())?;
        }
        let mut snapshots = transaction.open_table(SNAPSHOTS)?;
        for (chain, record) in &change.put_snapshots {
            snapshots.insert(chain.as_str(), json(record).as_slice())?;
        }
        for chain in &change.delete_snapshots {
            snapshots.remove(chain.as_str())?;
        }
    }
    Ok(transaction.commit()?)
}

fn json(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("records are maps with text keys")
}

fn create(root: &Path, path: &Path) -> Result<(), DatabaseError> {
    let fresh = path.with_extension("new");
    let file = |what, source| DatabaseError::File { what, path: fresh.clone(), source };
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file("remove", error)),
        _ => {}
    }
    let redb = redb::Database::builder()
        .set_cache_size(CACHE)
        .create(&fresh)
        .map_err(|error| failed("create", &fresh)(error.into()))?;
    write(&redb, &Change::default()).map_err(failed("write", &fresh))?;
    drop(redb);
    File::open(&fresh).and_then(|file| file.sync_all()).map_err(|error| file("sync", error))?;
    std::fs::rename(&fresh, path).map_err(|error| file("rename", error))?;
    File::open(root).and_then(|directory| directory.sync_all()).map_err(|error| file("sync the directory of", error))
}

fn failed(what: &'static str, path: &Path) -> impl Fn(redb::Error) -> DatabaseError {
    let path = path.to_owned();
    move |source| DatabaseError::Redb { what, path: path.clone(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io;
    use std::sync::atomic::{AtomicU32, Ordering};

    use redb::backends::FileBackend;

    use super::*;

    /// A file whose disk is full after `left` writes.
    #[derive(Debug)]
    struct Filling {
        file: FileBackend,
        left: AtomicU32,
    }

    impl redb::StorageBackend for Shared {
        fn len(&self) -> io::Result<u64> {
            self.0.file.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.file.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.file.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.0.file.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            let left = self.0.left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            left.map_err(|_| io::Error::from_raw_os_error(28))?;
            self.0.file.write(offset, data)
        }
    }

    #[derive(Debug)]
    struct Shared(std::sync::Arc<Filling>);

    impl Database {
        /// From now on, and until it is opened again, all writes but the first `left` find the disk full.
        pub(in crate::store) fn fill_disk_after(&self, left: u32) {
            let mut redb = self.lock();
            *redb = None;
            let file = File::options().read(true).write(true).open(&self.path).unwrap();
            let disk = Filling { file: FileBackend::new(file).unwrap(), left: u32::MAX.into() };
            let disk = std::sync::Arc::new(disk);
            *redb = Some(redb::Database::builder().create_with_backend(Shared(disk.clone())).unwrap());
            disk.left.store(left, Ordering::Relaxed);
        }
    }

    fn image(name: &str) -> ImageRecord {
        ImageRecord {
            id: ImageId(Digest::sha256(name.as_bytes())),
            tags: BTreeSet::from([format!("docker.io/library/{name}:latest")]),
            digests: BTreeSet::new(),
            blobs: BTreeSet::new(),
            layers: vec![Digest::sha256(b"layer")],
            pinned: false,
            removed: false,
        }
    }

    #[test]
    fn rows_survive_and_a_change_is_whole() {
        let root = tempfile::tempdir().unwrap();
        let snapshot =
            SnapshotRecord { directory: 7, diff_id: Digest::sha256(b"d"), bytes: 1, inodes: 2, opaque_root: true };
        let chain = Digest::sha256(b"layer");
        {
            let database = Database::open(root.path()).unwrap();
            let change = Change {
                put_images: vec![image("a"), image("b")],
                put_snapshots: vec![(chain.clone(), snapshot.clone())],
                ..Change::default()
            };
            database.commit(&change).unwrap();
            database.commit(&Change { delete_images: vec![image("b").id], ..Change::default() }).unwrap();
        }
        let rows = Database::open(root.path()).unwrap().read().unwrap();
        assert_eq!(rows.images.into_values().collect::<Vec<_>>(), [image("a")]);
        assert_eq!(rows.snapshots, BTreeMap::from([(chain, snapshot)]));
    }

    #[test]
    fn a_creation_that_was_killed_is_made_again() {
        let root = tempfile::tempdir().unwrap();
        File::create(root.path().join("store.new")).unwrap().set_len(100).unwrap();
        assert!(Database::open(root.path()).unwrap().read().unwrap().images.is_empty());
    }
}
