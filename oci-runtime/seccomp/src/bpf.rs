//! Classic BPF as seccomp uses it: a few instructions, and jumps that only go forward.
//!
//! A program is built from its end to its start: then every target of a jump is already there, and its distance
//! is known. Conditional jumps reach 255 instructions; farther targets are reached over an unconditional one.

/// One instruction, `struct sock_filter` of linux/filter.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// How many instructions to skip if a condition holds.
    pub jt: u8,
    /// How many if it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

// BPF_LD|BPF_W|BPF_ABS and so on, linux/bpf_common.h.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// A comparison of the accumulator with a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Equal,
    Greater,
    GreaterOrEqual,
}

/// Where a jump goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// An instruction, by its distance from the end of the program.
    At(usize),
    /// Out of the program, with this value.
    Return(u32),
}

/// A program that grows from its end.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    /// Last instruction first.
    reversed: Vec<Instruction>,
    /// Where each value was returned last.
    returns: Vec<(u32, usize)>,
}

impl Builder {
    /// The instruction that was put in last.
    fn here(&self) -> Target {
        Target::At(self.reversed.len() - 1)
    }

    fn put(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Target {
        self.reversed.push(Instruction { code, jt, jf, k });
        self.here()
    }

    /// Loads a word of `struct seccomp_data`, and goes on to `next`.
    pub(crate) fn load(&mut self, offset: u32, next: Target) -> Target {
        self.fall_through(next);
        self.put(LOAD, 0, 0, offset)
    }

    /// Masks what was loaded, and goes on to `next`.
    pub(crate) fn and(&mut self, mask: u32, next: Target) -> Target {
        self.fall_through(next);
        self.put(AND, 0, 0, mask)
    }

    /// Compares what was loaded.
    pub(crate) fn branch(&mut self, compare: Compare, k: u32, yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        let code = match compare {
            Compare::Equal => JUMP_EQUAL,
            Compare::Greater => JUMP_GREATER,
            Compare::GreaterOrEqual => JUMP_GREATER_OR_EQUAL,
        };
        // Bringing one target near puts one instruction in at most, so that the other must be nearer by one.
        let yes = self.near(yes, 254);
        let no = self.near(no, 255);
        let (jt, jf) = (self.distance(yes), self.distance(no));
        self.put(code, jt, jf, k)
    }

    /// Makes sure that `next` is what follows the instruction to be put in now.
    fn fall_through(&mut self, next: Target) {
        match next {
            Target::At(at) if at + 1 == self.reversed.len() => {}
            Target::At(at) => drop(self.jump(at)),
            Target::Return(value)
                if self.reversed.last().is_some_and(|last| (last.code, last.k) == (RETURN, value)) => {}
            Target::Return(value) => drop(self.put_return(value)),
        }
    }

    fn jump(&mut self, at: usize) -> usize {
        let distance = self.reversed.len() - at - 1;
        // A program that is too long for 32 bits is far too long for the kernel, and refused later.
        self.reversed.push(Instruction { code: JUMP, jt: 0, jf: 0, k: distance as u32 });
        self.reversed.len() - 1
    }

    fn put_return(&mut self, value: u32) -> usize {
        self.reversed.push(Instruction { code: RETURN, jt: 0, jf: 0, k: value });
        let at = self.reversed.len() - 1;
        self.returns.retain(|&(known, _)| known != value);
        self.returns.push((value, at));
        at
    }

    /// An instruction at most `reach` away from the one to be put in now that leads to the target.
    fn near(&mut self, target: Target, reach: usize) -> usize {
        let wanted = match target {
            Target::At(at) => Some(at),
            Target::Return(value) => self.returns.iter().find(|&&(known, _)| known == value).map(|&(_, at)| at),
        };
        match (target, wanted) {
            (_, Some(at)) if self.reversed.len() - at - 1 <= reach => at,
            (Target::At(at), _) => self.jump(at),
            (Target::Return(value), _) => self.put_return(value),
        }
    }

    fn distance(&self, at: usize) -> u8 {
        u8::try_from(self.reversed.len() - at - 1).expect("the target was brought near")
    }

    /// The program that starts at `entry`.
    pub(crate) fn finish(mut self, entry: Target) -> Vec<Instruction> {
        self.fall_through(entry);
        self.reversed.reverse();
        self.reversed
    }
}
