//! What the whole machine uses, from /proc. Parsers are pure; [`read`] is the thin part.

use super::summary::{InterfaceStats, PsiData, PsiStats};

/// One reading of the machine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Machine {
    /// CPU time since boot, in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Page faults since boot, all and those that needed I/O.
    pub page_faults: Option<(u64, u64)>,
    /// Pressure of processors, memory and I/O, where the kernel has it.
    pub cpu_psi: Option<PsiStats>,
    /// Of memory.
    pub memory_psi: Option<PsiStats>,
    /// Of I/O.
    pub io_psi: Option<PsiStats>,
    /// Interfaces, the one of the default route first.
    pub interfaces: Vec<InterfaceStats>,
    /// The most tasks that there can be.
    pub max_pid: Option<i64>,
    /// Tasks that there are.
    pub tasks: Option<i64>,
    /// When it booted, in seconds since 1970.
    pub booted: i64,
    /// Processors.
    pub cpus: u64,
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// All there is.
    pub total: u64,
    /// In use, page cache included.
    pub usage: u64,
    /// In use, less what could be dropped at once.
    pub working_set: u64,
    /// Anonymous.
    pub rss: u64,
    /// Swap in use, and in all.
    pub swap: (u64, u64),
}

/// Reads /proc. Blocks for a moment.
pub fn read() -> Machine {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let stat = text("/proc/stat");
    let number = |path: &str| text(path).trim().parse::<i64>().ok();
    let limits = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    Machine {
        cpu_ns: cpu_ns(&stat),
        memory: memory(&text("/proc/meminfo")),
        page_faults: page_faults(&text("/proc/vmstat")),
        cpu_psi: pressure(&text("/proc/pressure/cpu")),
        memory_psi: pressure(&text("/proc/pressure/memory")),
        io_psi: pressure(&text("/proc/pressure/io")),
        interfaces: interfaces(&text("/proc/net/dev"), &text("/proc/net/route")),
        max_pid: limits.into_iter().filter_map(number).min(),
        tasks: tasks(&text("/proc/loadavg")),
        booted: stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or_default(),
        cpus: stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count() as u64,
    }
}

/// All but idle and iowait; guests' time is part of user and nice. USER_HZ is 100.
fn cpu_ns(stat: &str) -> Option<u64> {
    let ticks: Vec<u64> =
        stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map_while(|n| n.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else { return None };
    Some((user + nice + system + irq + softirq + steal) * 10_000_000)
}

fn memory(meminfo: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    let total = field("MemTotal")?;
    let usage = total.saturating_sub(field("MemFree")?);
    let (swap_total, swap_free) = (field("SwapTotal").unwrap_or_default(), field("SwapFree").unwrap_or_default());
    Some(Memory {
        total,
        usage,
        working_set: usage.saturating_sub(field("Inactive(file)").unwrap_or_default()),
        rss: field("AnonPages").unwrap_or_default(),
        swap: (swap_total.saturating_sub(swap_free), swap_total),
    })
}

fn page_faults(vmstat: &str) -> Option<(u64, u64)> {
    let field = |name: &str| vmstat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    Some((field("pgfault ")?, field("pgmajfault ")?))
}

fn tasks(loadavg: &str) -> Option<i64> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

/// A pressure file (Documentation/accounting/psi.rst), whose totals are in microseconds.
fn pressure(text: &str) -> Option<PsiStats> {
    let line = |kind: &str| -> Option<PsiData> {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let field = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        Some(PsiData {
            total: field("total")?.trim().parse::<u64>().ok()?.saturating_mul(1000),
            avg10: field("avg10")?.parse().ok()?,
            avg60: field("avg60")?.parse().ok()?,
            avg300: field("avg300")?.parse().ok()?,
        })
    };
    Some(PsiStats { full: line("full").unwrap_or_default(), some: line("some")? })
}

/// Interfaces that lead out of the machine; the ends of pods' are told with the pods.
fn interfaces(dev: &str, route: &str) -> Vec<InterfaceStats> {
    let default = route.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?;
        (fields.next()? == "00000000").then_some(name)
    });
    let mut found: Vec<InterfaceStats> = dev.lines().skip(2).filter_map(interface).collect();
    found.sort_by_key(|one| Some(one.name.as_str()) != default);
    found
}

fn interface(line: &str) -> Option<InterfaceStats> {
    let (name, rest) = line.split_once(':')?;
    let name = name.trim();
    if name == "lo" || name.starts_with("veth") {
        return None;
    }
    let fields: Vec<u64> = rest.split_whitespace().map_while(|field| field.parse().ok()).collect();
    Some(InterfaceStats {
        name: name.to_owned(),
        rx_bytes: fields.first().copied(),
        rx_errors: fields.get(2).copied(),
        tx_bytes: fields.get(8).copied(),
        tx_errors: fields.get(10).copied(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_what_was_not_idle() {
        assert_eq!(cpu_ns("cpu  1 2 3 400 50 6 7 8 9 10\ncpu0 1\n"), Some(27 * 10_000_000));
        assert_eq!(cpu_ns("intr 1\n"), None);
    }

    #[test]
    fn the_working_set_leaves_out_what_could_be_dropped() {
        let text = "MemTotal: 1000 kB\nMemFree: 300 kB\nInactive(file): 200 kB\nAnonPages: 50 kB\nSwapTotal: 10 kB\nSwapFree: 4 kB\n";
        let expected =
            Memory { total: 1_024_000, usage: 716_800, working_set: 512_000, rss: 51_200, swap: (6144, 10240) };
        assert_eq!(memory(text), Some(expected));
    }

    #[test]
    fn pressure_is_read_where_the_kernel_has_it() {
        let text = "some avg10=2.58 avg60=6.51 avg300=8.50 total=37\nfull avg10=0.00 avg60=0.10 avg300=0.00 total=5\n";
        let stats = pressure(text).unwrap();
        assert_eq!((stats.some.total, stats.full.total), (37_000, 5_000));
        assert!((stats.some.avg60 - 6.51).abs() < 1e-9 && (stats.full.avg60 - 0.1).abs() < 1e-9);
        assert_eq!(pressure(""), None);
    }

    #[test]
    fn the_interface_of_the_default_route_is_first_and_ends_of_pods_are_left_out() {
        let dev = "h\nh\n    lo: 1 0 0 0 0 0 0 0 1 0 0\n  cni0: 5 0 0 0 0 0 0 0 6 0 0\nveth1: 7 0 0 0 0 0 0 0 7 0 0\n  eth0: 10 1 2 0 0 0 0 0 20 3 4 0 0 0 0 0\n";
        let route = "Iface\tDestination\neth0\t0000FEA9\neth0\t00000000\n";
        let found = interfaces(dev, route);
        assert_eq!(found.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["eth0", "cni0"]);
        assert_eq!(
            (found[0].rx_bytes, found[0].rx_errors, found[0].tx_bytes, found[0].tx_errors),
            (Some(10), Some(2), Some(20), Some(4))
        );
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = read();
        assert!(
            machine.cpu_ns.is_some() && machine.memory.is_some() && machine.tasks > Some(0) && machine.cpus > 0,
            "{machine:?}"
        );
    }
}
