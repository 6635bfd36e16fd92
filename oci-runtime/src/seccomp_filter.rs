//! The system call filter: ready from the caller, or compiled from the config.
//!
//! A program that the caller brings was compiled from the same profile; its flags are taken from there.

use std::os::fd::OwnedFd;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag};

use sys::credentials::SeccompFlags;

use crate::error::{Error, Step};
use crate::init::Filter;

/// A program can't be longer than 4096 instructions of 8 bytes (`BPF_MAXINSNS`).
const MAX_PROGRAM: u64 = 4096 * 8;

/// The program in `memfd`, else that of `profile`, else none.
pub(crate) fn load(memfd: Option<OwnedFd>, profile: Option<&LinuxSeccomp>) -> Result<Option<Filter>, Error> {
    if let Some(memfd) = memfd {
        let program = sys::fd::read_sealed(&memfd, MAX_PROGRAM).step(|| "read the system call filter".to_owned())?;
        return Ok(Some(Filter { program, flags: profile.map_or(SeccompFlags::empty(), flags) }));
    }
    profile.map(compile).transpose()
}

fn compile(profile: &LinuxSeccomp) -> Result<Filter, Error> {
    let flags = flags(profile);
    let fail = |error: Box<dyn std::error::Error + Send + Sync>| Error::Seccomp(error);
    // Both sides speak the runtime-spec's JSON; the other crate knows nothing of this one's types.
    let json = serde_json::to_value(profile).map_err(|error| fail(error.into()))?;
    let profile: seccomp::Profile = serde_json::from_value(json).map_err(|error| fail(error.into()))?;
    let program = seccomp::compile(&profile).map_err(|error| fail(error.into()))?;
    Ok(Filter { program: program.bytes(), flags })
}

fn flags(profile: &LinuxSeccomp) -> SeccompFlags {
    let flags = profile.flags().iter().flatten().map(|flag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => SeccompFlags::LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => SeccompFlags::TSYNC,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => SeccompFlags::SPEC_ALLOW,
        // Says how to wait for a listener, and there is none.
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => SeccompFlags::empty(),
    });
    flags.fold(SeccompFlags::empty(), |all, flag| all | flag)
}
