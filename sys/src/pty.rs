//! Pseudoterminals (pty(7)), opened and checked by fd: the container's devpts is the container's to tamper with
//! (CVE-2025-52565).

#![allow(unsafe_code, reason = "the terminal ioctls are not in nix")]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, ResolveFlag};
use nix::libc;
use nix::sys::stat::SFlag;
use nix::sys::termios::{self, SetArg, Termios};

use crate::error::{Error, Result, fd};
use crate::mount::filesystem_magic;
use crate::rootfd::openat2;
use crate::{Errno, at};

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
/// `/dev/ptmx`, `/dev/pts/ptmx`: 5:2 (Documentation/admin-guide/devices.txt).
const PTMX: (u64, u64) = (5, 2);
/// Major numbers of the peers: 136 to 143.
const PEER_MAJORS: std::ops::RangeInclusive<u64> = 136..=143;

/// Both ends of a terminal.
#[derive(Debug)]
pub struct Pty {
    /// The end that we read and write.
    pub master: OwnedFd,
    /// The end that is the program's terminal. Hang-up reaches the master when the last fd of it is closed.
    pub peer: OwnedFd,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Opens a new terminal of the devpts whose root `devpts` is. Both ends are checked to be what they claim; neither becomes our
/// controlling terminal.
pub fn open(devpts: &impl AsFd) -> Result<Pty> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    // O_PATH first: nothing happens to a device in disguise before it was checked.
    let node = openat2(devpts, Path::new("ptmx"), OFlag::O_PATH, resolve)?;
    verify(&node, "ptmx", |major, minor| (major, minor) == PTMX)?;
    // By its name again and not through /proc, which in a container that is joined does not know this process. In a devpts nothing
    // can be renamed, and what is mounted in it is refused.
    let master = openat2(devpts, Path::new("ptmx"), OFlag::O_RDWR | OFlag::O_NOCTTY, resolve)?;
    verify(&master, "ptmx", |major, minor| (major, minor) == PTMX)?;
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) };
    Errno::result(result)
        .map_err(|errno| Error::new("ioctl", errno, format_args!("{}, TIOCSPTLCK, [0]", fd(&master))))?;
    let peer = open_peer(&master)?;
    Ok(Pty { master, peer })
}

/// The other end of a terminal by its master, not by a name that can be swapped (ioctl_tty(2), `TIOCGPTPEER`).
fn open_peer(master: &OwnedFd) -> Result<OwnedFd> {
    let how = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a new fd or an error.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, how) };
    let opened = Errno::result(result)
        .map_err(|errno| Error::new("ioctl", errno, format_args!("{}, TIOCGPTPEER, O_RDWR|O_NOCTTY", fd(master))))?;
    // SAFETY: a new fd that nothing else owns.
    let peer = unsafe { crate::fd::own(opened.into()) };
    verify(&peer, "the peer", |major, _| PEER_MAJORS.contains(&major))?;
    Ok(peer)
}

/// ENODEV unless `node` is a character device on a devpts with an expected number.
fn verify(node: &impl AsFd, what: &str, expected: impl Fn(u64, u64) -> bool) -> Result<()> {
    let stat = at::fstat(node)?;
    let (major, minor) = at::device_parts(stat.st_rdev);
    let magic = filesystem_magic(node)?;
    if at::file_type(&stat) == SFlag::S_IFCHR && magic == DEVPTS_SUPER_MAGIC && expected(major, minor) {
        return Ok(());
    }
    let detail = format!(
        "{what} is not a terminal of devpts: mode {:#o}, device {major}:{minor}, file system {magic:#x}",
        stat.st_mode
    );
    Err(Error::new("fstat", Errno::ENODEV, fd(node)).with_detail(detail))
}

/// Opens a terminal once more, for writes that never wait: O_NONBLOCK on `terminal` itself would be everybody's who shares it.
/// ENXIO for a master, of which opening makes a new one; EACCES where the terminal is another user's (after su(1)).
pub fn reopen_nonblocking(terminal: &impl AsFd) -> Result<OwnedFd> {
    let device = at::fstat(terminal)?.st_rdev;
    if at::device_parts(device) == PTMX {
        return Err(Error::new("open", Errno::ENXIO, fd(terminal)).with_detail("the master of a terminal"));
    }
    at::reopen(terminal, OFlag::O_WRONLY | OFlag::O_NOCTTY | OFlag::O_NONBLOCK)
}

/// Sets the size and tells the programs on it (`TIOCSWINSZ`, SIGWINCH). Works on either end.
pub fn set_size(terminal: &impl AsFd, size: Size) -> Result<()> {
    let raw = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const raw) };
    Errno::result(result)
        .map(drop)
        .map_err(|errno| Error::new("ioctl", errno, format_args!("{}, TIOCSWINSZ, {size:?}", fd(terminal))))
}

