//! What a cgroup uses, in the figures of a kubelet.

use cgroup::Stats;

/// What a cgroup uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time since it was made, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory in bytes, page cache included.
    pub memory: u64,
    /// Memory less what could be dropped at once.
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Those that needed I/O.
    pub major_page_faults: u64,
    /// Tasks.
    pub pids: u64,
    /// The lowest memory limit on the way up from it, if there is one.
    pub memory_limit: Option<u64>,
}

/// The figures of a reading; what no controller tells is 0.
pub(super) fn of(stats: &Stats) -> Usage {
    let memory = stats.memory.unwrap_or_default();
    Usage {
        cpu_ns: stats.cpu.map_or(0, |cpu| cpu.usage_ns),
        memory: memory.usage,
        working_set: memory.working_set(),
        rss: memory.rss,
        page_faults: memory.page_faults,
        major_page_faults: memory.major_page_faults,
        pids: stats.pids.map_or(0, |pids| pids.current),
        memory_limit: memory.limit,
    }
}

/// The whole machine. The root cgroup of v2 does not count memory: /proc/meminfo does.
pub(super) fn of_node(stats: &Stats) -> Usage {
    let usage = of(stats);
    match (&stats.memory, sys::fs::read_knob("/proc/meminfo")) {
        (None, Ok(text)) => Usage { memory: in_use(&text).0, working_set: in_use(&text).1, ..usage },
        _ => usage,
    }
}

/// Memory in use, and the part of it that could not be dropped at once, in bytes.
fn in_use(meminfo: &str) -> (u64, u64) {
    let bytes = |key: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    let used = bytes("MemTotal").saturating_sub(bytes("MemFree"));
    (used, used.saturating_sub(bytes("Inactive(file)")))
}

/// How many processes and threads the machine takes.
pub(super) fn pid_max() -> Option<u64> {
    let read = |file: &str| sys::fs::read_knob(file).ok()?.trim().parse::<u64>().ok();
    let limits = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    limits.into_iter().filter_map(read).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_use_is_read_where_the_root_cgroup_does_not_tell() {
        let text = "MemTotal:  1000 kB\nMemFree:  300 kB\nInactive(file):  100 kB\n";
        assert_eq!(in_use(text), (700 * 1024, 600 * 1024));
    }
}
