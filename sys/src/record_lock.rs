//! Locks that are a process's own (fcntl(2), "Advisory record locking").
//!
//! Those of flock(2) belong to the open file, so a child that was cloned and executes nothing yet holds them too, and goes on
//! holding them when its parent was killed. These end with the process that took them, whoever it has cloned, and whoever asks
//! learns which one that is. Closing any other fd of the same file gives them up: a process opens such a file once.

use std::fs::File;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

use crate::error::{Error, Result, fd};
use crate::fs::open;
use crate::process::Pid;
use crate::{Errno, at};

/// A file that can be locked, or is: the lock goes with it.
#[derive(Debug)]
pub struct RecordLock(File);

impl RecordLock {
    /// Opens the file `path`, which is made (0600) if it is missing. Nothing is locked yet.
    pub fn open(path: impl AsRef<Path>) -> Result<RecordLock> {
        Ok(RecordLock(File::from(open(path.as_ref(), OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_APPEND, 0o600)?)))
    }

    /// Takes the lock; false if another process holds it.
    pub fn try_take(&self) -> Result<bool> {
        match self.call(FcntlArg::F_SETLK(&whole()), "F_SETLK") {
            Err(error) if error.is(Errno::EAGAIN) || error.is(Errno::EACCES) => Ok(false),
            taken => taken.map(|()| true),
        }
    }

    /// Takes the lock, waiting for it.
    pub fn take(&self) -> Result<()> {
        loop {
            match self.call(FcntlArg::F_SETLKW(&whole()), "F_SETLKW") {
                Err(error) if error.is(Errno::EINTR) => {}
                taken => return taken,
            }
        }
    }

    /// Who else holds it, as numbered in our PID namespace: 0 for a process that is not in there.
    pub fn holder(&self) -> Result<Option<Pid>> {
        let mut found = whole();
        self.call(FcntlArg::F_GETLK(&mut found), "F_GETLK")?;
        Ok((i32::from(found.l_type) != libc::F_UNLCK).then(|| Pid::from_raw(found.l_pid)))
    }

    /// False once the file was unlinked: then the lock says nothing about whoever opens the name now.
    pub fn is_linked(&self) -> Result<bool> {
        Ok(at::fstat(&self.0)?.st_nlink > 0)
    }

    /// The file's content is the holder's; what is written goes to the end.
    pub fn file(&self) -> &File {
        &self.0
    }

    fn call(&self, how: FcntlArg<'_>, name: &str) -> Result<()> {
        fcntl(&self.0, how)
            .map(drop)
            .map_err(|errno| Error::new("fcntl", errno, format_args!("{}, {name}", fd(&self.0))))
    }
}

/// All of the file, however long it becomes, for us alone.
fn whole() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
