//! Our programs do what libseccomp's do, call by call.
//!
//! Both run in an interpreter, over every number that any ABI has and some that none has, with arguments at and
//! around every value that the profile compares with. RuntimeDefault is compared with the profile that containerd
//! 2.4.2's own code makes: the JSON files are its output (`contrib/seccomp`, `DefaultProfile`) for a process with
//! the capabilities that the test names.

mod oracle;

use crate::{Action, Architecture, Argument, Flag, Operator, Profile, Rule, compile, runtime_default};
use oracle::{Arch, Call, Oracle, known_to_libseccomp, run};

const X32_BIT: u32 = 0x4000_0000;

/// Every number of every ABI, and the edges between them.
fn numbers() -> impl Iterator<Item = (Arch, u32)> {
    let edges = [0x3fff_ffff, X32_BIT + 1000, 0x7fff_ffff, u32::MAX];
    let x86_64 = (0..600).chain(X32_BIT..X32_BIT + 600).chain(edges).map(|number| (Arch::X86_64, number));
    x86_64.chain((0..600).chain(edges).map(|number| (Arch::X86, number)))
}

/// Arguments at, below, above, and equal in one half to every value that the profile compares with.
fn arguments(profile: &Profile) -> Vec<[u64; 6]> {
    let mut arguments = vec![[0; 6], [u64::MAX; 6], [u64::from(u32::MAX); 6], [1 << 32; 6]];
    for arg in profile.syscalls.iter().flat_map(|rule| &rule.args) {
        for value in [arg.value, arg.value_two, arg.value & arg.value_two, !arg.value] {
            for value in [value, value.wrapping_sub(1), value.wrapping_add(1), value ^ 1 << 32, value ^ 1 << 63] {
                arguments.push([value; 6]);
                let mut one = [0; 6];
                one[arg.index as usize] = value;
                arguments.push(one);
            }
        }
    }
    arguments.sort_unstable();
    arguments.dedup();
    arguments
}

/// Compares our program for `ours` with libseccomp's for `theirs`.
#[track_caller]
fn check(ours: &Profile, theirs: &Profile) {
    let (ours, theirs) = (known_to_libseccomp(ours), known_to_libseccomp(theirs));
    let program = compile(&ours).expect("our program");
    let oracle = Oracle::new(&theirs);
    let arguments = arguments(&theirs);
    for (arch, number) in numbers() {
        for &args in &arguments {
            let call = Call { number, arch, args };
            let (have, want) = (run(program.instructions(), call), oracle.run(call));
            if have != want {
                let profile = serde_json::to_string(&ours).expect("a profile");
                panic!("ours {have:#x}, libseccomp's {want:#x} for {call:x?}\n{profile}");
            }
        }
    }
    println!("{} instructions, libseccomp's {}", program.instructions().len(), oracle.length());
}

fn containerd(file: &str) -> Profile {
    let path = format!("{}/src/equivalence/containerd-2.4.2/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let json = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_slice(&json).expect("a profile")
}

const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Those that the profile asks about.
const CAPABILITIES: [&str; 13] = [
    "CAP_BPF",
    "CAP_DAC_READ_SEARCH",
    "CAP_PERFMON",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_SYSLOG",
];

#[test]
fn runtime_default_is_containerds_without_any_capability() {
    check(&runtime_default(&[]), &containerd("no-capabilities"));
}

#[test]
fn runtime_default_is_containerds_with_the_capabilities_that_containers_have() {
    check(&runtime_default(&DEFAULT_CAPABILITIES), &containerd("default-capabilities"));
}

#[test]
fn runtime_default_is_containerds_for_an_administrator() {
    check(&runtime_default(&["CAP_SYS_ADMIN"]), &containerd("admin"));
}

#[test]
fn runtime_default_is_containerds_with_every_other_capability() {
    check(&runtime_default(&CAPABILITIES), &containerd("all-but-admin"));
}

/// libseccomp may be too old to know some names; these are compared as names.
#[test]
fn runtime_default_names_the_calls_that_containerds_does() {
    let names = |profile: &Profile| {
        let mut names: Vec<_> = profile
            .syscalls
            .iter()
            .flat_map(|rule| rule.names.iter().map(|name| (name.clone(), rule.action, rule.errno_ret)))
            .map(|(name, action, errno)| format!("{name} {action:?} {errno:?}"))
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&runtime_default(&[])), names(&containerd("no-capabilities")));
    assert_eq!(names(&runtime_default(&CAPABILITIES)), names(&containerd("all-but-admin")));
    assert_eq!(names(&runtime_default(&["CAP_SYS_ADMIN"])), names(&containerd("admin")));
}

