//! Which CPUs and memory nodes (Documentation/admin-guide/cgroup-v1/cpusets.rst).
//!
//! A new v1 cpuset has no CPU and no memory, and refuses tasks until it has both.

use std::path::PathBuf;

use crate::details::list;
use crate::dir::Dir;
use crate::{CgroupPath, Cpuset, CpusetDetails, Result};

const FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Copies CPUs and memory nodes from the root of the hierarchy down to the last cgroup of the path, wherever one
/// has none. A cgroup that has some keeps them.
pub(crate) fn inherit(root: &Dir, path: &CgroupPath) -> Result<()> {
    let mut above = PathBuf::new();
    let dirs = path.components().map(|component| {
        above.push(component);
        root.below(&above)
    });
    let dirs: Vec<Dir> = dirs.collect();
    for file in FILES {
        let mut value = root.read(file)?;
        for dir in &dirs {
            let own = dir.read(file)?;
            match own.trim().is_empty() {
                true => dir.write(file, value.trim())?,
                false => value = own,
            }
        }
    }
    Ok(())
}

/// Sets what was asked for; the kernel refuses what the parent does not have.
pub(crate) fn apply(dir: &Dir, cpuset: &Cpuset) -> Result<()> {
    for (file, value) in FILES.iter().zip([&cpuset.cpus, &cpuset.mems]) {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            dir.write(file, value)?;
        }
    }
    Ok(())
}

/// The files that hold one number each; which of them there are depends on the kernel.
const FLAGS: [&str; 9] = [
    "cpu_exclusive",
    "mem_exclusive",
    "mem_hardwall",
    "memory_migrate",
    "memory_pressure",
    "memory_spread_page",
    "memory_spread_slab",
    "sched_load_balance",
    "sched_relax_domain_level",
];

/// Reads all of a cpuset.
pub(crate) fn read(dir: &Dir) -> Result<CpusetDetails> {
    let list = |file| {
        let text = dir.read(file)?;
        list(&text).ok_or_else(|| dir.malformed(file, &text, "a list of numbers"))
    };
    let mut details =
        CpusetDetails { cpus: list("cpuset.cpus")?, mems: list("cpuset.mems")?, ..CpusetDetails::default() };
    for flag in FLAGS {
        let text = dir.read_if_there(&format!("cpuset.{flag}"))?;
        if let Some(value) = text.and_then(|text| text.trim_end().parse().ok()) {
            details.flags.insert(flag.to_owned(), value);
        }
    }
    Ok(details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;

    fn tree(pods: &str) -> Fixture {
        Fixture::new(&[
            ("cpuset.cpus", "0-3\n"),
            ("cpuset.mems", "0\n"),
            ("pods/cpuset.cpus", pods),
            ("pods/cpuset.mems", "\n"),
            ("pods/c1/cpuset.cpus", "\n"),
            ("pods/c1/cpuset.mems", "\n"),
        ])
    }

    #[test]
    fn cpus_and_memory_nodes_are_copied_down_to_a_new_cgroup() {
        let tree = tree("\n");
        inherit(&tree.dir, &CgroupPath::parse("/pods/c1").expect("a path")).expect("copied");
        for file in ["pods/cpuset.cpus", "pods/c1/cpuset.cpus"] {
            assert_eq!(tree.content(file), "0-3", "{file}");
        }
        assert_eq!(tree.content("pods/c1/cpuset.mems"), "0");
    }

    #[test]
    fn a_parent_that_has_cpus_keeps_them_and_hands_them_down() {
        let tree = tree("1,3\n");
        inherit(&tree.dir, &CgroupPath::parse("/pods/c1").expect("a path")).expect("copied");
        assert_eq!(tree.content("pods/cpuset.cpus"), "1,3\n");
        assert_eq!(tree.content("pods/c1/cpuset.cpus"), "1,3");
    }

    #[test]
    fn a_cpuset_is_read_whole() {
        let files = [("cpuset.cpus", "0-1\n"), ("cpuset.mems", "0\n"), ("cpuset.sched_relax_domain_level", "-1\n")];
        let details = read(&Fixture::new(&files).dir).expect("a cpuset");
        assert_eq!((details.cpus, details.mems), (vec![0, 1], vec![0]));
        assert_eq!(details.flags.into_iter().collect::<Vec<_>>(), [("sched_relax_domain_level".to_owned(), -1)]);
    }

    #[test]
    fn a_wish_is_written_and_an_empty_one_is_none() {
        let fixture = Fixture::new(&[("cpuset.cpus", "0-3"), ("cpuset.mems", "0")]);
        let wish = Cpuset { cpus: Some("2".to_owned()), mems: Some(String::new()) };
        apply(&fixture.dir, &wish).expect("written");
        assert_eq!((fixture.content("cpuset.cpus"), fixture.content("cpuset.mems")), ("2".into(), "0".into()));
    }
}
