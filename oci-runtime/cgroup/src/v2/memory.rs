//! `memory.max`, `memory.low`, `memory.stat` (Documentation/admin-guide/cgroup-v2.rst, "Memory").

use super::field;
use crate::dir::Dir;
use crate::{Memory, MemoryStats, Result};

/// Sets the limit and the reservation; 0 is absent, below zero is none.
pub(super) fn apply(dir: &Dir, memory: &Memory) -> Result<()> {
    for (file, value) in [("memory.max", memory.limit), ("memory.low", memory.reservation)] {
        match value {
            None | Some(0) => {}
            Some(bytes) if bytes < 0 => dir.write(file, if file == "memory.max" { "max" } else { "0" })?,
            Some(bytes) => dir.write(file, &bytes.to_string())?,
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;

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
}
