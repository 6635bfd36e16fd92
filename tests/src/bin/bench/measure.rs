//! Samples, their medians and their table; what the kernel says of a process.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tests::write;

/// What was measured on one side, by its name in the table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    by_name: BTreeMap<&'static str, Vec<f64>>,
}

/// The outcome of a whole run: ours, then the others.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) rounds: u32,
    pub(crate) sides: Vec<(&'static str, Samples)>,
}

impl Samples {
    pub(crate) fn add(&mut self, what: &'static str, value: f64) {
        self.by_name.entry(what).or_default().push(value);
    }

    /// Forgets everything else.
    pub(crate) fn keep(&mut self, wanted: impl Fn(&str) -> bool) {
        self.by_name.retain(|what, _| wanted(what));
    }
}

impl Report {
    pub(crate) fn print(&self) {
        let Some(((ours, own), others)) = self.sides.split_first() else { return };
        print!("{:<38} {ours:>10}", "median");
        others.iter().for_each(|(theirs, _)| print!(" {theirs:>12} {:>7}", "ratio"));
        println!();
        for (what, samples) in &own.by_name {
            let own = median(samples);
            print!("{what:<38} {own:>10.2}");
            for (_, other) in others {
                let other = other.by_name.get(what).map_or(f64::NAN, |samples| median(samples));
                print!(" {other:>12.2} {:>7.3}", own / other);
            }
            println!();
        }
    }

    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        let samples = self.sides.iter().map(|(name, samples)| ((*name).to_owned(), json!(samples.by_name)));
        let report = json!({
            "rounds": self.rounds,
            "kernel": fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
            "cpus": std::thread::available_parallelism()?.get(),
            "samples": samples.collect::<serde_json::Map<String, Value>>(),
        });
        write(file, format!("{report:#}\n"));
        Ok(())
    }
}

/// The ids of the processes whose command line satisfies `belongs`.
pub(crate) fn processes(belongs: &dyn Fn(&str) -> bool) -> anyhow::Result<Vec<u32>> {
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let command_line =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
    Ok(pids.filter(|pid| belongs(&command_line(pid))).collect())
}

/// The proportional set size of a process, in bytes.
pub(crate) fn pss(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let rollup = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let kilobytes =
        rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
    let kilobytes: u64 = kilobytes.with_context(|| format!("no Pss in {path}"))?;
    Ok(kilobytes * 1024)
}

#[expect(clippy::cast_precision_loss, reason = "memory sizes of processes are far below 2^52")]
pub(crate) fn kilobytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

pub(crate) fn megabytes(bytes: u64) -> f64 {
    kilobytes(bytes) / 1024.0
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The CPU time that a process has used, with all threads that it ever had, to 10 ms.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // proc_pid_stat(5): the name in parentheses may hold blanks; utime and stime are fields 14 and 15.
    let fields = stat.rsplit_once(") ").with_context(|| format!("no name in {path}"))?.1.split(' ');
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}
