//! Files of our own: state that is replaced whole, knobs of the kernel, locks.
//!
//! The paths here are the host's and trusted. What a container can influence goes through
//! [`RootFd`](crate::rootfd::RootFd).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{self, AT_FDCWD, Flock, FlockArg, OFlag, RenameFlags};
use nix::sys::stat::Mode;
use nix::unistd;

use crate::error::{Error, Result, fd, flags, quoted, retry};
use crate::{Errno, at};

/// What a new file must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The death of this process: the rename alone. For records that are of no use after a reboot, or are checked then.
    Rename,
    /// A power cut: content and name are on the disk when the call returns.
    Synced,
}

/// The beginning and the end of the names that [`atomic_write`] uses until it renames.
const TEMPORARY: (&[u8], &[u8]) = (b".", b".new");

/// Replaces the file `path` by one that holds `content`, with exactly the permissions `mode`: readers see the old file or the
/// new one, never a part, and a failure leaves the old one (rename(2)).
///
/// A crash can leave a `.name.….new` beside it: see [`remove_leftovers`].
pub fn atomic_write(path: impl AsRef<Path>, content: &[u8], durability: Durability, mode: u32) -> Result<()> {
    let path = path.as_ref();
    let (directory, name) = open_parent(path)?;
    atomic_write_at(&directory, name, content, durability, mode)
}

/// As [`atomic_write`] in a directory held by fd (not `O_PATH` if `durability` is `Synced`).
pub fn atomic_write_at(
    directory: &impl AsFd,
    name: impl AsRef<OsStr>,
    content: &[u8],
    durability: Durability,
    mode: u32,
) -> Result<()> {
    let name = at::component("openat", directory, name.as_ref())?;
    let temporary = temporary_name(name);
    let how = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let file = File::from(at::openat(directory, &temporary, how, 0o600)?);
    let result = fill(file, content, durability, mode)
        .and_then(|()| at::renameat(directory, &temporary, directory, name, RenameFlags::empty()));
    if let Err(error) = result {
        // The first failure is the one to report; what is left of the temporary file is swept later.
        let _ = at::unlinkat(directory, &temporary);
        return Err(error);
    }
    match durability {
        Durability::Rename => Ok(()),
        Durability::Synced => fsync(directory),
    }
}

fn fill(mut file: File, content: &[u8], durability: Durability, mode: u32) -> Result<()> {
    file.write_all(content)
        .map_err(|error| Error::from_io("write", &error, format_args!("{}, {} bytes", fd(&file), content.len())))?;
    at::fchmod(&file, mode)?; // past the umask
    match durability {
        Durability::Rename => Ok(()),
        Durability::Synced => fsync(&file),
    }
}

/// Unique in this PID namespace: two threads, or two processes, may write the same file at once and one of them wins.
fn temporary_name(name: &OsStr) -> OsString {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}-{number}.new", std::process::id()));
    temporary
}

/// True for a name that [`atomic_write`] uses for a file that is not finished: skip it when listing.
pub fn is_temporary(name: impl AsRef<OsStr>) -> bool {
    let bytes = name.as_ref().as_bytes();
    bytes.starts_with(TEMPORARY.0) && bytes.ends_with(TEMPORARY.1)
}

/// Removes the unfinished files of writers that died. Only while no other one writes there: at the start of the directory's
/// owner, under its lock.
pub fn remove_leftovers(directory: impl AsRef<Path>) -> Result<()> {
    let path = directory.as_ref();
    let listed = |error: std::io::Error| Error::from_io("getdents64", &error, quoted(path));
    let directory = open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)?;
    for entry in std::fs::read_dir(path).map_err(listed)? {
        let name = entry.map_err(listed)?.file_name();
        if is_temporary(&name) {
            at::unlinkat(&directory, &name)?;
        }
    }
    Ok(())
}

/// Writes `value` to the knob `path` of procfs, sysfs or a cgroup with one write(2), as the kernel wants it. The error names
/// file and value.
pub fn write_knob(path: impl AsRef<Path>, value: impl AsRef<[u8]>) -> Result<()> {
    let knob = open(path.as_ref(), OFlag::O_WRONLY, 0)?;
    write_once(&knob, value.as_ref())
}

/// As [`write_knob`] for the file `name` in a directory held by fd.
pub fn write_knob_at(directory: &impl AsFd, name: impl AsRef<OsStr>, value: impl AsRef<[u8]>) -> Result<()> {
    let knob = at::openat(directory, name, OFlag::O_WRONLY, 0)?;
    write_once(&knob, value.as_ref())
}

/// One write(2) of the whole value: a knob takes it at once or not at all.
pub(crate) fn write_once(knob: &impl AsFd, value: &[u8]) -> Result<()> {
    let failed = |errno| Error::new("write", errno, format_args!("{}, {}", fd(knob), quoted(OsStr::from_bytes(value))));
    match retry(|| unistd::write(knob, value)).map_err(failed)? {
        written if written == value.len() => Ok(()),
        written => Err(failed(Errno::EIO).with_detail(format!("only {written} bytes were taken"))),
    }
}

