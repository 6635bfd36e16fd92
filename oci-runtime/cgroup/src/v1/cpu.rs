//! CPU shares and bandwidth (Documentation/scheduler/sched-design-CFS.rst, sched-bwc.rst).

use nix::errno::Errno;

use crate::details::pairs;
use crate::dir::Dir;
use crate::{Cpu, CpuDetails, Error, Result, Throttling};

/// `MIN_SHARES` and `MAX_SHARES` of the kernel, which clamps silently; asking for more or less is a mistake that
/// should be seen.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// Refuses shares that the kernel would change. The wording is runc's.
pub(crate) fn validate(cpu: &Cpu) -> Result<()> {
    let refuse = |reason: String| Err(Error::BadValue { field: "cpu.shares", reason });
    match cpu.shares {
        None | Some(0) => Ok(()),
        Some(shares) if shares < *SHARES.start() => {
            refuse(format!("the minimum allowed cpu-shares is {}", SHARES.start()))
        }
        Some(shares) if shares > *SHARES.end() => refuse(format!("the maximum allowed cpu-shares is {}", SHARES.end())),
        Some(_) => Ok(()),
    }
}

/// Sets shares, quota and period.
pub(crate) fn apply(dir: &Dir, cpu: &Cpu) -> Result<()> {
    validate(cpu)?;
    realtime(dir, cpu)?;
    // First, since leaving SCHED_IDLE is what lets shares be set. Going idle makes them the kernel's.
    if let Some(idle) = cpu.idle {
        dir.write("cpu.idle", &idle.to_string())?;
    }
    let is_idle = cpu.idle.is_some_and(|idle| idle != 0);
    if let Some(shares) = cpu.shares.filter(|&shares| shares != 0 && !is_idle) {
        dir.write("cpu.shares", &shares.to_string())?;
    }
    burst_and_bandwidth(dir, cpu)
}

/// In the order that never asks for a burst above the quota: what is refused before goes after.
fn burst_and_bandwidth(dir: &Dir, cpu: &Cpu) -> Result<()> {
    const BURST: &str = "cpu.cfs_burst_us";
    let burst = cpu.burst.map(|burst| burst.to_string());
    let mut burst_last = None;
    if let Some(burst) = &burst {
        match dir.write(BURST, burst) {
            Err(error) if error.errno() == Some(Errno::EINVAL) && cpu.quota.unwrap_or(0) != 0 => {
                burst_last = Some(burst);
            }
            result => result?,
        }
    }
    bandwidth(dir, cpu)?;
    burst_last.map_or(Ok(()), |burst| dir.write(BURST, burst))
}

/// Realtime per period. Whichever of the two the kernel refuses for the other's sake goes last.
fn realtime(dir: &Dir, cpu: &Cpu) -> Result<()> {
    let period =
        cpu.realtime_period.filter(|&period| period != 0).map(|period| ("cpu.rt_period_us", period.to_string()));
    let runtime = cpu.realtime_runtime.filter(|&runtime| runtime != 0);
    let runtime = runtime.map(|runtime| ("cpu.rt_runtime_us", runtime.to_string()));
    let mut refused = Vec::new();
    for (file, value) in period.into_iter().chain(runtime) {
        match dir.write(file, &value) {
            Err(error) if error.errno() == Some(Errno::EINVAL) => refused.push((file, value)),
            result => result.map_err(realtime_missing)?,
        }
    }
    for (file, value) in refused {
        dir.write(file, &value).map_err(|error| realtime_refused(dir, &value, error))?;
    }
    Ok(())
}

fn realtime_missing(error: Error) -> Error {
    match error.errno() {
        Some(Errno::ENOENT) => Error::Missing {
            field: "cpu.realtimeRuntime",
            missing: "this kernel does not share out realtime (CONFIG_RT_GROUP_SCHED)".to_owned(),
        },
        _ => error,
    }
}

/// What a cgroup has of realtime, those above it have to have given it.
fn realtime_refused(dir: &Dir, value: &str, error: Error) -> Error {
    let above = dir.subdir(std::path::Path::new("..")).and_then(|above| above.number("cpu.rt_runtime_us"));
    match (error.errno(), above) {
        (Some(Errno::EINVAL), Ok(above)) => Error::BadValue {
            field: "cpu.realtimeRuntime",
            reason: format!(
                "{value} is refused: the cgroup above has {above} us per period (cpu.rt_runtime_us), which all below it share"
            ),
        },
        _ => error,
    }
}

/// The kernel checks each write against the other value and against the parent's ratio of quota to period, so on
/// an update either order may pass through a state that is refused: if period first does not work, it comes last.
fn bandwidth(dir: &Dir, cpu: &Cpu) -> Result<()> {
    let period = cpu.period.filter(|&period| period != 0).map(|period| period.to_string());
    let quota = cpu.quota.filter(|&quota| quota != 0).map(|quota| if quota < 0 { -1 } else { quota });
    let mut period_last = None;
    if let Some(period) = &period {
        match dir.write("cpu.cfs_period_us", period) {
            Err(error) if error.errno() == Some(Errno::EINVAL) && quota.is_some() => period_last = Some(period),
            result => result?,
        }
    }
    if let Some(quota) = quota {
        dir.write("cpu.cfs_quota_us", &quota.to_string())?;
    }
    match period_last {
        Some(period) => dir.write("cpu.cfs_period_us", period),
        None => Ok(()),
    }
}

