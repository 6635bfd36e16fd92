//! Container ids and their state directories.
//!
//! `<root>/<id>/state.json` holds the facts of a container, replaced as a whole when one changes; its status is worked out
//! from the process each time. The directory is what makes an id unique: who makes it owns the id, and holds `lock` until
//! there is a state.json (see `making.rs`); after that the lock is of whoever changes the container. `exec.fifo` is there
//! until the container was started, `config.json` is the bundle's as it was when the container was made.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use oci_runtime::cgroup::{self, Cgroup, Layout};
use oci_runtime::plan::ContainerWide;
use oci_runtime::resctrl::{self, Groups};
use oci_spec::runtime::Hooks;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sys::Errno;
use sys::fs::Durability;
use sys::poll::Interest;
use sys::process::{Pid, Process};
use sys::record_lock::RecordLock;
use sys::signal::Signal;

use super::Error;
use super::args::Root;
use super::bundle::CONFIG;
use super::kill::PATIENCE;
use super::making::{Abandoned, Making};
use super::time::Timestamp;

/// What clients match; the wording is runc's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("container does not exist")]
    NotExist,
    #[error("container with given ID already exists")]
    Exists,
    #[error("container id cannot be empty")]
    EmptyId,
    #[error("invalid container ID format")]
    InvalidId,
    #[error("container not running")]
    NotRunning,
    #[error("container not paused")]
    NotPaused,
}

/// A name that can be a directory's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerId(String);

impl ContainerId {
    pub(crate) fn parse(id: &str) -> Result<ContainerId, StoreError> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b"_+-.".contains(&c);
        match id {
            "" => Err(StoreError::EmptyId),
            "." | ".." => Err(StoreError::InvalidId),
            id if id.len() > 255 || !id.bytes().all(allowed) => Err(StoreError::InvalidId),
            id => Ok(ContainerId(id.to_owned())),
        }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The directory of all containers.
#[derive(Debug)]
pub(crate) struct Store<'a> {
    root: &'a Root,
}

/// The facts of a container, as in state.json.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Of this format.
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) pid: i32,
    /// Of the process, so that its number cannot be taken for another's.
    pub(crate) start_time: u64,
    pub(crate) created: Timestamp,
    pub(crate) cgroup: String,
    /// No PID namespace of its own: its processes outlive the first one.
    pub(crate) shares_pids: bool,
    #[serde(default)]
    pub(crate) annotations: HashMap<String, String>,
    /// What holds for the processes that join it.
    #[serde(default)]
    pub(crate) for_all: ContainerWide,
    /// Its groups there.
    #[serde(default)]
    pub(crate) resctrl: Groups,
    /// Those of its config; the later ones are still to come.
    #[serde(default)]
    pub(crate) hooks: Option<Hooks>,
    /// `linux.resources` without device rules, as they hold now: an update is merged over them.
    #[serde(default)]
    pub(crate) resources: Value,
    /// What joins it stays in its caller's session keyring too.
    #[serde(default)]
    pub(crate) keeps_keyring: bool,
}

/// In a state directory: see `making.rs`.
pub(crate) const LOCK: &str = "lock";

/// The version that is written, and the only one that is read.
pub(crate) const RECORD_VERSION: u32 = 1;

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// A container that has been created.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) dir: PathBuf,
    pub(crate) record: Record,
    /// The host's, once it was looked at.
    layout: OnceCell<Layout>,
}

