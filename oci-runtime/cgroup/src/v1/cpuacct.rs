//! CPU time used (Documentation/admin-guide/cgroup-v1/cpuacct.rst).

use crate::details::pairs;
use crate::dir::Dir;
use crate::{CpuDetails, Result};

/// One tick of `cpuacct.stat` in nanoseconds: `USER_HZ` is 100 on every architecture.
const TICK_NS: u64 = 10_000_000;

/// Nanoseconds on all CPUs together.
pub(crate) fn usage_ns(dir: &Dir) -> Result<u64> {
    dir.number("cpuacct.usage")
}

/// Time by mode and by CPU. The files by CPU are newer than the others.
pub(crate) fn read_details(dir: &Dir, cpu: &mut CpuDetails) -> Result<()> {
    let stat = pairs(&dir.read("cpuacct.stat")?);
    let ns = |key: &str| stat.get(key).copied().unwrap_or(0).saturating_mul(TICK_NS);
    (cpu.user_ns, cpu.kernel_ns) = (ns("user"), ns("system"));
    let text = dir.read("cpuacct.usage_percpu")?;
    let malformed = |file, text: &str| dir.malformed(file, text, "nanoseconds of each CPU");
    for word in text.split_whitespace() {
        cpu.per_cpu_ns.push(word.parse().map_err(|_| malformed("cpuacct.usage_percpu", word))?);
    }
    // A head line, then `cpu user system`.
    for line in dir.read_if_there("cpuacct.usage_all")?.unwrap_or_default().lines().skip(1) {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [_, user, kernel] = numbers[..] else { return Err(malformed("cpuacct.usage_all", line)) };
        cpu.per_cpu_user_ns.push(user);
        cpu.per_cpu_kernel_ns.push(kernel);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;

    #[test]
    fn time_is_told_by_mode_and_by_cpu() {
        let fixture = Fixture::new(&[
            ("cpuacct.stat", "user 3\nsystem 2\n"),
            ("cpuacct.usage_percpu", "40 2 \n"),
            ("cpuacct.usage_all", "cpu user system\n0 30 10\n1 1 1\n"),
        ]);
        let mut cpu = CpuDetails::default();
        read_details(&fixture.dir, &mut cpu).expect("figures");
        assert_eq!((cpu.user_ns, cpu.kernel_ns), (30_000_000, 20_000_000));
        assert_eq!(
            (cpu.per_cpu_ns, cpu.per_cpu_user_ns, cpu.per_cpu_kernel_ns),
            (vec![40, 2], vec![30, 1], vec![10, 1])
        );
    }
}
