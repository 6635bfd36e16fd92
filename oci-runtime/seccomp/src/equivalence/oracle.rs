//! The second opinion: libseccomp, used as runc 1.5 uses it, and a machine that runs classic BPF.

use std::io::{Read, Seek};

use crate::{Action, Architecture, Instruction, Operator, Profile, Rule};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};

/// `struct seccomp_data`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) arch: Arch,
    pub(crate) args: [u64; 6],
}

/// The two values of AUDIT_ARCH on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arch {
    X86_64,
    X86,
}

impl Arch {
    fn audit(self) -> u32 {
        match self {
            Arch::X86_64 => 0xc000_003e,
            Arch::X86 => 0x4000_0003,
        }
    }
}

/// What a program returns for a call (linux/filter.h, the part that seccomp allows).
pub(crate) fn run(program: &[Instruction], call: Call) -> u32 {
    let word = |offset: u32| match offset {
        0 => call.number,
        4 => call.arch.audit(),
        // The instruction pointer.
        8 | 12 => 0,
        _ => {
            let arg = call.args[(offset as usize - 16) / 8];
            if offset.is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 }
        }
    };
    let (mut at, mut a) = (0, 0_u32);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let branch = |holds| usize::from(if holds { jt } else { jf });
        match code {
            0x20 => a = word(k),
            0x54 => a &= k,
            0x05 => at += k as usize,
            0x15 => at += branch(a == k),
            0x25 => at += branch(a > k),
            0x35 => at += branch(a >= k),
            0x45 => at += branch(a & k != 0),
            0x06 => return k,
            _ => panic!("instruction {code:#x} is not one that either compiler should make"),
        }
    }
}

/// Takes out the names that this libseccomp is too old to know: for it they do not exist.
pub(crate) fn known_to_libseccomp(profile: &Profile) -> Profile {
    let mut profile = profile.clone();
    for rule in &mut profile.syscalls {
        rule.names.retain(|name| ScmpSyscall::from_name(name).is_ok());
    }
    profile.syscalls.retain(|rule| !rule.names.is_empty());
    profile
}

/// A profile as libseccomp compiles it, with runc's answer to calls that are newer than the profile.
pub(crate) struct Oracle {
    program: Vec<Instruction>,
    /// The largest number named on x86_64, x86 and x32; `None` where the answer is libseccomp's.
    newest: [Option<u32>; 3],
}

impl Oracle {
    pub(crate) fn new(profile: &Profile) -> Oracle {
        let permissive = matches!(profile.default_action, Action::Allow | Action::Log | Action::Trace);
        let newest = [ScmpArch::X8664, ScmpArch::X86, ScmpArch::X32].map(|arch| {
            let names = profile.syscalls.iter().flat_map(|rule| &rule.names);
            let numbers = names.filter_map(|name| ScmpSyscall::from_name_by_arch(name, arch).ok());
            let largest = numbers.map(|number| number.as_raw_syscall()).filter(|&number| number > 0).max();
            let present = arch == ScmpArch::X8664 || scmp_archs(profile).contains(&arch);
            largest.map(i32::cast_unsigned).filter(|_| present && !permissive)
        });
        Oracle { program: compile(profile), newest }
    }

    pub(crate) fn run(&self, call: Call) -> u32 {
        let x32 = call.number & 0x4000_0000 != 0;
        let newest = match (call.arch, x32) {
            (Arch::X86_64, false) => self.newest[0],
            (Arch::X86, _) => self.newest[1],
            (Arch::X86_64, true) => self.newest[2],
        };
        match newest {
            Some(newest) if call.number > newest => 0x0005_0000 | 38,
            _ => run(&self.program, call),
        }
    }

    pub(crate) fn length(&self) -> usize {
        self.program.len()
    }
}