impl Store<'_> {
    pub(crate) fn new(root: &Root) -> Store<'_> {
        Store { root }
    }

    /// Takes an id: makes its directory.
    pub(crate) fn reserve(&self, id: &ContainerId) -> Result<Making, Error> {
        let named = |path: &Path, error| format!("make {}: {error}", path.display());
        let dir = self.root.path.join(&id.0);
        // Whoever the container's user is opens exec.fifo in it; nobody else gets past the directory above.
        let make = || std::fs::DirBuilder::new().mode(0o711).create(&dir);
        let made = match make() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let root = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&self.root.path);
                root.map_err(|error| named(&self.root.path, error))?;
                make()
            }
            made => made,
        };
        match made {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(StoreError::Exists.into()),
            result => {
                result.map_err(|error| named(&dir, error))?;
                Making::in_directory(dir)
            }
        }
    }

    pub(crate) fn load(&self, id: &str) -> Result<Container, Error> {
        let id = ContainerId::parse(id)?;
        let dir = self.root.path.join(&id.0);
        let path = dir.join("state.json");
        let json = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(StoreError::NotExist.into()),
            read => read.map_err(|error| format!("read {}: {error}", path.display()))?,
        };
        let record: Record =
            serde_json::from_slice(&json).map_err(|error| format!("parse {}: {error}", path.display()))?;
        match record.version {
            RECORD_VERSION => Ok(Container::new(dir, record)),
            other => Err(format!("{} is of version {other}, not {RECORD_VERSION}", path.display()).into()),
        }
    }

    /// The container, and a lock that keeps other verbs from changing it meanwhile. The lock has a file of its own:
    /// state.json is another one after each change.
    pub(crate) fn load_locked(&self, id: &str) -> Result<(Container, RecordLock), Error> {
        let dir = self.root.path.join(&ContainerId::parse(id)?.0);
        // Opening makes the lock, which is nobody's without a container.
        if matches!(dir.join("state.json").try_exists(), Ok(false)) {
            return Err(StoreError::NotExist.into());
        }
        let lock = match RecordLock::open(dir.join(LOCK)) {
            Err(error) if error.is(Errno::ENOENT) => return Err(StoreError::NotExist.into()),
            opened => opened?,
        };
        lock.take()?;
        Ok((self.load(id)?, lock))
    }

    /// What the creation of this id left that was cut short before there was a state.json.
    pub(crate) fn abandoned(&self, id: &str, force: bool) -> Result<Option<Abandoned>, Error> {
        Abandoned::take(&self.root.path.join(ContainerId::parse(id)?.0), force)
    }

    /// The names in the directory, sorted. A default directory that nobody has made yet is empty.
    pub(crate) fn ids(&self) -> Result<Vec<String>, Error> {
        let path = &self.root.path;
        let entries = match std::fs::read_dir(path) {
            Err(error) if error.kind() == ErrorKind::NotFound && !self.root.given => return Ok(Vec::new()),
            entries => entries.map_err(|error| format!("open {}: {error}", path.display()))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| format!("read {}: {error}", path.display()))?;
            // A directory that is gone meanwhile was deleted.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                ids.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        ids.sort();
        Ok(ids)
    }
}

impl Container {
    pub(crate) fn new(dir: PathBuf, record: Record) -> Container {
        Container { dir, record, layout: OnceCell::new() }
    }

    /// For whoever has looked at the host's cgroups already.
    pub(crate) fn in_layout(dir: PathBuf, record: Record, layout: Layout) -> Container {
        Container { dir, record, layout: OnceCell::from(layout) }
    }

    /// Writes state.json, under [`Store::load_locked`]'s lock or [`Making`]'s: from the first time on the container exists.
    pub(crate) fn save(&self) -> Result<(), Error> {
        let json = serde_json::to_vec(&self.record).map_err(|error| format!("encode state.json: {error}"))?;
        Ok(sys::fs::atomic_write(self.dir.join("state.json"), &json, Durability::Rename, 0o600)?)
    }

    pub(crate) fn process(&self) -> Process {
        Process { pid: Pid::from_raw(self.record.pid), start_time: self.record.start_time }
    }

    pub(crate) fn fifo(&self) -> PathBuf {
        self.dir.join("exec.fifo")
    }

    /// The compiled system call filter, if the config has one: exec needs it too.
    pub(crate) fn filter(&self) -> PathBuf {
        self.dir.join("seccomp.bpf")
    }

