//! `linux.memoryPolicy`: from which NUMA nodes the container's memory comes (set_mempolicy(2)).

use oci_spec::runtime::{LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType};

use super::{PlanError, invalid, number_list};

/// A memory policy in the kernel's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// As in the config, for messages: `MPOL_BIND`.
    pub name: String,
    /// `MPOL_*` with its `MPOL_F_*` flags.
    pub mode: u32,
    /// Nodes, as a mask.
    pub nodes: Vec<u64>,
}

impl MemoryPolicy {
    pub(super) fn from_spec(policy: &LinuxMemoryPolicy) -> Result<MemoryPolicy, PlanError> {
        let mode = policy.mode();
        let nodes = number_list::parse(policy.nodes().as_deref().unwrap_or_default())
            .map_err(|reason| invalid("linux.memoryPolicy.nodes", reason))?;
        match (nodes_of(mode), nodes.is_empty()) {
            (Nodes::None, false) => return Err(invalid("linux.memoryPolicy.nodes", format!("{mode} takes none"))),
            (Nodes::Some, true) => {
                return Err(invalid("linux.memoryPolicy.nodes", format!("{mode} takes at least one")));
            }
            _ => {}
        }
        let flags = policy.flags().iter().flatten().fold(0, |all, flag| all | flag_bit(*flag));
        Ok(MemoryPolicy { name: mode.to_string(), mode: mode_number(mode) | flags, nodes })
    }
}

/// How many nodes a mode takes.
enum Nodes {
    None,
    Any,
    Some,
}

fn nodes_of(mode: MemoryPolicyModeType) -> Nodes {
    match mode {
        MemoryPolicyModeType::MpolDefault | MemoryPolicyModeType::MpolLocal => Nodes::None,
        MemoryPolicyModeType::MpolPreferred => Nodes::Any,
        MemoryPolicyModeType::MpolBind
        | MemoryPolicyModeType::MpolInterleave
        | MemoryPolicyModeType::MpolPreferredMany
        | MemoryPolicyModeType::MpolWeightedInterleave => Nodes::Some,
    }
}

/// linux/mempolicy.h.
fn mode_number(mode: MemoryPolicyModeType) -> u32 {
    match mode {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    }
}

/// linux/mempolicy.h.
fn flag_bit(flag: MemoryPolicyFlagType) -> u32 {
    match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<MemoryPolicy, String> {
        let policy = serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
        MemoryPolicy::from_spec(&policy).map_err(|error| error.to_string())
    }

    #[test]
    fn every_mode_and_flag_has_the_kernels_number() {
        for (mode, nodes, number) in [
            ("MPOL_DEFAULT", "", 0),
            ("MPOL_PREFERRED", "", 1),
            ("MPOL_PREFERRED", "1", 1),
            ("MPOL_BIND", "0-1", 2),
            ("MPOL_INTERLEAVE", "0", 3),
            ("MPOL_LOCAL", "", 4),
            ("MPOL_PREFERRED_MANY", "0", 5),
            ("MPOL_WEIGHTED_INTERLEAVE", "0", 6),
        ] {
            let policy = plan(&format!(r#"{{"mode":{mode:?},"nodes":{nodes:?}}}"#)).unwrap();
            assert_eq!((policy.name.as_str(), policy.mode), (mode, number));
        }
        for (flag, bit) in
            [("MPOL_F_NUMA_BALANCING", 0x2000), ("MPOL_F_RELATIVE_NODES", 0x4000), ("MPOL_F_STATIC_NODES", 0x8000)]
        {
            let policy = plan(&format!(r#"{{"mode":"MPOL_BIND","nodes":"0","flags":[{flag:?}]}}"#)).unwrap();
            assert_eq!(policy.mode, 2 | bit, "{flag}");
        }
    }

    #[test]
    fn nodes_have_to_fit_the_mode() {
        for mode in ["MPOL_DEFAULT", "MPOL_LOCAL"] {
            let error = plan(&format!(r#"{{"mode":{mode:?},"nodes":"0"}}"#)).unwrap_err();
            assert_eq!(error, format!("linux.memoryPolicy.nodes: {mode} takes none"));
        }
        for mode in ["MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE"] {
            let error = plan(&format!(r#"{{"mode":{mode:?}}}"#)).unwrap_err();
            assert_eq!(error, format!("linux.memoryPolicy.nodes: {mode} takes at least one"));
        }
        let error = plan(r#"{"mode":"MPOL_BIND","nodes":"0-"}"#).unwrap_err();
        assert_eq!(error, "linux.memoryPolicy.nodes: \"0-\" is not a list such as 0-3,7");
    }
}
