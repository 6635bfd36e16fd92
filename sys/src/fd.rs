//! File descriptors: pipes, eventfds, sealed memory files, and which of them survive an exec.
//!
//! Every fd that this crate makes is close-on-exec. A program inherits what [`install_table`] puts in place, and nothing
//! else once [`close_range_cloexec`] has run.

#![allow(unsafe_code, reason = "the one place where a number becomes an owner; close_range and dup3 by number")]

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{self, FcntlArg, FdFlag, OFlag, SealFlag};
use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd;

use crate::Errno;
use crate::error::{Error, Result, fd, flags, retry};

/// Makes an owner of the fd that a system call just returned.
///
/// # Safety
/// `number` must be an open fd that nothing else owns.
#[allow(clippy::disallowed_methods, reason = "the one place where a number becomes an owner")]
pub(crate) unsafe fn own(number: libc::c_long) -> OwnedFd {
    // SAFETY: the caller's promise; the kernel's fds fit an int.
    unsafe { OwnedFd::from_raw_fd(number as RawFd) }
}

/// Takes over an fd that this process inherited through exec under a number agreed on with its parent (`--listen-fd 3`,
/// sd_listen_fds(3)).
///
/// EBADF if nothing is open there, and EBUSY if it has an owner already. What we open ourselves is close-on-exec and what
/// comes through an exec can't be, so that flag tells the two apart; it is set here, so a second claim fails. The three
/// standard streams belong to std and are refused.
pub fn claim_inherited(number: i32) -> Result<OwnedFd> {
    let refused =
        |errno, why: &str| Err(Error::new("fcntl", errno, format_args!("{number}, F_GETFD")).with_detail(why));
    if number <= 2 {
        return refused(Errno::EBUSY, "a standard stream");
    }
    // SAFETY: F_GETFD on any number is harmless, EBADF at worst.
    let current = unsafe { libc::fcntl(number, libc::F_GETFD) };
    match Errno::result(current) {
        Err(errno) => return refused(errno, "no such fd was inherited"),
        Ok(bits) if bits & libc::FD_CLOEXEC != 0 => return refused(Errno::EBUSY, "not inherited, or taken already"),
        Ok(_) => {}
    }
    // SAFETY: the number is open, and without FD_CLOEXEC it was inherited and not yet claimed: nothing else owns it.
    let owned = unsafe { own(number.into()) };
    set_cloexec(&owned, true)?;
    Ok(owned)
}

/// The number of an fd, for a child's command line or a log.
pub fn number(file: &impl AsFd) -> i32 {
    file.as_fd().as_raw_fd()
}

/// A pipe: the end to read from, the end to write to (pipe2(2)).
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| Error::new("pipe2", errno, "O_CLOEXEC"))
}

/// A counter that can be polled (eventfd(2)).
pub fn eventfd() -> Result<EventFd> {
    let how = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    EventFd::from_value_and_flags(0, how)
        .map_err(|errno| Error::new("eventfd2", errno, format_args!("0, {}", flags(how))))
}

/// A second fd for the same open file (fcntl(2) `F_DUPFD_CLOEXEC`).
pub fn duplicate(file: &impl AsFd) -> Result<OwnedFd> {
    duplicate_above(file, 0)
}

/// As [`duplicate`], with a number of at least `lowest`.
fn duplicate_above(file: &impl AsFd, lowest: i32) -> Result<OwnedFd> {
    let copy = fcntl::fcntl(file, FcntlArg::F_DUPFD_CLOEXEC(lowest))
        .map_err(|errno| Error::new("fcntl", errno, format_args!("{}, F_DUPFD_CLOEXEC, {lowest}", fd(file))))?;
    // SAFETY: a new fd that nothing else owns.
    Ok(unsafe { own(copy.into()) })
}

/// Whether reads and writes return EAGAIN instead of waiting (fcntl(2) `O_NONBLOCK`). Shared by all duplicates.
pub fn set_nonblocking(file: &impl AsFd, on: bool) -> Result<()> {
    let failed = |what: &'static str| move |errno| Error::new("fcntl", errno, what);
    let bits = fcntl::fcntl(file, FcntlArg::F_GETFL).map_err(failed("F_GETFL"))?;
    let mut how = OFlag::from_bits_retain(bits);
    how.set(OFlag::O_NONBLOCK, on);
    fcntl::fcntl(file, FcntlArg::F_SETFL(how)).map(drop).map_err(failed("F_SETFL, O_NONBLOCK"))
}