/// The size of a terminal (`TIOCGWINSZ`).
pub fn size(terminal: &impl AsFd) -> Result<Size> {
    let mut raw = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut raw) };
    Errno::result(result).map_err(|errno| Error::new("ioctl", errno, format_args!("{}, TIOCGWINSZ", fd(terminal))))?;
    Ok(Size { rows: raw.ws_row, columns: raw.ws_col })
}

/// Makes `peer` the controlling terminal of this session, whose leader the caller must be (`TIOCSCTTY`).
pub fn set_controlling(peer: &impl AsFd) -> Result<()> {
    // SAFETY: TIOCSCTTY takes one integer.
    let result = unsafe { libc::ioctl(peer.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) };
    Errno::result(result)
        .map(drop)
        .map_err(|errno| Error::new("ioctl", errno, format_args!("{}, TIOCSCTTY, 0", fd(peer))))
}

/// A terminal in raw mode until this is dropped. See [`make_raw`].
#[derive(Debug)]
pub struct Raw<T: AsFd> {
    terminal: T,
    before: Termios,
}

/// Puts the user's terminal into raw mode: every key goes to the container (tcsetattr(3), cfmakeraw(3)). ENOTTY if it is none.
pub fn make_raw<T: AsFd>(terminal: T) -> Result<Raw<T>> {
    let failed = |call, errno| Error::new(call, errno, fd(&terminal));
    let before = termios::tcgetattr(&terminal).map_err(|errno| failed("tcgetattr", errno))?;
    let mut raw = before.clone();
    termios::cfmakeraw(&mut raw);
    termios::tcsetattr(&terminal, SetArg::TCSANOW, &raw).map_err(|errno| failed("tcsetattr", errno))?;
    Ok(Raw { terminal, before })
}

impl<T: AsFd> Drop for Raw<T> {
    fn drop(&mut self) {
        // The terminal may be gone by now; there is nobody left to tell.
        let _ = termios::tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    fn host_devpts() -> File {
        File::open("/dev/pts").unwrap()
    }

    #[test]
    fn what_is_written_to_a_terminal_is_read_at_its_other_end() {
        let pty = open(&host_devpts()).unwrap();
        let _raw = make_raw(&pty.peer).unwrap();
        File::from(pty.master.try_clone().unwrap()).write_all(b"key\n").unwrap();
        let mut line = [0; 4];
        File::from(pty.peer.try_clone().unwrap()).read_exact(&mut line).unwrap();
        assert_eq!(&line, b"key\n");
        assert!(crate::fd::is_cloexec(&pty.master).unwrap() && crate::fd::is_cloexec(&pty.peer).unwrap());
    }

    #[test]
    fn a_terminal_that_is_opened_once_more_does_not_wait_and_the_first_one_does() {
        let pty = open(&host_devpts()).unwrap();
        let again = reopen_nonblocking(&pty.peer).unwrap();
        assert!(reopen_nonblocking(&pty.master).unwrap_err().is(Errno::ENXIO));
        let mut terminal = File::from(again);
        let full = (0..1000).find_map(|_| terminal.write(&[b'x'; 4096]).err()).expect("a full terminal");
        assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);
        let how = nix::fcntl::fcntl(&pty.peer, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert!(!OFlag::from_bits_retain(how).contains(OFlag::O_NONBLOCK));
    }

    #[test]
    fn the_size_is_the_same_at_both_ends() {
        let pty = open(&host_devpts()).unwrap();
        set_size(&pty.master, Size { rows: 24, columns: 80 }).unwrap();
        assert_eq!(size(&pty.peer).unwrap(), Size { rows: 24, columns: 80 });
    }

    #[test]
    fn raw_mode_ends_with_its_guard() {
        let pty = open(&host_devpts()).unwrap();
        let canonical = || termios::tcgetattr(&pty.peer).unwrap().local_flags.contains(termios::LocalFlags::ICANON);
        let raw = make_raw(&pty.peer).unwrap();
        assert!(!canonical());
        drop(raw);
        assert!(canonical());
    }

    #[test]
    fn a_file_or_link_in_the_place_of_ptmx_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let handle = File::open(directory.path()).unwrap();
        std::os::unix::fs::symlink("/dev/ptmx", directory.path().join("ptmx")).unwrap();
        assert!(open(&handle).unwrap_err().is(Errno::ELOOP));
        std::fs::remove_file(directory.path().join("ptmx")).unwrap();
        File::create(directory.path().join("ptmx")).unwrap();
        let error = open(&handle).unwrap_err();
        assert!(error.is(Errno::ENODEV) && error.to_string().contains("not a terminal of devpts"), "{error}");
    }
}
