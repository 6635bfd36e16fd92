//! What a new process inherits, and whom its terminal, its pid and its pidfd are handed to.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use oci_runtime::StdioFds;
use sys::fs::Durability;

use super::Error;
use super::args::{self, Stop};

/// The flags that create, run and exec share.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Absolute: the working directory may be changed before it is written.
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) preserve_fds: u32,
}

pub(crate) const FLAGS: &[(&str, &str)] = &[
    ("--console-socket PATH", "hand the terminal's master to whoever listens on this socket"),
    ("--pidfd-socket PATH", "hand the process's pidfd to whoever listens on this socket"),
    ("--pid-file FILE", "write the process's number there"),
    ("--preserve-fds N", "pass N more fds, from 3 on, after those of LISTEN_FDS"),
];

impl Flags {
    pub(crate) fn read(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<(), Stop> {
        match name {
            "--console-socket" => self.console_socket = args::path(parser)?,
            "--pidfd-socket" => self.pidfd_socket = args::path(parser)?,
            "--pid-file" => self.pid_file = args::path(parser)?.map(args::absolute).transpose()?,
            "--preserve-fds" => self.preserve_fds = args::number(parser, name)?,
            name => return Err(args::unknown(name)),
        }
        Ok(())
    }
}

/// The fds from 3 on that go to the container. They are held, so that nothing else takes their numbers.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    fds: Vec<OwnedFd>,
    /// How many of them are sockets of `LISTEN_FDS`, which come first (sd_listen_fds(3)).
    sockets: u32,
}

impl Inherited {
    /// How many in all.
    pub(crate) fn count(&self) -> u32 {
        self.fds.len() as u32
    }

    /// What tells the program of its sockets.
    pub(crate) fn environment(&self) -> Vec<CString> {
        let variable = |text: String| CString::new(text).ok();
        match self.sockets {
            0 => Vec::new(),
            count => {
                [format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()].into_iter().filter_map(variable).collect()
            }
        }
    }
}

/// Takes the fds that the caller passes through, before anything is opened that could stand in for a missing one.
pub(crate) fn claim_inherited(preserve: u32, with_sockets: bool) -> Result<Inherited, Error> {
    let sockets = if with_sockets { sockets_for_us() } else { 0 };
    let end = end_of_inherited(sockets, preserve)?;
    let mut fds = Vec::new();
    for number in 3..end {
        let claimed = sys::fd::claim_inherited(number.cast_signed())
            .map_err(|error| format!("unable to stat preserved-fd {} (of {preserve}): {error}", number - 3))?;
        // It is for the container's program, and we execute nothing else.
        sys::fd::set_cloexec(&claimed, false)?;
        fds.push(claimed);
    }
    // Whatever else was left open for us is nobody's business in a container.
    sys::fd::close_range_cloexec(end)?;
    Ok(Inherited { fds, sockets })
}

/// The number after the last fd that is passed through.
fn end_of_inherited(sockets: u32, preserve: u32) -> Result<u32, Error> {
    let end = sockets.checked_add(preserve).and_then(|count| count.checked_add(3));
    end.filter(|end| i32::try_from(*end).is_ok()).ok_or_else(|| {
        format!("{sockets} fds of LISTEN_FDS and {preserve} of --preserve-fds: there are no such fds").into()
    })
}

/// `LISTEN_FDS`, if it is meant for this process.
fn sockets_for_us() -> u32 {
    let number = |name| std::env::var(name).ok().and_then(|value: String| value.parse::<u32>().ok());
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => count,
        _ => 0,
    }
}

/// Our own streams, for a process that we do not stand in for.
pub(crate) fn own() -> StdioFds {
    let copy = |stream: BorrowedFd<'_>| stream.try_clone_to_owned().ok();
    StdioFds {
        stdin: copy(std::io::stdin().as_fd()),
        stdout: copy(std::io::stdout().as_fd()),
        stderr: copy(std::io::stderr().as_fd()),
    }
}

/// Terminal and console socket have to fit together.
pub(crate) fn check_terminal(streams: &Flags, terminal: bool, detach: bool) -> Result<(), Error> {
    match (detach && terminal, streams.console_socket.is_some()) {
        (true, false) => Err("cannot allocate tty if orlop-runtime will detach without setting console socket".into()),
        (false, true) => Err("cannot use console socket if orlop-runtime will not detach or allocate tty".into()),
        _ => Ok(()),
    }
}

/// The sockets of the flags, connected before there is a process: nobody listening is an error then already.
#[derive(Debug)]
pub(crate) struct Sockets {
    console: Option<UnixStream>,
    pidfd: Option<UnixStream>,
}

impl Sockets {
    pub(crate) fn connect(streams: &Flags) -> Result<Sockets, Error> {
        let connect = |path: &Option<PathBuf>| match path {
            Some(path) => {
                UnixStream::connect(path).map(Some).map_err(|error| format!("connect to {}: {error}", path.display()))
            }
            None => Ok(None),
        };
        Ok(Sockets { console: connect(&streams.console_socket)?, pidfd: connect(&streams.pidfd_socket)? })
    }

    /// Hands over what a new process has.
    pub(crate) fn send(&self, console: Option<&OwnedFd>, pidfd: Option<&OwnedFd>) -> Result<(), Error> {
        let send = |socket: &Option<UnixStream>, name: &[u8], fd: Option<&OwnedFd>| match (socket, fd) {
            (Some(socket), Some(fd)) => sys::socket::send(socket, name, &[fd.as_fd()]),
            _ => Ok(()),
        };
        send(&self.console, b"/dev/ptmx", console)?;
        Ok(send(&self.pidfd, b"pidfd", pidfd)?)
    }
}

/// Writes `--pid-file`: the number alone, whole or not at all.
pub(crate) fn write_pid_file(path: Option<&Path>, pid: i32) -> Result<(), Error> {
    match path {
        Some(path) => Ok(sys::fs::atomic_write(path, pid.to_string().as_bytes(), Durability::Rename, 0o644)?),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_fds_than_there_are_numbers_is_refused() {
        assert_eq!(end_of_inherited(1, 2).expect("a number"), 6);
        for (sockets, preserve) in [(0, u32::MAX), (u32::MAX, u32::MAX), (u32::MAX - 3, 1), (0, i32::MAX as u32)] {
            let error = end_of_inherited(sockets, preserve).expect_err("too many").to_string();
            assert!(error.contains("--preserve-fds: there are no such fds"), "{error}");
        }
    }
}
