//! Image references in Docker's grammar: `[host[:port]/]path[:tag][@digest]`.
//!
//! Short names are completed as every Docker-compatible client does: no host means `docker.io`, no slash on
//! `docker.io` means `library/`, neither tag nor digest means `:latest`. Parsing is the only way to a [`Reference`],
//! so its parts are safe to put into URLs.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

const DEFAULT_HOST: &str = "docker.io";
/// Docker Hub's old name, still seen in configurations.
const LEGACY_DEFAULT_HOST: &str = "index.docker.io";
/// The reference grammar bounds host and path together.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A complete image reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing was given.
    #[error("the image reference is empty")]
    Empty,
    /// The host part holds something that is no host name, address or port.
    #[error("image reference {text:?}: {host:?} is not a registry host")]
    Host {
        /// The whole reference.
        text: String,
        /// The part that is wrong.
        host: String,
    },
    /// The path is not lower-case components joined by slashes.
    #[error("image reference {text:?}: repository {path:?} must be lower-case names joined by slashes")]
    Path {
        /// The whole reference.
        text: String,
        /// The part that is wrong.
        path: String,
    },
    /// The tag breaks its grammar.
    #[error("image reference {text:?}: {tag:?} is not a tag (at most 128 of A-Z a-z 0-9 _ . -)")]
    Tag {
        /// The whole reference.
        text: String,
        /// The part that is wrong.
        tag: String,
    },
    /// Host and path are longer than registries accept.
    #[error("image reference {text:?}: host and repository are longer than 255 bytes")]
    TooLong {
        /// The whole reference.
        text: String,
    },
    /// What follows the `@` is no digest.
    #[error("image reference {text:?}")]
    Digest {
        /// The whole reference.
        text: String,
        /// What is wrong with the digest.
        #[source]
        source: DigestError,
    },
}

impl Reference {
    /// Parses and completes `text`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                let wrong = |source| ReferenceError::Digest { text: text.to_owned(), source };
                (rest, Some(digest.parse().map_err(wrong)?))
            }
        };
        let (name, tag) = split_tag(rest);
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(ReferenceError::Tag { text: text.to_owned(), tag: tag.to_owned() });
        }
        let (host, path) = split_host(name);
        if !is_host(host) {
            return Err(ReferenceError::Host { text: text.to_owned(), host: host.to_owned() });
        }
        let host = if host == LEGACY_DEFAULT_HOST { DEFAULT_HOST } else { host };
        if !path.split('/').all(is_path_component) {
            return Err(ReferenceError::Path { text: text.to_owned(), path: path.to_owned() });
        }
        let path = match host == DEFAULT_HOST && !path.contains('/') {
            true => format!("library/{path}"),
            false => path.to_owned(),
        };
        if host.len() + 1 + path.len() > MAX_NAME {
            return Err(ReferenceError::TooLong { text: text.to_owned() });
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { host: host.to_owned(), path, tag, digest })
    }

    /// The registry's host as it stands in names, such as `docker.io` or `localhost:5000`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository below the host, such as `library/nginx`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; `None` only where a digest stands alone.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest. It wins over the tag when both are there.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `host/path`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// `host/path:tag`, the name that a pull by tag gives an image. A pull by digest gives none, even if the
    /// reference carries a tag: nobody has checked that the tag points there.
    pub fn tag_name(&self) -> Option<String> {
        match (&self.tag, &self.digest) {
            (Some(tag), None) => Some(format!("{}/{}:{tag}", self.host, self.path)),
            _ => None,
        }
    }

    /// `host/path@digest`.
    pub fn digest_name(&self, digest: &Digest) -> String {
        format!("{}/{}@{digest}", self.host, self.path)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// A colon belongs to a tag only behind the last slash; before it, it separates a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

/// The first component is a host if it could not be a path component of Docker Hub.
fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_HOST, name),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", port.strip_prefix(':')),
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let good_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.split('.').all(good_label)
        && port.is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

/// Runs of `[a-z0-9]` joined by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_in_words = bytes.first().copied().is_some_and(is_word) && bytes.last().copied().is_some_and(is_word);
    ends_in_words
        && component
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[track_caller]
    fn check(text: &str, want: &str) {
        assert_eq!(Reference::parse(text).map(|r| r.to_string()), Ok(want.to_owned()), "{text}");
    }

    #[test]
    fn short_names_are_completed() {
        check("nginx", "docker.io/library/nginx:latest");
        check("nginx:1.27", "docker.io/library/nginx:1.27");
        check("user/app", "docker.io/user/app:latest");
        check("docker.io/nginx", "docker.io/library/nginx:latest");
        check("index.docker.io/nginx:a", "docker.io/library/nginx:a");
        check("localhost/app", "localhost/app:latest");
        check("localhost:5000/app", "localhost:5000/app:latest");
        check("127.0.0.1:5000/a/b/c:V1.0-x_y", "127.0.0.1:5000/a/b/c:V1.0-x_y");
        check("[::1]:5000/a", "[::1]:5000/a:latest");
        check("registry.k8s.io/e2e-test-images/busybox:1.29-2", "registry.k8s.io/e2e-test-images/busybox:1.29-2");
        check("MyHost/app", "MyHost/app:latest");
        check("a__b/c.d/e---f", "docker.io/a__b/c.d/e---f:latest");
    }

    #[test]
    fn a_digest_stands_alone_or_beside_a_tag() {
        check(&format!("nginx@sha256:{HEX}"), &format!("docker.io/library/nginx@sha256:{HEX}"));
        check(&format!("gcr.io/a/b:t@sha256:{HEX}"), &format!("gcr.io/a/b:t@sha256:{HEX}"));
    }

    #[test]
    fn a_pull_by_digest_gives_no_tag() {
        let tagged = Reference::parse("nginx:1").unwrap();
        assert_eq!(tagged.tag_name().as_deref(), Some("docker.io/library/nginx:1"));
        let both = Reference::parse(&format!("nginx:1@sha256:{HEX}")).unwrap();
        assert_eq!(both.tag_name(), None);
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = "a".repeat(256);
        let bad = [
            "",
            ":tag",
            "/a",
            "a/",
            "a//b",
            "Nginx",
            "docker.io/Nginx",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "../../etc/passwd",
            "a:-t",
            "a:",
            "a:t/b:",
            "a@sha256:zz",
            "a@",
            "host.io:99999/a",
            "host.io:/a/b:c:d",
            "ho st.io/a",
            "host.io/a b",
            "a?ns=b",
            "a%2f",
            "exa\u{301}mple.io/a",
            "[::g]:5000/a",
            &long,
        ];
        for text in bad {
            assert!(Reference::parse(text).is_err(), "{text:?} parsed as {:?}", Reference::parse(text));
        }
    }
}
