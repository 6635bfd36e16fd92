//! What a caller gives to prove who it is to one registry. Kept in memory for the time of a pull, never written.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Credentials of one caller for one registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The secret itself.
    pub secret: Secret,
    /// The registry that it is for, as host or URL. `None`: the host in the image's name. Any other host gets nothing.
    pub server: Option<String>,
}

/// The three kinds of secret that registries know.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// For Basic authentication, or to be traded for a token.
    Password {
        /// The account.
        username: String,
        /// Its password or access token.
        password: String,
    },
    /// An OAuth2 refresh token, to be traded for an access token.
    Identity(String),
    /// A ready bearer token.
    Registry(String),
}

/// Why an encoded `user:password` is no such thing. Never holds the text.
#[derive(Debug, thiserror::Error)]
#[error("the auth value is not base64 of user:password")]
pub struct EncodedAuthError;

impl Secret {
    /// Decodes base64 of `user:password`, as Docker's configuration and CRI carry it. Trailing NULs are dropped:
    /// some writers pad with them.
    pub fn from_encoded(text: &str) -> Result<Self, EncodedAuthError> {
        let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let bytes = GeneralPurpose::new(&STANDARD, lenient).decode(text.trim()).map_err(|_| EncodedAuthError)?;
        let pair = String::from_utf8(bytes).map_err(|_| EncodedAuthError)?;
        let (username, password) = pair.split_once(':').ok_or(EncodedAuthError)?;
        Ok(Self::Password { username: username.to_owned(), password: password.trim_end_matches('\0').to_owned() })
    }
}

// Hand-written so that a `{:?}` in any log never prints a secret.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { .. } => f.write_str("Password(***)"),
            Self::Identity(_) => f.write_str("Identity(***)"),
            Self::Registry(_) => f.write_str("Registry(***)"),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("secret", &self.secret).field("server", &self.server).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_pair_is_read_with_and_without_padding_and_nuls() {
        let want = Secret::Password { username: "me".into(), password: "a:b".into() };
        for text in ["bWU6YTpi", "bWU6YTpiAA==", "bWU6YTpiAA", " bWU6YTpi\n"] {
            assert!(Secret::from_encoded(text).is_ok_and(|secret| secret == want), "{text}");
        }
        for text in ["", "bWU", "!!!", "//79"] {
            assert!(Secret::from_encoded(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_never_prints_itself() {
        let secret = Secret::Password { username: "me".into(), password: "canary".into() };
        let printed = format!("{:?}", Credentials { secret, server: None });
        assert!(!printed.contains("canary") && !printed.contains("me\""), "{printed}");
    }
}
