//! The system call filter of a process: compiled from the config's profile, or brought along ready by the caller.

use std::os::fd::AsFd;
use std::path::PathBuf;

use seccomp::Profile;
use serde::{Deserialize, Serialize};
use sys::credentials::SeccompFlags;

use crate::error::{Error, Step};

/// A program can't be longer than 4096 instructions of 8 bytes (`BPF_MAXINSNS`).
const MAX_PROGRAM: u64 = 4096 * 8;

/// A system call filter, ready to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// An array of `struct sock_filter`.
    pub(crate) program: Vec<u8>,
    /// For the `seccomp` system call.
    pub(crate) flags: SeccompFlags,
    /// Who decides on the calls that the program does not; only a program with such calls has one.
    pub(crate) listener: Option<Listener>,
}

/// Who gets the fd on which a filter asks (`SCMP_ACT_NOTIFY`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// A Unix socket of the host.
    pub path: PathBuf,
    /// Sent along, as it is.
    pub metadata: String,
}

/// What goes in front of the program in [`Filter::encode`].
#[derive(Serialize, Deserialize)]
struct Header {
    flags: u32,
    listener: Option<Listener>,
}

impl Filter {
    /// Compiles a profile, as [`Plan::seccomp`](crate::Plan::seccomp) has it.
    ///
    /// # Errors
    /// What the profile asks for can't be said in a program.
    pub fn compile(profile: &Profile) -> Result<Filter, Error> {
        let program = seccomp::compile(profile).map_err(|error| Error::Seccomp(error.into()))?;
        let listener = profile.listener_path.as_ref().filter(|_| program.asks()).map(|path| Listener {
            path: path.into(),
            metadata: profile.listener_metadata.clone().unwrap_or_default(),
        });
        Ok(Filter { program: program.bytes(), flags: SeccompFlags::from_bits_truncate(program.flags()), listener })
    }

    /// A program that somebody else compiled, in a sealed memfd.
    ///
    /// # Errors
    /// The file can't be read, or is longer than any program.
    pub fn from_memfd(memfd: &impl AsFd, flags: u32, listener: Option<Listener>) -> Result<Filter, Error> {
        let program = sys::fd::read_sealed(memfd, MAX_PROGRAM).step(|| "read the system call filter".to_owned())?;
        Ok(Filter { program, flags: SeccompFlags::from_bits_truncate(flags), listener })
    }

    /// As bytes, to be kept for those who will join the container: a line of JSON, then the program.
    pub fn encode(&self) -> Vec<u8> {
        let header = Header { flags: self.flags.bits(), listener: self.listener.clone() };
        let mut bytes = serde_json::to_vec(&header).unwrap_or_default();
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.program);
        bytes
    }

    /// The reverse of [`encode`](Filter::encode); `None` if it is anything else.
    pub fn decode(bytes: &[u8]) -> Option<Filter> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (header, program) = bytes.split_at(end);
        let Header { flags, listener } = serde_json::from_slice(header).ok()?;
        Some(Filter { program: program[1..].to_vec(), flags: SeccompFlags::from_bits_truncate(flags), listener })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(json: &str) -> Filter {
        Filter::compile(&serde_json::from_str(json).unwrap()).unwrap()
    }

    #[test]
    fn a_filter_is_kept_with_its_flags_and_its_listener() {
        let asking = compiled(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"],"listenerPath":"/run/a\nb",
                "listenerMetadata":"m","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#,
        );
        assert_eq!(asking.flags, SeccompFlags::LOG);
        assert_eq!(asking.listener, Some(Listener { path: "/run/a\nb".into(), metadata: "m".to_owned() }));
        assert_eq!(Filter::decode(&asking.encode()), Some(asking));
        assert_eq!(Filter::decode(b"{}\nxxxxxxxx"), None);
        assert_eq!(Filter::decode(b""), None);
    }

    #[test]
    fn a_listener_of_a_profile_that_never_asks_is_left_out() {
        let filter = compiled(r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/agent"}"#);
        assert_eq!((filter.flags, filter.listener), (SeccompFlags::SPEC_ALLOW, None));
    }
}
