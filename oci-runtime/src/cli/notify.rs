//! `NOTIFY_SOCKET`: a container's word that it is ready, for the service manager that waits for it (sd_notify(3)).
//!
//! The manager's own socket is not the container's to write to: it would believe everything that comes from there. The
//! container gets a socket in a directory of ours at `/run/notify`, and of what it says only `READY=` is passed on, followed
//! by which process is the service's and a barrier, so that the manager looks that up while we are still there to vouch for it.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_runtime::Plan;
use serde_json::json;
use sys::poll::Interest;
use sys::process::Process;

use super::Error;
use super::store::Container;

const DIRECTORY: &str = "notify";
const SOCKET: &str = "notify.sock";

/// As long as systemd's own clients wait for a barrier.
const BARRIER: Duration = Duration::from_secs(30);

/// More than any message of a sane sender.
const MAX_MESSAGE: usize = 4096;

/// As many messages as wait in a socket at once (net.unix.max_dgram_qlen is 10, systemd makes it 512), and more.
const QUEUE: usize = 1024;

/// A service manager that waits.
#[derive(Debug)]
pub(crate) struct Manager(SocketAddr);

impl Manager {
    /// The one that our environment names, if any.
    pub(crate) fn of_environment() -> Result<Option<Manager>, Error> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(None) };
        let bytes = name.as_encoded_bytes();
        let address = match bytes.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(Path::new(&name)),
        };
        let address = address.map_err(|error| format!("NOTIFY_SOCKET {}: {error}", name.display()))?;
        Ok(Some(Manager(address)))
    }

    /// Shows the container where to say it: `dir` is its state directory.
    pub(crate) fn mount(&self, dir: &Path, plan: &mut Plan) -> Result<(), Error> {
        let source = dir.join(DIRECTORY);
        let made = std::fs::DirBuilder::new().mode(0o755).create(&source);
        made.map_err(|error| format!("make {}: {error}", source.display()))?;
        let mount = json!({
            "destination": "/run/notify", "type": "bind", "source": source,
            "options": ["bind", "nosuid", "noexec", "nodev", "ro"],
        });
        plan.add_mount(&serde_json::from_value(mount).map_err(|error| format!("mount /run/notify: {error}"))?)?;
        plan.process.env.retain(|variable| !variable.as_bytes().starts_with(b"NOTIFY_SOCKET="));
        plan.process.env.extend(CString::new(format!("NOTIFY_SOCKET=/run/notify/{SOCKET}")));
        Ok(())
    }

    /// Opens the container's socket, if it was shown one when it was made.
    fn listen(self, dir: &Path) -> Result<Option<Ear>, Error> {
        let directory = dir.join(DIRECTORY);
        if !directory.is_dir() {
            return Ok(None);
        }
        let path = directory.join(SOCKET);
        let named = |error: std::io::Error| format!("listen on {}: {error}", path.display());
        let container = UnixDatagram::bind(&path).map_err(named)?;
        // Whoever the container's program runs as.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).map_err(named)?;
        let manager = UnixDatagram::unbound().map_err(named)?;
        manager.connect_addr(&self.0).map_err(|error| format!("connect to NOTIFY_SOCKET: {error}"))?;
        Ok(Some(Ear { container, manager, path }))
    }
}

/// Opens the socket of a container that was shown one, where somebody waits for its word.
pub(crate) fn listen(container: &Container) -> Result<Option<Ear>, Error> {
    Manager::of_environment()?.map_or(Ok(None), |manager| manager.listen(&container.dir))
}

/// What listens to a container.
#[derive(Debug)]
pub(crate) struct Ear {
    container: UnixDatagram,
    manager: UnixDatagram,
    path: PathBuf,
}

impl Ear {
    /// Waits until the container is ready, or has ended.
    pub(crate) fn wait(self, process: &Process) -> Result<(), Error> {
        let pid = process.pid.as_raw().cast_unsigned();
        // One that was reaped by now has ended.
        if let Ok(running) = process.open() {
            let files = [(self.as_fd(), Interest::READ), (running.as_fd(), Interest::READ)];
            while sys::poll::poll(&files, None)?[1].is_empty() {
                if self.hear(pid)? {
                    return self.barrier();
                }
            }
        }
        if self.hear_rest(pid)? { self.barrier() } else { Ok(()) }
    }

    /// Takes what is left of the words of a container that has ended; as [`Ear::hear`].
    pub(crate) fn hear_rest(&self, pid: u32) -> Result<bool, Error> {
        // Bounded: what was left running in the container may talk on.
        for _ in 0..QUEUE {
            if !sys::poll::is_readable(self)? {
                return Ok(false);
            }
            if self.hear(pid)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes one message; true once the manager was told that the service is ready and `pid` its process: nothing more is
    /// passed on then.
    pub(crate) fn hear(&self, pid: u32) -> Result<bool, Error> {
        let mut message = [0; MAX_MESSAGE];
        let named = |error: std::io::Error| format!("hear from {}: {error}", self.path.display());
        let length = self.container.recv(&mut message).map_err(named)?;
        let Some(ready) = ready_line(&message[..length]) else { return Ok(false) };
        for line in [ready, format!("MAINPID={pid}").as_bytes()] {
            let sent = self.manager.send(&[line, b"\n"].concat());
            sent.map_err(|error| format!("write to NOTIFY_SOCKET: {error}"))?;
        }
        Ok(true)
    }

    /// Waits until the manager has read all: it closes the pipe that comes last.
    fn barrier(&self) -> Result<(), Error> {
        let (read, write) = sys::fd::pipe()?;
        sys::socket::send(&self.manager, b"BARRIER=1", &[write.as_fd()])?;
        drop(write);
        // A manager that never does is no failure of the container's.
        sys::poll::poll(&[(read.as_fd(), Interest::READ)], Some(BARRIER))?;
        Ok(())
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.container.as_fd()
    }
}

fn ready_line(message: &[u8]) -> Option<&[u8]> {
    message.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY="))
}

#[cfg(test)]
mod tests {
    use super::ready_line;

    #[test]
    fn only_the_word_that_it_is_ready_is_passed_on() {
        assert_eq!(ready_line(b"STATUS=up\nREADY=1\nMAINPID=1"), Some(&b"READY=1"[..]));
        assert_eq!(ready_line(b"STOPPING=1\nXREADY=1\n"), None);
    }
}
