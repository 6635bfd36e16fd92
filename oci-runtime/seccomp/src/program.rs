//! From verdicts to a program.
//!
//! A program looks at the ABI, then searches the number, then, for the few calls with conditions, looks at the
//! arguments. It consists of loads, comparisons, masks and returns only, so that the kernel can tell beforehand
//! which numbers are always allowed and not run it for them at all (kernel/seccomp.c, `seccomp_is_const_allow`).

use crate::bpf::{Builder, Compare, Instruction, Target};
use crate::profile::{Action, Architecture, Argument, Flag, Operator, Profile};
use crate::ranges::Ranges;
use crate::rules::{Case, Verdict, Verdicts, Words, verdicts};
use crate::syscalls::{Abi, X32_BIT};

// SECCOMP_RET_* of linux/seccomp.h.
const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const USER_NOTIF: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// `MAX_ERRNO` of the kernel, which would cut a larger one down silently.
const MAX_ERRNO: u32 = 4095;
/// A tracer's message is all of `SECCOMP_RET_DATA`.
const MAX_MESSAGE: u32 = 0xffff;
/// `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;

// AUDIT_ARCH_* of linux/audit.h.
const AUDIT_X86_64: u32 = 0xc000_003e;
const AUDIT_X86: u32 = 0x4000_0003;

// Offsets in `struct seccomp_data` of linux/seccomp.h.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Why a profile can't be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An errno for an action that has none.
    #[error("seccomp: errnoRet {errno} is given for {action} ({what}), which returns no errno")]
    ErrnoWithoutUse {
        /// The errno.
        errno: u32,
        /// The action.
        action: &'static str,
        /// Which calls, or "the default".
        what: String,
    },
    /// An errno that the kernel can't return.
    #[error("seccomp: errnoRet {errno} ({what}) is greater than {largest}, the largest that the kernel can return")]
    ErrnoTooLarge {
        /// The errno.
        errno: u32,
        /// The largest for its action.
        largest: u32,
        /// Which calls, or "the default".
        what: String,
    },
    /// A condition on an argument that no system call has.
    #[error("seccomp: a condition for {names} is on argument {index}; a system call has arguments 0 to 5")]
    NoSuchArgument {
        /// The calls.
        names: String,
        /// The argument.
        index: u32,
    },
    /// The runtime itself could not go on. The wording is runc's.
    #[error("SCMP_ACT_NOTIFY cannot be used for the write syscall")]
    NotifyWrite,
    /// The runtime itself could not go on. The wording is runc's.
    #[error("SCMP_ACT_NOTIFY cannot be used as default action")]
    NotifyDefault,
    /// More instructions than the kernel takes.
    #[error("seccomp: the profile needs a program of {count} instructions; the kernel takes at most 4096")]
    TooLong {
        /// How many.
        count: usize,
    },
}

/// A program for the kernel, and the flags that go with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
    flags: u32,
    asks: bool,
}

impl Program {
    /// The instructions, for reading.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// The array of `struct sock_filter` that `struct sock_fprog` points to, in this machine's byte order.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.instructions.len() * 8);
        for Instruction { code, jt, jf, k } in &self.instructions {
            bytes.extend_from_slice(&code.to_ne_bytes());
            bytes.extend_from_slice(&[*jt, *jf]);
            bytes.extend_from_slice(&k.to_ne_bytes());
        }
        bytes
    }

    /// The flags for `seccomp(SECCOMP_SET_MODE_FILTER)`, but for `SECCOMP_FILTER_FLAG_NEW_LISTENER`: see
    /// [`asks`](Program::asks).
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// Whether some action asks another process ([`Action::Notify`]): the program has to be loaded with a listener.
    pub fn asks(&self) -> bool {
        self.asks
    }
}

/// Compiles a profile.
pub fn compile(profile: &Profile) -> Result<Program, Error> {
    check(profile)?;
    let default = return_value(profile.default_action, profile.default_errno_ret, || "the default".to_owned())?;
    let verdicts = verdicts(profile, default, &abis(profile))?;
    let (x86, native): (Vec<Verdicts>, Vec<Verdicts>) =
        verdicts.into_iter().partition(|verdicts| verdicts.abi == Abi::X86);
    let newer = match is_permissive(profile.default_action) {
        true => default,
        // A program that tries a new call first and falls back has to hear that there is none, not that it may not. runc
        // does this for numbers beyond all that the profile names.
        false => ERRNO | ENOSYS,
    };
    let mut builder = Builder::default();
    // An ABI that the profile does not speak of is not called by mistake.
    let mut entry = Target::Return(KILL_THREAD);
    if !x86.is_empty() {
        let section = section(&mut builder, x86, default, newer);
        entry = builder.branch(Compare::Equal, AUDIT_X86, section, entry);
    }
    let section = section(&mut builder, native, default, newer);
    entry = builder.branch(Compare::Equal, AUDIT_X86_64, section, entry);
    entry = builder.load(ARCHITECTURE, entry);
    let instructions = builder.finish(entry);
    if instructions.len() > MAX_INSTRUCTIONS {
        return Err(Error::TooLong { count: instructions.len() });
    }
    let asks = profile.syscalls.iter().any(|rule| rule.action == Action::Notify);
    Ok(Program { instructions, flags: flags(profile, asks), asks })
}

