//! `linux.seccomp` of the OCI runtime-spec (config-linux.md, "Seccomp").
//!
//! Keys that are not in the spec are ignored, as every runtime does: a profile is a file that users carry from one
//! to another. Values that are not in the spec are refused: they would mean something.

use serde::{Deserialize, Serialize};

/// The names of all actions, sorted, as a runtime's `features` lists them.
pub const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// The names of all operators, sorted.
pub const OPERATORS: [&str; 7] =
    ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];

/// The names of all architectures of the runtime-spec, sorted. See [`Architecture`] for what those of other machines do.
pub const ARCHITECTURES: [&str; 23] = [
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

/// The names of all flags, sorted. The youngest came with Linux 5.19; an older kernel refuses a profile that has it.
pub const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// A profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// For every call that no rule fits.
    pub default_action: Action,
    /// The errno of a `default_action` that has one; `EPERM` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// The ABIs that are meant; the native one always is. A call through another one kills its thread.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<Architecture>,
    /// For the `seccomp` system call; if absent, [`Flag::SpecAllow`], as in runc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<Flag>>,
    /// The socket that gets the fd behind [`Action::Notify`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_path: Option<String>,
    /// Sent along to that socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_metadata: Option<String>,
    /// The rules, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub syscalls: Vec<Rule>,
}

/// An action for some system calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Names of system calls. One that the table does not know is ignored: no program can call it by number and
    /// have been meant.
    pub names: Vec<String>,
    /// What happens.
    pub action: Action,
    /// The errno of an `action` that has one; `EPERM` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// Conditions that all have to hold. As in runc, if two are about the same argument, any one of all is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Argument>,
}

/// A condition on an argument, which is an unsigned number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Argument {
    /// Which, 0 to 5.
    pub index: u32,
    /// Compared with; for [`Operator::MaskedEqual`] the mask.
    pub value: u64,
    /// For [`Operator::MaskedEqual`] the value under the mask.
    #[serde(default)]
    pub value_two: u64,
    /// How.
    pub op: Operator,
}

/// What happens to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// The thread dies; an old name of [`Action::KillThread`].
    #[serde(rename = "SCMP_ACT_KILL")]
    Kill,
    /// The process dies of SIGSYS.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    /// The thread dies of SIGSYS.
    #[serde(rename = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    /// SIGSYS, which may be caught.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// Fails with an errno.
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// Asks the tracer, and tells it a number.
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    /// Happens.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// Happens and is logged.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    /// Another process decides.
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

impl Action {
    /// The name as in a profile.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Action::Kill => "SCMP_ACT_KILL",
            Action::KillProcess => "SCMP_ACT_KILL_PROCESS",
            Action::KillThread => "SCMP_ACT_KILL_THREAD",
            Action::Trap => "SCMP_ACT_TRAP",
            Action::Errno => "SCMP_ACT_ERRNO",
            Action::Trace => "SCMP_ACT_TRACE",
            Action::Allow => "SCMP_ACT_ALLOW",
            Action::Log => "SCMP_ACT_LOG",
            Action::Notify => "SCMP_ACT_NOTIFY",
        }
    }
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// `!=`
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    /// `<`
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    /// `<=`
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    /// `==`
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    /// `>=`
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    /// `>`
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    /// `argument & value == value_two & value`
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// A flag of the `seccomp` system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Flag {
    /// All threads at once. Means nothing here: who loads a program has one thread.
    #[serde(rename = "SECCOMP_FILTER_FLAG_TSYNC")]
    Tsync,
    /// Log all actions but "allow".
    #[serde(rename = "SECCOMP_FILTER_FLAG_LOG")]
    Log,
    /// Leave speculative store bypass on.
    #[serde(rename = "SECCOMP_FILTER_FLAG_SPEC_ALLOW")]
    SpecAllow,
    /// A call that another process decides on is not interrupted by signals that do not kill.
    #[serde(rename = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")]
    WaitKillableRecv,
}

/// An ABI, in the words of the runtime-spec, and libseccomp's word for the machine's own.
///
/// A kernel reports those of its own machine's family only. The others are known, so that one profile can serve a fleet, and
/// compile to nothing: instructions for them could never run. (libseccomp puts them in, or refuses them if their byte order
/// is not the machine's.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Architecture {
    #[serde(rename = "SCMP_ARCH_X86_64")]
    X86_64,
    #[serde(rename = "SCMP_ARCH_X86")]
    X86,
    #[serde(rename = "SCMP_ARCH_X32")]
    X32,
    #[serde(rename = "SCMP_ARCH_NATIVE")]
    Native,
    #[serde(rename = "SCMP_ARCH_ARM")]
    Arm,
    #[serde(rename = "SCMP_ARCH_AARCH64")]
    Aarch64,
    #[serde(rename = "SCMP_ARCH_LOONGARCH64")]
    Loongarch64,
    #[serde(rename = "SCMP_ARCH_M68K")]
    M68k,
    #[serde(rename = "SCMP_ARCH_MIPS")]
    Mips,
    #[serde(rename = "SCMP_ARCH_MIPS64")]
    Mips64,
    #[serde(rename = "SCMP_ARCH_MIPS64N32")]
    Mips64n32,
    #[serde(rename = "SCMP_ARCH_MIPSEL")]
    Mipsel,
    #[serde(rename = "SCMP_ARCH_MIPSEL64")]
    Mipsel64,
    #[serde(rename = "SCMP_ARCH_MIPSEL64N32")]
    Mipsel64n32,
    #[serde(rename = "SCMP_ARCH_PARISC")]
    Parisc,
    #[serde(rename = "SCMP_ARCH_PARISC64")]
    Parisc64,
    #[serde(rename = "SCMP_ARCH_PPC")]
    Ppc,
    #[serde(rename = "SCMP_ARCH_PPC64")]
    Ppc64,
    #[serde(rename = "SCMP_ARCH_PPC64LE")]
    Ppc64le,
    #[serde(rename = "SCMP_ARCH_RISCV64")]
    Riscv64,
    #[serde(rename = "SCMP_ARCH_S390")]
    S390,
    #[serde(rename = "SCMP_ARCH_S390X")]
    S390x,
    #[serde(rename = "SCMP_ARCH_SH")]
    Sh,
    #[serde(rename = "SCMP_ARCH_SHEB")]
    Sheb,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// serde's own list of what it knows.
    fn known<T: serde::de::DeserializeOwned>() -> Vec<String> {
        let Err(error) = serde_json::from_str::<T>("\"?\"") else { panic!("? is no name") };
        let mut names: Vec<String> = error.to_string().split('`').skip(3).step_by(2).map(str::to_owned).collect();
        names.sort();
        names
    }

    #[test]
    fn the_lists_of_names_are_what_a_profile_may_hold() {
        assert_eq!(known::<Action>(), ACTIONS);
        assert_eq!(known::<Operator>(), OPERATORS);
        assert_eq!(known::<Flag>(), FLAGS);
        let of_the_spec = known::<Architecture>().into_iter().filter(|name| name != "SCMP_ARCH_NATIVE");
        assert_eq!(of_the_spec.collect::<Vec<_>>(), ARCHITECTURES);
    }
}
