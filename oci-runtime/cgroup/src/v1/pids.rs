//! How many tasks may exist (Documentation/admin-guide/cgroup-v1/pids.rst).

use crate::dir::Dir;
use crate::{PidsStats, Result};

/// Sets the limit. 0 is a limit since runtime-spec 1.3; a negative one is none.
pub(crate) fn apply(dir: &Dir, limit: Option<i64>) -> Result<()> {
    match limit {
        None => Ok(()),
        Some(limit) if limit < 0 => dir.write("pids.max", "max"),
        Some(limit) => dir.write("pids.max", &limit.to_string()),
    }
}

/// Reads count and limit.
pub(crate) fn read(dir: &Dir) -> Result<PidsStats> {
    Ok(PidsStats { current: dir.number("pids.current")?, limit: dir.limit("pids.max")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;

    #[test]
    fn zero_is_a_limit_and_a_negative_number_is_none() {
        let fixture = Fixture::new(&[("pids.max", "?"), ("pids.current", "3\n")]);
        for (limit, written) in [(None, "?"), (Some(0), "0"), (Some(-1), "max"), (Some(100), "100")] {
            apply(&fixture.dir, limit).expect("the limit");
            assert_eq!(fixture.content("pids.max"), written, "{limit:?}");
        }
        assert_eq!(read(&fixture.dir).expect("stats"), PidsStats { current: 3, limit: Some(100) });
    }
}