fn check(profile: &Profile) -> Result<(), Error> {
    if profile.default_action == Action::Notify {
        return Err(Error::NotifyDefault);
    }
    for rule in &profile.syscalls {
        if rule.action == Action::Notify && rule.names.iter().any(|name| name == "write") {
            return Err(Error::NotifyWrite);
        }
        if let Some(arg) = rule.args.iter().find(|arg| arg.index > 5) {
            return Err(Error::NoSuchArgument { names: rule.names.join(", "), index: arg.index });
        }
    }
    Ok(())
}

/// The value that stands for an action with its errno; `what` names the rule in an error.
pub(crate) fn return_value(action: Action, errno: Option<u32>, what: impl Fn() -> String) -> Result<u32, Error> {
    if let Some(errno) = errno {
        if !matches!(action, Action::Errno | Action::Trace) {
            return Err(Error::ErrnoWithoutUse { errno, action: action.name(), what: what() });
        }
        let largest = if action == Action::Trace { MAX_MESSAGE } else { MAX_ERRNO };
        if errno > largest {
            return Err(Error::ErrnoTooLarge { errno, largest, what: what() });
        }
    }
    let errno = errno.unwrap_or(EPERM);
    Ok(match action {
        Action::Kill | Action::KillThread => KILL_THREAD,
        Action::KillProcess => KILL_PROCESS,
        Action::Trap => TRAP,
        Action::Errno => ERRNO | errno,
        Action::Trace => TRACE | errno,
        Action::Allow => ALLOW,
        Action::Log => LOG,
        Action::Notify => USER_NOTIF,
    })
}

/// In the order of [`Abi`], the native one always.
fn abis(profile: &Profile) -> Vec<Abi> {
    let named = |architecture| profile.architectures.contains(&architecture);
    let mut abis = vec![Abi::X86_64];
    abis.extend(named(Architecture::X86).then_some(Abi::X86));
    abis.extend(named(Architecture::X32).then_some(Abi::X32));
    abis
}

fn flags(profile: &Profile, asks: bool) -> u32 {
    let named = profile.flags.as_deref().unwrap_or(&[Flag::SpecAllow]);
    // SECCOMP_FILTER_FLAG_* of linux/seccomp.h.
    named.iter().fold(0, |flags, flag| match flag {
        Flag::Tsync => flags,
        Flag::Log => flags | 1 << 1,
        Flag::SpecAllow => flags | 1 << 2,
        // Says how to wait for a listener; the kernel refuses it without one.
        Flag::WaitKillableRecv if asks => flags | 1 << 5,
        Flag::WaitKillableRecv => flags,
    })
}

/// The part for ABIs that share an AUDIT_ARCH value: x86, or x86_64 and x32. `newer` is for calls that are newer than the
/// profile.
fn section(builder: &mut Builder, all: Vec<Verdicts>, default: u32, newer: u32) -> Target {
    let mut calls = Ranges::all(Verdict::Always(default));
    let knows_x32 = all.iter().any(|verdicts| verdicts.abi != Abi::X86_64);
    for Verdicts { abi, calls: of_abi, newest } in all {
        let first = if abi == Abi::X32 { X32_BIT } else { 0 };
        let mut number = first;
        for verdict in of_abi {
            calls.set_rest(number, verdict.unwrap_or(Verdict::Always(default)));
            number += 1;
        }
        calls.set_rest(number, Verdict::Always(default));
        if let Some(newest) = newest.filter(|_| newer != default) {
            calls.set_rest(first + newest + 1, Verdict::Always(newer));
        }
    }
    if !knows_x32 {
        calls.set_rest(X32_BIT, Verdict::Always(KILL_THREAD));
        // The number of a call that a tracer has cancelled.
        calls.set_rest(u32::MAX, Verdict::Always(default));
    }
    let mut arguments = Arguments { default, done: Vec::new() };
    let found = calls.search(builder, &mut |builder, verdict| arguments.target(builder, verdict));
    builder.load(NUMBER, found)
}

/// Actions after which the call happens: then a new one happens too.
fn is_permissive(action: Action) -> bool {
    matches!(action, Action::Allow | Action::Log | Action::Trace)
}

/// The parts of a section that look at arguments.
struct Arguments {
    /// For a call that fits no case.
    default: u32,
    /// Those that are built, so that equal ones are shared.
    done: Vec<(Verdict, Target)>,
}

impl Arguments {
    fn target(&mut self, builder: &mut Builder, verdict: &Verdict) -> Target {
        let (words, cases) = match verdict {
            Verdict::Always(value) => return Target::Return(*value),
            Verdict::Cases(words, cases) => (*words, cases),
        };
        if let Some((_, target)) = self.done.iter().find(|(done, _)| done == verdict) {
            return *target;
        }
        let target = cases_target(builder, words, cases, self.default);
        self.done.push((verdict.clone(), target));
        target
    }
}

