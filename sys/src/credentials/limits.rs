//! Resource limits (getrlimit(2), prlimit(2)).

use std::fmt;
use std::str::FromStr;

use nix::libc;

use crate::Errno;
use crate::error::{Error, Result};
use crate::process::Pid;

/// A resource by its name in the runtime-spec, which is the C name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resource(usize);

/// In the order of their numbers (asm-generic/resource.h).
const NAMES: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

/// Not the name of a resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown resource limit {0:?}")]
pub struct UnknownResource(pub String);

impl Resource {
    /// Open files.
    pub const NOFILE: Resource = Resource(7);
}

impl FromStr for Resource {
    type Err = UnknownResource;

    fn from_str(name: &str) -> std::result::Result<Resource, UnknownResource> {
        let number = NAMES.iter().position(|known| *known == name);
        number.map(Resource).ok_or_else(|| UnknownResource(name.to_owned()))
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES[self.0])
    }
}

/// Both limits, in the resource's own unit; `u64::MAX` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What counts now.
    pub soft: u64,
    /// What the soft one may be raised to.
    pub hard: u64,
}

/// A limit of this process.
pub fn limit(resource: Resource) -> Result<Limit> {
    prlimit(0, resource, None)
}

/// Sets a limit of this process. Raising the hard one needs CAP_SYS_RESOURCE.
pub fn set_limit(resource: Resource, limit: Limit) -> Result<()> {
    prlimit(0, resource, Some(limit)).map(drop)
}

/// Sets a limit of another process and returns the one from before.
pub fn set_limit_of(pid: Pid, resource: Resource, limit: Limit) -> Result<Limit> {
    prlimit(pid.as_raw(), resource, Some(limit))
}

fn prlimit(pid: libc::pid_t, resource: Resource, new: Option<Limit>) -> Result<Limit> {
    let new_raw = new.map(|new| libc::rlimit64 { rlim_cur: new.soft, rlim_max: new.hard });
    let new_pointer = new_raw.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: NULL or a limit to read, and a limit to write, both alive through the call.
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource.0, new_pointer, &raw mut old) };
    Errno::result(result)
        .map_err(|errno| Error::new("prlimit64", errno, format_args!("{pid}, {resource}, {new:?}")))?;
    Ok(Limit { soft: old.rlim_cur, hard: old.rlim_max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_set_and_read_back() {
        let core: Resource = "RLIMIT_CORE".parse().unwrap();
        let before = limit(core).unwrap();
        set_limit(core, Limit { soft: 0, ..before }).unwrap();
        assert_eq!(limit(core).unwrap().soft, 0);
    }

    #[test]
    fn a_soft_limit_above_the_hard_one_is_refused_by_name() {
        let error = set_limit(Resource::NOFILE, Limit { soft: 2, hard: 1 }).unwrap_err().to_string();
        assert!(error.starts_with("prlimit64(0, RLIMIT_NOFILE, Some(Limit { soft: 2, hard: 1 })): Invalid"), "{error}");
    }

    #[test]
    fn an_unknown_resource_is_refused() {
        for name in ["NOFILE", "RLIMIT_FUN", ""] {
            assert_eq!(name.parse::<Resource>(), Err(UnknownResource(name.to_owned())));
        }
    }
}