fn scmp_archs(profile: &Profile) -> Vec<ScmpArch> {
    let arch = |architecture: &Architecture| match architecture {
        Architecture::X86_64 => ScmpArch::X8664,
        Architecture::X86 => ScmpArch::X86,
        Architecture::X32 => ScmpArch::X32,
        Architecture::Native => ScmpArch::Native,
        Architecture::Arm => ScmpArch::Arm,
        Architecture::Aarch64 => ScmpArch::Aarch64,
        Architecture::Mipsel => ScmpArch::Mipsel,
        Architecture::Mipsel64 => ScmpArch::Mipsel64,
        Architecture::Mipsel64n32 => ScmpArch::Mipsel64N32,
        Architecture::Ppc64le => ScmpArch::Ppc64Le,
        Architecture::Riscv64 => ScmpArch::Riscv64,
        other => panic!("libseccomp has no {other:?}, or not on this machine"),
    };
    profile.architectures.iter().map(arch).collect()
}

fn compile(profile: &Profile) -> Vec<Instruction> {
    let default = scmp_action(profile.default_action, profile.default_errno_ret);
    let mut filter = ScmpFilterContext::new(default).expect("a filter");
    for arch in scmp_archs(profile) {
        filter.add_arch(arch).expect("an architecture");
    }
    let names: usize = profile.syscalls.iter().map(|rule| rule.names.len()).sum();
    if names > 32 {
        filter.set_ctl_optimize(2).expect("a binary tree");
    }
    for rule in &profile.syscalls {
        let action = scmp_action(rule.action, rule.errno_ret);
        if action != default {
            add_rule(&mut filter, rule, action);
        }
    }
    let mut file = tempfile::tempfile().expect("a temporary file");
    filter.export_bpf(&file).expect("the program");
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("the program's bytes");
    let instruction = |bytes: &[u8]| Instruction {
        code: u16::from_ne_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    };
    bytes.chunks_exact(8).map(instruction).collect()
}

fn add_rule(filter: &mut ScmpFilterContext, rule: &Rule, action: ScmpAction) {
    let conditions: Vec<ScmpArgCompare> = rule
        .args
        .iter()
        .map(|arg| {
            let (op, datum) = match arg.op {
                Operator::NotEqual => (ScmpCompareOp::NotEqual, arg.value),
                Operator::Less => (ScmpCompareOp::Less, arg.value),
                Operator::LessOrEqual => (ScmpCompareOp::LessOrEqual, arg.value),
                Operator::Equal => (ScmpCompareOp::Equal, arg.value),
                Operator::GreaterOrEqual => (ScmpCompareOp::GreaterEqual, arg.value),
                Operator::Greater => (ScmpCompareOp::Greater, arg.value),
                Operator::MaskedEqual => (ScmpCompareOp::MaskedEqual(arg.value), arg.value_two),
            };
            ScmpArgCompare::new(arg.index, op, datum)
        })
        .collect();
    let mut indexes: Vec<u32> = rule.args.iter().map(|arg| arg.index).collect();
    indexes.sort_unstable();
    indexes.dedup();
    let repeated = indexes.len() < rule.args.len();
    for name in &rule.names {
        let Ok(call) = ScmpSyscall::from_name(name) else { continue };
        if repeated {
            for condition in &conditions {
                filter.add_rule_conditional(action, call, &[*condition]).expect("a rule");
            }
        } else {
            filter.add_rule_conditional(action, call, &conditions).expect("a rule");
        }
    }
}

fn scmp_action(action: Action, errno: Option<u32>) -> ScmpAction {
    let errno = errno.unwrap_or(1);
    match action {
        Action::Kill | Action::KillThread => ScmpAction::KillThread,
        Action::KillProcess => ScmpAction::KillProcess,
        Action::Trap => ScmpAction::Trap,
        Action::Errno => ScmpAction::Errno(errno as i32),
        Action::Trace => ScmpAction::Trace(errno as u16),
        Action::Allow => ScmpAction::Allow,
        Action::Log => ScmpAction::Log,
        Action::Notify => ScmpAction::Notify,
    }
}
