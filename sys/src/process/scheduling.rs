//! When and where a process runs: its scheduling policy, its I/O priority, its CPUs, and the memory nodes that it allocates
//! from (sched(7), ioprio_set(2), sched_setaffinity(2), set_mempolicy(2)).
//!
//! All of it counts for the calling thread, and its children and the programs that it executes inherit it.

use nix::libc;

use crate::Errno;
use crate::error::{Error, Result};

/// The attributes of sched_setattr(2), in the kernel's numbers: `policy` is `SCHED_*`, `flags` are `SCHED_FLAG_*` of
/// linux/sched.h, the times of `SCHED_DEADLINE` are in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// 0 other, 1 first in first out, 2 round robin, 3 batch, 4 isochronous (no kernel has it), 5 idle, 6 deadline.
    pub policy: u32,
    /// Reset on fork 1, reclaim 2, overrun 4, keep policy 8, keep parameters 16, clamp 32 and 64.
    pub flags: u64,
    /// For other and batch: -20 to 19.
    pub nice: i32,
    /// For the two real-time policies: 1 to 99.
    pub priority: u32,
    /// For deadline: time to run in each period.
    pub runtime: u64,
    /// For deadline: by when.
    pub deadline: u64,
    /// For deadline: how often; 0 is the deadline.
    pub period: u64,
}

/// `struct sched_attr` of linux/sched/types.h with the clamps of Linux 5.3 (`SCHED_ATTR_SIZE_VER1`).
#[repr(C)]
#[derive(Default)]
struct RawScheduling {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    clamp_min: u32,
    clamp_max: u32,
}

const RAW_SIZE: u32 = size_of::<RawScheduling>() as u32;

/// Sets how the calling thread is scheduled (sched_setattr(2)). EPERM without CAP_SYS_NICE for what takes it, and for a
/// real-time policy in a v1 cgroup without `cpu.rt_runtime_us`.
pub fn set_scheduling(scheduling: &Scheduling) -> Result<()> {
    let Scheduling { policy, flags, nice, priority, runtime, deadline, period } = *scheduling;
    let raw = RawScheduling {
        size: RAW_SIZE,
        policy,
        flags,
        nice,
        priority,
        runtime,
        deadline,
        period,
        ..RawScheduling::default()
    };
    // SAFETY: a thread number (0 is the caller), a structure of the size that stands in it, and no flags.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const raw, 0) };
    Errno::result(result).map(drop).map_err(|errno| {
        let shown = format!(
            "policy={policy}, flags={flags:#x}, nice={nice}, priority={priority}, runtime={runtime}, \
             deadline={deadline}, period={period}"
        );
        Error::new("sched_setattr", errno, format_args!("0, {{{shown}}}, 0"))
    })
}

/// How the calling thread is scheduled (sched_getattr(2)).
pub fn scheduling() -> Result<Scheduling> {
    let mut raw = RawScheduling::default();
    // SAFETY: a thread number, room for a structure and its size, and no flags.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut raw, RAW_SIZE, 0) };
    Errno::result(result).map_err(|errno| Error::new("sched_getattr", errno, "0"))?;
    let RawScheduling { policy, flags, nice, priority, runtime, deadline, period, .. } = raw;
    Ok(Scheduling { policy, flags, nice, priority, runtime, deadline, period })
}

const IOPRIO_WHO_PROCESS: libc::c_int = 1; // linux/ioprio.h
const IOPRIO_CLASS_SHIFT: u16 = 13;

/// Sets the I/O priority of the calling thread (ioprio_set(2)): `class` 1 real-time, 2 best effort, 3 idle; `priority` 0 to 7,
/// the highest first. The real-time class takes CAP_SYS_NICE or CAP_SYS_ADMIN.
pub fn set_io_priority(class: u16, priority: u16) -> Result<()> {
    let value = libc::c_int::from(class << IOPRIO_CLASS_SHIFT | priority);
    // SAFETY: three numbers.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) };
    Errno::result(result).map(drop).map_err(|errno| {
        Error::new("ioprio_set", errno, format_args!("IOPRIO_WHO_PROCESS, 0, class {class} priority {priority}"))
    })
}

/// Class and priority of the calling thread's I/O (ioprio_get(2)).
pub fn io_priority() -> Result<(u16, u16)> {
    // SAFETY: two numbers.
    let value = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) };
    let value = Errno::result(value).map_err(|errno| Error::new("ioprio_get", errno, "IOPRIO_WHO_PROCESS, 0"))?;
    let value = value as u16; // 16 bits by definition (linux/ioprio.h)
    Ok((value >> IOPRIO_CLASS_SHIFT, value & ((1 << IOPRIO_CLASS_SHIFT) - 1)))
}

/// A set of CPUs or memory nodes: bit `n % 64` of word `n / 64`, as the kernel takes it.
pub type Mask = [u64];

/// Lets the calling thread run on the CPUs of `mask` (sched_setaffinity(2)). The kernel leaves out those that don't exist or
/// that the cpuset lacks; EINVAL if none is left.
pub fn set_affinity(mask: &Mask) -> Result<()> {
    // SAFETY: a thread number, and a buffer with its size in bytes.
    let result = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) };
    Errno::result(result)
        .map(drop)
        .map_err(|errno| Error::new("sched_setaffinity", errno, format_args!("0, {}", list(mask))))
}

