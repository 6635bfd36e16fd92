//! `process_*`: this process as the kernel sees it, under client_golang's names.

use super::text::{Kind, Text};
use std::path::Path;

/// Ticks a second in `/proc/<pid>/stat`: USER_HZ is 100 on every architecture that we build for.
const TICKS: f64 = 100.0;
const PAGE: f64 = 4096.0;

/// The fields of `/proc/self/stat` that matter.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    started_ticks: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

/// Writes what `/proc/self` tells; what can't be read is left out.
pub fn write(out: &mut Text) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    if let Some(stat) = stat(&read("/proc/self/stat")) {
        let boot = boot_time(&read("/proc/stat")).unwrap_or_default();
        let gauge = Kind::Gauge;
        for (name, help, kind, value) in [
            (
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
                Kind::Counter,
                stat.cpu_seconds,
            ),
            ("process_resident_memory_bytes", "Resident memory size in bytes.", gauge, stat.resident_bytes),
            ("process_virtual_memory_bytes", "Virtual memory size in bytes.", gauge, stat.virtual_bytes),
            (
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
                gauge,
                boot + stat.started_ticks / TICKS,
            ),
        ] {
            out.family(name, help, kind);
            out.sample(name, &[], value);
        }
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        out.family("process_open_fds", "Number of open file descriptors.", Kind::Gauge);
        out.sample("process_open_fds", &[], files.count() as f64);
    }
    if let Some(most) = most_files(&read("/proc/self/limits")) {
        out.family("process_max_fds", "Maximum number of open file descriptors.", Kind::Gauge);
        out.sample("process_max_fds", &[], most);
    }
}

/// When this process started, in seconds since 1970; `None` where /proc does not tell.
pub fn started_at() -> Option<f64> {
    let text = std::fs::read_to_string(Path::new("/proc/self/stat")).ok()?;
    let boot = boot_time(&std::fs::read_to_string("/proc/stat").ok()?)?;
    Some(boot + stat(&text)?.started_ticks / TICKS)
}

/// proc_pid_stat(5). The name in brackets may itself hold brackets and spaces, so fields are counted from the last one.
fn stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some(Stat {
        cpu_seconds: (field(14)? + field(15)?) / TICKS,
        started_ticks: field(22)?,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * PAGE,
    })
}

fn boot_time(proc_stat: &str) -> Option<f64> {
    proc_stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn most_files(limits: &str) -> Option<f64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194304 1 0 0 0 150 50 0 0 20 0 1 0 4200 8192 3 18446744073709551615 1";
        let expected =
            Stat { cpu_seconds: 2.0, started_ticks: 4200.0, virtual_bytes: 8192.0, resident_bytes: 3.0 * PAGE };
        assert_eq!(stat(text), Some(expected));
        assert_eq!(stat("garbage"), None);
        assert_eq!(stat(""), None);
    }

    #[test]
    fn limits_are_found_by_name() {
        assert_eq!(
            most_files("Limit Soft Hard Units\nMax open files            1024                 4096     files\n"),
            Some(1024.0)
        );
    }
}
