//! What the configs need to know of the machine.

use std::path::Path;

/// What the configs need to know of the machine. Read once, at start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// MemTotal in bytes: what oom_score_adj is relative to.
    pub memory_bytes: u64,
    /// Whether the host has cgroup v2 alone.
    pub cgroup_v2: bool,
    /// Whether swap is accounted for, so that a limit on it means something.
    pub swap_accounting: bool,
    /// Whether SELinux is on: files of ours are relabelled for the container then.
    pub selinux: bool,
    /// Sizes of huge pages as the kernel's files name them: `2MB`, `1GB`.
    pub huge_page_sizes: Vec<String>,
    /// The `thermal_throttle` folders of all CPUs, which are masked.
    pub thermal_throttle: Vec<String>,
}

impl Machine {
    /// Looks at /sys. Blocking, for a moment.
    pub fn probe(memory_bytes: u64, cgroup_v2: bool) -> Machine {
        // On v2 swap is a part of the memory controller, and accounted for wherever the kernel knows swap at all.
        let swap = if cgroup_v2 { "/proc/swaps" } else { "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes" };
        Machine {
            memory_bytes,
            cgroup_v2,
            swap_accounting: Path::new(swap).exists(),
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
            huge_page_sizes: huge_page_sizes(&entries("/sys/kernel/mm/hugepages")),
            thermal_throttle: thermal_throttle("/sys/devices/system/cpu"),
        }
    }
}

/// From folder names like `hugepages-2048kB`.
fn huge_page_sizes(names: &[String]) -> Vec<String> {
    let kib = names.iter().filter_map(|name| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok());
    kib.map(|kib| super::resources::page_size_name(kib * 1024)).collect()
}

fn thermal_throttle(cpus: &str) -> Vec<String> {
    let number = |name: &str| name.strip_prefix("cpu").and_then(|rest| rest.parse::<u32>().ok());
    let mut numbers: Vec<u32> = entries(cpus).iter().filter_map(|name| number(name)).collect();
    numbers.sort_unstable();
    let paths = numbers.into_iter().map(|number| format!("{cpus}/cpu{number}/thermal_throttle"));
    paths.filter(|path| Path::new(path).exists()).collect()
}

/// Names in a folder, in order; none if there is no such folder.
fn entries(folder: &str) -> Vec<String> {
    let read = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = read.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_huge_pages_are_named_as_the_controller_names_them() {
        let names = ["hugepages-1048576kB", "hugepages-2048kB", "hugepages-64kB", "other"].map(str::to_owned);
        assert_eq!(huge_page_sizes(&names), ["1GB", "2MB", "64KB"]);
    }

    #[test]
    fn cpus_without_the_folder_are_not_masked() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        for folder in ["cpu0/thermal_throttle", "cpu1", "cpu10/thermal_throttle", "cpufreq/thermal_throttle"] {
            std::fs::create_dir_all(temp.path().join(folder)).expect("a folder");
        }
        let cpus = temp.path().to_str().expect("a path").to_owned();
        let expected = [0, 10].map(|cpu| format!("{cpus}/cpu{cpu}/thermal_throttle"));
        assert_eq!(thermal_throttle(&cpus), expected);
    }
}
