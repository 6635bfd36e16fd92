//! seccomp profiles, as BPF programs.
//!
//! [`Profile`] is `linux.seccomp` of the OCI runtime-spec, [`runtime_default`] the profile that Kubernetes calls
//! RuntimeDefault, and [`compile`] turns either into a [`Program`]: bytes that the kernel takes. Nothing here
//! loads anything or makes a system call.
//!
//! ```text
//! Profile ──rules──▶ a verdict for each number of each ABI ──ranges──▶ sorted ranges ──program──▶ BPF
//! ```
//!
//! **What a program does.** It behaves like the one that runc makes through libseccomp, call by call; a test
//! compares the two over every number and interesting arguments. The differences: it is several times
//! shorter, since numbers are searched as a tree of ranges, and it takes microseconds to make.
//! One more: where two rules with conditions and different actions fit the same call, the first one in the
//! profile decides; in libseccomp that depends on its internal order.
//!
//! **x86_64 only.** Its processes may also call through the x86 and x32 ABIs, so all three are compiled. Another
//! machine is refused at compile time.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("seccomp: only x86_64 is built: another architecture needs its own table of system calls");

mod bpf;
#[cfg(test)]
mod equivalence;
mod profile;
mod program;
mod ranges;
mod rules;
mod runtime_default;
mod syscalls;

pub use bpf::Instruction;
pub use profile::{
    ACTIONS, ARCHITECTURES, Action, Architecture, Argument, FLAGS, Flag, OPERATORS, Operator, Profile, Rule,
};
pub use program::{Error, Program, compile};
pub use runtime_default::runtime_default;
