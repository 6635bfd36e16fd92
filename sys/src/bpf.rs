//! bpf(2), as far as the device programs of cgroup v2 need it: load, attach, replace, detach, query.
//!
//! A cgroup's program outlives every fd of it: it goes when it is detached, or with the cgroup. All calls need
//! CAP_SYS_ADMIN (or CAP_BPF and CAP_NET_ADMIN) in the initial user namespace.

#![allow(unsafe_code, reason = "bpf is not in nix")]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;

use crate::error::{Error, Result, fd, flags};
use crate::fd::own;

/// One instruction (`struct bpf_insn`): an opcode, two registers, a jump's distance, a constant.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Class, operation and source (Documentation/bpf/standardization/instruction-set.rst).
    pub code: u8,
    /// Destination in the low four bits, source in the high ones.
    pub registers: u8,
    /// How many instructions a jump skips, or the offset of a load.
    pub offset: i16,
    /// The constant.
    pub immediate: i32,
}

/// A loaded program.
#[derive(Debug)]
pub struct Program(OwnedFd);

bitflags::bitflags! {
    /// How programs of one cgroup live together (linux/bpf.h).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct AttachFlags: u32 {
        /// A descendant may attach one of its own, which takes the place of this one.
        const ALLOW_OVERRIDE = 1;
        /// There may be several here and below, and all have to agree.
        const ALLOW_MULTI = 2;
        /// Takes the place of a given program at once (Linux 5.6).
        const REPLACE = 4;
    }
}

/// The programs of one kind that are attached to a cgroup itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// As they were attached.
    pub flags: AttachFlags,
    /// Their numbers, for [`Program::by_id`].
    pub ids: Vec<u32>,
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;

/// More programs than any cgroup has (`BPF_CGROUP_MAX_PROGS` of linux/bpf-cgroup-defs.h).
const MOST_PROGRAMS: usize = 64;
/// What the verifier may say about a program that it refuses.
const LOG_BYTES: usize = 64 * 1024;
/// How often a load is tried that signals interrupt. The verifier gives up with EAGAIN while one waits, instead of having the
/// kernel restart the call (`do_check`, kernel/bpf/verifier.c); a process that is stopped, frozen or traced meets that too.
const LOAD_ATTEMPTS: usize = 30;

// Padding is what was on the stack, and the kernel reads every byte that it is told of: it takes it for a newer field, or
// refuses what is not zero behind the last one that it knows (EINVAL). So no arguments have any.
const _: () = assert!(size_of::<LoadArguments>() == 8 * 4 + 3 * 8 + 16);
const _: () = assert!(size_of::<AttachArguments>() == 6 * 4);
const _: () = assert!(size_of::<QueryArguments>() == 6 * 4 + 5 * 8);
const _: () = assert!(size_of::<IdArguments>() == 4 * 4);

/// `union bpf_attr` of `BPF_PROG_LOAD`.
#[repr(C, align(8))]
struct LoadArguments {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

/// `union bpf_attr` of `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C, align(8))]
#[derive(Default)]
struct AttachArguments {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
    /// Where among the others (Linux 6.6); cgroup programs take none.
    relative: u32,
}

/// `union bpf_attr` of `BPF_PROG_QUERY`, whole: kernels that know the last field write to it whatever size they are told.
#[repr(C, align(8))]
#[derive(Default)]
struct QueryArguments {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
    each_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// `union bpf_attr` of `BPF_PROG_GET_FD_BY_ID`.
#[repr(C, align(8))]
#[derive(Default)]
struct IdArguments {
    id: u32,
    next: u32,
    flags: u32,
    token: u32,
}

impl Program {
    /// Loads a device program under a name that bpftool(8) shows. One that the verifier refuses is loaded once more, to
    /// be told why.
    pub fn load_cgroup_device(name: &str, instructions: &[Instruction]) -> Result<Program> {
        let mut no_log = [];
        match load(name, instructions, &mut no_log) {
            Err(Errno::EINVAL | Errno::EACCES) => {}
            result => return result.map_err(|errno| load_failed(instructions, errno)),
        }
        let mut log = vec![0; LOG_BYTES];
        load(name, instructions, &mut log).map_err(|errno| {
            let text = log.split(|&byte| byte == 0).next().unwrap_or_default();
            let text = String::from_utf8_lossy(text).trim_end().replace('\n', "; ");
            load_failed(instructions, errno).with_detail(text)
        })
    }

    /// A program of the kernel's, by its number.
    pub fn by_id(id: u32) -> Result<Program> {
        let mut arguments = IdArguments { id, ..IdArguments::default() };
        // SAFETY: the arguments hold no pointers.
        let number = unsafe { bpf(PROG_GET_FD_BY_ID, &mut arguments) };
        let failed = |errno| Error::new("bpf", errno, format_args!("BPF_PROG_GET_FD_BY_ID, {id}"));
        // SAFETY: the kernel has just opened it for us.
        number.map(|number| Program(unsafe { own(number) })).map_err(failed)
    }

