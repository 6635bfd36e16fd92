//! What a container uses. A field is `None` where the host has no controller that could tell.

/// One reading of a cgroup and all below it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// CPU time.
    pub cpu: Option<CpuStats>,
    /// Memory.
    pub memory: Option<MemoryStats>,
    /// Tasks.
    pub pids: Option<PidsStats>,
    /// Huge pages, one entry for each size.
    pub hugetlb: Vec<HugetlbStats>,
    /// How much of the time tasks waited for a CPU.
    pub cpu_pressure: Option<Pressure>,
    /// How much of the time tasks waited for memory.
    pub memory_pressure: Option<Pressure>,
    /// How much of the time tasks waited for I/O.
    pub io_pressure: Option<Pressure>,
}

/// CPU time since creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// Nanoseconds on all CPUs together.
    pub usage_ns: u64,
    /// What the quota did; `None` without bandwidth control in the kernel.
    pub throttling: Option<Throttling>,
}

/// What a CPU quota did since creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which there was work.
    pub periods: u64,
    /// Periods in which the quota ended before the work.
    pub throttled: u64,
    /// How long tasks waited then, in nanoseconds.
    pub throttled_ns: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// All that is charged, page cache included.
    pub usage: u64,
    /// Page cache that has not been used lately. Usage minus this is what a kubelet calls the working set.
    pub inactive_file: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// The lowest limit on the way from here to the root; `None` for none.
    pub limit: Option<u64>,
    /// Page faults since creation.
    pub page_faults: u64,
    /// Those that needed I/O.
    pub major_page_faults: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
    /// Swap in use; `None` where swap is not accounted for.
    pub swap: Option<u64>,
    /// Limit of memory and swap together; `None` for none.
    pub swap_limit: Option<u64>,
}

impl MemoryStats {
    /// Usage without page cache that could be dropped, the figure that eviction goes by.
    pub fn working_set(&self) -> u64 {
        self.usage.saturating_sub(self.inactive_file)
    }
}

/// Tasks (threads count one each).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// Now.
    pub current: u64,
    /// At most; `None` for no limit.
    pub limit: Option<u64>,
}

/// One size of huge pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugetlbStats {
    /// As in the kernel's file names: `2MB`.
    pub page_size: String,
    /// Bytes in use.
    pub usage: u64,
    /// Bytes at most; `None` for no limit.
    pub limit: Option<u64>,
    /// Bytes in use at most so far; 0 on v2, which does not record it.
    pub peak: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
    /// Bytes reserved, and how often the limit on that was hit; `None` before Linux 5.7.
    pub reserved: Option<(u64, u64)>,
}

/// Pressure stall information (Documentation/accounting/psi.rst).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// At least one task waited.
    pub some: PressureLine,
    /// All tasks waited.
    pub full: PressureLine,
}

/// One line of a pressure file.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PressureLine {
    /// Percent of the last 10 s.
    pub avg10: f64,
    /// Percent of the last 60 s.
    pub avg60: f64,
    /// Percent of the last 300 s.
    pub avg300: f64,
    /// Nanoseconds since creation.
    pub total_ns: u64,
}
