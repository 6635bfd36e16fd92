//! What a container may do beyond its user: names → sets of bits.
//!
//! Rules of the CRI: `ALL` in drop empties the set, `ALL` in add fills it, then the names; add goes into bounding,
//! effective and permitted. Inheritable stays empty (CVE-2022-24769) and so does ambient, except for what
//! `add_ambient_capabilities` names, which the kernel wants inheritable as well.

use crate::failure::{Failure, Result};
use oci_spec::runtime::{Capability, LinuxCapabilities, LinuxCapabilitiesBuilder};
use proto::LinuxContainerSecurityContext;
use std::collections::HashSet;

/// The capabilities of `linux/capability.h`, at the index that is their bit.
pub(crate) const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containerd and Docker give a container that asks for nothing.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A container's capabilities, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CapabilitySets {
    /// Bounding, effective and permitted.
    pub(crate) granted: u64,
    /// Ambient and inheritable.
    pub(crate) ambient: u64,
}

impl CapabilitySets {
    /// From a security context; what the host lacks can't be given, so `ALL` and privileged mean all that it has.
    pub(crate) fn build(security: &LinuxContainerSecurityContext, host: u64) -> Result<CapabilitySets> {
        if security.privileged {
            return Ok(CapabilitySets { granted: host, ambient: 0 });
        }
        let asked = security.capabilities.clone().unwrap_or_default();
        let mut granted = DEFAULT.iter().map(|name| bit(name)).fold(0, |set, bit| set | bit.expect("known"));
        let (drop_all, drop) = names("drop", &asked.drop_capabilities)?;
        let (add_all, add) = names("add", &asked.add_capabilities)?;
        let (ambient_all, ambient) = names("add_ambient", &asked.add_ambient_capabilities)?;
        if drop_all {
            granted = 0;
        }
        if add_all || ambient_all {
            granted = host;
        }
        granted = ((granted & !drop) | add | ambient) & host;
        let ambient = if ambient_all { granted } else { ambient & host };
        Ok(CapabilitySets { granted, ambient })
    }

    pub(super) fn to_oci(self) -> LinuxCapabilities {
        LinuxCapabilitiesBuilder::default()
            .bounding(capabilities(self.granted))
            .effective(capabilities(self.granted))
            .permitted(capabilities(self.granted))
            .inheritable(capabilities(self.ambient))
            .ambient(capabilities(self.ambient))
            .build()
            .expect("complete")
    }

    /// `CAP_…` names of what is granted, in the order of their bits.
    pub(crate) fn names(self) -> Vec<String> {
        (0..NAMES.len()).filter(|bit| self.granted >> bit & 1 == 1).map(|bit| format!("CAP_{}", NAMES[bit])).collect()
    }
}

fn bit(name: &str) -> Option<u64> {
    NAMES.iter().position(|known| *known == name).map(|index| 1 << index)
}

/// Whether `ALL` is in the list, and the bits of the names.
fn names(list: &str, names: &[String]) -> Result<(bool, u64)> {
    let mut set = 0;
    let mut all = false;
    for name in names {
        let upper = name.to_ascii_uppercase();
        match upper.strip_prefix("CAP_").unwrap_or(&upper) {
            "ALL" => all = true,
            known => match bit(known) {
                Some(bit) => set |= bit,
                None => return Err(Failure::invalid(format!("capabilities.{list}: {name:?} is not a capability"))),
            },
        }
    }
    Ok((all, set))
}

fn capabilities(set: u64) -> HashSet<Capability> {
    let capability = |name: &str| serde_json::from_value::<Capability>(name.into()).expect("the same names");
    (0..NAMES.len()).filter(|bit| set >> bit & 1 == 1).map(|bit| capability(&format!("CAP_{}", NAMES[bit]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: u64 = (1 << 41) - 1;

    fn sets(add: &[&str], drop: &[&str], ambient: &[&str], privileged: bool, host: u64) -> Result<CapabilitySets> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let capabilities = proto::Capability {
            add_capabilities: owned(add),
            drop_capabilities: owned(drop),
            add_ambient_capabilities: owned(ambient),
        };
        let security = LinuxContainerSecurityContext {
            capabilities: Some(capabilities),
            privileged,
            ..LinuxContainerSecurityContext::default()
        };
        CapabilitySets::build(&security, host)
    }

    fn bits(names: &[&str]) -> u64 {
        names.iter().map(|name| bit(name).unwrap()).sum()
    }

    #[test]
    fn add_and_drop_change_the_default_set() {
        let default = bits(&DEFAULT);
        for (add, drop, want) in [
            (vec![], vec![], default),
            (vec!["NET_ADMIN"], vec![], default | bits(&["NET_ADMIN"])),
            (vec!["cap_net_admin"], vec![], default | bits(&["NET_ADMIN"])),
            (vec![], vec!["CAP_NET_RAW"], default & !bits(&["NET_RAW"])),
            (vec!["ALL"], vec![], HOST),
            (vec![], vec!["ALL"], 0),
            (vec!["CHOWN"], vec!["ALL"], bits(&["CHOWN"])),
            (vec!["ALL"], vec!["CHOWN"], HOST & !bits(&["CHOWN"])),
        ] {
            let sets = sets(&add, &drop, &[], false, HOST).unwrap();
            assert_eq!(sets, CapabilitySets { granted: want, ambient: 0 }, "add {add:?} drop {drop:?}");
        }
    }

    #[test]
    fn ambient_capabilities_are_granted_too_and_only_when_asked_for() {
        let sets = sets(&[], &["ALL"], &["NET_BIND_SERVICE"], false, HOST).unwrap();
        assert_eq!(sets, CapabilitySets { granted: bits(&["NET_BIND_SERVICE"]), ambient: bits(&["NET_BIND_SERVICE"]) });
    }

    #[test]
    fn nobody_gets_what_the_host_lacks() {
        let host = HOST & !bits(&["SYS_RESOURCE", "CHOWN"]);
        assert_eq!(sets(&[], &[], &[], true, host).unwrap().granted, host);
        assert_eq!(sets(&["ALL"], &[], &[], false, host).unwrap().granted, host);
        assert_eq!(sets(&["CHOWN"], &["ALL"], &[], false, host).unwrap().granted, 0);
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let error = sets(&["NET_ADMINN"], &[], &[], false, HOST).unwrap_err();
        assert!(error.message.contains("NET_ADMINN"), "{error}");
    }

    #[test]
    fn every_name_is_one_of_the_runtime_spec() {
        assert_eq!(capabilities(HOST).len(), NAMES.len());
    }
}
