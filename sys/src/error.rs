//! The one error of this crate: a failed call, printed the way strace prints it.
//!
//! `openat2([7]"/var/lib/x", "etc", {RESOLVE_IN_ROOT}): No such file or directory (ENOENT)`. File descriptors
//! are shown with what they refer to at the moment of the failure, since nobody can look that up afterwards.

use std::ffi::OsStr;
use std::fmt::{self, Debug, Display};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

/// What every function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// A system call that failed, or that we refused to make or to believe.
// Boxed: results of the hot paths stay two words wide.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Call>);

#[derive(Debug)]
struct Call {
    name: &'static str,
    arguments: String,
    errno: Errno,
    /// Why *we* refused, or what the kernel said beyond the number (the log of a mount context).
    detail: Option<String>,
}

impl std::error::Error for Call {}

impl Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}): {} ({:?})", self.name, self.arguments, self.errno.desc(), self.errno)?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl Error {
    /// The failure of `name(arguments)` with `errno`. Format the arguments with [`fd`], [`quoted`] and [`flags`].
    pub fn new(name: &'static str, errno: Errno, arguments: impl Display) -> Error {
        Error(Box::new(Call { name, arguments: arguments.to_string(), errno, detail: None }))
    }

    /// As [`Error::new`], with one more sentence: the reason of a refusal, or the kernel's own text.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Error {
        self.0.detail = Some(detail.into());
        self
    }

    /// As [`Error::new`], from an [`io::Error`](std::io::Error) of a std function.
    pub fn from_io(name: &'static str, error: &std::io::Error, arguments: impl Display) -> Error {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        Error::new(name, errno, arguments)
    }

    /// The number the kernel gave; a refusal of ours carries the number the kernel would have used.
    pub fn errno(&self) -> Errno {
        self.0.errno
    }

    /// True if the kernel gave `errno`.
    pub fn is(&self, errno: Errno) -> bool {
        self.0.errno == errno
    }

    /// The name of the call that failed.
    pub fn call(&self) -> &'static str {
        self.0.name
    }
}

impl From<Error> for std::io::Error {
    /// Keeps the kind for callers that branch on it, and the whole text.
    fn from(error: Error) -> std::io::Error {
        let kind = std::io::Error::from_raw_os_error(error.errno() as i32).kind();
        std::io::Error::new(kind, error)
    }
}

/// Shows a file descriptor as `[7]"/var/lib/x"`.
pub fn fd(fd: &impl AsFd) -> impl Display {
    struct Fd(i32);
    impl Display for Fd {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            if self.0 == nix::libc::AT_FDCWD {
                return f.write_str("AT_FDCWD");
            }
            write!(f, "[{}]", self.0)?;
            match std::fs::read_link(format!("/proc/self/fd/{}", self.0)) {
                Ok(path) => write!(f, "{}", quoted(&path)),
                Err(_) => Ok(()), // /proc is not there in every mount namespace we pass through
            }
        }
    }
    Fd(fd.as_fd().as_raw_fd())
}

/// Shows a path or a value in double quotes, control and non-ASCII bytes escaped.
pub fn quoted<'a>(text: &'a (impl AsRef<OsStr> + ?Sized)) -> impl Display + 'a {
    struct Quoted<'a>(&'a OsStr);
    impl Display for Quoted<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.0.to_str() {
                Some(text) if !text.chars().any(char::is_control) => write!(f, "\"{text}\""),
                _ => write!(f, "\"{}\"", self.0.as_bytes().escape_ascii()),
            }
        }
    }
    Quoted(text.as_ref())
}

/// Shows a bit set as strace does: `O_PATH|O_CLOEXEC`, `0` when empty.
pub fn flags(set: impl Debug) -> impl Display {
    let shown = format!("{set:?}");
    let inner = shown.split_once('(').map_or(shown.as_str(), |(_, rest)| rest.trim_end_matches(')'));
    match inner {
        "" | "0x0" => "0".to_owned(),
        inner => inner.replace(" | ", "|"),
    }
}

/// Calls `call` again for as long as a signal interrupts it.
pub(crate) fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// `path` as a C string; a NUL inside it is `EINVAL` of `name`.
pub(crate) fn c_path(name: &'static str, path: &Path) -> Result<std::ffi::CString> {
    std::ffi::CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::new(name, Errno::EINVAL, quoted(path)).with_detail("the path holds a NUL byte"))
}

#[cfg(test)]
mod tests {
    use nix::fcntl::OFlag;

    use super::*;

    #[test]
    fn an_error_prints_the_call_its_arguments_and_the_number() {
        let root = std::fs::File::open("/").unwrap();
        let error = Error::new(
            "openat2",
            Errno::ENOENT,
            format_args!("{}, {}, {{{}}}", fd(&root), quoted("etc"), flags(OFlag::O_PATH | OFlag::O_NOFOLLOW)),
        );
        let number = root.as_raw_fd();
        assert_eq!(
            error.to_string(),
            format!("openat2([{number}]\"/\", \"etc\", {{O_NOFOLLOW|O_PATH}}): No such file or directory (ENOENT)")
        );
        assert!(error.is(Errno::ENOENT));
    }

    #[test]
    fn a_refusal_says_why_after_the_number() {
        let error = Error::new("clone3", Errno::EINVAL, "{}").with_detail("2 threads");
        assert_eq!(error.to_string(), "clone3({}): Invalid argument (EINVAL): 2 threads");
    }

    #[test]
    fn bytes_that_would_break_a_log_line_are_escaped() {
        assert_eq!(quoted("a\nb").to_string(), r#""a\nb""#);
        assert_eq!(quoted(OsStr::from_bytes(b"\xff")).to_string(), r#""\xff""#);
        assert_eq!(quoted("käse").to_string(), "\"käse\"");
    }

    #[test]
    fn an_empty_set_of_flags_is_shown_as_zero() {
        assert_eq!(flags(OFlag::empty()).to_string(), "0");
    }

    #[test]
    fn an_io_error_made_of_ours_keeps_kind_and_text() {
        let error = std::io::Error::from(Error::new("open", Errno::ENOENT, quoted("/x")));
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        assert!(error.to_string().starts_with("open(\"/x\")"));
    }
}
