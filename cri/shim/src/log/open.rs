//! Opening a log file. A container may own a directory that logs lie below (a `hostPath` of `/var/log`), so the file
//! itself is never followed through a link, and has to be a regular file.

use crate::failure::{failure, internal};
use shim_protocol::{ErrorKind, Failure};
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use sys::Errno;
use sys::at::{self, OFlag, SFlag};
use sys::rootfd::RootFd;

/// Opens the log at `path` for appending, making it and its directory if they are missing. For stage children: the file
/// system may hang.
pub(crate) fn open(path: &Path) -> Result<File, Failure> {
    let invalid = |why: &str| failure(ErrorKind::Invalid, format_args!("log {}: {why}", path.display()));
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(invalid("not the path of a file"));
    };
    if !path.is_absolute() {
        return Err(invalid("the path has to be absolute"));
    }
    let tried = || format!("open log {}", path.display());
    DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(|error| internal(tried(), &error))?;
    let directory = RootFd::open(directory).map_err(|error| internal(tried(), &error))?;
    // O_NONBLOCK: a FIFO in its place fails instead of waiting for a reader; it changes nothing for a regular file.
    let how = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = match at::openat(&directory, name, how, 0o640) {
        Err(error) if error.is(Errno::ELOOP) || error.is(Errno::ENXIO) => {
            return Err(invalid("it is a link or a FIFO; a log has to be a regular file"));
        }
        file => file.map_err(|error| internal(tried(), &error))?,
    };
    let stat = at::fstat(&file).map_err(|error| internal(tried(), &error))?;
    if at::file_type(&stat) != SFlag::S_IFREG {
        return Err(invalid("a log has to be a regular file"));
    }
    Ok(File::from(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::path::PathBuf;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("orlop-shim-open-{}-{name}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_missing_directory_is_made_and_an_existing_log_goes_on() {
        let dir = Dir::new("missing");
        let path = dir.0.join("pod/container/0.log");
        open(&path).unwrap().write_all(b"one\n").unwrap();
        open(&path).unwrap().write_all(b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_link_in_the_logs_place_is_refused_and_its_target_untouched() {
        let dir = Dir::new("link");
        let target = dir.0.join("secret");
        File::create(&target).unwrap();
        std::os::unix::fs::symlink(&target, dir.0.join("0.log")).unwrap();
        let error = open(&dir.0.join("0.log")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(error.message.contains("regular file"), "{error}");
        assert_eq!(std::fs::metadata(target).unwrap().len(), 0);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting() {
        let dir = Dir::new("kinds");
        let root = RootFd::open(&dir.0).unwrap();
        at::mknodat(&root, "fifo", SFlag::S_IFIFO, 0o600, 0).unwrap();
        assert_eq!(open(&dir.0.join("fifo")).unwrap_err().kind, ErrorKind::Invalid);
        assert_eq!(open(Path::new("/dev/null")).unwrap_err().kind, ErrorKind::Invalid);
        assert_eq!(open(Path::new("relative.log")).unwrap_err().kind, ErrorKind::Invalid);
        assert_eq!(open(Path::new("/")).unwrap_err().kind, ErrorKind::Invalid);
    }
}
