//! `tlsCipherSuites`: upstream's names, of which rustls has those that are still safe.

use super::ConfigError;
use super::settle::Reader;

const FIELD: &str = "tlsCipherSuites";

/// What we speak, in TLS 1.2 and 1.3. Those of 1.3 are allowed whatever is said, as upstream.
const SPOKEN: [&str; 9] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

/// What upstream speaks besides: without forward secrecy, or with ciphers that were broken. Hardening guides still list some,
/// beside better ones.
const UNSPOKEN: [&str; 16] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

/// Upstream's older names of two suites.
const ALIASES: [(&str, &str); 2] = [
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
];

/// The suites that are given, by their present names.
pub(super) fn settle(read: &Reader<'_>) -> Vec<String> {
    let present =
        |name: String| ALIASES.iter().find(|(old, _)| *old == name).map_or(name, |(_, now)| (*now).to_owned());
    read.texts(FIELD).into_iter().map(present).collect()
}

/// Refuses a name that nobody knows, and a list of which we speak nothing.
pub(super) fn check(read: &Reader<'_>) -> Result<(), ConfigError> {
    let given = settle(read);
    let spoken = |name: &String| SPOKEN.contains(&name.as_str());
    let unknown = given.iter().find(|name| !spoken(name) && !UNSPOKEN.contains(&name.as_str()));
    let help = || format!("known are {}", SPOKEN.join(", "));
    match unknown {
        Some(name) => Err(read.place(FIELD).mistake(&format!("`{FIELD}` doesn't know {name:?}"), &help())),
        None if !given.is_empty() && !given.iter().any(spoken) => {
            Err(read.place(FIELD).mistake(&format!("`{FIELD}` names nothing that is supported"), &help()))
        }
        None => Ok(()),
    }
}

/// What is given and not spoken, for the list of what has no effect.
pub(super) fn missing(read: &Reader<'_>) -> impl Iterator<Item = String> {
    let given = settle(read).into_iter();
    given.filter(|name| UNSPOKEN.contains(&name.as_str())).map(|name| format!("{FIELD}:{name}"))
}
