//! Cgroups as a test looks into them: in v1's hierarchies or in v2's one tree, whichever this machine counts containers in.

use std::fs;
use std::path::PathBuf;

const MOUNT: &str = "/sys/fs/cgroup";

/// Whether this machine has cgroup v2 only: no controller is in a hierarchy of v1.
pub fn is_v2() -> bool {
    // Below it v1 has a folder of this name, and the one tree of v2 its root's files.
    PathBuf::from(MOUNT).join("cgroup.controllers").exists()
}

/// What is expected here, of two answers that mean the same.
pub fn by_version<T>(v1: T, v2: T) -> T {
    if is_v2() { v2 } else { v1 }
}

/// A file of a cgroup, under the name that each version has for it.
#[derive(Debug, Clone, Copy)]
pub struct Knob {
    /// The controller of v1 and its file.
    pub v1: (&'static str, &'static str),
    /// The file of v2.
    pub v2: &'static str,
}

/// The part of the processor's time, in shares or as a weight.
pub const CPU_SHARE: Knob = Knob { v1: ("cpu", "cpu.shares"), v2: "cpu.weight" };
/// The limit of the processor's time: v1 has the quota alone in its file, v2 its period beside it.
pub const CPU_QUOTA: Knob = Knob { v1: ("cpu", "cpu.cfs_quota_us"), v2: "cpu.max" };
/// The limit of memory, in bytes.
pub const MEMORY_LIMIT: Knob = Knob { v1: ("memory", "memory.limit_in_bytes"), v2: "memory.max" };
/// How many processes there may be.
pub const PIDS_LIMIT: Knob = Knob { v1: ("pids", "pids.max"), v2: "pids.max" };

impl Knob {
    /// What the file of the cgroup `path` says, without the end of its line.
    ///
    /// # Panics
    /// If it can't be read.
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        let path = match is_v2() {
            true => format!("{MOUNT}{path}/{}", self.v2),
            false => format!("{MOUNT}/{}{path}/{}", self.v1.0, self.v1.1),
        };
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}")).trim().to_owned()
    }
}

/// The folder of the cgroup `path`, on v1 in the hierarchy of memory.
pub fn dir(path: &str) -> PathBuf {
    PathBuf::from(format!("{MOUNT}{}{path}", by_version("/memory", "")))
}

/// The processes of the cgroup `path`, of which each is in every hierarchy.
///
/// # Panics
/// If there is no such cgroup.
#[track_caller]
pub fn processes(path: &str) -> Vec<i32> {
    let procs = dir(path).join("cgroup.procs");
    let text = fs::read_to_string(&procs).unwrap_or_else(|error| panic!("read {}: {error}", procs.display()));
    text.lines().map(|pid| pid.parse().expect("a process id")).collect()
}
