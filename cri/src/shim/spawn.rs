//! Starting a shim: its directory, its socket, its process.
//!
//! The daemon binds and listens, and the shim inherits the socket: a connection works at once, without waiting for the
//! new process to come so far.

use crate::records::{RecordError, make_private_dir};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

/// The socket's name in a shim's directory.
pub(super) const SOCKET: &str = "shim.sock";

/// Its standard error's.
const LOG: &str = "shim.log";

/// Between these two a listener may be inherited by any child of ours: one at a time, so that no shim gets another's.
static INHERITABLE: Mutex<()> = Mutex::new(());

/// Why there is no shim.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    #[error(transparent)]
    Directory(#[from] RecordError),
    #[error("listen for the shim")]
    Listen(#[from] sys::Error),
    #[error("open the shim's log {path}")]
    Log { path: PathBuf, source: std::io::Error },
    #[error("start {program}")]
    Start { program: PathBuf, source: std::io::Error },
}

/// Where the shim of a sandbox lives.
pub(crate) fn dir_of(state: &Path, sandbox: &str) -> PathBuf {
    state.join("shim").join(sandbox)
}

/// Starts `program` as the shim that serves `dir`. Blocks; needs a runtime, which reaps the child when it ends.
pub(crate) fn spawn(program: &Path, dir: &Path) -> Result<(), SpawnError> {
    make_private_dir(dir)?;
    let listener = sys::socket::listen(dir.join(SOCKET))?;
    let log = dir.join(LOG);
    let stderr = std::fs::File::create(&log).map_err(|source| SpawnError::Log { path: log, source })?;
    let mut command = tokio::process::Command::new(program);
    command
        .arg("--dir")
        .arg(dir)
        .arg("--listen-fd")
        .arg(sys::fd::number(&listener).to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    let _one_at_a_time = INHERITABLE.lock().unwrap_or_else(PoisonError::into_inner);
    sys::fd::set_cloexec(&listener, false)?;
    // The child is dropped: a shim outlives whoever started it, and tokio reaps it if it ends before us.
    let spawned = command.spawn().map(drop).map_err(|source| SpawnError::Start { program: program.into(), source });
    drop(listener);
    spawned
}