/// What the quota did; `None` without bandwidth control in the kernel.
pub(crate) fn throttling(dir: &Dir) -> Result<Option<Throttling>> {
    let Some(text) = dir.read_if_there("cpu.stat")? else { return Ok(None) };
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok())
    };
    let read = || {
        let (throttled, throttled_ns) = value("nr_throttled").zip(value("throttled_time"))?;
        Some(Throttling { periods: value("nr_periods")?, throttled, throttled_ns })
    };
    Ok(read())
}

/// What was used of saved quota; kernels before 5.14 save none.
pub(crate) fn read_bursts(dir: &Dir, cpu: &mut CpuDetails) -> Result<()> {
    let stat = pairs(&dir.read_if_there("cpu.stat")?.unwrap_or_default());
    let figure = |key: &str| stat.get(key).copied().unwrap_or(0);
    (cpu.bursts, cpu.burst_ns) = (figure("nr_bursts"), figure("burst_time"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;

    fn fixture() -> Fixture {
        Fixture::new(&[("cpu.shares", "1024"), ("cpu.cfs_quota_us", "-1"), ("cpu.cfs_period_us", "100000")])
    }

    #[test]
    fn shares_quota_and_period_are_written() {
        let fixture = fixture();
        let cpu = Cpu { shares: Some(512), quota: Some(20_000), period: Some(50_000), ..Cpu::default() };
        apply(&fixture.dir, &cpu).expect("limits");
        assert_eq!(fixture.content("cpu.shares"), "512");
        assert_eq!(fixture.content("cpu.cfs_quota_us"), "20000");
        assert_eq!(fixture.content("cpu.cfs_period_us"), "50000");
    }

    #[test]
    fn zero_is_absent_and_a_negative_quota_is_no_limit() {
        let fixture = fixture();
        let cpu = Cpu { shares: Some(0), quota: Some(-7), period: Some(0), ..Cpu::default() };
        apply(&fixture.dir, &cpu).expect("limits");
        assert_eq!(fixture.content("cpu.shares"), "1024");
        assert_eq!(fixture.content("cpu.cfs_quota_us"), "-1");
        assert_eq!(fixture.content("cpu.cfs_period_us"), "100000");
    }

    #[test]
    fn shares_that_the_kernel_would_clamp_are_refused() {
        let refusal = |shares| validate(&Cpu { shares: Some(shares), ..Cpu::default() }).expect_err("out of range");
        assert_eq!(refusal(1).to_string(), "linux.resources.cpu.shares: the minimum allowed cpu-shares is 2");
        assert_eq!(
            refusal(262_145).to_string(),
            "linux.resources.cpu.shares: the maximum allowed cpu-shares is 262144"
        );
    }

    #[test]
    fn a_knob_that_the_kernel_lacks_is_named() {
        let error = apply(&fixture().dir, &Cpu { burst: Some(1), ..Cpu::default() }).expect_err("no burst here");
        assert!(error.to_string().ends_with("cpu.cfs_burst_us"), "{error}");
        let error =
            apply(&fixture().dir, &Cpu { realtime_runtime: Some(1), ..Cpu::default() }).expect_err("no realtime");
        assert!(error.to_string().starts_with("linux.resources.cpu.realtimeRuntime: this kernel"), "{error}");
    }

    #[test]
    fn realtime_is_written() {
        let fixture = Fixture::new(&[("cpu.rt_period_us", ""), ("cpu.rt_runtime_us", "")]);
        let cpu = Cpu { realtime_runtime: Some(950_000), realtime_period: Some(1_000_000), ..Cpu::default() };
        apply(&fixture.dir, &cpu).expect("limits");
        assert_eq!(fixture.content("cpu.rt_period_us"), "1000000");
        assert_eq!(fixture.content("cpu.rt_runtime_us"), "950000");
    }

    #[test]
    fn an_idle_cgroup_is_given_no_shares() {
        for (idle, shares) in [(1, "?"), (0, "512")] {
            let fixture = Fixture::new(&[("cpu.shares", "?"), ("cpu.idle", "")]);
            apply(&fixture.dir, &Cpu { shares: Some(512), idle: Some(idle), ..Cpu::default() }).expect("limits");
            assert_eq!(fixture.content("cpu.shares"), shares);
        }
    }

    #[test]
    fn throttling_is_read() {
        let fixture = Fixture::new(&[("cpu.stat", "nr_periods 9\nnr_throttled 3\nthrottled_time 4000\n")]);
        let expected = Throttling { periods: 9, throttled: 3, throttled_ns: 4000 };
        assert_eq!(throttling(&fixture.dir).expect("cpu.stat"), Some(expected));
    }
}