/// As [`set_affinity`] with every CPU that there is, or will be: what was taken from a process that made this one is given back.
pub fn reset_affinity() -> Result<()> {
    // More than any kernel has; it looks at no more than it knows.
    set_affinity(&[u64::MAX; 1024])
}

/// The CPUs that the calling thread may run on (sched_getaffinity(2)).
pub fn affinity() -> Result<Vec<u64>> {
    let mut mask = vec![0_u64; 128]; // NR_CPUS is at most 8192 (arch/x86/Kconfig)
    // SAFETY: a thread number, and a buffer with its size in bytes.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(mask.as_slice()), mask.as_mut_ptr()) };
    let bytes = Errno::result(result).map_err(|errno| Error::new("sched_getaffinity", errno, "0"))?;
    mask.truncate((bytes as usize).div_ceil(size_of::<u64>()));
    Ok(mask)
}

/// Sets from which nodes the calling thread's memory comes (set_mempolicy(2)). `mode` is one of `MPOL_*` with its
/// `MPOL_F_*` flags. ENOSYS on a kernel without NUMA.
pub fn set_memory_policy(mode: u32, nodes: &Mask) -> Result<()> {
    // The kernel takes one bit less than it is told (mm/mempolicy.c get_nodes).
    let bits = match nodes {
        [] => 0,
        nodes => nodes.len() * 64 + 1,
    };
    let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: a number, a buffer or NULL, and the number of its bits plus one, of which the kernel reads only whole words.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) };
    Errno::result(result)
        .map(drop)
        .map_err(|errno| Error::new("set_mempolicy", errno, format_args!("{mode:#x}, {}, {bits}", list(nodes))))
}

/// The members of a mask as the kernel writes lists: `0-3,7`.
fn list(mask: &Mask) -> String {
    let has = |number: usize| mask.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1);
    let mut ranges: Vec<String> = Vec::new();
    let mut number = 0;
    while number < mask.len() * 64 {
        let first = number;
        while has(number) {
            number += 1;
        }
        match number - first {
            0 => number += 1,
            1 => ranges.push(first.to_string()),
            _ => ranges.push(format!("{first}-{}", number - 1)),
        }
    }
    format!("[{}]", ranges.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own: all this counts for one thread.
    fn in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(work).join().unwrap()
    }

    #[test]
    fn the_scheduling_of_a_thread_is_set_and_read_back() {
        let batch = Scheduling { policy: 3, nice: 5, flags: 1, ..Scheduling::default() };
        let read = in_thread(move || {
            set_scheduling(&batch).unwrap();
            scheduling().unwrap()
        });
        assert_eq!((read.policy, read.nice, read.flags), (3, 5, 1));
    }

    #[test]
    fn a_policy_that_no_kernel_has_is_an_error_that_shows_it() {
        let error = set_scheduling(&Scheduling { policy: 4, ..Scheduling::default() }).unwrap_err();
        assert!(error.is(Errno::EINVAL) && error.to_string().contains("{policy=4, flags=0x0, nice=0,"), "{error}");
    }

    #[test]
    fn the_io_priority_of_a_thread_is_set_and_read_back() {
        let read = in_thread(|| {
            set_io_priority(2, 6).unwrap();
            let best_effort = io_priority().unwrap();
            set_io_priority(3, 0).unwrap();
            (best_effort, io_priority().unwrap())
        });
        assert_eq!(read, ((2, 6), (3, 0)));
        let error = set_io_priority(7, 0).unwrap_err();
        assert!(error.is(Errno::EINVAL) && error.to_string().contains("class 7 priority 0"), "{error}");
    }

    #[test]
    fn a_thread_is_kept_on_a_cpu_and_let_go_again() {
        let (before, one, after) = in_thread(|| {
            let before = affinity().unwrap();
            let first = before.iter().flat_map(|word| (0..64).map(move |bit| word >> bit & 1)).position(|bit| bit == 1);
            let first = first.unwrap();
            let mut mask = vec![0; first / 64 + 1];
            mask[first / 64] = 1 << (first % 64);
            set_affinity(&mask).unwrap();
            let one = affinity().unwrap();
            reset_affinity().unwrap();
            (before, one, affinity().unwrap())
        });
        assert_eq!(one.iter().map(|word| word.count_ones()).sum::<u32>(), 1);
        let covers = before.iter().zip(&after).all(|(before, after)| before & after == *before);
        assert!(covers, "{before:?} {after:?}");
        let error = set_affinity(&[0]).unwrap_err();
        assert!(error.is(Errno::EINVAL) && error.to_string().contains("sched_setaffinity(0, [])"), "{error}");
    }

    #[test]
    fn a_memory_policy_is_set_for_a_thread() {
        let policy = in_thread(|| {
            set_memory_policy(2, &[1]).unwrap(); // MPOL_BIND
            std::fs::read_to_string("/proc/thread-self/numa_maps").unwrap()
        });
        assert!(policy.lines().any(|line| line.contains(" bind:0")), "{policy}");
        let error = set_memory_policy(2, &[]).unwrap_err();
        assert!(error.to_string().contains("set_mempolicy(0x2, [], 0)"), "{error}");
    }

    #[test]
    fn a_mask_is_shown_as_a_list() {
        for (mask, expected) in [
            (&[][..], "[]"),
            (&[0b1000_1111][..], "[0-3,7]"),
            (&[1 << 63, 0b101][..], "[63-64,66]"),
            (&[u64::MAX, 0][..], "[0-63]"),
        ] {
            assert_eq!(list(mask), expected);
        }
    }
}
