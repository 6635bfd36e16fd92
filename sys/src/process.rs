//! Processes: made with clone3(2), held as a pidfd plus a start time, reaped with waitid(2).
//!
//! A process number alone names nothing for long: what has to survive a restart of ours is a [`Process`] (number and
//! start time), what is signalled or waited for is a [`PidFd`].

#![allow(unsafe_code, reason = "clone3, waitid with real-time signals, sched_setattr and others are not in nix")]

mod attributes;
mod clone;
mod identity;
mod pidfd;
mod scheduling;
mod wait;

pub use nix::sched::CloneFlags;
pub use nix::sys::signal::Signal;
pub use nix::unistd::Pid;

pub use self::attributes::{
    change_directory, execve, exit_now, join_new_session_keyring, set_child_subreaper, set_dumpable, set_name,
    set_pdeathsig, set_personality, set_session,
};
pub use self::clone::{
    Child, CloneArgs, Fork, SingleThread, clone3, clone3_alone, fork, fork_alone, require_single_thread,
};
pub(crate) use self::identity::parse;
pub use self::identity::{Process, Stat, start_time, stat};
pub use self::pidfd::PidFd;
pub use self::scheduling::{
    Mask, Scheduling, affinity, io_priority, reset_affinity, scheduling, set_affinity, set_io_priority,
    set_memory_policy, set_scheduling,
};
pub use self::wait::{Exit, wait_any, wait_for};
