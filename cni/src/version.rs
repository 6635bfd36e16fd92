//! Protocol versions.

use std::str::FromStr;

/// All versions that we speak, ascending.
pub const ALL: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The newest of them: results are kept in its form.
pub const CURRENT: &str = "1.1.0";

/// A parsed version; ordered by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32, u32, u32);

impl Version {
    /// The first with CHECK, and with a previous result on DEL.
    pub const WITH_CHECK: Version = Version(0, 4, 0);
    /// The first whose results have a list of interfaces.
    pub const WITH_INTERFACES: Version = Version(0, 3, 0);
    /// The first whose addresses don't say which family they are.
    pub const WITHOUT_FAMILY: Version = Version(1, 0, 0);
    /// The first with STATUS and GC.
    pub const WITH_STATUS: Version = Version(1, 1, 0);
    /// The newest that we speak.
    pub const CURRENT: Version = Version(1, 1, 0);
}

/// A text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid version {0:?}")]
pub struct VersionError(String);

impl FromStr for Version {
    type Err = VersionError;

    /// One to three numbers; the empty text is 0.1.0, which had no version key.
    fn from_str(text: &str) -> Result<Version, VersionError> {
        if text.is_empty() {
            return Ok(Version(0, 1, 0));
        }
        let mut parts = [0; 3];
        let mut given = text.split('.');
        for (place, part) in parts.iter_mut().zip(given.by_ref()) {
            *place = part.parse().map_err(|_| VersionError(text.to_owned()))?;
        }
        match given.next() {
            None => Ok(Version(parts[0], parts[1], parts[2])),
            Some(_) => Err(VersionError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_number_and_the_empty_one_is_the_oldest() {
        let parse = |text: &str| text.parse::<Version>().unwrap();
        assert_eq!(parse(""), parse("0.1.0"));
        assert_eq!(parse("1"), parse("1.0.0"));
        assert!(parse("0.10.0") > parse("0.4.0"));
        assert!(ALL.iter().map(|version| parse(version)).is_sorted());
        assert_eq!(parse(CURRENT), Version::CURRENT);
        for bad in ["x", "1.", "1.x", "1.0.0.0", "-1"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}