/// From the last case to the first, since a program is built from its end.
fn cases_target(builder: &mut Builder, words: Words, cases: &[Case], default: u32) -> Target {
    let mut otherwise = Target::Return(default);
    let mut rest = cases;
    while let Some(last) = rest.last() {
        let run = rest.iter().rev().take_while(|case| same_kind(case, last)).count();
        let (before, group) = rest.split_at(rest.len() - run);
        otherwise = match low_values(group) {
            Some(values) => one_of(builder, words, group[0].conditions[0].index, &values, last.value, otherwise),
            None => group.iter().rev().fold(otherwise, |otherwise, case| case_target(builder, words, case, otherwise)),
        };
        rest = before;
    }
    otherwise
}

/// One argument, several values: a search instead of one comparison after the other.
fn one_of(builder: &mut Builder, words: Words, index: u32, values: &Ranges<bool>, yes: u32, no: Target) -> Target {
    let found = values.search(builder, &mut |_, &is_in| if is_in { Target::Return(yes) } else { no });
    let low = builder.load(low_word(index), found);
    match words {
        Words::Low => low,
        Words::Both => {
            let zero = builder.branch(Compare::Equal, 0, low, no);
            builder.load(high_word(index), zero)
        }
    }
}

fn case_target(builder: &mut Builder, words: Words, case: &Case, otherwise: Target) -> Target {
    let yes = Target::Return(case.value);
    case.conditions.iter().rev().fold(yes, |yes, condition| condition_target(builder, words, condition, yes, otherwise))
}

fn condition_target(builder: &mut Builder, words: Words, condition: &Argument, yes: Target, no: Target) -> Target {
    let Argument { index, value, value_two, op } = *condition;
    match op {
        Operator::Equal => equal(builder, words, index, u64::MAX, value, yes, no),
        Operator::NotEqual => equal(builder, words, index, u64::MAX, value, no, yes),
        // Bits of the value beyond the mask do not count, as in libseccomp.
        Operator::MaskedEqual => equal(builder, words, index, value, value & value_two, yes, no),
        Operator::Greater => greater(builder, words, index, Compare::Greater, value, yes, no),
        Operator::GreaterOrEqual => greater(builder, words, index, Compare::GreaterOrEqual, value, yes, no),
        Operator::Less => greater(builder, words, index, Compare::GreaterOrEqual, value, no, yes),
        Operator::LessOrEqual => greater(builder, words, index, Compare::Greater, value, no, yes),
    }
}

fn equal(builder: &mut Builder, words: Words, index: u32, mask: u64, value: u64, yes: Target, no: Target) -> Target {
    let (mask_high, mask_low) = halves(mask);
    let (high, low) = halves(value);
    let next = masked(builder, low_word(index), mask_low, low, yes, no);
    match words {
        Words::Low => next,
        Words::Both => masked(builder, high_word(index), mask_high, high, next, no),
    }
}

/// `>` or `>=`: the upper halves decide unless they are equal.
fn greater(
    builder: &mut Builder,
    words: Words,
    index: u32,
    how: Compare,
    value: u64,
    yes: Target,
    no: Target,
) -> Target {
    let (high, low) = halves(value);
    let compared = builder.branch(how, low, yes, no);
    let next = builder.load(low_word(index), compared);
    match words {
        Words::Low => next,
        Words::Both => {
            let equal = builder.branch(Compare::Equal, high, next, no);
            let greater = builder.branch(Compare::Greater, high, yes, equal);
            builder.load(high_word(index), greater)
        }
    }
}

/// One half of an argument under a mask. Without a mask there is nothing to look at.
fn masked(builder: &mut Builder, offset: u32, mask: u32, value: u32, yes: Target, no: Target) -> Target {
    if mask == 0 {
        return if value == 0 { yes } else { no };
    }
    let compared = builder.branch(Compare::Equal, value, yes, no);
    let masked = if mask == u32::MAX { compared } else { builder.and(mask, compared) };
    builder.load(offset, masked)
}

/// True for cases that may be looked up together: one condition each, on the same argument, with one outcome.
fn same_kind(case: &Case, other: &Case) -> bool {
    let one = |case: &Case| match case.conditions.as_slice() {
        [condition] => Some((condition.index, case.value)),
        _ => None,
    };
    case == other || (one(case).is_some() && one(case) == one(other))
}

/// The values that fit one of several cases, if all of them have an upper half of 0. `None` also for a single
/// case, where a comparison is shorter.
fn low_values(group: &[Case]) -> Option<Ranges<bool>> {
    if group.len() < 2 {
        return None;
    }
    let mut values = Ranges::all(false);
    for case in group {
        let [Argument { value, op, .. }] = case.conditions.as_slice() else { return None };
        let value = u32::try_from(*value).ok()?;
        match op {
            Operator::Equal => values.set(value, value, true),
            Operator::LessOrEqual => values.set(0, value, true),
            Operator::Less if value > 0 => values.set(0, value - 1, true),
            _ => return None,
        }
    }
    Some(values)
}

fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

fn low_word(index: u32) -> u32 {
    ARGUMENTS + index * 8
}

fn high_word(index: u32) -> u32 {
    low_word(index) + 4
}
