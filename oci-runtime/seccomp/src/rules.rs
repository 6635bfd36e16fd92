//! From a profile's list of rules to one verdict for each system call of each ABI.
//!
//! The order of rules means what it means in libseccomp: the first rule without conditions decides its call for
//! good and wipes out conditions that came before it; rules with conditions add up.

use crate::profile::{Argument, Operator, Profile, Rule};
use crate::program::{Error, return_value};
use crate::syscalls::{Abi, Call, Entry};

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
#[derive(Debug)]
pub(crate) struct Verdicts {
    pub(crate) abi: Abi,
    /// By number, x32's without bit 30; a call that is not there gets the default.
    pub(crate) calls: Vec<Option<Verdict>>,
    /// The largest number that any rule names, whatever its action. What is beyond it is newer than the profile.
    pub(crate) newest: Option<u32>,
}

/// Works out the verdicts for each ABI.
pub(crate) fn verdicts(profile: &Profile, default: u32, abis: &[Abi]) -> Result<Vec<Verdicts>, Error> {
    let mut all: Vec<Verdicts> = abis.iter().map(|&abi| Verdicts { abi, calls: Vec::new(), newest: None }).collect();
    for rule in &profile.syscalls {
        let value = return_value(rule.action, rule.errno_ret, || rule.names.join(", "))?;
        for call in rule.names.iter().filter_map(|name| Call::named(name)) {
            for verdicts in &mut all {
                verdicts.newest = verdicts.newest.max(age(call, verdicts.abi));
                // What the default does anyway is no rule: neither does it stand in the way of a later one.
                if value != default {
                    verdicts.add(rule, call, value);
                }
            }
        }
    }
    Ok(all)
}

/// The number of a call, which tells how old it is. What x86 multiplexes is as old as x86: the call of its own that
/// it may have got later says nothing about what else the profile's author knew.
fn age(call: Call, abi: Abi) -> Option<u32> {
    match call.entries(abi).next()? {
        // For runc, 0 means that there is none. It looks at x32's numbers with bit 30.
        Entry::Direct(0) if abi != Abi::X32 => None,
        Entry::Direct(number) => Some(number),
        Entry::Multiplexed(..) => None,
    }
}

impl Verdicts {
    fn add(&mut self, rule: &Rule, call: Call, value: u32) {
        for entry in call.entries(self.abi) {
            match entry {
                Entry::Direct(number) if rule.args.is_empty() => *self.verdict(number) = Some(Verdict::Always(value)),
                Entry::Direct(number) => {
                    alternatives(&rule.args).into_iter().for_each(|case| self.add_case(number, case, value));
                }
                Entry::Multiplexed(number, function) => {
                    for mut conditions in alternatives(&rule.args) {
                        // The call's own arguments are behind a pointer. What was asked of its first one is replaced; the
                        // others are kept although they mean something else here: libseccomp does the same.
                        conditions.retain(|condition| condition.index != 0);
                        let value_of_function = u64::from(function);
                        conditions.insert(
                            0,
                            Argument { index: 0, value: value_of_function, value_two: 0, op: Operator::Equal },
                        );
                        self.add_case(number, conditions, value);
                    }
                }
            }
        }
    }

    fn verdict(&mut self, number: u32) -> &mut Option<Verdict> {
        let number = number as usize;
        if self.calls.len() <= number {
            self.calls.resize(number + 1, None);
        }
        &mut self.calls[number]
    }

    fn add_case(&mut self, number: u32, conditions: Vec<Argument>, value: u32) {
        let words = Words::of(self.abi);
        match self.verdict(number) {
            Some(Verdict::Always(_)) => {}
            Some(Verdict::Cases(_, cases)) => {
                let case = Case { conditions, value };
                if !cases.contains(&case) {
                    cases.push(case);
                }
            }
            none => *none = Some(Verdict::Cases(words, vec![Case { conditions, value }])),
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