/// A file whose text the kernel makes up whole at the first read (`single_open`, Documentation/filesystems/seq_file.rst):
/// those of one process, but no lists. A `read` that is given more room than it fills has met the end; a text that is not shorter than
/// 16 KiB is an error (EFBIG).
pub(crate) fn read_record(path: &str) -> std::io::Result<Vec<u8>> {
    let mut content = vec![0; 16 << 10];
    let length = loop {
        match File::open(path)?.read(&mut content) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    if length == content.len() {
        return Err(Errno::EFBIG.into());
    }
    content.truncate(length);
    Ok(content)
}

/// A file that the kernel writes as it is read, in as few reads as it takes: each one starts the work of finding its place again, and std,
/// which goes by the size that such a file does not have, begins with 32 bytes.
pub(crate) fn read_generated(path: &str) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::with_capacity(16 << 10);
    // Not File's own read_to_end, which asks for the size first.
    File::open(path)?.take(u64::MAX).read_to_end(&mut content)?;
    Ok(content)
}

/// The content of a knob, at most 1 MiB (a mount table or a list of processes can be long).
pub fn read_knob(path: impl AsRef<Path>) -> Result<String> {
    read_text(open(path.as_ref(), OFlag::O_RDONLY, 0)?)
}

/// As [`read_knob`] for the file `name` in a directory held by fd.
pub fn read_knob_at(directory: &impl AsFd, name: impl AsRef<OsStr>) -> Result<String> {
    read_text(at::openat(directory, name, OFlag::O_RDONLY, 0)?)
}

fn read_text(knob: OwnedFd) -> Result<String> {
    let content = read_to_limit(File::from(knob), 1 << 20)?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// Fails unless the real user may execute `path`, which is resolved as usual (access(2), `X_OK`).
pub fn may_execute(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    unistd::access(path, unistd::AccessFlags::X_OK)
        .map_err(|errno| Error::new("access", errno, format_args!("{}, X_OK", quoted(path))))
}

/// The content of the file `path`; EFBIG if it is longer than `max` bytes.
pub fn read_bounded(path: impl AsRef<Path>, max: u64) -> Result<Vec<u8>> {
    read_to_limit(File::from(open(path.as_ref(), OFlag::O_RDONLY, 0)?), max)
}

fn read_to_limit(file: File, max: u64) -> Result<Vec<u8>> {
    // Mostly enough for one read; `Read` would begin with 32 bytes.
    const USUAL: u64 = 32 << 10;
    let mut content = Vec::with_capacity(usize::try_from(max.min(USUAL)).unwrap_or_default());
    let read = (&file).take(max.saturating_add(1)).read_to_end(&mut content);
    read.map_err(|error| Error::from_io("read", &error, fd(&file)))?;
    if content.len() as u64 > max {
        return Err(Error::new("read", Errno::EFBIG, fd(&file)).with_detail(format!("longer than {max} bytes")));
    }
    Ok(content)
}

/// A lock on a file, held until it is dropped or the process ends (flock(2)). The lock is of the open file: a child that
/// inherits the fd shares it, which close-on-exec prevents.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held for its Drop, which unlocks")] Flock<File>);

/// Takes the lock `path` for us alone, waiting for it; the file is made (0600) if it is missing.
pub fn lock_exclusive(path: impl AsRef<Path>) -> Result<Lock> {
    lock(path.as_ref(), FlockArg::LockExclusive)
}

/// Takes the lock `path` together with other shared holders, waiting for it.
pub fn lock_shared(path: impl AsRef<Path>) -> Result<Lock> {
    lock(path.as_ref(), FlockArg::LockShared)
}

/// As [`lock_exclusive`] without waiting: `None` if somebody holds it.
pub fn try_lock_exclusive(path: impl AsRef<Path>) -> Result<Option<Lock>> {
    match lock(path.as_ref(), FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.is(Errno::EWOULDBLOCK) => Ok(None),
        Err(error) => Err(error),
    }
}

fn lock(path: &Path, how: FlockArg) -> Result<Lock> {
    let mut file = File::from(open(path, OFlag::O_RDWR | OFlag::O_CREAT, 0o600)?);
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(Lock(lock)),
            Err((again, Errno::EINTR)) => file = again,
            Err((file, errno)) => return Err(Error::new("flock", errno, format_args!("{}, {how:?}", fd(&file)))),
        }
    }
}

/// Writes everything of the file system that `file` lies on to the disk (syncfs(2)).
pub fn syncfs(file: &impl AsFd) -> Result<()> {
    unistd::syncfs(file).map_err(|errno| Error::new("syncfs", errno, fd(file)))
}

/// Writes file or directory `file` to the disk (fsync(2)).
pub fn fsync(file: &impl AsFd) -> Result<()> {
    retry(|| unistd::fsync(file)).map_err(|errno| Error::new("fsync", errno, fd(file)))
}

