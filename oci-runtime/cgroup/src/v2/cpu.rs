//! `cpu.weight`, `cpu.max`, `cpu.stat` (Documentation/admin-guide/cgroup-v2.rst, "CPU").

use nix::errno::Errno;

use super::field;
use crate::dir::Dir;
use crate::{Cpu, CpuDetails, CpuStats, Error, Result, Throttling};

/// How shares become a weight. Siblings are only ever compared with siblings, so the two don't meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weights {
    /// A straight line from 2 → 1 to 262144 → 10000: what every kubelet gives to the cgroups that it makes.
    Pods,
    /// A curve through 2 → 1, 1024 → 100 (either kernel interface's default) and 262144 → 10000: what runtimes give to
    /// containers since runc 1.3.2 and crun 1.23.
    Containers,
}

impl Weights {
    fn weight(self, shares: u64) -> u64 {
        let shares = shares.clamp(2, 262_144);
        match self {
            Weights::Pods => 1 + (shares - 2) * 9999 / 262_142,
            Weights::Containers if shares == 2 => 1,
            Weights::Containers => {
                let exponent = (shares as f64).log2();
                let exponent = (exponent * exponent + 125.0 * exponent) / 612.0 - 7.0 / 34.0;
                (10_f64.powf(exponent).ceil() as u64).min(10_000)
            }
        }
    }
}

/// Whether nothing is asked for.
pub(super) fn is_empty(cpu: &Cpu) -> bool {
    let (shares, quota, period) = (cpu.shares.unwrap_or(0), cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0));
    (shares, quota, period) == (0, 0, 0) && cpu.burst.is_none() && cpu.idle.is_none()
}

/// Refuses what v2 has no file for.
pub(super) fn validate(cpu: &Cpu) -> Result<()> {
    match cpu.realtime_runtime.unwrap_or(0) != 0 || cpu.realtime_period.unwrap_or(0) != 0 {
        true => Err(Error::Missing {
            field: "cpu.realtimeRuntime",
            missing: "cgroup v2's cpu controller does not share out realtime".to_owned(),
        }),
        false => Ok(()),
    }
}

/// Sets weight, bandwidth and burst.
pub(super) fn apply(dir: &Dir, cpu: &Cpu, weights: Weights) -> Result<()> {
    // First, since leaving SCHED_IDLE is what lets a weight be set. Going idle makes the weight the kernel's.
    if let Some(idle) = cpu.idle {
        dir.write("cpu.idle", &idle.to_string())?;
    }
    let is_idle = cpu.idle.is_some_and(|idle| idle != 0);
    if let Some(shares) = cpu.shares.filter(|&shares| shares != 0 && !is_idle) {
        set_weight(dir, weights.weight(shares))?;
    }
    bandwidth(dir, cpu)
}

fn set_weight(dir: &Dir, weight: u64) -> Result<()> {
    let result = dir.write("cpu.weight", &weight.to_string());
    let is_idle = || Ok::<_, Error>(dir.read_if_there("cpu.idle")?.is_some_and(|idle| idle.trim_end() == "1"));
    match &result {
        Err(error) if error.errno() == Some(Errno::EINVAL) && is_idle()? => {
            let reason = "cpu.idle is 1 in this cgroup, which then has no weight".to_owned();
            Err(Error::BadValue { field: "cpu.shares", reason })
        }
        _ => result,
    }
}

/// Burst and quota, in the order that never asks for a burst above the quota: what is refused before goes after.
fn bandwidth(dir: &Dir, cpu: &Cpu) -> Result<()> {
    let burst = cpu.burst.map(|burst| burst.to_string());
    let max = max(dir, cpu)?;
    let mut burst_last = None;
    if let Some(burst) = &burst {
        match dir.write("cpu.max.burst", burst) {
            Err(error) if error.errno() == Some(Errno::EINVAL) && max.is_some() => burst_last = Some(burst),
            result => result?,
        }
    }
    if let Some(max) = max {
        dir.write("cpu.max", &max)?;
    }
    burst_last.map_or(Ok(()), |burst| dir.write("cpu.max.burst", burst))
}

