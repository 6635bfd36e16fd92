//! What a program that enters containers does before the C library and std begin: it leaves the file that it was executed from.
//!
//! A container that gets hold of that file must not be able to write it (CVE-2019-5736), so the program executes itself once more
//! through a read-only mount of its own. Of all the ways to do so the cheapest is the one that has done nothing else yet: glibc
//! asks the processor for its features with dozens of `cpuid` instructions, each of which leaves a virtual machine for
//! microseconds, and std looks at its streams, its stack and its signals. Here it is four system calls.
//!
//! A binary gets this by naming `orlop_entry` as its ELF entry (`oci-runtime/build.rs`). It is no more than a short cut: what
//! fails here is left to the program, which looks again and tells of it.
//!
//! **Rules.** Neither the C library nor thread-local storage exists here: plain loads, and system calls made by hand. No array is
//! filled or copied: the compiler may make a call of `memset` or `memcpy` of it, which in a static program leads through a table
//! that is empty until the C library has looked at the processor (`IFUNC`).

#![allow(unsafe_code, reason = "the kernel's initial stack is read and system calls are made without a C library")]

use std::arch::{asm, naked_asm};
use std::mem::{MaybeUninit, size_of};

use nix::libc::{self, c_long};

/// The verbs that enter a container, wherever they stand among the arguments: a word too many costs an exec, nothing else.
const VERBS: [&[u8]; 4] = [b"create", b"run", b"exec", b"restore"];

/// The image that runs.
const OWN_IMAGE: &std::ffi::CStr = c"/proc/self/exe";

/// `struct statfs` of the kernel on x86_64 (asm-generic/statfs.h), and where its `f_flags` are.
const STATFS_WORDS: usize = 15;
const STATFS_FLAGS: usize = 10;

/// The ELF entry: passes on what the kernel or the dynamic loader left on the stack and in `rdx`.
///
/// # Safety
/// The kernel's or the loader's to call, as the first code of a process.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn orlop_entry() -> ! {
    naked_asm!(
        "mov rdi, rsp",
        "push rdx",
        // The stack is aligned to 16 bytes at a call.
        "sub rsp, 8",
        "call {leave}",
        "add rsp, 8",
        "pop rdx",
        "jmp _start",
        leave = sym leave_writable_image,
    )
}

/// Executes the program again through a read-only mount, or returns: because it runs from one, has no need, or can't.
///
/// # Safety
/// `stack` is the initial stack of the process: the number of arguments, that many pointers and NULL, the environment and NULL.
unsafe extern "C" fn leave_writable_image(stack: *const usize) {
    // SAFETY: the layout that the caller promises.
    let (arguments, environment) = unsafe {
        let (count, arguments) = (*stack, stack.add(1).cast::<*const u8>());
        if !(0..count).any(|index| is_verb(*arguments.add(index))) {
            return;
        }
        (arguments, arguments.add(count + 1))
    };
    let mut stat = MaybeUninit::<[u64; STATFS_WORDS]>::uninit();
    // SAFETY: a path that ends with NUL and room for the answer.
    let looked = unsafe { call(libc::SYS_statfs, [OWN_IMAGE.as_ptr() as usize, stat.as_mut_ptr() as usize, 0, 0, 0]) };
    // SAFETY: a call that went well has written all words.
    if looked != 0 || unsafe { *stat.as_ptr().cast::<u64>().add(STATFS_FLAGS) } & libc::ST_RDONLY != 0 {
        return;
    }
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: as above.
    let image = unsafe {
        call(libc::SYS_open_tree, [libc::AT_FDCWD as usize, OWN_IMAGE.as_ptr() as usize, flags as usize, 0, 0])
    };
    let Ok(image) = usize::try_from(image) else { return };
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let (empty, at_empty) = (c"".as_ptr() as usize, libc::AT_EMPTY_PATH as usize);
    // SAFETY: the attributes are read; argument and environment lists are the kernel's own, unchanged; the number is
    // that of the mount that was just made, and is closed once.
    unsafe {
        let change = [image, empty, at_empty, (&raw const attr) as usize, size_of::<libc::mount_attr>()];
        if call(libc::SYS_mount_setattr, change) == 0 {
            call(libc::SYS_execveat, [image, empty, arguments as usize, environment as usize, at_empty]);
        }
        call(libc::SYS_close, [image, 0, 0, 0, 0]);
    }
}

/// # Safety
/// `argument` ends with NUL.
unsafe fn is_verb(argument: *const u8) -> bool {
    VERBS.iter().any(|verb| {
        // SAFETY: a byte is looked at if all before it were those of the verb, so none of them was the NUL.
        let same = verb.iter().enumerate().all(|(index, byte)| unsafe { *argument.add(index) } == *byte);
        // SAFETY: as above.
        same && unsafe { *argument.add(verb.len()) } == 0
    })
}

/// One system call; a negative result is an error number.
///
/// # Safety
/// As the call's.
unsafe fn call(number: c_long, arguments: [usize; 5]) -> isize {
    let result;
    // SAFETY: the kernel's calling convention; it changes rax, rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}
