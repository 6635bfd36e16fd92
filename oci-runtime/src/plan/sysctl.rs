//! `linux.sysctl`: only what belongs to a namespace that the container has for itself.

use super::{Namespaces, PlanError, invalid};

/// The System V IPC parameters that `ipc_namespaces(7)` lists.
const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// A kernel parameter to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Relative to `/proc/sys`, with slashes; no component is empty, `.` or `..`.
    pub path: String,
    /// What is written.
    pub value: String,
    /// The namespace that it belongs to.
    pub namespace: SysctlNamespace,
}

/// The namespace that a parameter belongs to; a joined one is compared with the host's before anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SysctlNamespace {
    /// `net.*`
    Network,
    /// System V limits and `fs.mqueue.*`
    Ipc,
    /// `kernel.domainname`
    Uts,
    /// `user.*`
    User,
}

impl Sysctl {
    pub(super) fn from_spec(name: &str, value: &str, namespaces: &Namespaces) -> Result<Sysctl, PlanError> {
        let refuse = |reason: &str| Err(invalid(format!("linux.sysctl[{name}]"), reason));
        let Some(path) = to_path(name) else { return refuse("not the name of a kernel parameter") };
        if value.chars().any(|letter| letter.is_control() && letter != '\t') {
            return refuse("the value holds a control character");
        }
        let (namespace, private) = match path.as_str() {
            "kernel/hostname" => return refuse("is set through the field hostname"),
            "kernel/domainname" => (SysctlNamespace::Uts, namespaces.uts.is_private()),
            path if IPC.contains(&path) || path.starts_with("fs/mqueue/") => {
                (SysctlNamespace::Ipc, namespaces.ipc.is_private())
            }
            path if path.starts_with("user/") => (SysctlNamespace::User, namespaces.user.is_private()),
            path if path.starts_with("net/") => (SysctlNamespace::Network, namespaces.network.is_private()),
            _ => return refuse("does not belong to a namespace: it would change the host"),
        };
        if !private {
            return refuse("the container shares that namespace with the host");
        }
        Ok(Sysctl { path, value: value.to_owned(), namespace })
    }
}

/// `sysctl.d(5)`: if the first separator is a dot, dots separate and a slash stands for a dot within a name
/// (`net.ipv4.conf.eth0/1.arp_filter`); if it is a slash, slashes separate and dots are themselves.
fn to_path(name: &str) -> Option<String> {
    let valid = |letter: char| letter.is_ascii_alphanumeric() || "_-./@:".contains(letter);
    if !name.chars().all(valid) {
        return None;
    }
    let path: String = match name.find(['.', '/']).map(|at| &name[at..=at]) {
        Some("/") => name.to_owned(),
        _ => name
            .chars()
            .map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
    };
    let plain = path.split('/').all(|component| !matches!(component, "" | "." | ".."));
    (plain && path.contains('/')).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Namespace;

    fn all_private() -> Namespaces {
        Namespaces {
            network: Namespace::New,
            ipc: Namespace::New,
            uts: Namespace::New,
            user: Namespace::New,
            ..Namespaces::default()
        }
    }

    #[track_caller]
    fn check(name: &str, value: &str, expected: Option<&str>) {
        let sysctl = Sysctl::from_spec(name, value, &all_private());
        assert_eq!(sysctl.ok().map(|sysctl| sysctl.path).as_deref(), expected, "{name}={value:?}");
        if expected.is_some() {
            let host = Sysctl::from_spec(name, value, &Namespaces::default()).unwrap_err().to_string();
            assert!(host.ends_with("the container shares that namespace with the host"), "{host}");
        }
    }

    #[test]
    fn parameters_of_a_private_namespace_are_taken() {
        check("net.ipv4.ip_forward", "1", Some("net/ipv4/ip_forward"));
        check("net/ipv4/conf/eth0.100/arp_filter", "1", Some("net/ipv4/conf/eth0.100/arp_filter"));
        check("net.ipv4.conf.eth0/100.arp_filter", "1", Some("net/ipv4/conf/eth0.100/arp_filter"));
        check("net.ipv4.tcp_rmem", "4096\t87380 16777216", Some("net/ipv4/tcp_rmem"));
        check("kernel.shm_rmid_forced", "1", Some("kernel/shm_rmid_forced"));
        check("kernel.sem", "250 32000 32 128", Some("kernel/sem"));
        check("kernel.domainname", "example", Some("kernel/domainname"));
        check("fs.mqueue.msg_max", "100", Some("fs/mqueue/msg_max"));
        check("user.max_net_namespaces", "5", Some("user/max_net_namespaces"));
    }

    #[test]
    fn parameters_of_the_host_are_refused() {
        for name in ["kernel.core_pattern", "vm.overcommit_memory", "fs.file-max", "dev.x"] {
            check(name, "1", None);
        }
        check("kernel.hostname", "other", None);
        check("kernel.shmmaxx", "1", None);
    }

    #[test]
    fn names_that_leave_the_tree_are_refused() {
        for name in [
            "net/../kernel/core_pattern",
            "net.//.kernel.core_pattern",
            "net./.../core",
            "net..core",
            "/net/core/x",
            "net/",
            "net",
            "",
            "net.ipv4.ip_forward\n",
            "net.ipv4 .x",
            "net/./x",
        ] {
            check(name, "1", None);
        }
    }

    #[test]
    fn a_value_with_a_control_character_is_refused() {
        check("kernel.sem", "1\nkernel.core_pattern=|/x", None);
        check("kernel.sem", "1\0", None);
        // CVE-2022-0811 needed a helper that splits at '+'; here the value goes into one file as it is.
        check("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/x", Some("kernel/shm_rmid_forced"));
    }
}
