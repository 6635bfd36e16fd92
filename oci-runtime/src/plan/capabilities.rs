//! Capability names and sets, as bit masks in the kernel's numbering (`capabilities(7)`, `linux/capability.h`).

use oci_spec::runtime::{Capabilities, LinuxCapabilities};

/// Names without `CAP_`; the index is the kernel's number.
const NAMES: [&str; 41] = [
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

/// The five capability sets of a process; bit `n` is the capability with the kernel's number `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilitySets {
    /// What `execve` may ever give.
    pub bounding: u64,
    /// What is checked.
    pub effective: u64,
    /// What an executed file's own inheritable set may add. Only ever what the config asks for: a set that is not
    /// empty by default was CVE-2022-24769 and its siblings.
    pub inheritable: u64,
    /// What the process may make effective.
    pub permitted: u64,
    /// What an executed file without capabilities of its own keeps.
    pub ambient: u64,
}

impl CapabilitySets {
    /// The sets of a process object; without one all are empty.
    pub(super) fn from_spec(capabilities: Option<&LinuxCapabilities>) -> CapabilitySets {
        let Some(sets) = capabilities else { return CapabilitySets::default() };
        CapabilitySets {
            bounding: mask(sets.bounding()),
            effective: mask(sets.effective()),
            inheritable: mask(sets.inheritable()),
            permitted: mask(sets.permitted()),
            ambient: mask(sets.ambient()),
        }
    }
}

/// The bit of a name such as `CAP_SYS_ADMIN`, in any case; `None` for a name that is not known.
pub fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_")?;
    NAMES.iter().position(|known| *known == short).map(|number| 1 << number)
}

/// The names of a mask, for messages; a bit without a name is given by its number.
pub fn names(mask: u64) -> String {
    let name = |number: usize| match NAMES.get(number) {
        Some(name) => format!("CAP_{name}"),
        None => format!("capability {number}"),
    };
    let all: Vec<String> = (0..64).filter(|number| mask & (1 << number) != 0).map(name).collect();
    all.join(", ")
}

fn mask(set: &Option<Capabilities>) -> u64 {
    let Some(set) = set else { return 0 };
    set.iter().filter_map(|capability| bit(&format!("CAP_{capability}"))).fold(0, |mask, bit| mask | bit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability;

    #[test]
    fn every_capability_of_the_spec_crate_has_its_kernel_number() {
        // Spot checks against linux/capability.h at both ends and around the renamed ones.
        for (capability, number) in [
            (Capability::Chown, 0),
            (Capability::DacReadSearch, 2),
            (Capability::SysPtrace, 19),
            (Capability::SysResource, 24),
            (Capability::Mknod, 27),
            (Capability::Syslog, 34),
            (Capability::Perfmon, 38),
            (Capability::CheckpointRestore, 40),
        ] {
            assert_eq!(mask(&Some([capability].into_iter().collect())), 1 << number, "{capability}");
        }
    }

    #[test]
    fn names_are_read_in_any_case_and_unknown_ones_are_not() {
        assert_eq!(bit("CAP_NET_RAW"), Some(1 << 13));
        assert_eq!(bit("cap_net_raw"), Some(1 << 13));
        assert_eq!(bit("NET_RAW"), None);
        assert_eq!(bit("CAP_FLY"), None);
    }

    #[test]
    fn a_mask_is_named_for_people() {
        assert_eq!(names((1 << 21) | (1 << 24) | (1 << 50)), "CAP_SYS_ADMIN, CAP_SYS_RESOURCE, capability 50");
    }
}
