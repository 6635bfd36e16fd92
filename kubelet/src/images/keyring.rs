//! Credentials of a pod's pull secrets, and which of them are for an image.
//!
//! A secret's key is a host, perhaps with `*` in its parts, perhaps with a path before which the image's must begin; the
//! more specific one goes first, and all that match are tried.

use base64::Engine as _;
use k8s_openapi::api::core::v1::Secret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;

/// A user and a password, and the secret that they are from. Never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Credential {
    username: String,
    password: String,
    email: String,
    pub(super) secret: Coordinates,
}

/// The longest host of a key, in bytes: DNS has no longer names.
const MAX_HOST: usize = 255;

/// Which secret.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Coordinates {
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Credential {
    /// As the runtime takes it.
    pub(super) fn auth(&self) -> proto::AuthConfig {
        proto::AuthConfig {
            username: self.username.clone(),
            password: self.password.clone(),
            ..proto::AuthConfig::default()
        }
    }

    /// What tells two credentials apart without telling what they are: the SHA-256 that upstream keeps.
    pub(super) fn fingerprint(&self) -> String {
        let fields = [("username", &self.username), ("password", &self.password), ("email", &self.email)];
        let given = fields.iter().filter(|(_, value)| !value.is_empty());
        let json: Vec<String> = given.map(|(key, value)| format!("\"{key}\":{}", go_quoted(value))).collect();
        let hash = Sha256::digest(format!("{{{}}}", json.join(",")));
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A JSON string as Go's encoder writes it, which hides three characters from HTML.
fn go_quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(***)")
    }
}

/// The credentials of a pod, by what they are for.
#[derive(Debug, Default)]
pub(super) struct Keyring(BTreeMap<String, Vec<Credential>>);

/// One entry of a Docker configuration.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    auth: String,
}

/// `.dockerconfigjson`.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

impl Keyring {
    /// Adds a secret of one of the two types for that; others hold none.
    ///
    /// # Errors
    /// One that can't be read; nothing of its content is said.
    pub(super) fn add(&mut self, secret: &Secret) -> Result<(), String> {
        let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        let unreadable = |_| format!("image pull secret {name:?} does not hold a Docker configuration");
        let entries = match (secret.type_.as_deref(), data(".dockerconfigjson"), data(".dockercfg")) {
            (Some("kubernetes.io/dockerconfigjson"), Some(json), _) => {
                serde_json::from_slice::<DockerConfig>(json).map_err(unreadable)?.auths
            }
            (Some("kubernetes.io/dockercfg"), _, Some(json)) => serde_json::from_slice(json).map_err(unreadable)?,
            _ => return Ok(()),
        };
        let coordinates = Coordinates {
            uid: secret.metadata.uid.clone().unwrap_or_default(),
            namespace: secret.metadata.namespace.clone().unwrap_or_default(),
            name: name.to_owned(),
        };
        let possible = |location: &str| host_of(&key(location)).0.len() <= MAX_HOST;
        for (location, entry) in entries.into_iter().filter(|(location, _)| possible(location)) {
            let mut credential = entry
                .credential()
                .ok_or_else(|| format!("image pull secret {name:?}: an auth field is not user:password"))?;
            credential.secret = coordinates.clone();
            self.0.entry(key(&location)).or_default().push(credential);
        }
        Ok(())
    }

    /// The credentials to try for a repository, in their order; none means to pull without.
    pub(super) fn lookup(&self, repository: &str) -> Vec<Credential> {
        // `b/c` sorts behind `b`: going backwards, what is more specific comes first.
        let matching = self.0.iter().rev().filter(|(key, _)| covers(key, repository));
        let found: Vec<Credential> = matching.flat_map(|(_, credentials)| credentials.iter().cloned()).collect();
        if found.is_empty() && repository.starts_with("docker.io/") {
            return self.0.get("index.docker.io").cloned().unwrap_or_default();
        }
        found
    }
}