    pub(crate) fn status(&self) -> Result<Status, Error> {
        let Some(process) = self.process().running()? else { return Ok(Status::Stopped) };
        if Cgroup::is_frozen_at(self.layout()?, &self.record.cgroup)? {
            return Ok(Status::Paused);
        }
        // A start that was killed may have left the FIFO of a program that runs.
        if process.has_executed {
            return Ok(Status::Running);
        }
        match self.fifo().try_exists() {
            Ok(true) => Ok(Status::Created),
            Ok(false) => Ok(Status::Running),
            Err(error) => Err(format!("look at {}: {error}", self.fifo().display()).into()),
        }
    }

    /// How the host mounts its cgroups.
    pub(crate) fn layout(&self) -> Result<&Layout, cgroup::Error> {
        match self.layout.get() {
            Some(layout) => Ok(layout),
            None => Layout::detect().map(|layout| self.layout.get_or_init(|| layout)),
        }
    }

    pub(crate) fn cgroup(&self) -> Result<Cgroup, cgroup::Error> {
        Cgroup::open(self.layout()?, &self.record.cgroup)
    }

    /// Ends all of it: its first process, wherever that may have been moved, and whoever is in its cgroup.
    pub(crate) fn kill(&self) -> Result<(), Error> {
        let first = match self.record.pid {
            0 => None,
            _ => match self.process().open() {
                Err(error) if error.is(Errno::ESRCH) => None,
                opened => Some(opened?),
            },
        };
        match first.as_ref().map_or(Ok(()), |first| first.send_signal(Signal::SIGKILL)) {
            Err(error) if error.is(Errno::ESRCH) => {}
            sent => sent?,
        }
        self.cgroup()?.kill(PATIENCE)?;
        let Some(first) = first else { return Ok(()) };
        let ready = sys::poll::poll(&[(first.as_fd(), Interest::READ)], Some(PATIENCE))?;
        match ready.first().is_some_and(|ready| !ready.is_empty()) {
            true => Ok(()),
            false => Err(format!("process {} of the container does not end", self.record.pid).into()),
        }
    }

    /// Removes cgroup and directory of a container that has stopped. Without a PID namespace of its own some of its
    /// processes may be left; they end too.
    pub(crate) fn destroy(&self) -> Result<(), Error> {
        if self.record.shares_pids {
            self.cgroup()?.kill(PATIENCE)?;
        }
        Cgroup::delete_at(self.layout()?, &self.record.cgroup)?;
        resctrl::remove(&self.record.resctrl)?;
        remove(&self.dir)
    }
}

/// Removes a state directory; what is gone already is removed. A mount in it, which is none of ours, is an error: what is below it
/// is somebody's data.
pub(crate) fn remove(dir: &Path) -> Result<(), Error> {
    let (Some(root), Some(name)) = (dir.parent(), dir.file_name()) else { return Ok(()) };
    // Mostly there is nothing else; whatever goes wrong here, the next step tells.
    for file in ["state.json", CONFIG, "seccomp.bpf", LOCK] {
        let _ = std::fs::remove_file(dir.join(file));
    }
    if std::fs::remove_dir(dir).is_ok() {
        return Ok(());
    }
    match std::fs::File::open(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        opened => {
            let root = opened.map_err(|error| format!("open {}: {error}", root.display()))?;
            Ok(sys::remove::remove_all(&root, name)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_name_that_a_directory_can_have() {
        for id in ["a", "ubuntu01", "A_b+c-d.e", "..a", "0"] {
            assert_eq!(ContainerId::parse(id).unwrap().to_string(), id);
        }
        for id in [".", "..", "a/b", "a b", "ä", "a\n", "a\0", &"x".repeat(256)] {
            assert!(matches!(ContainerId::parse(id), Err(StoreError::InvalidId)), "{id:?}");
        }
        assert!(matches!(ContainerId::parse(""), Err(StoreError::EmptyId)));
    }
}
