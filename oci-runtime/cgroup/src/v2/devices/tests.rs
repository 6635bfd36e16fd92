//! The generated programs against the rules they were made of, on an interpreter of the instructions that they use.

use super::*;

/// What the program is asked.
#[derive(Debug, Clone, Copy)]
struct Question {
    kind: DeviceKind,
    major: u32,
    minor: u32,
    access: Access,
}

/// Runs a program; panics where the kernel's verifier would refuse it.
fn run(program: &[Instruction], question: Question) -> bool {
    let kind = if question.kind == DeviceKind::Char { CHAR } else { BLOCK };
    let context = [(bits(question.access) << 16 | kind) as u32, question.major, question.minor];
    let mut registers: [Option<u32>; 6] = [None; 6];
    let (mut next, mut has_context) = (0, true);
    loop {
        let Instruction { code, registers: operands, offset, immediate } = program[next];
        let (to, from) = (usize::from(operands & 15), usize::from(operands >> 4));
        next += 1;
        match code {
            LOAD_WORD => {
                assert!(from == 1 && has_context, "the context is in register 1 until that is used for something else");
                registers[to] = Some(context[usize::try_from(offset).unwrap() / 4]);
            }
            MOVE => registers[to] = Some(immediate as u32),
            MOVE_REGISTER => registers[to] = Some(registers[from].expect("a register that was set")),
            AND => registers[to] = Some(registers[to].expect("a register that was set") & immediate as u32),
            SHIFT_RIGHT => registers[to] = Some(registers[to].expect("a register that was set") >> immediate),
            JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL => {
                let equal = registers[to].expect("a register that was set") == immediate as u32;
                if equal == (code == JUMP_IF_EQUAL) {
                    next += usize::try_from(offset).expect("a jump ahead");
                }
            }
            EXIT => match registers[0].expect("an answer") {
                0 => return false,
                1 => return true,
                answer => panic!("{answer} is no answer"),
            },
            code => panic!("opcode {code:#x}"),
        }
        has_context &= to != 1 || code == LOAD_WORD || code & 7 == JUMP32;
    }
}

/// What the v1 kernel answers when the outcome is in its files (security/device_cgroup.c).
fn expected(outcome: &Outcome, question: Question) -> bool {
    let wanted = bits(question.access);
    let meets = |device: &&Device| {
        device.kind == question.kind
            && device.major.is_none_or(|major| major == question.major)
            && device.minor.is_none_or(|minor| minor == question.minor)
    };
    let mut met = outcome.exceptions.iter().filter(meets);
    match outcome.allow_rest {
        true => !met.any(|device| wanted & bits(device.access) != 0),
        false => met.any(|device| wanted & !bits(device.access) == 0),
    }
}

fn rule(text: &str) -> DeviceRule {
    let mut words = text.split([' ', ':']);
    let mut word = || words.next().expect("allow or deny, kind, major:minor, access");
    let allow = word() == "allow";
    let kind = match word() {
        "a" => DeviceKind::All,
        "c" => DeviceKind::Char,
        _ => DeviceKind::Block,
    };
    let (major, minor) = (word().parse().ok(), word().parse().ok());
    DeviceRule { allow, kind, major, minor, access: Access::parse(word()).expect("letters out of rwm") }
}

/// Questions about the devices around those of the rules, with every access.
fn questions() -> impl Iterator<Item = Question> {
    let numbers = [(1, 3), (1, 4), (5, 1), (10, 200), (10, 1), (7, 0), (7, 1), (8, 3), (136, 7), (4095, 1_048_575)];
    let of = |access: u8| Access { read: access & 1 != 0, write: access & 2 != 0, mknod: access & 4 != 0 };
    [DeviceKind::Char, DeviceKind::Block].into_iter().flat_map(move |kind| {
        numbers.into_iter().flat_map(move |(major, minor)| {
            (1..8).map(move |access| Question { kind, major, minor, access: of(access) })
        })
    })
}

#[track_caller]
fn check_rules(rules: &[&str]) {
    let rules: Vec<DeviceRule> = rules.iter().map(|text| rule(text)).collect();
    let outcome = devices::outcome(&rules).expect("an outcome");
    let program = compile(&outcome);
    for question in questions() {
        assert_eq!(run(&program, question), expected(&outcome, question), "{question:?} of {outcome:?}");
    }
}

#[test]
fn a_program_answers_as_the_v1_files_of_the_same_rules_would() {
    check_rules(&[]);
    check_rules(&["deny a *:* rwm"]);
    check_rules(&["allow a *:* rwm"]);
    check_rules(&["deny a *:* rwm", "allow b 7:0 r", "allow b 7:* m", "allow c 10:1 rw"]);
    check_rules(&["allow a *:* rwm", "deny b *:* rw", "deny c 1:3 w", "deny c 12:* r"]);
    check_rules(&["allow c 10:1 rw", "deny c 10:* w"]);
    check_rules(&["allow a *:* rwm", "deny c 5:1 rwm", "allow c 5:1 r"]);
    check_rules(&["allow c 4095:1048575 rwm", "allow b 8:3 w"]);
}

#[test]
fn any_sequence_of_rules_is_answered_alike() {
    // A linear congruential generator: the same few thousand sequences each time.
    let mut state = 7_u64;
    let mut pick = move |of: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % of
    };
    let mut compared = 0;
    for _ in 0..3000 {
        let rules: Vec<DeviceRule> = (0..pick(6))
            .map(|_| {
                let allow = ["allow", "deny"][pick(2)];
                let rest = ["a *:* rwm", "c", "b", "c", "b"][pick(5)];
                let numbers = ["1:3", "10:*", "10:1", "7:0", "7:*", "*:*"][pick(6)];
                let access = ["r", "w", "m", "rw", "rwm", "wm"][pick(6)];
                rule(&if rest.len() > 1 {
                    format!("{allow} {rest}")
                } else {
                    format!("{allow} {rest} {numbers} {access}")
                })
            })
            .collect();
        // One that v1 cannot express is refused for v2 as well.
        let Ok(outcome) = devices::outcome(&rules) else { continue };
        let program = compile(&outcome);
        for question in questions() {
            assert_eq!(run(&program, question), expected(&outcome, question), "{question:?} of {rules:?}");
        }
        compared += 1;
    }
    assert!(compared > 1000, "{compared}");
}

#[test]
fn an_empty_list_denies_all_but_what_every_container_has() {
    let program = compile(&devices::outcome(&[]).expect("an outcome"));
    let ask = |kind, major, minor, access| {
        run(&program, Question { kind, major, minor, access: Access::parse(access).expect("letters") })
    };
    assert!(ask(DeviceKind::Char, 1, 3, "rw") && ask(DeviceKind::Char, 136, 9, "rw"));
    assert!(ask(DeviceKind::Block, 8, 0, "m"));
    assert!(!ask(DeviceKind::Block, 8, 0, "r") && !ask(DeviceKind::Char, 1, 1, "r"));
}

#[test]
fn every_jump_ends_at_the_next_block() {
    let program = compile(&devices::outcome(&[rule("allow b 7:0 r")]).expect("an outcome"));
    for (index, instruction) in program.iter().enumerate().filter(|(_, instruction)| instruction.code & 7 == JUMP32) {
        let target = index + 1 + usize::try_from(instruction.offset).expect("a jump ahead");
        assert_eq!(program[target - 1].code, EXIT, "instruction {index}");
    }
}
