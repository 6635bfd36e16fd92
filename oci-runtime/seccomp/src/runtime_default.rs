//! The profile that Kubernetes calls RuntimeDefault.
//!
//! The same calls as containerd 2.4's (contrib/seccomp), which a test holds it to: what a pod may do must not
//! depend on the runtime. Most calls are always allowed, some only with the capability that the kernel asks for
//! anyway, and the rest fail with EPERM, or with ENOSYS if they are newer than the profile.
//!
//! containerd leaves `ptrace` out on kernels before 4.8, where it could be used to get around seccomp. None of
//! those can run the rest of Orlop.

use crate::profile::{Action, Architecture, Argument, Operator, Profile, Rule};

/// Allowed to everyone.
const ALWAYS: &str = "\
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown \
    chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 \
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
    eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark \
    fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock \
    fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex \
    futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu \
    getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer \
    getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 \
    getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat \
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents \
    io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr \
    listxattrat llistxattr lremovexattr lseek lsetxattr lsm_get_self_attr lsm_list_modules lsm_set_self_attr lstat \
    lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock \
    mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 \
    mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall \
    munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 \
    pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 \
    process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv \
    recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat \
    renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn \
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max \
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield \
    seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg \
    sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 \
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid \
    setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl \
    shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat \
    stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time \
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 \
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate \
    truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork \
    vmsplice wait4 waitid waitpid write writev";

/// Since kernel 4.8 a tracer cannot change a call after it was let through.
const TRACING: &str = "process_vm_readv process_vm_writev ptrace";

/// Particular to x86_64.
const X86_64: &str = "arch_prctl modify_ldt";

/// Execution domains that only change what `uname` says and how addresses are laid out; the last asks.
const PERSONALITIES: [u64; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Address families below AF_ALG, in a rule of its own because there are many. AF_ALG (38) is the kernel's
/// cryptography, a large surface that hardly any program uses; AF_VSOCK (40) reaches virtual machines past the
/// network namespace. Numbers are from linux/socket.h.
const SOCKETS_BELOW: u64 = 38;
/// The others: NFC, KCM, QIPCRTR, SMC, XDP, MCTP.
const SOCKETS: [u64; 6] = [39, 41, 42, 43, 44, 45];

/// The flags of `clone` that make namespaces: cgroup, uts, ipc, user, pid, net and mount.
const NAMESPACES: u64 = 0x7e02_0000;

const ENOSYS: u32 = 38;

/// What a capability adds.
const WITH_CAPABILITY: [(&str, &str); 14] = [
    ("CAP_BPF", "bpf"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_PERFMON", "perf_event_open"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYSLOG", "syslog"),
];

/// The profile for a process with this bounding set; names as in a spec (`CAP_SYS_ADMIN`), unknown ones add nothing.
pub fn runtime_default(bounding: &[&str]) -> Profile {
    let has = |capability: &str| bounding.contains(&capability);
    let mut syscalls = vec![allow(ALWAYS)];
    syscalls.push(allow_if("socket", 0, Operator::Less, SOCKETS_BELOW));
    syscalls.extend(SOCKETS.map(|family| allow_if("socket", 0, Operator::Equal, family)));
    syscalls.extend(PERSONALITIES.map(|personality| allow_if("personality", 0, Operator::Equal, personality)));
    syscalls.extend([allow(TRACING), allow(X86_64)]);
    syscalls.extend(WITH_CAPABILITY.iter().filter(|(capability, _)| has(capability)).map(|(_, names)| allow(names)));
    if !has("CAP_SYS_ADMIN") {
        syscalls.push(allow_if("clone", 0, Operator::MaskedEqual, NAMESPACES));
        // Its flags are behind a pointer, so that it cannot be let through in part. C libraries fall back to clone,
        // but only if they hear that there is no clone3.
        syscalls.push(Rule {
            names: vec!["clone3".to_owned()],
            action: Action::Errno,
            errno_ret: Some(ENOSYS),
            args: Vec::new(),
        });
    }
    Profile {
        default_action: Action::Errno,
        default_errno_ret: None,
        architectures: vec![Architecture::X86_64, Architecture::X86, Architecture::X32],
        flags: None,
        listener_path: None,
        listener_metadata: None,
        syscalls,
    }
}

fn allow(names: &str) -> Rule {
    let names = names.split_whitespace().map(str::to_owned).collect();
    Rule { names, action: Action::Allow, errno_ret: None, args: Vec::new() }
}

/// Allows one call if an argument fits; for a mask, if nothing of it is set.
fn allow_if(name: &str, index: u32, op: Operator, value: u64) -> Rule {
    Rule { args: vec![Argument { index, value, value_two: 0, op }], ..allow(name) }
}
