//! The system call filter: ready from the caller, or compiled from the config.

use std::os::fd::OwnedFd;

use oci_spec::runtime::LinuxSeccomp;

use sys::credentials::SeccompFlags;

use crate::error::{Error, Step};
use crate::init::Filter;

/// A program can't be longer than 4096 instructions of 8 bytes (`BPF_MAXINSNS`).
const MAX_PROGRAM: u64 = 4096 * 8;

/// The program in `memfd`, else that of `profile`, else none.
pub(crate) fn load(memfd: Option<OwnedFd>, profile: Option<&LinuxSeccomp>) -> Result<Option<Filter>, Error> {
    if let Some(memfd) = memfd {
        let program = sys::fd::read_sealed(&memfd, MAX_PROGRAM).step(|| "read the system call filter".to_owned())?;
        return Ok(Some(Filter { program, flags: SeccompFlags::empty() }));
    }
    profile.map(compile).transpose()
}

fn compile(_profile: &LinuxSeccomp) -> Result<Filter, Error> {
    Err(Error::Refused("linux.seccomp: compiling a profile is not built yet".to_owned()))
}
