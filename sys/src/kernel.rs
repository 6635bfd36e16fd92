//! Which kernel this is, and whether it is one that we can work on.
//!
//! What needs which version is listed in docs/kernel.md. Below [`MINIMUM`] a call that nothing can replace is missing; whoever
//! starts says so at once, instead of failing with an ENOSYS in the middle of a container.

use std::fmt;

use crate::error::{Error, Result};

/// A kernel's version, as far as features go by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// `6` of `6.1.0-44-cloud-amd64`.
    pub major: u32,
    /// `1` of it.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The oldest kernel that we work on: it brought `MOUNT_ATTR_NOSYMFOLLOW`, which each bind mount with options sets or clears.
pub const MINIMUM: Version = Version { major: 5, minor: 14 };

/// The running kernel is older than [`MINIMUM`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Linux {release} is too old: {MINIMUM} or newer is needed, for all attributes of mount_setattr(2)")]
pub struct TooOld {
    release: String,
}

/// Refuses a kernel that is too old. One whose release nobody can read is let through: its calls will tell.
///
/// # Errors
/// [`TooOld`].
pub fn require_minimum() -> std::result::Result<(), TooOld> {
    release().map_or(Ok(()), |release| check(&release))
}

fn check(release: &str) -> std::result::Result<(), TooOld> {
    match parse(release) {
        Some(version) if version < MINIMUM => Err(TooOld { release: release.to_owned() }),
        _ => Ok(()),
    }
}

/// The release of the running kernel (uname(2)).
pub fn release() -> Result<String> {
    let names = nix::sys::utsname::uname().map_err(|errno| Error::new("uname", errno, ""))?;
    Ok(names.release().to_string_lossy().into_owned())
}

/// Whether the running kernel is as new as that; one whose release nobody can read is taken for it: its calls will tell.
pub fn is_at_least(version: Version) -> bool {
    release().ok().and_then(|release| parse(&release)).is_none_or(|running| running >= version)
}

fn parse(release: &str) -> Option<Version> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    Some(Version { major: number()?, minor: number()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_starts_with_the_version() {
        for (release, version) in [
            ("6.1.0-44-cloud-amd64", Some((6, 1))),
            ("5.14.0-427.el9.x86_64", Some((5, 14))),
            ("6.18.44", Some((6, 18))),
            ("7.0-rc1", Some((7, 0))),
            ("6", None),
            ("", None),
            ("mine", None),
        ] {
            assert_eq!(parse(release).map(|version| (version.major, version.minor)), version, "{release}");
        }
    }

    #[test]
    fn an_old_kernel_is_refused_with_what_it_lacks() {
        let error = check("4.18.0-553.el8_10.x86_64").unwrap_err().to_string();
        let expected = "Linux 4.18.0-553.el8_10.x86_64 is too old: 5.14 or newer is needed, for all attributes of \
                        mount_setattr(2)";
        assert_eq!(error, expected);
        assert!(check("5.13.19").is_err());
        assert_eq!((check("5.14.0"), check("6.1"), check("?")), (Ok(()), Ok(()), Ok(())));
    }
}
