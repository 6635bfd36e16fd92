//! `cpu.weight`, `cpu.max`, `cpu.stat` (Documentation/admin-guide/cgroup-v2.rst, "CPU").

use super::field;
use crate::dir::Dir;
use crate::{Cpu, CpuStats, Result, Throttling};

/// The weight of so many shares, on a straight line from 2 → 1 to 262144 → 10000.
///
/// This is what every kubelet gives to the cgroups that it makes. Runtimes have moved to a curve on which 1024 shares
/// are the kernel's default of 100; siblings are only ever compared with siblings, so the two don't meet.
fn linear_weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// Sets weight and bandwidth. A quota below zero is none.
pub(super) fn apply(dir: &Dir, cpu: &Cpu) -> Result<()> {
    if let Some(shares) = cpu.shares.filter(|&shares| shares != 0) {
        dir.write("cpu.weight", &linear_weight(shares).to_string())?;
    }
    let period = cpu.period.filter(|&period| period != 0);
    let quota = cpu.quota.filter(|&quota| quota != 0);
    if period.is_none() && quota.is_none() {
        return Ok(());
    }
    let quota = quota.filter(|&quota| quota > 0).map_or_else(|| "max".to_owned(), |quota| quota.to_string());
    dir.write("cpu.max", &format!("{quota} {}", period.unwrap_or(100_000)))
}

/// Reads usage and throttling. `cpu.stat` is there without the controller too.
pub(super) fn read(dir: &Dir) -> Result<Option<CpuStats>> {
    let Some(text) = dir.read_if_there("cpu.stat")? else { return Ok(None) };
    let usage = field(&text, "usage_usec").ok_or_else(|| dir.malformed("cpu.stat", &text, "usage_usec"))?;
    let throttling = || {
        let throttled_ns = field(&text, "throttled_usec")?.saturating_mul(1000);
        Some(Throttling {
            periods: field(&text, "nr_periods")?,
            throttled: field(&text, "nr_throttled")?,
            throttled_ns,
        })
    };
    Ok(Some(CpuStats { usage_ns: usage.saturating_mul(1000), throttling: throttling() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;

    #[test]
    fn shares_become_weights_on_a_straight_line() {
        for (shares, weight) in [(2, 1), (100, 4), (1024, 39), (2048, 79), (10_240, 391), (262_144, 10_000)] {
            assert_eq!(linear_weight(shares), weight, "{shares}");
        }
    }

    #[track_caller]
    fn check(cpu: &Cpu, weight: &str, max: &str) {
        let fixture = Fixture::new(&[("cpu.weight", "?"), ("cpu.max", "?")]);
        apply(&fixture.dir, cpu).expect("limits");
        assert_eq!((fixture.content("cpu.weight").as_str(), fixture.content("cpu.max").as_str()), (weight, max));
    }

    #[test]
    fn what_is_absent_stays_and_no_quota_is_max() {
        check(&Cpu::default(), "?", "?");
        check(&Cpu { shares: Some(1024), ..Cpu::default() }, "39", "?");
        check(&Cpu { quota: Some(50_000), period: Some(100_000), ..Cpu::default() }, "?", "50000 100000");
        check(&Cpu { quota: Some(-1), period: Some(100_000), ..Cpu::default() }, "?", "max 100000");
        check(&Cpu { quota: Some(0), period: Some(5000), ..Cpu::default() }, "?", "max 5000");
        check(&Cpu { quota: Some(7000), ..Cpu::default() }, "?", "7000 100000");
    }

    #[test]
    fn usage_is_read_with_and_without_the_controller() {
        let full = "usage_usec 5\nuser_usec 1\nnr_periods 9\nnr_throttled 2\nthrottled_usec 3\n";
        let fixture = Fixture::new(&[("cpu.stat", full)]);
        let throttling = Some(Throttling { periods: 9, throttled: 2, throttled_ns: 3000 });
        assert_eq!(read(&fixture.dir).expect("stats"), Some(CpuStats { usage_ns: 5000, throttling }));
        let fixture = Fixture::new(&[("cpu.stat", "usage_usec 5\n")]);
        assert_eq!(read(&fixture.dir).expect("stats"), Some(CpuStats { usage_ns: 5000, throttling: None }));
        assert_eq!(read(&Fixture::new(&[]).dir).expect("stats"), None);
    }
}
