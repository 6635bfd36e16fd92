//! The command line: `orlop-shim --dir DIR [--listen-fd N]`.

use std::ffi::OsString;
use std::path::PathBuf;

/// What the shim is told at its start; everything else comes over its socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// `--dir`: the directory for its socket and records, which exists.
    pub(crate) dir: PathBuf,
    /// `--listen-fd`: an inherited listening socket, so that a daemon can connect before the shim is up; 0 is standard
    /// input. Without it the shim makes its own.
    pub(crate) listen_fd: Option<i32>,
}

/// A command line that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ArgumentError {
    /// Not an option of ours.
    #[error("unknown argument {0:?}; usage: orlop-shim --dir DIR [--listen-fd N]")]
    Unknown(OsString),
    /// An option at the end.
    #[error("{0} needs a value")]
    NoValue(&'static str),
    /// Not the number of an fd.
    #[error("--listen-fd {0:?} is not the number of a file descriptor")]
    NotANumber(OsString),
    /// Where?
    #[error("--dir is missing; usage: orlop-shim --dir DIR [--listen-fd N]")]
    NoDir,
}

impl Arguments {
    /// Parses what follows the program's name.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, ArgumentError> {
        let (mut dir, mut listen_fd) = (None, None);
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--dir") => {
                    dir = Some(PathBuf::from(arguments.next().ok_or(ArgumentError::NoValue("--dir"))?));
                }
                Some("--listen-fd") => {
                    let value = arguments.next().ok_or(ArgumentError::NoValue("--listen-fd"))?;
                    let number = value.to_str().and_then(|value| value.parse().ok());
                    listen_fd = Some(number.ok_or(ArgumentError::NotANumber(value))?);
                }
                _ => return Err(ArgumentError::Unknown(argument)),
            }
        }
        Ok(Self { dir: dir.ok_or(ArgumentError::NoDir)?, listen_fd })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_understood_or_refused_with_the_reason() {
        let parse = |line: &str| Arguments::parse(line.split_whitespace().map(OsString::from));
        let listen_fd = Some(3);
        assert_eq!(parse("--listen-fd 3 --dir /run/x"), Ok(Arguments { dir: "/run/x".into(), listen_fd }));
        assert_eq!(parse("--dir /run/x"), Ok(Arguments { dir: "/run/x".into(), listen_fd: None }));
        assert_eq!(parse(""), Err(ArgumentError::NoDir));
        assert_eq!(parse("--dir"), Err(ArgumentError::NoValue("--dir")));
        assert_eq!(parse("--dir x --listen-fd three"), Err(ArgumentError::NotANumber("three".into())));
        assert_eq!(parse("--help"), Err(ArgumentError::Unknown("--help".into())));
    }
}
