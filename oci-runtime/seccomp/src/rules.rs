//! From a profile's list of rules to one verdict for each system call of each ABI.
//!
//! The order of rules means what it means in libseccomp: the first rule without conditions decides its call for
//! good and wipes out conditions that came before it; rules with conditions add up.

use std::collections::BTreeMap;

use crate::profile::{Argument, Operator, Profile, Rule};
use crate::program::{Error, return_value};
use crate::syscalls::{Abi, Entry, entries};

/// What happens to one system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The same whatever its arguments: a value for the kernel.
    Always(u32),
    /// The first case whose conditions all hold; none holds: the default.
    Cases(Words, Vec<Case>),
}

/// How much of an argument is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    /// The lower half, on the ABIs with 32-bit pointers.
    Low,
    /// All of it.
    Both,
}

impl Words {
    fn of(abi: Abi) -> Words {
        match abi {
            Abi::X86_64 => Words::Both,
            Abi::X86 | Abi::X32 => Words::Low,
        }
    }
}

/// Conditions and what follows from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Case {
    /// All have to hold; at least one.
    pub(crate) conditions: Vec<Argument>,
    /// For the kernel.
    pub(crate) value: u32,
}

/// The verdicts of one ABI.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    /// By number; a call that is not there gets the default.
    pub(crate) calls: BTreeMap<u32, Verdict>,
    /// The largest number that any rule names, whatever its action. What is beyond it is newer than the profile.
    pub(crate) newest: Option<u32>,
}

/// Works out the verdicts for one ABI.
pub(crate) fn verdicts(profile: &Profile, default: u32, abi: Abi) -> Result<Verdicts, Error> {
    let mut verdicts = Verdicts::default();
    for rule in &profile.syscalls {
        let value = return_value(rule.action, rule.errno_ret, || rule.names.join(", "))?;
        for name in &rule.names {
            verdicts.newest = verdicts.newest.max(age(name, abi));
            // What the default does anyway is no rule: neither does it stand in the way of a later one.
            if value != default {
                add(&mut verdicts.calls, rule, name, value, abi);
            }
        }
    }
    Ok(verdicts)
}

/// The number of a call, which tells how old it is. What x86 multiplexes is as old as x86: the call of its own that
/// it may have got later says nothing about what else the profile's author knew.
fn age(name: &str, abi: Abi) -> Option<u32> {
    match entries(name, abi).next()? {
        Entry::Direct(number) => Some(number),
        Entry::Multiplexed(..) => None,
    }
}

fn add(calls: &mut BTreeMap<u32, Verdict>, rule: &Rule, name: &str, value: u32, abi: Abi) {
    for entry in entries(name, abi) {
        for mut conditions in alternatives(&rule.args) {
            let number = match entry {
                Entry::Direct(number) => number,
                Entry::Multiplexed(number, function) => {
                    // The call's own arguments are behind a pointer. What was asked of its first one is replaced; the
                    // others are kept although they mean something else here: libseccomp does the same.
                    conditions.retain(|condition| condition.index != 0);
                    let function = u64::from(function);
                    conditions.insert(0, Argument { index: 0, value: function, value_two: 0, op: Operator::Equal });
                    number
                }
            };
            let verdict = calls.entry(number).or_insert_with(|| Verdict::Cases(Words::of(abi), Vec::new()));
            add_case(verdict, conditions, value);
        }
    }
}

/// The sets of conditions of which one has to hold. Two conditions on one argument were alternatives in runc's
/// first profiles, and have been since (runc#2735).
fn alternatives(args: &[Argument]) -> Vec<Vec<Argument>> {
    let repeated = args.iter().enumerate().any(|(at, arg)| args[..at].iter().any(|other| other.index == arg.index));
    match repeated {
        true => args.iter().map(|&arg| vec![arg]).collect(),
        false => vec![args.to_vec()],
    }
}

fn add_case(verdict: &mut Verdict, conditions: Vec<Argument>, value: u32) {
    match verdict {
        Verdict::Always(_) => {}
        Verdict::Cases(..) if conditions.is_empty() => *verdict = Verdict::Always(value),
        Verdict::Cases(_, cases) => {
            let case = Case { conditions, value };
            if !cases.contains(&case) {
                cases.push(case);
            }
        }
    }
}
