//! Cloning, forking, pivoting and changing credentials through `sys`, each in a process of its own with one thread.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a scenario of `tests/src/bin/sys-probe.rs`.
#[track_caller]
fn probe(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_sys-probe")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_clone_is_held_by_its_pidfd_until_it_is_reaped() {
    probe(&["clone"]);
}

#[test]
fn a_stage_child_makes_a_container_that_is_its_parents_child() {
    probe(&["sibling"]);
}

#[test]
fn a_process_that_a_real_time_signal_killed_is_reaped_with_that_number() {
    probe(&["real-time-signal"]);
}

#[test]
fn a_child_joins_a_pid_namespace_and_its_maker_comes_back() {
    probe(&["pid-namespace"]);
}

#[test]
fn a_program_inherits_its_table_of_fds_and_nothing_else() {
    probe(&["fds"]);
}

#[test]
fn ignored_and_blocked_signals_are_reset() {
    probe(&["signals"]);
}

#[test]
fn after_a_pivot_into_a_detached_mount_nothing_of_the_old_root_is_left() {
    probe(&["pivot"]);
}

#[test]
fn a_mount_over_proc_does_not_redirect_our_writes() {
    probe(&["procfs"]);
}

#[test]
fn ids_and_capabilities_are_exactly_what_was_asked_for() {
    probe(&["identity"]);
}

#[test]
fn a_device_program_is_loaded_whatever_signals_interrupt_the_verifier() {
    probe(&["interrupted-load"]);
}

/// A cgroup v2 directory of this test, removed at the end.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Cgroup {
        let mounts = sys::mountinfo::read().unwrap();
        let unified = mounts.iter().find(|mount| mount.fstype == "cgroup2").expect("a cgroup v2 mount");
        let directory = unified.mount_point.join(format!("orlop-test-{}-clone", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        Cgroup(directory)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.0).unwrap();
    }
}

#[test]
fn a_process_is_born_in_its_cgroup() {
    let cgroup = Cgroup::new();
    let directory: &Path = &cgroup.0;
    probe(&["into-cgroup", directory.to_str().unwrap()]);
}
