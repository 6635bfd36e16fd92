//! `memory.max`, `memory.low`, `memory.stat` (Documentation/admin-guide/cgroup-v2.rst, "Memory").

use nix::errno::Errno;

use super::field;
use crate::details::pairs;
use crate::dir::Dir;
use crate::{Error, Memory, MemoryDetails, MemoryStats, MemoryUse, Result};

/// Whether nothing is asked for that needs the controller.
pub(super) fn is_empty(memory: &Memory) -> bool {
    [memory.limit, memory.reservation, memory.swap].iter().all(|value| value.unwrap_or(0) == 0)
}

/// Refuses what v2 has no file for, and a swap limit that cannot be told from a sum. The wording is runc's.
pub(super) fn validate(memory: &Memory) -> Result<()> {
    let missing = |field, what: &str| Err(Error::Missing { field, missing: format!("cgroup v2 can't {what}") });
    if memory.swappiness.is_some() {
        return missing("memory.swappiness", "set how eagerly one cgroup swaps");
    }
    if memory.disable_oom_killer == Some(true) {
        return missing("memory.disableOOMKiller", "let processes wait for memory");
    }
    if memory.kernel_tcp.unwrap_or(0) > 0 {
        return missing("memory.kernelTCP", "limit the buffers of TCP by themselves");
    }
    swap_alone(memory).map(drop)
}

/// Where it was asked for, refuses a limit below what is in use, for which the kernel would kill. The wording is runc's.
pub(super) fn refuse_below_usage(dir: &Dir, memory: &Memory) -> Result<()> {
    if !memory.check_before_update {
        return Ok(());
    }
    // A cgroup without the controller has no limit to set either.
    let Some(usage) = dir.read_if_there("memory.current")? else { return Ok(()) };
    let usage = usage.trim_end().parse().map_err(|_| dir.malformed("memory.current", &usage, "a number of bytes"))?;
    let too_low = |limit: Option<i64>| limit.filter(|&limit| limit > 0 && limit.unsigned_abs() <= usage);
    let refuse = |field, what, limit| {
        Err(Error::BadValue { field, reason: format!("rejecting {what} limit {limit} <= usage {usage}") })
    };
    match (too_low(memory.swap), too_low(memory.limit)) {
        (Some(swap), _) => refuse("memory.swap", "memory+swap", swap),
        (None, Some(limit)) => refuse("memory.limit", "memory", limit),
        (None, None) => Ok(()),
    }
}

/// Sets the limits; 0 is absent, below zero is none.
pub(super) fn apply(dir: &Dir, memory: &Memory) -> Result<()> {
    if let Some(swap) = swap_alone(memory)? {
        set_swap(dir, &swap)?;
    }
    if let Some(limit) = given(memory.limit) {
        dir.write("memory.max", &max(limit))?;
    }
    match given(memory.reservation) {
        // The largest protection there is, as runc has it.
        Some(reservation) => dir.write("memory.low", &max(reservation)),
        None => Ok(()),
    }
}

/// Absent and 0 are the same here.
fn given(value: Option<i64>) -> Option<i64> {
    value.filter(|&value| value != 0)
}

fn max(bytes: i64) -> String {
    if bytes < 0 { "max".to_owned() } else { bytes.to_string() }
}

/// The limit on swap without memory: the runtime-spec's is that of both together.
fn swap_alone(memory: &Memory) -> Result<Option<String>> {
    let refuse = |reason: &str| Err(Error::BadValue { field: "memory.swap", reason: reason.to_owned() });
    match (given(memory.limit), given(memory.swap)) {
        // As on v1, no limit on memory means none on swap either.
        (Some(..0), None) => Ok(Some("max".to_owned())),
        (_, None) => Ok(None),
        (_, Some(..0)) => Ok(Some("max".to_owned())),
        (None, Some(_)) => refuse("unable to set swap limit without memory limit"),
        (Some(..0), Some(swap)) => Ok(Some(swap.to_string())),
        (Some(limit), Some(swap)) if swap < limit => refuse("memory+swap limit should be >= memory limit"),
        (Some(limit), Some(swap)) => Ok(Some((swap - limit).to_string())),
    }
}