/// Whether an exec closes the fd (fcntl(2) `F_SETFD`). Off only right before an exec, in a process with one thread.
pub fn set_cloexec(file: &impl AsFd, on: bool) -> Result<()> {
    let how = if on { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    fcntl::fcntl(file, FcntlArg::F_SETFD(how))
        .map(drop)
        .map_err(|errno| Error::new("fcntl", errno, format_args!("{}, F_SETFD, {}", fd(file), flags(how))))
}

/// True if an exec closes the fd.
pub fn is_cloexec(file: &impl AsFd) -> Result<bool> {
    let bits = fcntl::fcntl(file, FcntlArg::F_GETFD)
        .map_err(|errno| Error::new("fcntl", errno, format_args!("{}, F_GETFD", fd(file))))?;
    Ok(FdFlag::from_bits_retain(bits).contains(FdFlag::FD_CLOEXEC))
}

/// Marks every fd from `first` on close-on-exec (close_range(2) `CLOSE_RANGE_CLOEXEC`, Linux 5.11). Owners in this process
/// stay valid.
pub fn close_range_cloexec(first: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;
    // SAFETY: three integers; no fd is closed, a flag is set.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    Errno::result(result)
        .map(drop)
        .map_err(|errno| Error::new("close_range", errno, format_args!("{first}, ~0, CLOSE_RANGE_CLOEXEC")))
}

/// Closes every fd from `first` on but those in `kept` (close_range(2), Linux 5.9).
///
/// For a child made by fork that ends without running destructors and goes on with `kept` only: its copies of the parent's
/// other owners name nothing any more, and soon something else.
pub fn close_all_but(first: u32, kept: &[BorrowedFd<'_>]) -> Result<()> {
    let mut numbers: Vec<u32> = kept.iter().map(|file| file.as_raw_fd().cast_unsigned()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut from = first;
    for number in numbers.into_iter().filter(|number| *number >= first) {
        if from < number {
            close_range(from, number - 1)?;
        }
        from = number + 1;
    }
    close_range(from, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: three integers. What it closes has no owner that is used again: the promise of the caller of close_all_but.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    Errno::result(result)
        .map(drop)
        .map_err(|errno| Error::new("close_range", errno, format_args!("{first}, {last}, 0")))
}

/// Puts `table[i]` at number `i`, open across exec, for all `i`: the fixed table of fds that a child gets.
///
/// The sources may be any fds, in any order, those numbers included. What was at those numbers is replaced, whoever owned it:
/// call it last before the exec, in a process with one thread, and use only `keep` afterwards. These (the pipe on which a
/// failed exec is told) come back in their order under numbers beyond the table, still close-on-exec.
pub fn install_table(table: &[BorrowedFd<'_>], keep: Vec<OwnedFd>) -> Result<Vec<OwnedFd>> {
    let length = table.len() as i32;
    // First out of the way of the targets, so that no dup3 below destroys a source.
    let is_in_the_way = |source: &BorrowedFd<'_>| source.as_raw_fd() < length;
    let copies = table.iter().map(|source| is_in_the_way(source).then(|| duplicate_above(source, length)).transpose());
    let copies = copies.collect::<Result<Vec<_>>>()?;
    let kept = keep.iter().map(|file| duplicate_above(file, length)).collect::<Result<Vec<_>>>()?;
    drop(keep); // before its numbers are given away
    for (target, (source, copy)) in (0..length).zip(table.iter().zip(&copies)) {
        let source = copy.as_ref().map_or(*source, AsFd::as_fd);
        // SAFETY: two numbers; the caller gives up whatever the target was.
        let result = retry(|| Errno::result(unsafe { libc::dup3(source.as_raw_fd(), target, 0) }));
        result.map_err(|errno| Error::new("dup3", errno, format_args!("{}, {target}, 0", fd(&source))))?;
    }
    Ok(kept)
}

/// Reads all that is left; EFBIG if it is more than `max` bytes.
pub fn read_bounded(file: &impl AsFd, max: u64) -> Result<Vec<u8>> {
    let file = File::from(duplicate(file)?);
    let mut content = Vec::new();
    let read = (&file).take(max.saturating_add(1)).read_to_end(&mut content);
    read.map_err(|error| Error::from_io("read", &error, fd(&file)))?;
    if content.len() as u64 > max {
        return Err(Error::new("read", Errno::EFBIG, fd(&file)).with_detail(format!("longer than {max} bytes")));
    }
    Ok(content)
}

/// What a sealed memory file can no longer be: grown, shrunk, written, or unsealed.
const SEALS: SealFlag =
    SealFlag::F_SEAL_SEAL.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_WRITE);

/// A memory file that holds `content` and can never change (memfd_create(2), `F_ADD_SEALS`). The name is for
/// `/proc/[pid]/fd` only.
pub fn sealed_memfd(name: &CStr, content: &[u8], executable: bool) -> Result<OwnedFd> {
    const MFD_NOEXEC_SEAL: u32 = 0x8;
    const MFD_EXEC: u32 = 0x10;
    let sealing = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let execution = if executable { MFD_EXEC } else { MFD_NOEXEC_SEAL };
    let file = match memfd_create(name, sealing | execution) {
        Err(Errno::EINVAL) => memfd_create(name, sealing), // Linux before 6.3
        result => result,
    };
    let file = file.map_err(|errno| Error::new("memfd_create", errno, format_args!("{name:?}, {sealing:#x}")))?;
    let mut file = File::from(file);
    file.write_all(content).map_err(|error| Error::from_io("write", &error, fd(&file)))?;
    fcntl::fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))
        .map_err(|errno| Error::new("fcntl", errno, format_args!("{}, F_ADD_SEALS, {}", fd(&file), flags(SEALS))))?;
    Ok(file.into())
}

fn memfd_create(name: &CStr, how: u32) -> nix::Result<OwnedFd> {
    // SAFETY: a NUL-terminated string and flags; the kernel returns a new fd or an error.
    let result = unsafe { libc::memfd_create(name.as_ptr(), how) };
    // SAFETY: a new fd that nothing else owns.
    Errno::result(result).map(|number| unsafe { own(number.into()) })
}

/// The content of a memory file that came from another process: EPERM if it is not sealed against every change (then
/// what we check could differ from what we use), EFBIG if it is longer than `max` bytes.
pub fn read_sealed(file: &impl AsFd, max: u64) -> Result<Vec<u8>> {
    verify_sealed(file)?;
    let copy = File::from(duplicate(file)?);
    let length = copy.metadata().map_err(|error| Error::from_io("fstat", &error, fd(file)))?.len();
    if length > max {
        return Err(Error::new("fstat", Errno::EFBIG, fd(file)).with_detail(format!("longer than {max} bytes")));
    }
    // pread: the offset belongs to every holder of the file.
    let mut content = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    std::os::unix::fs::FileExt::read_exact_at(&copy, &mut content, 0)
        .map_err(|error| Error::from_io("pread64", &error, fd(file)))?;
    Ok(content)
}

/// EPERM unless the memory file can no longer change; EINVAL for what is not a memory file.
pub fn verify_sealed(file: &impl AsFd) -> Result<()> {
    let failed = |errno| Error::new("fcntl", errno, format_args!("{}, F_GET_SEALS", fd(file)));
    let bits = fcntl::fcntl(file, FcntlArg::F_GET_SEALS).map_err(failed)?;
    let missing = SEALS - SealFlag::from_bits_truncate(bits);
    if missing.is_empty() {
        return Ok(());
    }
    Err(failed(Errno::EPERM).with_detail(format!("not sealed: {} missing", flags(missing))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_is_read_back_and_can_not_change() {
        let file = sealed_memfd(c"orlop-test", b"program", false).unwrap();
        assert_eq!(read_sealed(&file, 7).unwrap(), b"program");
        assert!(read_sealed(&file, 6).unwrap_err().is(Errno::EFBIG));
        let error = File::from(file).write(b"x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EPERM as i32));
    }

    #[test]
    fn a_file_that_can_still_change_is_refused() {
        let loose = memfd_create(c"loose", libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING).unwrap();
        fcntl::fcntl(&loose, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).unwrap();
        let error = verify_sealed(&loose).unwrap_err();
        assert!(error.to_string().contains("F_SEAL_WRITE missing"), "{error}");
        let ordinary = tempfile::tempfile().unwrap();
        assert!(verify_sealed(&ordinary).unwrap_err().is(Errno::EINVAL));
    }

    #[test]
    fn every_fd_made_here_is_closed_by_an_exec() {
        let (read, write) = pipe().unwrap();
        let copy = duplicate(&read).unwrap();
        let sealed = sealed_memfd(c"x", b"", true).unwrap();
        let event = eventfd().unwrap();
        for file in [read.as_fd(), write.as_fd(), copy.as_fd(), sealed.as_fd(), event.as_fd()] {
            assert!(is_cloexec(&file).unwrap(), "{}", fd(&file));
        }
    }

    #[test]
    fn an_inherited_fd_is_claimed_once() {
        let (read, _write) = pipe().unwrap();
        let inherited = duplicate_above(&read, 700).unwrap();
        set_cloexec(&inherited, false).unwrap(); // as it is after an exec
        let number = std::os::fd::IntoRawFd::into_raw_fd(inherited);
        let claimed = claim_inherited(number).unwrap();
        assert!(is_cloexec(&claimed).unwrap());
        assert!(claim_inherited(number).unwrap_err().is(Errno::EBUSY));
        drop(claimed);
        assert!(claim_inherited(number).unwrap_err().is(Errno::EBADF));
        assert!(claim_inherited(1).unwrap_err().is(Errno::EBUSY));
    }

    #[test]
    fn a_bounded_read_stops_at_its_limit() {
        let (read, write) = pipe().unwrap();
        File::from(write).write_all(b"12345").unwrap();
        assert!(read_bounded(&read, 4).unwrap_err().is(Errno::EFBIG));
    }

    #[test]
    fn reads_from_an_empty_non_blocking_pipe_say_so() {
        let (read, _write) = pipe().unwrap();
        set_nonblocking(&read, true).unwrap();
        let error = File::from(read).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}
