//! The five capability sets of a process.

use oci_spec::runtime::LinuxCapabilities;
use sys::credentials::Capabilities;

/// The five sets (`capabilities(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilitySets {
    /// What `execve` may ever give.
    pub bounding: Capabilities,
    /// What is checked.
    pub effective: Capabilities,
    /// What an executed file's own inheritable set may add. Only ever what the config asks for: a set that is not
    /// empty by default was CVE-2022-24769 and its siblings.
    pub inheritable: Capabilities,
    /// What the process may make effective.
    pub permitted: Capabilities,
    /// What an executed file without capabilities of its own keeps.
    pub ambient: Capabilities,
}

impl CapabilitySets {
    /// The sets of a process object; without one all are empty.
    pub(super) fn from_spec(capabilities: Option<&LinuxCapabilities>) -> CapabilitySets {
        let Some(sets) = capabilities else { return CapabilitySets::default() };
        CapabilitySets {
            bounding: set(sets.bounding()),
            effective: set(sets.effective()),
            inheritable: set(sets.inheritable()),
            permitted: set(sets.permitted()),
            ambient: set(sets.ambient()),
        }
    }
}

/// A name that the kernel does not know can't come out of the spec's own type; it would be left out.
fn set(names: &Option<oci_spec::runtime::Capabilities>) -> Capabilities {
    let names = names.iter().flatten();
    let known = names.filter_map(|capability| Capabilities::from_name(&capability.to_string()).ok());
    known.fold(Capabilities::NONE, |set, capability| set | capability)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability;

    #[test]
    fn capabilities_of_the_spec_crate_have_the_kernels_numbers() {
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
            assert_eq!(set(&Some([capability].into_iter().collect())).0, 1 << number, "{capability}");
        }
    }
}
