//! Starting a shim: its directory, its socket, its process.
//!
//! The daemon binds and listens, and the shim gets the socket as its standard input: a connection works at once, without
//! waiting for the new process to come so far, and no flag is ever changed on an fd that another child could inherit.
//!
//! Containers are the shim's children, and one that is made to execute `/proc/self/exe` gets hold of the shim's file
//! (CVE-2019-5736). Hence it is executed through a read-only mount that only the daemon's fd refers to: whoever holds the
//! file can't open it for writing, even when no shim runs.

use crate::records::{RecordError, make_private_dir};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use sys::mount::{Attr, MountFlags, Propagation};

/// The socket's name in a shim's directory.
pub(super) const SOCKET: &str = "shim.sock";

/// Its standard error's.
const LOG: &str = "shim.log";

/// What `ps` shows, and the path of the program does not: it is a number in `/proc/self/fd`.
const NAME: &str = "orlop-shim";

/// The supervisor's file, as it was when the daemon started: shims and daemon are of one version.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    /// A detached read-only mount of the file.
    image: OwnedFd,
}

impl Program {
    /// The program at `path`.
    ///
    /// # Errors
    /// It is missing, or the kernel refuses the mount.
    pub(crate) fn open(path: &Path) -> sys::Result<Program> {
        let image = sys::mount::clone_tree(path, false)?;
        let change = Attr { set: MountFlags::RDONLY, propagation: Some(Propagation::Private), ..Attr::default() };
        sys::mount::mount_setattr(&image, false, &change)?;
        Ok(Program { path: path.to_owned(), image })
    }
}

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

/// Starts the shim that serves `dir`. Blocks; needs a runtime, which reaps the child when it ends.
pub(crate) fn spawn(program: &Program, dir: &Path) -> Result<(), SpawnError> {
    make_private_dir(dir)?;
    let listener = sys::socket::listen(dir.join(SOCKET))?;
    let log = dir.join(LOG);
    let stderr = std::fs::File::create(&log).map_err(|source| SpawnError::Log { path: log, source })?;
    // The new process opens its own fd of that number before the exec closes it.
    let mut command = tokio::process::Command::new(format!("/proc/self/fd/{}", sys::fd::number(&program.image)));
    command.arg0(NAME).arg("--dir").arg(dir).args(["--listen-fd", "0"]);
    command.stdin(Stdio::from(listener)).stdout(Stdio::null()).stderr(stderr);
    // The child is dropped: a shim outlives whoever started it, and tokio reaps it if it ends before us.
    command.spawn().map(drop).map_err(|source| SpawnError::Start { program: program.path.clone(), source })
}