impl Entry {
    /// `auth` is base64 of `user:password` and goes before the two fields.
    fn credential(self) -> Option<Credential> {
        let text = self.auth.trim().trim_end_matches('=');
        if text.is_empty() {
            let Entry { username, password, email, .. } = self;
            return Some(Credential { username, password, email, ..Credential::default() });
        }
        let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(text).ok()?;
        let (username, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
        let (username, password) = (username.to_owned(), password.to_owned());
        Some(Credential { username, password, email: self.email, ..Credential::default() })
    }
}

/// The host and path of a location: without scheme, without the API versions that old clients wrote.
fn key(location: &str) -> String {
    let bare = location.strip_prefix("https://").or_else(|| location.strip_prefix("http://")).unwrap_or(location);
    let (host, path) = bare.split_once('/').map_or((bare, ""), |(host, path)| (host, path));
    let path = path.strip_prefix("v1/").or_else(|| path.strip_prefix("v2/")).unwrap_or(path);
    if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") }
}

/// Host and port of a key or a repository.
fn host_of(text: &str) -> (&str, &str) {
    let authority = text.split_once('/').map_or(text, |(authority, _)| authority);
    authority.rsplit_once(':').unwrap_or((authority, ""))
}

/// Whether a key is for a repository: same port, same number of parts of the host, each matching, and the path's beginning.
fn covers(key: &str, repository: &str) -> bool {
    let path_of = |text: &str| text.find('/').map_or(text.len(), |slash| slash + 1);
    let ((key_host, key_port), (host, port)) = (host_of(key), host_of(repository));
    let (patterns, parts): (Vec<&str>, Vec<&str>) = (key_host.split('.').collect(), host.split('.').collect());
    key_port == port
        && patterns.len() == parts.len()
        && repository[path_of(repository)..].starts_with(&key[path_of(key)..])
        && patterns.iter().zip(parts).all(|(pattern, part)| glob(pattern.as_bytes(), part.as_bytes()))
}

/// `*` is any text, `?` any character. The pattern is a tenant's: no recursion, and no more steps than the product of the
/// two lengths, since only the last star is ever tried again.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Behind the last star, and how far it reaches.
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        match (pattern.get(at), star) {
            (Some(b'*'), _) => {
                at += 1;
                star = Some((at, from));
            }
            (Some(wanted), _) if *wanted == b'?' || *wanted == text[from] => (at, from) = (at + 1, from + 1),
            (_, Some((behind, end))) => {
                (at, from) = (behind, end + 1);
                star = Some((behind, end + 1));
            }
            (_, None) => return false,
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use serde_json::{Value, json};

    fn secret(kind: &str, key: &str, content: &Value) -> Secret {
        Secret {
            type_: Some(format!("kubernetes.io/{kind}")),
            data: Some(BTreeMap::from([(key.to_owned(), ByteString(content.to_string().into_bytes()))])),
            ..Secret::default()
        }
    }

    fn with(locations: &[&str]) -> Keyring {
        let auths: BTreeMap<&str, Value> =
            locations.iter().map(|&place| (place, json!({ "username": place, "password": "p" }))).collect();
        let mut keyring = Keyring::default();
        keyring.add(&secret("dockerconfigjson", ".dockerconfigjson", &json!({ "auths": auths }))).expect("a secret");
        keyring
    }

    #[track_caller]
    fn check(locations: &[&str], repository: &str, expected: &[&str]) {
        let found = with(locations).lookup(repository);
        let names: Vec<&str> = found.iter().map(|credential| credential.username.as_str()).collect();
        assert_eq!(names, expected, "{repository}");
    }

    #[test]
    fn a_key_is_for_its_host_port_and_path() {
        check(&["quay.io"], "quay.io/a/b", &["quay.io"]);
        check(&["quay.io"], "gcr.io/a/b", &[]);
        check(&["quay.io:5000"], "quay.io/a", &[]);
        check(&["host:5000"], "host:5000/a", &["host:5000"]);
        check(&["https://quay.io/v2/"], "quay.io/a", &["https://quay.io/v2/"]);
        check(&["http://quay.io/v1/x"], "quay.io/x/y", &["http://quay.io/v1/x"]);
        check(&["quay.io/team"], "quay.io/other/x", &[]);
        check(&["quay.io/team"], "quay.io/team/x", &["quay.io/team"]);
    }

    #[test]
    fn the_more_specific_key_is_tried_first_and_all_are_tried() {
        check(&["quay.io", "quay.io/a", "quay.io/a/b"], "quay.io/a/b/c", &["quay.io/a/b", "quay.io/a", "quay.io"]);
    }

    #[test]
    fn stars_match_within_one_part_of_the_host() {
        check(&["*.kubernetes.io"], "prefix.kubernetes.io/x", &["*.kubernetes.io"]);
        check(&["*.kubernetes.io"], "a.b.kubernetes.io/x", &[]);
        check(&["*.*.io"], "a.b.io/x", &["*.*.io"]);
        check(&["r?g-*.io"], "reg-7.io/x", &["r?g-*.io"]);
        check(&["*.io"], "kubernetes.io:80/x", &[]);
    }

    /// Whoever may make a secret must not end the kubelet with it, nor keep one of its threads.
    #[test]
    fn a_key_of_stars_is_answered_soon_and_without_a_stack() {
        assert!(glob(&[b'*'; 1 << 20], b"a"));
        let (pattern, text) = (format!("{}*b", "*a".repeat(30)), "a".repeat(60));
        assert!(!glob(pattern.as_bytes(), text.as_bytes()));
        assert!(glob(pattern.as_bytes(), format!("{text}b").as_bytes()));
        let long = format!("{}/x", "*".repeat(1 << 20));
        check(&[&long, "*"], "localhost/x", &["*"]);
    }

    #[test]
    fn a_pattern_is_for_the_whole_text() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("?", "", false),
            ("a", "ab", false),
            ("ab", "a", false),
            ("a*", "ab", true),
            ("*b", "abab", true),
            ("*ba", "abab", false),
            ("a*b?d**", "axxbxbcd", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn docker_hub_s_own_key_is_for_images_of_docker_hub() {
        check(&["https://index.docker.io/v1/"], "docker.io/library/busybox", &["https://index.docker.io/v1/"]);
        check(&["https://index.docker.io/v1/"], "quay.io/library/busybox", &[]);
    }

    #[test]
    fn both_types_are_read_and_auth_goes_first() {
        let coded = json!({ "q.io": { "auth": "dXNlcjpwYTpzcw==", "username": "old" } });
        let mut keyring = Keyring::default();
        keyring.add(&secret("dockercfg", ".dockercfg", &coded)).expect("a secret");
        keyring.add(&secret("dockerconfigjson", ".dockerconfigjson", &json!({ "auths": coded }))).expect("a secret");
        keyring.add(&secret("Opaque", ".dockercfg", &json!("x"))).expect("no credentials");
        let expected =
            Credential { username: "user".to_owned(), password: "pa:ss".to_owned(), ..Credential::default() };
        assert!(keyring.lookup("q.io/x") == [expected.clone(), expected]);
    }

    #[test]
    fn a_secret_that_can_t_be_read_is_named_and_not_shown() {
        for content in [json!("hunter2"), json!({ "auths": { "q.io": { "auth": "hunter2!" } } })] {
            let error = Keyring::default()
                .add(&secret("dockerconfigjson", ".dockerconfigjson", &content))
                .expect_err("no configuration");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let credential =
            Credential { username: "u".to_owned(), password: "hunter2".to_owned(), ..Credential::default() };
        assert!(!format!("{credential:?} {}", credential.fingerprint()).contains("hunter2"));
    }
}
