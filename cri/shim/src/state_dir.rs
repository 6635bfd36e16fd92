//! The shim's directory, `<state>/shim/<sandbox>`: what a daemon finds of a shim, or of one that is gone.
//!
//! | file | holds |
//! |---|---|
//! | `shim.sock` | the socket; gone once the shim has ended in good order |
//! | `shim.json` | version, pid and start time |
//! | `exits/<container>.json` | how a container ended, written before anyone is told |
//! | `bundles/<container>/` | the spec of a container that has hooks, and where they find its root |
//! | `shm` | mount point of the pod's `/dev/shm`, below kernel 6.15 only |

use serde::Serialize;
use shim_protocol::{Exit, Process, VERSION};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use sys::error::quoted;
use sys::fs::Durability;

/// The directory.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
}

/// `shim.json`.
#[derive(Serialize)]
struct Identity {
    version: u32,
    #[serde(flatten)]
    process: Process,
}

impl StateDir {
    /// The directory at `path`, which exists; makes the one for exit records.
    pub(crate) fn open(path: PathBuf) -> std::io::Result<Self> {
        let exits = path.join("exits");
        match std::fs::create_dir(&exits) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Ok(Self { path })
    }

    /// Says who serves here.
    pub(crate) fn write_identity(&self, process: Process) -> sys::Result<()> {
        write(&self.path.join("shim.json"), &Identity { version: VERSION, process })
    }

    /// Records how a container ended. It stays over the shim's end, and until the container is deleted.
    pub(crate) fn write_exit(&self, container: &str, exit: &Exit) -> sys::Result<()> {
        write(&self.exit_record(container), exit)
    }

    /// Forgets how a container ended.
    pub(crate) fn remove_exit(&self, container: &str) {
        let _ = std::fs::remove_file(self.exit_record(container));
    }

    /// Makes the socket, which can be connected to once it has its name: it is bound under another and renamed. The
    /// name of a shim that is gone is taken over.
    pub(crate) fn listen(&self) -> sys::Result<OwnedFd> {
        let unfinished = self.path.join(".shim.sock.new");
        let _ = std::fs::remove_file(&unfinished);
        let listener = sys::socket::listen(&unfinished)?;
        sys::fd::set_nonblocking(&listener, true)?;
        std::fs::rename(&unfinished, self.path.join("shim.sock"))
            .map_err(|error| sys::Error::from_io("rename", &error, quoted(&unfinished)))?;
        Ok(listener)
    }

    /// Where the pod's `/dev/shm` is mounted if it has to be mounted somewhere.
    pub(crate) fn shared_memory(&self) -> PathBuf {
        self.path.join("shm")
    }

    /// Makes the mount point of [`Self::shared_memory`].
    pub(crate) fn make_shared_memory(&self) -> sys::Result<()> {
        let path = self.shared_memory();
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(sys::Error::from_io("mkdir", &error, quoted(&path)))
            }
            _ => Ok(()),
        }
    }

    /// Where a container's bundle is, if it has hooks.
    pub(crate) fn bundle(&self, container: &str) -> PathBuf {
        self.path.join("bundles").join(container)
    }

    /// Takes the socket away: nobody serves here any more.
    pub(crate) fn remove_socket(&self) {
        let _ = std::fs::remove_file(self.path.join("shim.sock"));
    }

    fn exit_record(&self, container: &str) -> PathBuf {
        self.path.join("exits").join(format!("{container}.json"))
    }
}

/// Replaces a file at once; a reader sees the old one or the new one. A power cut ends the processes that it tells of.
fn write(path: &Path, value: &impl Serialize) -> sys::Result<()> {
    // Numbers, strings and booleans always have a JSON form.
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    sys::fs::atomic_write(path, &bytes, Durability::Rename, 0o600)
}

/// The longest id, in bytes: what a CRI daemon makes up has 64 digits. All containers of a pod are told in one message.
pub(crate) const ID_LIMIT: usize = 64;

/// Whether an id may be part of a file name of ours.
pub(crate) fn is_plain_name(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=ID_LIMIT).contains(&id.len()) && id.bytes().all(is_plain) && !id.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_would_name_a_file_elsewhere_is_not_plain() {
        for id in ["", ".", "..", "../x", "a/b", ".hidden", "a b", "a\0", "ä", &"x".repeat(65)] {
            assert!(!is_plain_name(id), "{id:?}");
        }
        for id in ["a", "0123abc", "web-1_2.3", &"x".repeat(64)] {
            assert!(is_plain_name(id), "{id:?}");
        }
    }
}
