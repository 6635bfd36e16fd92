//! Which devices may be opened or made: cgroup v2 asks an eBPF program (`BPF_PROG_TYPE_CGROUP_DEVICE`), which is given a
//! `struct bpf_cgroup_dev_ctx` of linux/bpf.h: kind and access, major number, minor number.
//!
//! The program is a list of checks, one block for each exception, which a block that does not match jumps past. It is
//! pure data until [`apply`] loads it. The programs of a cgroup and of all above it have to agree, so a container's
//! can only take away from what its pod's may do.

use std::os::fd::BorrowedFd;

use sys::bpf::{AttachFlags, Instruction, Program};

use crate::devices::{self, Device, Outcome};
use crate::dir::Dir;
use crate::{Access, DeviceKind, DeviceRule, Error, Result};

/// The name that bpftool(8) shows.
const NAME: &str = "orlop_devices";

/// `BPF_DEVCG_DEV_*`: the lower half of the first word that the program is given.
const BLOCK: i32 = 1;
const CHAR: i32 = 2;
/// `BPF_DEVCG_ACC_*`: the upper half.
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const EVERY_ACCESS: i32 = MKNOD | READ | WRITE;

/// The answers.
const REFUSE: i32 = 0;
const GRANT: i32 = 1;

/// Where the program keeps what it works with.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Register {
    Answer = 0,
    /// The context, later scratch.
    Context = 1,
    Kind = 2,
    Access = 3,
    Major = 4,
    Minor = 5,
}

use Register::{Answer, Context, Kind, Major, Minor};

/// Scratch: the context is not needed once the program has its four numbers.
const SCRATCH: Register = Context;

/// Puts rules into force, in place of those that a cgroup taken over may have.
///
/// One program takes the place of another in one step, so there is no moment without any.
pub(crate) fn apply(dir: &Dir, rules: &[DeviceRule]) -> Result<()> {
    let program = compile(&devices::outcome(rules)?);
    replace(dir.opened()?, &program).map_err(|source| Error::DeviceProgram { path: dir.path().to_owned(), source })
}

fn replace(dir: BorrowedFd<'_>, instructions: &[Instruction]) -> sys::Result<()> {
    let program = Program::load_cgroup_device(NAME, instructions)?;
    let old = sys::bpf::device_programs(&dir)?;
    if !old.ids.is_empty() && !old.flags.contains(AttachFlags::ALLOW_MULTI) {
        // Attached to be the only one: then the same flags replace it.
        return program.attach_device(&dir, old.flags, None);
    }
    let old = old.ids.into_iter().map(Program::by_id).collect::<sys::Result<Vec<_>>>()?;
    match old.as_slice() {
        [] => program.attach_device(&dir, AttachFlags::ALLOW_MULTI, None),
        [only] => program.attach_device(&dir, AttachFlags::ALLOW_MULTI, Some(only)),
        several => {
            // Until the last one is gone all of them hold: less is allowed meanwhile, never more.
            program.attach_device(&dir, AttachFlags::ALLOW_MULTI, None)?;
            several.iter().try_for_each(|old| old.detach_device(&dir))
        }
    }
}

/// The program that answers as the outcome says.
fn compile(outcome: &Outcome) -> Vec<Instruction> {
    let mut program = vec![
        load_word(Kind, 0),
        load_word(Major, 4),
        load_word(Minor, 8),
        move_register(Register::Access, Kind),
        and(Kind, 0xffff),
        shift_right(Register::Access, 16),
    ];
    for exception in &outcome.exceptions {
        program.extend(check(exception, outcome.allow_rest));
    }
    program.extend(answer(outcome.allow_rest));
    program
}

/// One exception: conditions that jump to the end of the block, then the answer that is not the rest's.
fn check(exception: &Device, allow_rest: bool) -> Vec<Instruction> {
    let kind = match exception.kind {
        DeviceKind::Char => CHAR,
        // "All" never gets here: it resets the outcome (crate::devices).
        DeviceKind::Block | DeviceKind::All => BLOCK,
    };
    let mut block = vec![skip_unless_equal(Kind, kind)];
    block.extend(access_condition(bits(exception.access), allow_rest));
    block.extend(exception.major.map(|major| skip_unless_equal(Major, major.cast_signed())));
    block.extend(exception.minor.map(|minor| skip_unless_equal(Minor, minor.cast_signed())));
    block.extend(answer(!allow_rest));
    let length = block.len();
    for (index, instruction) in block.iter_mut().enumerate().filter(|(_, instruction)| instruction.code & 7 == JUMP32) {
        instruction.offset = (length - index - 1) as i16;
    }
    block
}

/// A grant has to cover all of what is asked for, a refusal any part of it, as in v1
/// (`devcgroup_legacy_check_permission` of the kernel's security/device_cgroup.c).
fn access_condition(access: i32, allow_rest: bool) -> Vec<Instruction> {
    match allow_rest {
        _ if access == EVERY_ACCESS => Vec::new(),
        false => vec![
            move_register(SCRATCH, Register::Access),
            and(SCRATCH, EVERY_ACCESS & !access),
            skip_unless_equal(SCRATCH, 0),
        ],
        true => vec![move_register(SCRATCH, Register::Access), and(SCRATCH, access), skip_if_equal(SCRATCH, 0)],
    }
}

fn bits(access: Access) -> i32 {
    let bit = |has, bit| if has { bit } else { 0 };
    bit(access.read, READ) | bit(access.write, WRITE) | bit(access.mknod, MKNOD)
}

fn answer(grant: bool) -> [Instruction; 2] {
    let set =
        Instruction { code: MOVE, registers: Answer as u8, offset: 0, immediate: if grant { GRANT } else { REFUSE } };
    [set, Instruction { code: EXIT, registers: 0, offset: 0, immediate: 0 }]
}

// Opcodes: operation | source (0x08 for a register) | class.
const JUMP32: u8 = 0x06;
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb4;
const MOVE_REGISTER: u8 = 0xbc;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_IF_EQUAL: u8 = 0x10 | JUMP32;
const JUMP_UNLESS_EQUAL: u8 = 0x50 | JUMP32;
const EXIT: u8 = 0x95;

fn load_word(to: Register, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: to as u8 | (Context as u8) << 4, offset, immediate: 0 }
}

fn move_register(to: Register, from: Register) -> Instruction {
    Instruction { code: MOVE_REGISTER, registers: to as u8 | (from as u8) << 4, offset: 0, immediate: 0 }
}

fn and(register: Register, immediate: i32) -> Instruction {
    Instruction { code: AND, registers: register as u8, offset: 0, immediate }
}

fn shift_right(register: Register, immediate: i32) -> Instruction {
    Instruction { code: SHIFT_RIGHT, registers: register as u8, offset: 0, immediate }
}

/// The distance is filled in when the block is complete.
fn skip_unless_equal(register: Register, immediate: i32) -> Instruction {
    Instruction { code: JUMP_UNLESS_EQUAL, registers: register as u8, offset: 0, immediate }
}

fn skip_if_equal(register: Register, immediate: i32) -> Instruction {
    Instruction { code: JUMP_IF_EQUAL, registers: register as u8, offset: 0, immediate }
}

#[cfg(test)]
mod tests;
