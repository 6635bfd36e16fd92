//! The content of a pod's /etc/hosts.

use k8s_openapi::api::core::v1::HostAlias;
use std::fmt::Write;
use std::net::IpAddr;

/// For a pod with a network of its own.
pub fn managed(ips: &[IpAddr], hostname: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        let _ = match domain {
            "" => writeln!(text, "{ip}\t{hostname}"),
            domain => writeln!(text, "{ip}\t{hostname}.{domain}\t{hostname}"),
        };
    }
    push_aliases(&mut text, aliases);
    text
}

/// For a pod in the host's network: the host's file as it is now.
pub fn of_host(host: &str, aliases: &[HostAlias]) -> String {
    let mut text = format!("# Kubernetes-managed hosts file (host network).\n{host}");
    push_aliases(&mut text, aliases);
    text
}

/// What an alias holds was validated by the API server, but a static pod's was not: only what can be an address and
/// names goes into the file, so that no line is smuggled in (CVE-2022-4318 is of that kind).
fn push_aliases(text: &mut String, aliases: &[HostAlias]) {
    if aliases.is_empty() {
        return;
    }
    text.push_str("\n# Entries added by HostAliases.\n");
    for alias in aliases.iter().filter(|alias| alias.ip.parse::<IpAddr>().is_ok()) {
        let plain = |name: &&String| !name.is_empty() && !name.contains(|c: char| c.is_control() || c.is_whitespace());
        let names: Vec<&str> = alias.hostnames.iter().flatten().filter(plain).map(String::as_str).collect();
        let _ = writeln!(text, "{}\t{}", alias.ip, names.join("\t"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: &str = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\n\
        fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";

    fn alias(ip: &str, names: &[&str]) -> HostAlias {
        HostAlias { ip: ip.to_owned(), hostnames: Some(names.iter().map(|&name| name.to_owned()).collect()) }
    }

    #[track_caller]
    fn check(ips: &[&str], domain: &str, aliases: &[HostAlias], expected: &str) {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
        assert_eq!(managed(&ips, "podFoo", domain, aliases), format!("{LOCAL}{expected}"));
    }

    #[test]
    fn every_address_of_the_pod_has_its_name() {
        check(&["203.0.113.1"], "", &[], "203.0.113.1\tpodFoo\n");
        check(
            &["203.0.113.1", "fd00::6"],
            "domainFoo",
            &[],
            "203.0.113.1\tpodFoo.domainFoo\tpodFoo\nfd00::6\tpodFoo.domainFoo\tpodFoo\n",
        );
    }

    #[test]
    fn aliases_follow_one_line_for_each_address() {
        check(
            &["203.0.113.1"],
            "",
            &[alias("123.45.67.89", &["foo", "bar", "baz"]), alias("456.1.1.1", &["never"])],
            "203.0.113.1\tpodFoo\n\n# Entries added by HostAliases.\n123.45.67.89\tfoo\tbar\tbaz\n",
        );
        assert_eq!(
            of_host("127.0.0.1 host\n", &[alias("::2", &["a"])]),
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 host\n\n# Entries added by HostAliases.\n::2\ta\n"
        );
    }

    #[test]
    fn a_name_with_a_newline_adds_no_line() {
        for sly in ["a\n1.2.3.4 bank", "a\r1.2.3.4", "a b", ""] {
            let text = managed(&[], "h", "", &[alias("1.1.1.1", &[sly, "good"])]);
            assert!(text.ends_with("\n1.1.1.1\tgood\n"), "{sly:?}: {text}");
        }
    }
}