/// Writes the names in the directory `path` to the disk: after a rename or a removal that must last.
pub fn sync_dir(path: impl AsRef<Path>) -> Result<()> {
    fsync(&open(path.as_ref(), OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)?)
}

/// How full a file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Size in bytes.
    pub bytes: u64,
    /// Bytes that an unprivileged user may still fill.
    pub bytes_available: u64,
    /// Bytes that hold nothing; some file systems keep a part of them for root.
    pub bytes_free: u64,
    /// Inodes in all; 0 where they are not counted.
    pub inodes: u64,
    /// Inodes left.
    pub inodes_free: u64,
}

/// How full the file system is that `file` lies on (fstatfs(2)).
pub fn usage(file: &impl AsFd) -> Result<Usage> {
    let stat = nix::sys::statfs::fstatfs(file).map_err(|errno| Error::new("fstatfs", errno, fd(file)))?;
    let unit = u64::try_from(stat.block_size()).unwrap_or(0);
    Ok(Usage {
        bytes: stat.blocks().saturating_mul(unit),
        bytes_available: stat.blocks_available().saturating_mul(unit),
        bytes_free: stat.blocks_free().saturating_mul(unit),
        inodes: stat.files(),
        inodes_free: stat.files_free(),
    })
}

fn open_parent(path: &Path) -> Result<(OwnedFd, &OsStr)> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::new("openat", Errno::EINVAL, quoted(path)).with_detail("the path names no file"))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((open(parent, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)?, name))
}

pub(crate) fn open(path: &Path, how: OFlag, mode: u32) -> Result<OwnedFd> {
    let how = how | OFlag::O_CLOEXEC;
    retry(|| fcntl::openat(AT_FDCWD, path, how, Mode::from_bits_truncate(mode)))
        .map_err(|errno| Error::new("openat", errno, format_args!("AT_FDCWD, {}, {}", quoted(path), flags(how))))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_the_mode_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        for (content, durability, mode) in [("one", Durability::Rename, 0o644), ("2", Durability::Synced, 0o600)] {
            atomic_write(&path, content.as_bytes(), durability, mode).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_replacement_that_fails_leaves_the_old_file_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("taken/full")).unwrap(); // rename onto it: EISDIR
        let error = atomic_write(directory.path().join("taken"), b"x", Durability::Rename, 0o600).unwrap_err();
        assert_eq!(error.call(), "renameat2", "{error}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn writers_at_the_same_time_leave_one_whole_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let contents: Vec<Vec<u8>> = (0..8_u8).map(|number| vec![number; 4096]).collect();
        std::thread::scope(|scope| {
            for content in &contents {
                scope.spawn(|| atomic_write(&path, content, Durability::Rename, 0o600).unwrap());
            }
        });
        assert!(contents.contains(&std::fs::read(&path).unwrap()));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_dead_writer_left_is_removed_and_other_hidden_files_stay() {
        let directory = tempfile::tempdir().unwrap();
        let left = temporary_name(OsStr::new("state.json"));
        for name in [left.as_os_str(), OsStr::new(".keep"), OsStr::new("state.json.new")] {
            File::create(directory.path().join(name)).unwrap();
        }
        assert!(is_temporary(&left) && !is_temporary("state.json"));
        remove_leftovers(directory.path()).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_knob_that_refuses_names_itself_and_the_value() {
        let error = write_knob("/proc/self/oom_score_adj", "many").unwrap_err().to_string();
        assert!(error.contains("oom_score_adj\", \"many\"): Invalid argument (EINVAL)"), "{error}");
        let error = write_knob("/proc/self/none", "1").unwrap_err().to_string();
        assert!(error.starts_with("openat(AT_FDCWD, \"/proc/self/none\", O_CLOEXEC|O_WRONLY)"), "{error}");
    }

    #[test]
    fn a_lock_that_is_held_can_not_be_taken_again_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = lock_exclusive(&path).unwrap();
        assert!(try_lock_exclusive(&path).unwrap().is_none());
        drop(held);
        let shared = lock_shared(&path).unwrap();
        let _second = lock_shared(&path).unwrap();
        assert!(try_lock_exclusive(&path).unwrap().is_none());
        drop((shared, _second));
        assert!(try_lock_exclusive(&path).unwrap().is_some());
    }

    #[test]
    fn a_bounded_read_refuses_a_longer_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        atomic_write(&path, b"12345", Durability::Rename, 0o600).unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
        assert!(read_bounded(&path, 4).unwrap_err().is(Errno::EFBIG));
    }

    #[test]
    fn a_file_system_is_at_least_as_large_as_what_is_free() {
        let usage = usage(&File::open("/").unwrap()).unwrap();
        assert!(usage.bytes >= usage.bytes_free && usage.bytes_free >= usage.bytes_available);
        assert!(usage.bytes > 0 && usage.bytes >= usage.bytes_available && usage.inodes >= usage.inodes_free);
    }
}
