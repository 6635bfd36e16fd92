//! The daemon's socket: private from its first moment, and never taken from a daemon that lives.

use crate::Error;
use std::path::Path;
use tokio::net::UnixListener;

/// Listens at `path`, 0600 whatever the umask. A dead daemon's socket is replaced.
///
/// # Errors
/// Another daemon answers there, or the socket can't be made.
pub fn listen(path: &Path) -> Result<UnixListener, Error> {
    let step = || format!("listen on {}", path.display());
    let failed = |error: std::io::Error| Error::new(step(), error);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Error::new(
            format!("another daemon serves {}", path.display()),
            "give this one its own --root, --state and --socket",
        ));
    }
    // Bound under a name of its own, which then replaces a dead daemon's.
    let fresh = path.with_added_extension(std::process::id().to_string());
    _ = std::fs::remove_file(&fresh);
    let listener = sys::socket::listen_stream(&fresh).map_err(|error| Error::new(step(), error))?;
    listener.set_nonblocking(true).and_then(|()| std::fs::rename(&fresh, path)).map_err(failed)?;
    UnixListener::from_std(listener).map_err(failed)
}
