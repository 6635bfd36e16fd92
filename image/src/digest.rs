//! Content digests: `sha256:<64 hex>`, parsed once at the edge, and the hashers that make them.
//!
//! A [`Digest`] is safe as a file name component by construction: registries have sent `../` here (CVE-2024-3727).

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

/// The algorithms that images use. Everything else is refused when a digest is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// What every registry computes itself.
    Sha256,
    /// Allowed by the OCI image spec.
    Sha384,
    /// Allowed by the OCI image spec.
    Sha512,
}

impl Algorithm {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// Its name in a digest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha384 => 96,
            Self::Sha512 => 128,
        }
    }

    /// A hasher of this algorithm.
    pub fn hasher(self) -> Hasher {
        match self {
            Self::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Self::Sha384 => Hasher::Sha384(sha2::Sha384::new()),
            Self::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
        }
    }
}

/// A digest whose algorithm is known and whose hex is lower case and of the right length.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    text: String,
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No `:` in it, or nothing before it.
    #[error("{0:?} is not a digest: want <algorithm>:<hex>")]
    Form(String),
    /// An algorithm that no image uses.
    #[error("digest {0:?}: the algorithm is none of sha256, sha384, sha512")]
    Algorithm(String),
    /// Wrong length, or not lower-case hex.
    #[error("digest {text:?}: want {want} lower-case hex digits after the colon")]
    Hex {
        /// What was given.
        text: String,
        /// The number of digits that its algorithm has.
        want: usize,
    },
}

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        let mut hasher = Algorithm::Sha256.hasher();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm that made it.
    pub fn algorithm(&self) -> Algorithm {
        let name = self.text.split(':').next().unwrap_or_default();
        Algorithm::ALL.into_iter().find(|a| a.name() == name).unwrap_or(Algorithm::Sha256)
    }

    /// The hex digits after the colon.
    pub fn hex(&self) -> &str {
        self.text.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// `sha256:<hex>`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first twelve hex digits, for people.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let Some((name, hex)) = text.split_once(':').filter(|(name, _)| !name.is_empty()) else {
            return Err(DigestError::Form(text.to_owned()));
        };
        let Some(algorithm) = Algorithm::ALL.into_iter().find(|a| a.name() == name) else {
            return Err(DigestError::Algorithm(text.to_owned()));
        };
        let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if hex.len() != algorithm.hex_len() || !hex.bytes().all(is_hex) {
            return Err(DigestError::Hex { text: text.to_owned(), want: algorithm.hex_len() });
        }
        Ok(Self { text: text.to_owned() })
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A running hash of one of the [`Algorithm`]s.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(sha2::Sha256),
    /// SHA-384.
    Sha384(sha2::Sha384),
    /// SHA-512.
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Hashes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(h) => h.update(bytes),
            Self::Sha384(h) => h.update(bytes),
            Self::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest of everything that was given.
    pub fn finish(self) -> Digest {
        let (algorithm, hash) = match self {
            Self::Sha256(h) => (Algorithm::Sha256, h.finalize().to_vec()),
            Self::Sha384(h) => (Algorithm::Sha384, h.finalize().to_vec()),
            Self::Sha512(h) => (Algorithm::Sha512, h.finalize().to_vec()),
        };
        let mut text = format!("{}:", algorithm.name());
        for byte in hash {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
        Digest { text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        let empty = Digest::sha256(b"");
        assert_eq!(empty.as_str(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(empty.as_str().parse(), Ok(empty.clone()));
        assert_eq!(empty.short(), "e3b0c44298fc");
    }

    #[test]
    fn longer_algorithms_parse_and_name_themselves() {
        for algorithm in Algorithm::ALL {
            let digest = algorithm.hasher().finish();
            assert_eq!(digest.as_str().parse(), Ok(digest.clone()));
            assert_eq!(digest.algorithm(), algorithm);
        }
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let bad = [
            String::new(),
            hex.to_owned(),
            format!(":{hex}"),
            format!("md5:{hex}"),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{hex}0"),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:../../../../../../../../{}", &hex[..40]),
            format!("sha256:{}\n", &hex[1..]),
            format!("sha512:{hex}"),
        ];
        for text in bad {
            assert!(text.parse::<Digest>().is_err(), "{text:?} was taken for a digest");
        }
    }
}
