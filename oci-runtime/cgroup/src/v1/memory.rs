//! Memory and swap limits (Documentation/admin-guide/cgroup-v1/memory.rst).

use nix::errno::Errno;

use crate::details::pairs;
use crate::dir::Dir;
use crate::{Error, Memory, MemoryDetails, MemoryStats, MemoryUse, Result};

const LIMIT: &str = "memory.limit_in_bytes";
const SWAP: &str = "memory.memsw.limit_in_bytes";

/// What the kernel shows for "no limit": the largest number of whole pages.
const NO_LIMIT: u64 = i64::MAX as u64 & !0xfff;

/// Refuses limits that contradict each other. The wording is runc's.
pub(crate) fn validate(memory: &Memory) -> Result<()> {
    match (given(memory.limit), given(memory.swap)) {
        (Some(limit), Some(swap)) if swap > 0 && (limit < 0 || swap < limit) => {
            let reason = "memory+swap limit should be >= memory limit".to_owned();
            Err(Error::BadValue { field: "memory.swap", reason })
        }
        _ => Ok(()),
    }
}

/// Sets the limits.
pub(crate) fn apply(dir: &Dir, memory: &Memory) -> Result<()> {
    validate(memory)?;
    limit_and_swap(dir, memory)?;
    if let Some(reservation) = given(memory.reservation) {
        dir.write("memory.soft_limit_in_bytes", &reservation.to_string())?;
    }
    if let Some(limit) = given(memory.kernel_tcp) {
        kernel_tcp(dir, limit)?;
    }
    if let Some(swappiness) = memory.swappiness {
        dir.write("memory.swappiness", &swappiness.to_string())?;
    }
    match memory.disable_oom_killer {
        Some(disable) => dir.write("memory.oom_control", if disable { "1" } else { "0" }),
        None => Ok(()),
    }
}

fn kernel_tcp(dir: &Dir, limit: i64) -> Result<()> {
    const FILE: &str = "memory.kmem.tcp.limit_in_bytes";
    match dir.write(FILE, &limit.to_string()) {
        Err(error) if error.errno() == Some(Errno::ENOENT) => {
            let missing = format!("this kernel does not count the buffers of TCP (no {FILE})");
            Err(Error::Missing { field: "memory.kernelTCP", missing })
        }
        result => result,
    }
}

/// Absent and 0 are the same here, and every negative number is "no limit".
fn given(value: Option<i64>) -> Option<i64> {
    value.filter(|&value| value != 0).map(|value| value.max(-1))
}

/// The kernel keeps memory ≤ memory + swap at every moment: when raising, the sum goes first, when lowering, last.
fn limit_and_swap(dir: &Dir, memory: &Memory) -> Result<()> {
    let limit = given(memory.limit);
    // Without a limit on memory one on the sum would be left behind that nobody asked for.
    let swap = given(memory.swap).or((limit == Some(-1)).then_some(-1));
    let Some(swap) = swap else {
        return limit.map_or(Ok(()), |limit| set_limit(dir, limit));
    };
    let Some(current_sum) = current_sum(dir)? else {
        return without_swap_accounting(dir, limit, swap);
    };
    let Some(limit) = limit else {
        return dir.write(SWAP, &swap.to_string());
    };
    if swap == -1 || current_sum < swap.unsigned_abs() {
        dir.write(SWAP, &swap.to_string())?;
        set_limit(dir, limit)
    } else {
        set_limit(dir, limit)?;
        dir.write(SWAP, &swap.to_string())
    }
}

/// The limit on memory and swap as it is; `None` where the kernel does not account for swap.
fn current_sum(dir: &Dir) -> Result<Option<u64>> {
    match dir.read_if_there(SWAP)? {
        Some(text) => text.trim_end().parse().map(Some).map_err(|_| dir.malformed(SWAP, &text, "a number of bytes")),
        None => Ok(None),
    }
}

/// "No swap at all" (the sum equals the limit) and "no limit" are kept without accounting: a kubelet asks for the
/// former on every node.
fn without_swap_accounting(dir: &Dir, limit: Option<i64>, swap: i64) -> Result<()> {
    if swap != -1 && Some(swap) != limit {
        let missing = format!("this kernel does not account for swap (no {SWAP}), so {swap} can't be kept");
        return Err(Error::Missing { field: "memory.swap", missing });
    }
    limit.map_or(Ok(()), |limit| set_limit(dir, limit))
}

/// `EBUSY` is a limit below what is in use and cannot be reclaimed; the figures make it plain.
fn set_limit(dir: &Dir, limit: i64) -> Result<()> {
    let result = dir.write(LIMIT, &limit.to_string());
    match &result {
        Err(error) if error.errno() == Some(Errno::EBUSY) => {
            let (usage, peak) = (dir.number("memory.usage_in_bytes")?, dir.number("memory.max_usage_in_bytes")?);
            let reason = format!("unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})");
            Err(Error::BadValue { field: "memory.limit", reason })
        }
        _ => result,
    }
}

/// Reads use and limits. `memory.stat` is written out by the kernel once for all of its fields.
pub(crate) fn read(dir: &Dir) -> Result<MemoryStats> {
    let stat = dir.read("memory.stat")?;
    let field = |key: &str| {
        let value = stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        value.and_then(|value| value.parse::<u64>().ok())
    };
    let wanted = |key: &'static str| field(key).ok_or_else(|| dir.malformed("memory.stat", "no such line", key));
    let limited = |limit: u64| (limit < NO_LIMIT).then_some(limit);
    Ok(MemoryStats {
        usage: dir.number("memory.usage_in_bytes")?,
        inactive_file: wanted("total_inactive_file")?,
        rss: wanted("total_rss")?,
        limit: limited(wanted("hierarchical_memory_limit")?),
        page_faults: wanted("total_pgfault")?,
        major_page_faults: wanted("total_pgmajfault")?,
        failcnt: dir.number("memory.failcnt")?,
        swap: field("total_swap"),
        swap_limit: field("hierarchical_memsw_limit").and_then(limited),
    })
}