/// What to write to `cpu.max`: a quota alone leaves the period; a period alone is given the quota that is there.
fn max(dir: &Dir, cpu: &Cpu) -> Result<Option<String>> {
    let quota = cpu.quota.filter(|&quota| quota != 0);
    let quota = quota.map(|quota| if quota < 0 { "max".to_owned() } else { quota.to_string() });
    Ok(match (quota, cpu.period.filter(|&period| period != 0)) {
        (None, None) => None,
        (Some(quota), None) => Some(quota),
        (Some(quota), Some(period)) => Some(format!("{quota} {period}")),
        (None, Some(period)) => {
            let now = dir.read("cpu.max")?;
            Some(format!("{} {period}", now.split_whitespace().next().unwrap_or("max")))
        }
    })
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

/// Reads time by mode, and bursts.
pub(super) fn read_details(dir: &Dir, cpu: &mut CpuDetails) -> Result<()> {
    let text = dir.read_if_there("cpu.stat")?.unwrap_or_default();
    let ns = |key| field(&text, key).unwrap_or(0).saturating_mul(1000);
    (cpu.user_ns, cpu.kernel_ns) = (ns("user_usec"), ns("system_usec"));
    (cpu.bursts, cpu.burst_ns) = (field(&text, "nr_bursts").unwrap_or(0), ns("burst_usec"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;

    #[test]
    fn a_pods_shares_become_weights_on_a_straight_line() {
        for (shares, weight) in [(2, 1), (100, 4), (1024, 39), (2048, 79), (10_240, 391), (262_144, 10_000)] {
            assert_eq!(Weights::Pods.weight(shares), weight, "{shares}");
        }
    }

    #[test]
    fn a_containers_shares_become_weights_on_runcs_curve() {
        // Each from runc 1.5's ConvertCPUSharesToCgroupV2Value.
        for (shares, weight) in [
            (0, 1),
            (2, 1),
            (3, 2),
            (100, 17),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (10_240, 639),
            (262_143, 10_000),
            (262_144, 10_000),
            (1 << 40, 10_000),
        ] {
            assert_eq!(Weights::Containers.weight(shares), weight, "{shares}");
        }
    }

    #[test]
    fn an_idle_cgroup_is_given_no_weight() {
        let idle = |idle| Cpu { shares: Some(1024), idle: Some(idle), ..Cpu::default() };
        for (cpu, weight) in [(idle(1), "?"), (idle(0), "100")] {
            let fixture = Fixture::new(&[("cpu.weight", "?"), ("cpu.idle", "?")]);
            apply(&fixture.dir, &cpu, Weights::Containers).expect("limits");
            assert_eq!((fixture.content("cpu.weight").as_str(), fixture.content("cpu.idle").len()), (weight, 1));
        }
    }

    #[test]
    fn a_burst_goes_with_the_quota() {
        let fixture = Fixture::new(&[("cpu.max", "?"), ("cpu.max.burst", "?")]);
        let cpu = Cpu { quota: Some(7000), burst: Some(500), ..Cpu::default() };
        apply(&fixture.dir, &cpu, Weights::Containers).expect("limits");
        assert_eq!((fixture.content("cpu.max"), fixture.content("cpu.max.burst")), ("7000".into(), "500".into()));
    }

    #[track_caller]
    fn check(cpu: &Cpu, weight: &str, max: &str) {
        let fixture = Fixture::new(&[("cpu.weight", "?"), ("cpu.max", "?")]);
        apply(&fixture.dir, cpu, Weights::Pods).expect("limits");
        assert_eq!((fixture.content("cpu.weight").as_str(), fixture.content("cpu.max").as_str()), (weight, max));
    }

    #[test]
    fn what_is_absent_stays_and_no_quota_is_max() {
        check(&Cpu::default(), "?", "?");
        check(&Cpu { shares: Some(1024), ..Cpu::default() }, "39", "?");
        check(&Cpu { quota: Some(50_000), period: Some(100_000), ..Cpu::default() }, "?", "50000 100000");
        check(&Cpu { quota: Some(-1), period: Some(100_000), ..Cpu::default() }, "?", "max 100000");
        check(&Cpu { quota: Some(0), period: Some(5000), ..Cpu::default() }, "?", "? 5000");
        check(&Cpu { quota: Some(7000), ..Cpu::default() }, "?", "7000");
    }

    #[test]
    fn time_is_told_by_mode() {
        let text = "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_bursts 1\nburst_usec 7\n";
        let mut cpu = CpuDetails::default();
        read_details(&Fixture::new(&[("cpu.stat", text)]).dir, &mut cpu).expect("figures");
        assert_eq!((cpu.user_ns, cpu.kernel_ns, cpu.bursts, cpu.burst_ns), (3000, 2000, 1, 7000));
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
