//! Pressure stall information: `cpu.pressure`, `memory.pressure`, `io.pressure` of the v2 hierarchy.
//!
//! They need no controller, so a hybrid host has them too, for every process in the v2 side of the cgroup.

use nix::errno::Errno;

use crate::dir::Dir;
use crate::{Pressure, PressureLine, Result, Stats};

/// Reads all three.
pub(crate) fn read(dir: &Dir, stats: &mut Stats) -> Result<()> {
    stats.cpu_pressure = read_file(dir, "cpu.pressure")?;
    stats.memory_pressure = read_file(dir, "memory.pressure")?;
    stats.io_pressure = read_file(dir, "io.pressure")?;
    Ok(())
}

/// `None` where the kernel has PSI off: then the file is missing, or reading it fails with `EOPNOTSUPP`.
fn read_file(dir: &Dir, name: &str) -> Result<Option<Pressure>> {
    let text = match dir.read_if_there(name) {
        Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => return Ok(None),
        text => text?,
    };
    let Some(text) = text else { return Ok(None) };
    let parsed = parse(&text).ok_or_else(|| dir.malformed(name, &text, "pressure stall information"))?;
    Ok(Some(parsed))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, then the same for `full`; totals are in microseconds.
fn parse(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let kind = fields.next()?;
        let mut value = |key: &str| fields.next()?.strip_prefix(key)?.strip_prefix('=');
        let parsed = PressureLine {
            avg10: value("avg10")?.parse().ok()?,
            avg60: value("avg60")?.parse().ok()?,
            avg300: value("avg300")?.parse().ok()?,
            total_ns: value("total")?.parse::<u64>().ok()?.saturating_mul(1000),
        };
        match kind {
            "some" => pressure.some = parsed,
            "full" => pressure.full = parsed,
            _ => return None,
        }
    }
    Some(pressure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;

    #[test]
    fn averages_and_totals_of_both_lines_are_read() {
        let text =
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let fixture = Fixture::new(&[("cpu.pressure", text)]);
        let mut stats = Stats::default();
        read(&fixture.dir, &mut stats).expect("pressure");
        let some = PressureLine { avg10: 1.5, avg60: 0.25, avg300: 0.0, total_ns: 1_234_000 };
        let full = PressureLine { total_ns: 7000, ..PressureLine::default() };
        assert_eq!(stats.cpu_pressure, Some(Pressure { some, full }));
        assert_eq!(stats.io_pressure, None);
    }

    #[test]
    fn a_line_of_another_form_is_an_error_that_names_the_file() {
        let fixture = Fixture::new(&[("io.pressure", "some avg10=x\n")]);
        let error = read(&fixture.dir, &mut Stats::default()).expect_err("malformed");
        assert!(error.to_string().contains("io.pressure"), "{error}");
    }
}