#[test]
fn one_capability_adds_its_own_calls_and_no_others() {
    let allowed = |capabilities: &[&str]| {
        let mut names: Vec<String> = runtime_default(capabilities)
            .syscalls
            .into_iter()
            .filter(|rule| rule.action == Action::Allow && rule.args.is_empty())
            .flat_map(|rule| rule.names)
            .collect();
        names.sort();
        names.dedup();
        names
    };
    let none = allowed(&[]);
    let mut all = none.clone();
    for capability in CAPABILITIES {
        let one = allowed(&[capability]);
        assert!(none.iter().all(|name| one.contains(name)), "{capability}");
        assert!(one.len() > none.len(), "{capability}");
        all.extend(one);
    }
    all.sort();
    all.dedup();
    assert_eq!(all, allowed(&CAPABILITIES));
}

/// The instructions that the kernel runs at each call, and checks at each start of a container.
#[test]
fn a_program_for_runtime_default_is_short() {
    for capabilities in [&[][..], &DEFAULT_CAPABILITIES, &CAPABILITIES, &["CAP_SYS_ADMIN"]] {
        let length = compile(&runtime_default(capabilities)).expect("our program").instructions().len();
        assert!(length <= 300, "{length} instructions for {capabilities:?}");
    }
}

fn rule(name: &str, action: Action, args: Vec<Argument>) -> Rule {
    Rule { names: vec![name.to_owned()], action, errno_ret: None, args }
}

fn profile(default_action: Action, syscalls: Vec<Rule>) -> Profile {
    Profile {
        default_action,
        default_errno_ret: None,
        architectures: vec![Architecture::X86_64, Architecture::X86, Architecture::X32],
        flags: None,
        listener_path: None,
        listener_metadata: None,
        syscalls,
    }
}

const OPERATORS: [Operator; 7] = [
    Operator::NotEqual,
    Operator::Less,
    Operator::LessOrEqual,
    Operator::Equal,
    Operator::GreaterOrEqual,
    Operator::Greater,
    Operator::MaskedEqual,
];

const ACTIONS: [Action; 9] = [
    Action::Kill,
    Action::KillProcess,
    Action::KillThread,
    Action::Trap,
    Action::Errno,
    Action::Trace,
    Action::Allow,
    Action::Log,
    Action::Notify,
];

#[test]
fn every_action_is_the_same_value_by_rule_and_by_default() {
    for action in ACTIONS {
        let both = profile(Action::Errno, vec![rule("mount", action, Vec::new())]);
        check(&both, &both);
        if action != Action::Notify {
            let both = profile(action, vec![rule("mount", Action::Trap, Vec::new())]);
            check(&both, &both);
        }
    }
}

#[test]
fn every_operator_compares_64_bits_and_32_on_the_32_bit_abis() {
    for op in OPERATORS {
        for value in [0, 1, 5, 0x7fff_ffff, 0xffff_ffff, 0x1_0000_0000, 0x5_0000_0007, u64::MAX] {
            for value_two in [0, 4, 0x5_0000_0000] {
                let args = vec![Argument { index: 2, value, value_two, op }];
                let both = profile(Action::Errno, vec![rule("read", Action::Allow, args)]);
                check(&both, &both);
            }
        }
    }
}

#[test]
fn calls_that_x86_multiplexes_are_decided_in_both_places() {
    let args = vec![Argument { index: 1, value: 3, value_two: 0, op: Operator::Equal }];
    for name in ["socket", "accept", "sendmmsg", "shmat", "semop", "msgctl", "semtimedop"] {
        for args in [Vec::new(), args.clone()] {
            let both = profile(Action::Allow, vec![rule(name, Action::Errno, args)]);
            check(&both, &both);
        }
    }
}

#[test]
fn a_profile_for_fewer_abis_kills_calls_through_the_others() {
    use Architecture::{X32, X86, X86_64};
    for architectures in [vec![], vec![X86_64], vec![X86], vec![X86_64, X86], vec![X86_64, X32]] {
        let both = Profile { architectures, ..profile(Action::Allow, vec![rule("mount", Action::Errno, Vec::new())]) };
        check(&both, &both);
    }
}

/// libseccomp compiles the ABIs of other machines of this byte order; what it puts in for them, no call reaches.
#[test]
fn abis_of_other_machines_change_nothing_for_the_calls_of_this_one() {
    use Architecture::*;
    let names = ["mount", "socket", "open", "arm_fadvise64_64", "frobnicate"];
    for foreign in
        [&[Arm, Aarch64][..], &[Mipsel, Mipsel64, Mipsel64n32, Ppc64le, Riscv64], &[X86, Aarch64, X32], &[Native, Arm]]
    {
        let rules = names.map(|name| rule(name, Action::Errno, Vec::new()));
        for default in [Action::Allow, Action::KillProcess] {
            let both = Profile { architectures: foreign.to_vec(), ..profile(default, rules.to_vec()) };
            check(&both, &both);
        }
    }
}

#[test]
fn every_abi_of_the_runtime_spec_is_accepted() {
    for name in crate::ARCHITECTURES {
        let architecture = serde_json::from_value(name.into()).expect("an architecture");
        let rules = vec![rule("mount", Action::Errno, Vec::new())];
        let both = Profile { architectures: vec![architecture], ..profile(Action::Allow, rules) };
        let program = compile(&both).unwrap_or_else(|error| panic!("{name}: {error}"));
        let call = Call { number: 165, arch: Arch::X86_64, args: [0; 6] };
        assert_eq!(run(program.instructions(), call), 0x0005_0001, "{name}");
    }
}

