//! A directory of a cgroup hierarchy: the only place of this crate that opens files.
//!
//! A cgroup is held by an fd, to which every call is relative; its path is for error messages alone. The root of a hierarchy
//! is known by its path: what is not held open needs no closing, in each call of a command line that looks at one of ten.

use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Uid, UnlinkatFlags, fchownat, read, unlinkat, write};

use crate::{Error, Result};

/// A directory, open or known by its path, and the path by which errors call it.
#[derive(Debug)]
pub struct Dir {
    fd: Option<OwnedFd>,
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
    /// A directory that is looked for by its path each time: the mount point of a hierarchy, or a fixture in a test.
    pub(crate) fn at(path: PathBuf) -> Dir {
        Dir { fd: None, path }
    }

    /// Where this directory is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory itself, which has to be one that was opened.
    pub(crate) fn opened(&self) -> Result<BorrowedFd<'_>> {
        let none = || Error::Open { path: self.path.clone(), source: Errno::EBADF };
        self.fd.as_ref().map(AsFd::as_fd).ok_or_else(none)
    }

    /// Opens a directory below this one.
    pub(crate) fn subdir(&self, relative: &Path) -> Result<Dir> {
        // Without the dots that a walk begins with: it is for people.
        let path = self.path.join(relative).components().collect();
        let (base, name) = self.place(relative);
        match openat(base, name.as_ref(), DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Dir { fd: Some(fd), path }),
            Err(source) => Err(Error::Open { path, source }),
        }
    }

    /// A directory below this one, not opened.
    pub(crate) fn below(&self, relative: &Path) -> Dir {
        Dir::at(self.path.join(relative))
    }

    /// What a call takes to reach a name in this directory.
    fn place<'a>(&'a self, name: &'a Path) -> (BorrowedFd<'a>, Cow<'a, Path>) {
        match &self.fd {
            Some(fd) => (fd.as_fd(), name.into()),
            None => (AT_FDCWD, self.path.join(name).into()),
        }
    }

    /// Makes a directory below this one; its parent must be there.
    pub(crate) fn make(&self, relative: &Path) -> Result<Made> {
        let (base, name) = self.place(relative);
        match mkdirat(base, name.as_ref(), Mode::from_bits_truncate(0o755)) {
            Ok(()) => Ok(Made::New),
            Err(Errno::EEXIST) => Ok(Made::Found),
            Err(source) => Err(Error::Make { path: self.path.join(relative), source }),
        }
    }

    /// Removes an empty cgroup below this directory. A cgroup's own files do not count.
    pub(crate) fn remove(&self, relative: &Path) -> Result<(), Errno> {
        let (base, name) = self.place(relative);
        unlinkat(base, name.as_ref(), UnlinkatFlags::RemoveDir)
    }

    /// Opens a control file.
    pub(crate) fn open_file(&self, name: &str, flags: OFlag) -> Result<OwnedFd> {
        let (base, relative) = self.place(name.as_ref());
        openat(base, relative.as_ref(), flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
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

    /// Reads a control file whole that is no list of processes. The kernel makes up its text in one go (`kernfs_seq_show`),
    /// so a buffer that it does not fill has all of it.
    pub(crate) fn read(&self, name: &str) -> Result<String> {
        self.read_until(name, |length| length < PAGE)
    }

    /// Reads a list of processes whole, of which the kernel gives as many entries at a time as it likes.
    pub(crate) fn read_list(&self, name: &str) -> Result<String> {
        self.read_until(name, |length| length == 0)
    }

    fn read_until(&self, name: &str, is_last: impl Fn(usize) -> bool) -> Result<String> {
        let file = self.open_file(name, OFlag::O_RDONLY)?;
        read_until(file.as_fd(), is_last).map_err(|source| Error::Read { path: self.path.join(name), source })
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
        let (base, itself) = self.place(Path::new("."));
        let mut dir = nix::dir::Dir::openat(base, itself.as_ref(), DIRECTORY, Mode::empty()).map_err(fail)?;
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
        let (base, relative) = self.place(name.as_ref());
        fchownat(base, relative.as_ref(), Some(Uid::from_raw(user)), None, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|source| Error::Give { path: self.path.join(name), user, source })
    }

    /// The error for a file that does not hold what it should.
    pub(crate) fn malformed(&self, name: &str, text: &str, expected: &'static str) -> Error {
        Error::Malformed { path: self.path.join(name), text: text.trim_end().to_owned(), expected }
    }
}

/// Control files are mostly shorter; `cgroup.procs` and `memory.stat` are not.
const PAGE: usize = 4096;

/// Reads up to the piece that is the last one by its length.
fn read_until(file: BorrowedFd<'_>, is_last: impl Fn(usize) -> bool) -> Result<String, Errno> {
    let mut bytes = Vec::with_capacity(PAGE);
    let mut page = [0; PAGE];
    loop {
        match read(file, &mut page) {
            Ok(length) => {
                bytes.extend_from_slice(&page[..length]);
                if is_last(length) {
                    return Ok(String::from_utf8_lossy(&bytes).into_owned());
                }
            }
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
            let dir = Dir::at(temp.path().to_owned());
            Fixture { temp, dir }
        }

        /// What a file holds now.
        pub(crate) fn content(&self, name: &str) -> String {
            std::fs::read_to_string(self.temp.path().join(name)).expect("a file of the fixture")
        }
    }
}
