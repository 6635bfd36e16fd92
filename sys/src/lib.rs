//! Linux primitives that std lacks, one module per subject of the kernel; the only home of `unsafe`.
//!
//! Every function wraps one system call, or the shortest sequence of them that is sound by itself. It takes
//! `impl AsFd`, returns an [`OwnedFd`](std::os::fd::OwnedFd) that is close-on-exec, and fails with an [`Error`]
//! that prints the call and its arguments. No policy, no logging, no async, no fallback that hides a failure.
//!
//! docs/kernel.md lists which kernel each call came with, and what is done on an older one.

pub mod at;
pub mod bpf;
pub mod conntrack;
pub mod copy;
pub mod credentials;
pub mod entry;
pub mod error;
pub mod fd;
pub mod fs;
pub mod kernel;
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
pub mod record_lock;
pub mod remove;
pub mod rootfd;
pub mod signal;
pub mod socket;
pub mod usage;

pub use error::{Error, Result};
pub use nix::errno::Errno;