/// Without swap accounting in the kernel, "none" and "no limit" are kept already.
fn set_swap(dir: &Dir, swap: &str) -> Result<()> {
    match dir.write("memory.swap.max", swap) {
        Err(error) if error.errno() == Some(Errno::ENOENT) => match swap {
            "0" | "max" => Ok(()),
            _ => {
                let missing = "this kernel does not account for swap (no memory.swap.max)".to_owned();
                Err(Error::Missing { field: "memory.swap", missing })
            }
        },
        result => result,
    }
}

/// Reads use and limit; `None` without the controller.
pub(super) fn read(dir: &Dir) -> Result<Option<MemoryStats>> {
    if dir.read_if_there("memory.current")?.is_none() {
        return Ok(None);
    }
    let stat = dir.read("memory.stat")?;
    let events = dir.read_if_there("memory.events")?.unwrap_or_default();
    let swap = dir.read_if_there("memory.swap.current")?;
    Ok(Some(MemoryStats {
        usage: dir.number("memory.current")?,
        inactive_file: field(&stat, "inactive_file").unwrap_or(0),
        rss: field(&stat, "anon").unwrap_or(0),
        limit: dir.limit("memory.max")?,
        page_faults: field(&stat, "pgfault").unwrap_or(0),
        major_page_faults: field(&stat, "pgmajfault").unwrap_or(0),
        failcnt: field(&events, "max").unwrap_or(0),
        swap: swap.and_then(|text| text.trim_end().parse().ok()),
        swap_limit: None,
    }))
}

/// Reads every kind of memory; `None` without the controller. Swap is told together with memory, as v1 has it and readers
/// expect; a peak of both together nobody knows.
pub(super) fn read_details(dir: &Dir) -> Result<Option<MemoryDetails>> {
    let Some(usage) = kind(dir, "memory", "max")? else { return Ok(None) };
    let stat = pairs(&dir.read("memory.stat")?);
    let swap = kind(dir, "memory.swap", "fail")?.map(|swap| MemoryUse {
        usage: usage.usage.saturating_add(swap.usage),
        peak: 0,
        limit: usage.limit.zip(swap.limit).map(|(memory, swap)| memory.saturating_add(swap)),
        failcnt: swap.failcnt,
    });
    let kernel = stat.get("kernel").map(|&usage| MemoryUse { usage, ..MemoryUse::default() });
    Ok(Some(MemoryDetails { stat, usage, swap, kernel, kernel_tcp: None }))
}

