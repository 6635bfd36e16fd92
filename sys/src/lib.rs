//! Linux primitives that std lacks, one module per subject of the kernel; the only home of `unsafe`.
//!
//! Every function wraps one system call, or the shortest sequence of them that is sound by itself. It takes
//! `impl AsFd`, returns an [`OwnedFd`](std::os::fd::OwnedFd) that is close-on-exec, and fails with an [`Error`]
//! that prints the call and its arguments. No policy, no logging, no async, no fallback that hides a failure.
//!
//! | kernel | what needs it | below it |
//! |---|---|---|
//! | 5.2 | `fsopen`, `move_mount` ([`mount`]), `CLONE_PIDFD` ([`process`]) | refused: the call's ENOSYS |
//! | 5.6 | `openat2` ([`rootfd`], [`procfs`]) | refused |
//! | 5.7 | `CLONE_INTO_CGROUP` ([`process`]) | refused |
//! | 5.11 | `CLOSE_RANGE_CLOEXEC` ([`fd`]) | refused |
//! | 5.12 | `mount_setattr` ([`mount`]) | refused |
//! | 6.3 | `MFD_EXEC`, `MFD_NOEXEC_SEAL` ([`fd::sealed_memfd`]) | the flag is left out, the seals are the same |
//! | 6.6 | `fchmodat2` ([`at`]) | chmod through `/proc/self/fd` |
//! | 6.8 | overlay's `lowerdir+` ([`mount`]) | [`mount::mount_on`], see there |

pub mod at;
pub mod conntrack;
pub mod credentials;
pub mod error;
pub mod fd;
pub mod fs;
pub mod memory;
pub mod mount;
pub mod mountinfo;
pub mod namespace;
pub mod netlink;
pub mod nft;
pub mod poll;
pub mod process;
pub mod procfs;
pub mod pty;
pub mod remove;
pub mod rootfd;
pub mod signal;
pub mod socket;
pub mod usage;

pub use error::{Error, Result};
pub use nix::errno::Errno;
