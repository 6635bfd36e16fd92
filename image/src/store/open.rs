//! Opening a store: take the lock, make what is missing, remove what a killed predecessor left half-done.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use super::database::{Database, Rows};
use super::records::Change;
use super::state::State;
use super::trash::Trash;
use super::{Config, ImageId, Inner, OpenError, Store, blobs, snapshot};
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::registry::{Tokens, Transport};

impl Store {
    /// Opens the store in `root`, or makes one. What a killed predecessor left half-done is removed.
    pub fn open(root: &Path, config: Config) -> Result<Self, OpenError> {
        let file = |what, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::File { what, path, source }
        };
        make_private(root).map_err(file("make", root))?;
        let lock = super::lock::Lock::take(root)?;
        for name in ["blobs", "blobs/sha256", "blobs/sha384", "blobs/sha512", "snapshots", "trash", "empty"] {
            let path = root.join(name);
            make_private(&path).map_err(file("make", &path))?;
        }
        let directory = File::open(root).map_err(file("open", root))?;
        let trash = Trash::open(root.join("trash")).map_err(file("empty", &root.join("trash")))?;
        let database = Database::open(root)?;
        let mut rows = database.read()?;
        let highest = rows.snapshots.values().map(|row| row.directory).max().unwrap_or(0);
        let lost = take_lost(root, &mut rows);
        let next_snapshot =
            sweep_snapshots(root, &rows, highest, &trash).map_err(file("sweep", &root.join("snapshots")))?;

        let (state, broken) = State::new(rows, |id| read_config(root, id));
        if !(broken.is_empty() && lost.is_empty()) {
            tracing::warn!(images = ?broken, layers = ?lost, "files of images are missing: pull them again");
            database.commit(&Change { delete_images: broken, delete_snapshots: lost, ..Change::default() })?;
        }
        sweep_blobs(root, &state.blobs()).map_err(file("sweep", &root.join("blobs")))?;
        let inner = Inner {
            root: root.to_owned(),
            directory,
            database,
            state: Mutex::new(state),
            committing: Mutex::new(()),
            next_snapshot: AtomicU64::new(next_snapshot),
            flights: super::flight::Flights::default(),
            layer_slots: Arc::new(tokio::sync::Semaphore::new(config.parallel_layers.max(1))),
            trash: Arc::new(trash),
            transport: Arc::new(Transport::new(config.proxies.clone(), config.stall_timeout)),
            tokens: Arc::new(Tokens::default()),
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// A directory that only root enters, made or repaired: what lies below has setuid programs of strangers
/// (CVE-2021-41103).
fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    match mode & 0o777 {
        0o700 => Ok(()),
        _ => fs::set_permissions(path, fs::Permissions::from_mode(0o700)),
    }
}

/// Takes out the rows whose directory is gone, or holds another layer than the row says, and returns their layers. A row
/// that stayed would sooner or later be served from a directory that something else was unpacked into.
fn take_lost(root: &Path, rows: &mut Rows) -> Vec<Digest> {
    let snapshots = root.join("snapshots");
    let lost =
        rows.snapshots.extract_if(.., |chain, row| !snapshot::holds(&snapshots.join(row.directory.to_string()), chain));
    lost.map(|(chain, _)| chain).collect()
}

/// Removes trees that no row names; returns the first number that no row and no directory had, up to `highest` and
/// beyond.
fn sweep_snapshots(root: &Path, rows: &Rows, mut highest: u64, trash: &Trash) -> io::Result<u64> {
    let wanted: HashSet<u64> = rows.snapshots.values().map(|row| row.directory).collect();
    for entry in fs::read_dir(root.join("snapshots"))? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
        highest = highest.max(number.unwrap_or(0));
        if number.is_none_or(|number| !wanted.contains(&number)) {
            trash.take(&entry.path());
        }
    }
    Ok(highest + 1)
}

/// Removes blobs that no image names, and what was being written when a predecessor died.
fn sweep_blobs(root: &Path, wanted: &HashSet<&Digest>) -> io::Result<()> {
    for folder in fs::read_dir(root.join("blobs"))? {
        let folder = folder?;
        for entry in fs::read_dir(folder.path())? {
            let entry = entry?;
            let text = format!("{}:{}", folder.file_name().display(), entry.file_name().display());
            let is_wanted = text.parse::<Digest>().is_ok_and(|digest| wanted.contains(&digest));
            if !is_wanted {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

fn read_config(root: &Path, id: &ImageId) -> Option<ImageConfig> {
    ImageConfig::parse(&blobs::read(root, &id.0)?).ok()
}