/// The files of a kind; `failed` is the event that counts hits of the limit.
fn kind(dir: &Dir, prefix: &str, failed: &str) -> Result<Option<MemoryUse>> {
    let Some(current) = dir.read_if_there(&format!("{prefix}.current"))? else { return Ok(None) };
    let number = |text: &str| text.trim_end().parse::<u64>().unwrap_or(0);
    let optional = |file: &str| Ok::<_, Error>(dir.read_if_there(&format!("{prefix}.{file}"))?.unwrap_or_default());
    Ok(Some(MemoryUse {
        usage: number(&current),
        // Linux 5.19, for swap 6.5.
        peak: number(&optional("peak")?),
        limit: dir.limit(&format!("{prefix}.max"))?,
        failcnt: field(&optional("events")?, failed).unwrap_or(0),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;

    #[test]
    fn swap_is_what_the_sum_has_above_memory() {
        let check = |limit: i64, swap: i64, expected: Option<&str>| {
            let memory = Memory { limit: Some(limit), swap: Some(swap), ..Memory::default() };
            assert_eq!(swap_alone(&memory).expect("a limit").as_deref(), expected, "{limit}, {swap}");
        };
        check(0, 0, None);
        check(100, 0, None);
        check(100, 100, Some("0"));
        check(100, 250, Some("150"));
        check(100, -1, Some("max"));
        check(0, -1, Some("max"));
        check(-1, 0, Some("max"));
        check(-1, 300, Some("300"));
        let refused =
            |limit, swap| swap_alone(&Memory { limit, swap, ..Memory::default() }).expect_err("refused").to_string();
        assert_eq!(
            refused(Some(100), Some(50)),
            "linux.resources.memory.swap: memory+swap limit should be >= memory limit"
        );
        assert_eq!(
            refused(None, Some(50)),
            "linux.resources.memory.swap: unable to set swap limit without memory limit"
        );
    }

    #[test]
    fn what_v2_has_no_file_for_is_refused_by_name() {
        let refused = |memory: &Memory| validate(memory).expect_err("refused").to_string();
        let swappiness = Memory { swappiness: Some(60), ..Memory::default() };
        assert!(refused(&swappiness).starts_with("linux.resources.memory.swappiness: "));
        let no_killer = Memory { disable_oom_killer: Some(true), ..Memory::default() };
        assert!(refused(&no_killer).starts_with("linux.resources.memory.disableOOMKiller: "));
        validate(&Memory { disable_oom_killer: Some(false), ..Memory::default() }).expect("what v2 does");
    }

    #[test]
    fn a_limit_below_what_is_in_use_is_refused_where_that_is_asked_for() {
        let fixture = Fixture::new(&[("memory.current", "5000\n")]);
        let check = |limit, swap, check_before_update| {
            let memory = Memory { limit: Some(limit), swap: Some(swap), check_before_update, ..Memory::default() };
            refuse_below_usage(&fixture.dir, &memory).err().map(|error| error.to_string())
        };
        let memory = "linux.resources.memory.limit: rejecting memory limit 4096 <= usage 5000";
        assert_eq!(check(4096, 0, true).as_deref(), Some(memory));
        let both = "linux.resources.memory.swap: rejecting memory+swap limit 4999 <= usage 5000";
        assert_eq!(check(4096, 4999, true).as_deref(), Some(both));
        assert_eq!(check(4096, 0, false), None);
        assert_eq!((check(5001, -1, true), check(-1, 0, true)), (None, None));
    }

    #[test]
    fn a_kernel_without_swap_accounting_keeps_none_and_no_limit() {
        let fixture = Fixture::new(&[("memory.max", "?")]);
        let memory = |swap| Memory { limit: Some(100), swap: Some(swap), ..Memory::default() };
        apply(&fixture.dir, &memory(100)).expect("no swap");
        apply(&fixture.dir, &memory(-1)).expect("no limit");
        let error = apply(&fixture.dir, &memory(300)).expect_err("some swap");
        assert!(error.to_string().starts_with("linux.resources.memory.swap: this kernel does not account"), "{error}");
    }

    #[test]
    fn limits_are_written_and_none_is_max() {
        let fixture = Fixture::new(&[("memory.max", "?"), ("memory.low", "?")]);
        for (limit, written) in [(None, "?"), (Some(0), "?"), (Some(4096), "4096"), (Some(-1), "max")] {
            apply(&fixture.dir, &Memory { limit, ..Memory::default() }).expect("the limit");
            assert_eq!(fixture.content("memory.max"), written, "{limit:?}");
        }
    }

    #[test]
    fn the_working_set_is_without_the_cache_that_can_go() {
        let fixture = Fixture::new(&[
            ("memory.current", "1000\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\nhigh 0\nmax 3\noom 1\n"),
            ("memory.stat", "anon 300\nfile 600\ninactive_file 40\npgfault 5\npgmajfault 6\n"),
        ]);
        let stats = read(&fixture.dir).expect("stats").expect("the controller");
        assert_eq!((stats.usage, stats.rss, stats.working_set(), stats.limit), (1000, 300, 960, None));
        assert_eq!((stats.page_faults, stats.major_page_faults, stats.failcnt), (5, 6, 3));
        assert_eq!(read(&Fixture::new(&[]).dir).expect("stats"), None);
    }

    #[test]
    fn swap_is_told_together_with_memory() {
        let fixture = Fixture::new(&[
            ("memory.current", "100\n"),
            ("memory.peak", "150\n"),
            ("memory.max", "200\n"),
            ("memory.events", "max 3\n"),
            ("memory.stat", "anon 60\nkernel 9\n"),
            ("memory.swap.current", "5\n"),
            ("memory.swap.max", "50\n"),
            ("memory.swap.events", "high 0\nmax 0\nfail 2\n"),
        ]);
        let details = read_details(&fixture.dir).expect("figures").expect("the controller");
        assert_eq!(details.usage, MemoryUse { usage: 100, peak: 150, limit: Some(200), failcnt: 3 });
        assert_eq!(details.swap, Some(MemoryUse { usage: 105, peak: 0, limit: Some(250), failcnt: 2 }));
        assert_eq!(details.kernel.map(|kernel| kernel.usage), Some(9));
        assert_eq!(read_details(&Fixture::new(&[]).dir).expect("nothing"), None);
    }
}