    /// Attaches the program to a cgroup v2 directory as a device program; with `replaced` in the place of that one, in one
    /// step. All programs of a cgroup have to be attached with the same flags (EPERM).
    pub fn attach_device(&self, cgroup: &impl AsFd, how: AttachFlags, replaced: Option<&Program>) -> Result<()> {
        let how = how | if replaced.is_some() { AttachFlags::REPLACE } else { AttachFlags::empty() };
        let mut arguments = AttachArguments {
            target: number(cgroup),
            program: number(&self.0),
            attach_type: CGROUP_DEVICE,
            flags: how.bits(),
            replaced: replaced.map_or(0, |program| number(&program.0)),
            relative: 0,
        };
        // SAFETY: the arguments hold no pointers.
        let attached = unsafe { bpf(PROG_ATTACH, &mut arguments) };
        let failed = |errno| {
            Error::new("bpf", errno, format_args!("BPF_PROG_ATTACH, {}, BPF_CGROUP_DEVICE, {}", fd(cgroup), flags(how)))
        };
        attached.map(drop).map_err(failed)
    }

    /// Detaches the program from a cgroup.
    pub fn detach_device(&self, cgroup: &impl AsFd) -> Result<()> {
        let mut arguments = AttachArguments {
            target: number(cgroup),
            program: number(&self.0),
            attach_type: CGROUP_DEVICE,
            ..AttachArguments::default()
        };
        // SAFETY: the arguments hold no pointers.
        let detached = unsafe { bpf(PROG_DETACH, &mut arguments) };
        let failed =
            |errno| Error::new("bpf", errno, format_args!("BPF_PROG_DETACH, {}, BPF_CGROUP_DEVICE", fd(cgroup)));
        detached.map(drop).map_err(failed)
    }
}

/// The device programs of a cgroup v2 directory, without those of its ancestors.
pub fn device_programs(cgroup: &impl AsFd) -> Result<Attached> {
    let mut ids = [0_u32; MOST_PROGRAMS];
    let mut arguments = QueryArguments {
        target: number(cgroup),
        attach_type: CGROUP_DEVICE,
        ids: (&raw mut ids) as u64,
        count: MOST_PROGRAMS as u32,
        ..QueryArguments::default()
    };
    // SAFETY: `ids` has room for `count` numbers and outlives the call.
    let queried = unsafe { bpf(PROG_QUERY, &mut arguments) };
    queried
        .map_err(|errno| Error::new("bpf", errno, format_args!("BPF_PROG_QUERY, {}, BPF_CGROUP_DEVICE", fd(cgroup))))?;
    let count = (arguments.count as usize).min(MOST_PROGRAMS);
    Ok(Attached { flags: AttachFlags::from_bits_retain(arguments.attach_flags), ids: ids[..count].to_vec() })
}

/// With an empty `log` none is asked for.
fn load(name: &str, instructions: &[Instruction], log: &mut [u8]) -> nix::Result<Program> {
    let mut short = [0; 16];
    // The last byte stays 0, as the kernel wants it.
    short.iter_mut().take(15).zip(name.bytes()).for_each(|(to, from)| *to = from);
    let license = c"MIT";
    let mut arguments = LoadArguments {
        program_type: PROG_TYPE_CGROUP_DEVICE,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        kernel_version: 0,
        flags: 0,
        name: short,
        interface: 0,
        expected_attach_type: 0,
    };
    // SAFETY: the pointers are to `instruction_count` instructions, a C string and `log_size` writable bytes, all of which
    // outlive the calls.
    let mut attempt = || unsafe { bpf(PROG_LOAD, &mut arguments) };
    let uninterrupted = (1..LOAD_ATTEMPTS).map(|_| attempt()).find(|loaded| *loaded != Err(Errno::EAGAIN));
    let loaded = uninterrupted.unwrap_or_else(attempt);
    // SAFETY: the kernel has just opened it for us.
    loaded.map(|number| Program(unsafe { own(number) }))
}

fn load_failed(instructions: &[Instruction], errno: Errno) -> Error {
    let count = instructions.len();
    Error::new("bpf", errno, format_args!("BPF_PROG_LOAD, {{BPF_PROG_TYPE_CGROUP_DEVICE, {count} instructions}}"))
}

fn number(file: &impl AsFd) -> u32 {
    file.as_fd().as_raw_fd().cast_unsigned()
}

/// New fds are close-on-exec without asking.
///
/// # Safety
/// Addresses in `arguments` must be good for what `command` does with them.
unsafe fn bpf<T>(command: libc::c_int, arguments: &mut T) -> nix::Result<libc::c_long> {
    // SAFETY: `arguments` is the command's part of union bpf_attr, of the size that is passed; the rest is the caller's
    // promise.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(arguments), size_of::<T>()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_have_the_kernels_layout() {
        assert_eq!(size_of::<Instruction>(), 8);
        assert_eq!(size_of::<LoadArguments>(), 72);
        assert_eq!(std::mem::offset_of!(LoadArguments, name), 48);
        assert_eq!(std::mem::offset_of!(AttachArguments, relative), 20);
        assert_eq!(std::mem::offset_of!(QueryArguments, count), 24);
        assert_eq!(std::mem::offset_of!(QueryArguments, revision), 56);
    }
}
