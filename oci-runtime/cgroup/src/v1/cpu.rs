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
    if let Some(shares) = cpu.shares.filter(|&shares| shares != 0) {
        dir.write("cpu.shares", &shares.to_string())?;
    }
    if let Some(idle) = cpu.idle {
        dir.write("cpu.idle", &idle.to_string())?;
    }
    bandwidth(dir, cpu)?;
    match cpu.burst {
        Some(burst) => dir.write("cpu.cfs_burst_us", &burst.to_string()),
        None => Ok(()),
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
    }

    #[test]
    fn throttling_is_read() {
        let fixture = Fixture::new(&[("cpu.stat", "nr_periods 9\nnr_throttled 3\nthrottled_time 4000\n")]);
        let expected = Throttling { periods: 9, throttled: 3, throttled_ns: 4000 };
        assert_eq!(throttling(&fixture.dir).expect("cpu.stat"), Some(expected));
    }
}