#[test]
fn an_errno_or_a_message_of_a_profile_is_returned_as_it_is() {
    for (action, errno) in [
        (Action::Errno, 0),
        (Action::Errno, 38),
        (Action::Errno, 4094),
        (Action::Trace, 0),
        (Action::Trace, 4096),
        (Action::Trace, 0x8001),
    ] {
        let rules = vec![Rule { errno_ret: Some(errno), ..rule("mount", action, Vec::new()) }];
        let by_rule = profile(Action::Allow, rules);
        check(&by_rule, &by_rule);
        let rules = vec![rule("read", Action::Allow, Vec::new()), rule("mount", Action::Allow, Vec::new())];
        let by_default = Profile { default_errno_ret: Some(errno), ..profile(action, rules) };
        check(&by_default, &by_default);
    }
}

/// runc takes a profile that names no call but number 0 for one that says nothing about its age.
#[test]
fn a_profile_that_names_only_the_first_call_has_no_newest_one() {
    for default in [Action::Errno, Action::KillProcess] {
        let both = profile(default, vec![rule("read", Action::Allow, Vec::new())]);
        check(&both, &both);
    }
}

#[test]
fn errors_that_the_kernel_can_not_return_are_refused() {
    let compiled = |action, errno| {
        let rules = vec![Rule { errno_ret: Some(errno), ..rule("mount", action, Vec::new()) }];
        compile(&profile(Action::Allow, rules)).map_err(|error| error.to_string()).map(|_| ())
    };
    assert_eq!(
        compiled(Action::Errno, 4096),
        Err("seccomp: errnoRet 4096 (mount) is greater than 4095, the largest that the kernel can return".into())
    );
    assert!(compiled(Action::Trace, 0x1_0000).is_err());
    assert!(compiled(Action::Log, 1).is_err());
}

#[test]
fn flags_are_those_of_the_profile_and_without_any_speculation_stays_allowed() {
    let asks = vec![rule("mount", Action::Notify, Vec::new())];
    let flags = |flags, rules: &[Rule]| {
        let program = compile(&Profile { flags, ..profile(Action::Allow, rules.to_vec()) }).expect("a program");
        (program.flags(), program.asks())
    };
    assert_eq!(flags(None, &[]), (4, false));
    assert_eq!(flags(Some(vec![]), &[]), (0, false));
    let all = vec![Flag::Tsync, Flag::Log, Flag::SpecAllow, Flag::WaitKillableRecv];
    // The kernel refuses the last one where nobody listens.
    assert_eq!(flags(Some(all.clone()), &[]), (6, false));
    assert_eq!(flags(Some(all), &asks), (38, true));
}

/// A small generator of pseudo-random numbers, so that a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn argument(&mut self, operators: &[Operator], values: &[u64]) -> Argument {
        let op = self.of(operators);
        Argument { index: self.below(3) as u32, value: self.of(values), value_two: self.of(values), op }
    }
}

/// libseccomp 2.5 is no judge here: where several conditions meet it forgets some of them. So this asks the words of
/// the runtime-spec, and runc's exception for conditions on the same argument.
#[test]
fn several_conditions_have_to_hold_together_and_any_one_on_the_same_argument() {
    const VALUES: [u64; 7] = [0, 1, 2, 8, 0xffff_ffff, 0x1_0000_0000, 0xf_0000_000f];
    let mut random = Random(2);
    for _ in 0..500 {
        let args: Vec<Argument> = (0..1 + random.below(3)).map(|_| random.argument(&OPERATORS, &VALUES)).collect();
        let mut indexes: Vec<u32> = args.iter().map(|arg| arg.index).collect();
        indexes.sort_unstable();
        let repeated = !indexes.is_sorted_by(|a, b| a < b);
        let profile = profile(Action::Errno, vec![rule("write", Action::Allow, args.clone())]);
        let program = compile(&profile).expect("our program");
        for values in arguments(&profile) {
            let mut each = args.iter().map(|arg| holds(arg, values[arg.index as usize]));
            let allowed = if repeated { each.any(|holds| holds) } else { each.all(|holds| holds) };
            let call = Call { number: 1, arch: Arch::X86_64, args: values };
            let expected = if allowed { 0x7fff_0000 } else { 0x0005_0001 };
            assert_eq!(run(program.instructions(), call), expected, "{args:x?} with {values:x?}");
        }
    }
}

fn holds(arg: &Argument, value: u64) -> bool {
    match arg.op {
        Operator::NotEqual => value != arg.value,
        Operator::Less => value < arg.value,
        Operator::LessOrEqual => value <= arg.value,
        Operator::Equal => value == arg.value,
        Operator::GreaterOrEqual => value >= arg.value,
        Operator::Greater => value > arg.value,
        Operator::MaskedEqual => value & arg.value == arg.value_two & arg.value,
    }
}
