//! `/etc/resolv.conf`, `/etc/hosts` and `/etc/hostname` of a pod.
//!
//! What goes into them comes from whoever may create pods: a control character would add lines of its own
//! (CVE-2022-4318), so that none is let in.

use crate::failure::{Failure, Result};
use crate::spec::mounts::PodFiles;
use proto::DnsConfig;
use std::path::Path;
use sys::fs::Durability;

/// What the three files say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) resolv_conf: Vec<u8>,
    pub(crate) hosts: Vec<u8>,
    pub(crate) hostname: Vec<u8>,
}

/// A pod's resolv.conf: the host's if the pod says nothing, an empty one if it says so with an empty message.
pub(crate) fn resolv_conf(dns: Option<&DnsConfig>, host: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    let Some(dns) = dns else { return host() };
    let words = [&dns.servers, &dns.searches, &dns.options];
    for word in words.into_iter().flatten() {
        if word.is_empty() || word.chars().any(|letter| letter.is_control() || letter == ' ') {
            return Err(Failure::invalid(format!("dns_config: {word:?} can't stand in resolv.conf")));
        }
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    Ok(text.into_bytes())
}

/// A host name as sethostname(2) and RFC 1123 want it.
pub(crate) fn check_hostname(name: &str) -> Result<()> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(letter) {
        return Err(Failure::invalid(format!("hostname {name:?} is not 1 to 64 letters, digits, '-', '.'")));
    }
    Ok(())
}

/// Where a sandbox's files are.
pub(crate) fn paths(dir: &Path) -> PodFiles {
    PodFiles { hostname: dir.join("hostname"), hosts: dir.join("hosts"), resolv_conf: dir.join("resolv.conf") }
}

/// Writes them; containers of any user read them.
pub(crate) fn write(files: &PodFiles, contents: &Contents) -> std::result::Result<(), sys::Error> {
    for (path, content) in [
        (&files.hostname, &contents.hostname),
        (&files.hosts, &contents.hosts),
        (&files.resolv_conf, &contents.resolv_conf),
    ] {
        sys::fs::atomic_write(path, content, Durability::Rename, 0o644)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(servers: &[&str], searches: &[&str], options: &[&str]) -> DnsConfig {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        DnsConfig { servers: owned(servers), searches: owned(searches), options: owned(options) }
    }

    #[test]
    fn a_pod_that_says_nothing_gets_the_host_s_and_an_empty_message_an_empty_file() {
        let host = || Ok(b"nameserver 9.9.9.9\n".to_vec());
        assert_eq!(resolv_conf(None, host).unwrap(), b"nameserver 9.9.9.9\n");
        assert_eq!(resolv_conf(Some(&DnsConfig::default()), host).unwrap(), b"");
        let config = dns(&["10.0.0.10"], &["a.b", "c"], &["ndots:5"]);
        assert_eq!(resolv_conf(Some(&config), host).unwrap(), b"search a.b c\nnameserver 10.0.0.10\noptions ndots:5\n");
    }

    #[test]
    fn nothing_can_add_a_line() {
        for word in ["1.1.1.1\nnameserver 6.6.6.6", "a\rb", "a b", "", "a\0"] {
            assert!(resolv_conf(Some(&dns(&[word], &[], &[])), || Ok(vec![])).is_err(), "{word:?}");
            assert!(resolv_conf(Some(&dns(&[], &[], &[word])), || Ok(vec![])).is_err(), "{word:?}");
            assert!(check_hostname(word).is_err(), "{word:?}");
        }
        check_hostname("web-0.example").unwrap();
        assert!(check_hostname(&"x".repeat(65)).is_err());
    }
}