/// Reads every kind of memory that the kernel counts by itself.
pub(crate) fn read_details(dir: &Dir) -> Result<MemoryDetails> {
    Ok(MemoryDetails {
        stat: pairs(&dir.read("memory.stat")?),
        usage: kind(dir, "memory")?.unwrap_or_default(),
        swap: kind(dir, "memory.memsw")?,
        kernel: kind(dir, "memory.kmem")?,
        kernel_tcp: kind(dir, "memory.kmem.tcp")?,
    })
}

/// The four files of a kind, by what their names begin with.
fn kind(dir: &Dir, prefix: &str) -> Result<Option<MemoryUse>> {
    if dir.read_if_there(&format!("{prefix}.usage_in_bytes"))?.is_none() {
        return Ok(None);
    }
    let limit = dir.number(&format!("{prefix}.limit_in_bytes"))?;
    Ok(Some(MemoryUse {
        usage: dir.number(&format!("{prefix}.usage_in_bytes"))?,
        peak: dir.number(&format!("{prefix}.max_usage_in_bytes"))?,
        limit: (limit < NO_LIMIT).then_some(limit),
        failcnt: dir.number(&format!("{prefix}.failcnt"))?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;

    fn memory(limit: i64, swap: i64) -> Memory {
        Memory { limit: Some(limit), swap: Some(swap), ..Memory::default() }
    }

    #[track_caller]
    fn check(wish: &Memory, before: (&str, &str), after: (&str, &str)) {
        let fixture = Fixture::new(&[(LIMIT, before.0), (SWAP, before.1)]);
        apply(&fixture.dir, wish).expect("limits");
        assert_eq!((fixture.content(LIMIT).as_str(), fixture.content(SWAP).as_str()), after);
    }

    #[test]
    fn limits_are_written_and_zero_leaves_them_alone() {
        check(&memory(100, 200), ("50", "60"), ("100", "200"));
        check(&memory(0, 0), ("50", "60"), ("50", "60"));
        check(&memory(0, 70), ("50", "60"), ("50", "70"));
        check(&memory(40, 0), ("50", "60"), ("40", "60"));
    }

    #[test]
    fn no_limit_on_memory_means_none_on_swap_either() {
        check(&memory(-1, 0), ("50", "60"), ("-1", "-1"));
    }

    #[test]
    fn no_swap_is_kept_on_a_kernel_that_does_not_account_for_it_and_some_is_refused() {
        let fixture = Fixture::new(&[(LIMIT, "50")]);
        apply(&fixture.dir, &memory(100, 100)).expect("no swap asked for");
        assert_eq!(fixture.content(LIMIT), "100");
        let error = apply(&fixture.dir, &memory(100, 300)).expect_err("swap asked for");
        assert!(
            error.to_string().starts_with("linux.resources.memory.swap: this kernel does not account for swap"),
            "{error}"
        );
    }

    #[test]
    fn a_sum_below_the_limit_is_refused() {
        validate(&memory(100, 50)).expect_err("50 < 100");
        validate(&memory(-1, 50)).expect_err("50 < no limit");
        validate(&memory(100, -1)).expect("no limit on the sum");
    }

    #[test]
    fn the_statistics_of_a_hierarchy_are_read() {
        let stat = "rss 1\nhierarchical_memory_limit 4096\nhierarchical_memsw_limit 9223372036854771712\n\
            total_rss 300\ntotal_inactive_file 40\ntotal_pgfault 5\ntotal_pgmajfault 6\ntotal_swap 7\n";
        let fixture =
            Fixture::new(&[("memory.stat", stat), ("memory.usage_in_bytes", "1000\n"), ("memory.failcnt", "2\n")]);
        let stats = read(&fixture.dir).expect("stats");
        assert_eq!((stats.usage, stats.rss, stats.working_set()), (1000, 300, 960));
        assert_eq!((stats.limit, stats.swap_limit), (Some(4096), None));
        assert_eq!((stats.page_faults, stats.major_page_faults, stats.failcnt, stats.swap), (5, 6, 2, Some(7)));
    }

    #[test]
    fn every_kind_of_memory_that_is_counted_is_read() {
        let fixture = Fixture::new(&[
            ("memory.stat", "cache 7\nrss 8\n"),
            ("memory.usage_in_bytes", "15\n"),
            ("memory.max_usage_in_bytes", "20\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.failcnt", "1\n"),
            ("memory.kmem.tcp.usage_in_bytes", "1\n"),
            ("memory.kmem.tcp.max_usage_in_bytes", "2\n"),
            ("memory.kmem.tcp.limit_in_bytes", "3\n"),
            ("memory.kmem.tcp.failcnt", "4\n"),
        ]);
        let details = read_details(&fixture.dir).expect("figures");
        assert_eq!(details.usage, MemoryUse { usage: 15, peak: 20, limit: None, failcnt: 1 });
        assert_eq!(details.kernel_tcp, Some(MemoryUse { usage: 1, peak: 2, limit: Some(3), failcnt: 4 }));
        assert_eq!((details.swap, details.kernel, details.stat["cache"]), (None, None, 7));
    }
}
