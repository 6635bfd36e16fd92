//! The platform that an image is wanted for, and which of an index's entries fits it best.

use std::fmt;

/// An operating system, an architecture, and how new its instructions may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`, in Go's spelling.
    pub architecture: String,
    /// The highest micro-architecture level that runs (`v3` is 3); 0 where the architecture has none.
    pub level: u8,
}

impl Platform {
    /// The platform of this machine.
    pub fn host() -> Self {
        Self { os: "linux".into(), architecture: "amd64".into(), level: host_level() }
    }

    /// How well an entry for `os`, `architecture` and `variant` fits: `None` if it does not run here, and more is
    /// better. An image that names no platform fits, but anything more specific is preferred.
    pub fn fit(&self, os: &str, architecture: &str, variant: &str) -> Option<u8> {
        if os.is_empty() && architecture.is_empty() {
            return Some(0);
        }
        if os != self.os || architecture != self.architecture {
            return None;
        }
        let level = match variant {
            "" => 1,
            _ => variant.strip_prefix('v').and_then(|level| level.parse::<u8>().ok())?,
        };
        (level <= self.level.max(1)).then_some(level)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// The x86-64 level by its defining features (System V psABI for AMD64, section 3.1.1).
#[cfg(target_arch = "x86_64")]
fn host_level() -> u8 {
    use std::arch::is_x86_feature_detected as has;
    let v2 = has!("popcnt") && has!("sse4.2") && has!("ssse3");
    let v3 = v2 && has!("avx2") && has!("bmi1") && has!("bmi2") && has!("fma") && has!("movbe");
    let v4 = v3 && has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq") && has!("avx512vl");
    1 + u8::from(v2) + u8::from(v3) + u8::from(v4)
}

#[cfg(not(target_arch = "x86_64"))]
compile_error!("only x86_64 is built: another architecture needs its platform name here");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_entry_that_runs_wins() {
        let here = Platform { os: "linux".into(), architecture: "amd64".into(), level: 3 };
        assert_eq!(here.fit("linux", "amd64", ""), Some(1));
        assert_eq!(here.fit("linux", "amd64", "v3"), Some(3));
        assert_eq!(here.fit("linux", "amd64", "v4"), None);
        assert_eq!(here.fit("linux", "arm64", "v8"), None);
        assert_eq!(here.fit("windows", "amd64", ""), None);
        assert_eq!(here.fit("unknown", "unknown", ""), None);
        assert_eq!(here.fit("", "", ""), Some(0));
        assert_eq!(here.fit("linux", "amd64", "x"), None);
    }
}
