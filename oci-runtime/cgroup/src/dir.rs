//! A directory of a cgroup hierarchy, by fd: the only place of this crate that opens files.
//!
//! The path is kept for error messages alone; every call is relative to the fd.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Uid, UnlinkatFlags, fchownat, read, unlinkat, write};

use crate::{Error, Result};

/// An open directory and the path by which errors call it.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// Whether [`Dir::make`] found the directory or made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    /// It was there.
    Found,
    /// It is new.
    New,
}

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_RDONLY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl Dir {
    /// Opens a directory by its path; the mount point of a hierarchy, or a fixture in a test.
    pub fn open(path: &Path) -> Result<Dir> {
        let fd = openat(AT_FDCWD, path, DIRECTORY, Mode::empty())
            .map_err(|source| Error::Open { path: path.to_owned(), source })?;
        Ok(Dir { fd, path: path.to_owned() })
    }

    /// Where this directory is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a directory below this one.
    pub(crate) fn subdir(&self, relative: &Path) -> Result<Dir> {
        // Without the dots that a walk begins with: it is for people.
        let path = self.path.join(relative).components().collect();
        match openat(&self.fd, relative, DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Dir { fd, path }),
            Err(source) => Err(Error::Open { path, source }),
        }
    }

    /// Makes a directory below this one; its parent must be there.
    pub(crate) fn make(&self, relative: &Path) -> Result<Made> {
        match mkdirat(&self.fd, relative, Mode::from_bits_truncate(0o755)) {
            Ok(()) => Ok(Made::New),
            Err(Errno::EEXIST) => Ok(Made::Found),
            Err(source) => Err(Error::Make { path: self.path.join(relative), source }),
        }
    }

    /// Removes an empty cgroup below this directory. A cgroup's own files do not count.
    pub(crate) fn remove(&self, relative: &Path) -> Result<(), Errno> {
        unlinkat(&self.fd, relative, UnlinkatFlags::RemoveDir)
    }

    /// Opens a control file.
    pub(crate) fn open_file(&self, name: &str, flags: OFlag) -> Result<OwnedFd> {
        openat(&self.fd, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|source| Error::Open { path: self.path.join(name), source })
    }

    /// Writes a control file in one `write`, which is how the kernel takes a value.
    pub(crate) fn write(&self, name: &str, value: &str) -> Result<()> {
        // Truncation means nothing to a control file; it makes a fixture behave like one.
        let file = self.open_file(name, OFlag::O_WRONLY | OFlag::O_TRUNC)?;
        match write(&file, value.as_bytes()) {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Write { path: self.path.join(name), value: value.to_owned(), source }),
        }
    }

    /// Writes one value after the other to a control file that adds them up.
    pub(crate) fn write_each(&self, name: &str, values: impl Iterator<Item = String>) -> Result<()> {
        let file = self.open_file(name, OFlag::O_WRONLY)?;
        for value in values {
            write(&file, value.as_bytes()).map_err(|source| Error::Write {
                path: self.path.join(name),
                value,
                source,
            })?;
        }
        Ok(())
    }

    /// Reads a control file whole.
    pub(crate) fn read(&self, name: &str) -> Result<String> {
        let file = self.open_file(name, OFlag::O_RDONLY)?;
        read_all(file.as_fd()).map_err(|source| Error::Read { path: self.path.join(name), source })
    }

    /// Reads a control file that this kernel or hierarchy may not have.
    pub(crate) fn read_if_there(&self, name: &str) -> Result<Option<String>> {
        match self.read(name) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a control file that holds one number.
    pub(crate) fn number(&self, name: &str) -> Result<u64> {
        let text = self.read(name)?;
        text.trim_end().parse().map_err(|_| self.malformed(name, &text, "a number"))
    }

    /// Reads a control file that holds one number, or `max` for "no limit".
    pub(crate) fn limit(&self, name: &str) -> Result<Option<u64>> {
        let text = self.read(name)?;
        match text.trim_end() {
            "max" => Ok(None),
            number => number.parse().map(Some).map_err(|_| self.malformed(name, &text, "a number or \"max\"")),
        }
    }

    /// The names of the cgroups directly below this one.
    pub(crate) fn children(&self) -> Result<Vec<String>> {
        let fail = |source| Error::Read { path: self.path.clone(), source };
        let mut dir = nix::dir::Dir::openat(&self.fd, ".", DIRECTORY, Mode::empty()).map_err(fail)?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_string_lossy();
            if entry.file_type() == Some(nix::dir::Type::Directory) && name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    /// Makes a user the owner of a file, or of the directory itself (`.`); the group stays.
    pub(crate) fn give_to(&self, user: u32, name: &str) -> Result<()> {
        fchownat(&self.fd, name, Some(Uid::from_raw(user)), None, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|source| Error::Give { path: self.path.join(name), user, source })
    }

    /// The error for a file that does not hold what it should.
    pub(crate) fn malformed(&self, name: &str, text: &str, expected: &'static str) -> Error {
        Error::Malformed { path: self.path.join(name), text: text.trim_end().to_owned(), expected }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reads to the end. Control files are mostly shorter than a page; `cgroup.procs` and `memory.stat` are not.
pub(crate) fn read_all(file: BorrowedFd<'_>) -> Result<String, Errno> {
    let mut bytes = Vec::with_capacity(4096);
    let mut page = [0; 4096];
    loop {
        match read(file, &mut page) {
            Ok(0) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Ok(n) => bytes.extend_from_slice(&page[..n]),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    //! A directory of plain files in place of a cgroup, for the controllers' tests.

    use super::Dir;

    /// A temporary directory with the given files in it.
    pub(crate) struct Fixture {
        temp: tempfile::TempDir,
        /// The directory as the code under test sees it.
        pub(crate) dir: Dir,
    }

    impl Fixture {
        pub(crate) fn new(files: &[(&str, &str)]) -> Fixture {
            let temp = tempfile::tempdir().expect("a temporary directory");
            for (name, content) in files {
                let path = temp.path().join(name);
                std::fs::create_dir_all(path.parent().expect("a parent")).expect("the folder of a fixture");
                std::io::Write::write_all(
                    &mut std::fs::File::create(path).expect("a fixture file"),
                    content.as_bytes(),
                )
                .expect("the content of a fixture file");
            }
            let dir = Dir::open(temp.path()).expect("the fixture's directory");
            Fixture { temp, dir }
        }

        /// What a file holds now.
        pub(crate) fn content(&self, name: &str) -> String {
            std::fs::read_to_string(self.temp.path().join(name)).expect("a file of the fixture")
        }
    }
}
