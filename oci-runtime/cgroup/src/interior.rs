//! Cgroups that hold other cgroups: a node's pods, a class of them, one pod.
//!
//! They have no processes of their own and no device rules, outlive whoever makes them, and are taken over as they are
//! found. On v2 alone they also pass their controllers on to what is below.

use std::path::PathBuf;

use crate::cgroup::make;
use crate::dir::Dir;
use crate::{Cgroup, CgroupPath, Kind, Layout, Mode, Resources, Result, hugetlb, v1, v2};

/// Controllers that containers are limited by.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "hugetlb"];

impl Cgroup {
    /// Makes the cgroup where it is missing and sets its limits. What is missing on the way is made too.
    ///
    /// A limit whose controller the host does not have is an error: ask [`Layout::has`] first where it may be left out.
    pub fn ensure_interior(layout: &Layout, path: &str, resources: &Resources) -> Result<Cgroup> {
        let path = CgroupPath::parse(path)?;
        let mut members = Vec::with_capacity(layout.hierarchies().len());
        for hierarchy in layout.hierarchies() {
            members.push(make(hierarchy, &path)?);
            if layout.mode() == Mode::V2 {
                pass_controllers_on(&hierarchy.root, &path)?;
            } else if hierarchy.kind == Kind::V2 {
                hugetlb::enable(&hierarchy.root, &path, &resources.hugetlb)?;
            }
        }
        let cgroup = Cgroup::new(path, members);
        cgroup.limit_interior(layout, resources)?;
        Ok(cgroup)
    }

    /// Sets limits again.
    pub fn limit_interior(&self, layout: &Layout, resources: &Resources) -> Result<()> {
        match (layout.mode(), self.unified_dir()) {
            (Mode::V2, Some(dir)) => v2::apply(dir, resources, v2::Weights::Pods),
            _ => {
                v1::validate_limits(&|controller| v1::has(layout, controller), resources)?;
                self.update(resources)
            }
        }
    }

    /// The names of the cgroups directly below, in any hierarchy.
    pub fn children(&self) -> Result<std::collections::BTreeSet<String>> {
        let mut names = std::collections::BTreeSet::new();
        for member in self.members() {
            match member.dir.children() {
                Err(error) if error.is_gone() => {}
                found => names.extend(found?),
            }
        }
        Ok(names)
    }
}

/// Enables the controllers that are there, from the root down to the cgroup itself, whose children use them.
fn pass_controllers_on(root: &Dir, path: &CgroupPath) -> Result<()> {
    let mut above = PathBuf::from(".");
    for component in std::iter::once(".").chain(path.components()) {
        above.push(component);
        v2::controllers::pass_on(&root.subdir(&above)?, &CONTROLLERS)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;
    use crate::{Cpu, Error, Memory};

    fn limits() -> Resources {
        Resources {
            cpu: Cpu { shares: Some(1024), quota: Some(20_000), period: Some(100_000), ..Cpu::default() },
            memory: Memory { limit: Some(1 << 20), ..Memory::default() },
            pids: Some(64),
            ..Resources::default()
        }
    }

    #[test]
    fn on_v2_every_cgroup_on_the_way_passes_the_controllers_on() {
        let fixture = Fixture::new(&[
            ("cgroup.controllers", "cpuset cpu io memory pids\n"),
            ("cgroup.subtree_control", ""),
            ("pods/cgroup.controllers", "cpu memory\n"),
            ("pods/cgroup.subtree_control", "memory\n"),
            ("pods/p1/cgroup.controllers", "cpu memory pids\n"),
            ("pods/p1/cgroup.subtree_control", ""),
            ("pods/p1/cpu.weight", ""),
            ("pods/p1/cpu.max", ""),
            ("pods/p1/memory.max", ""),
            ("pods/p1/pids.max", ""),
        ]);
        let layout = Layout::fixture(vec![(Kind::V2, fixture.dir.path().to_owned())]).expect("a layout");
        let cgroup = Cgroup::ensure_interior(&layout, "/pods/p1", &limits()).expect("a cgroup");
        for (file, content) in [
            ("cgroup.subtree_control", "+cpuset +cpu +memory +pids"),
            ("pods/cgroup.subtree_control", "+cpu"),
            ("pods/p1/cgroup.subtree_control", "+cpu +memory +pids"),
            ("pods/p1/cpu.weight", "39"),
            ("pods/p1/cpu.max", "20000 100000"),
            ("pods/p1/memory.max", "1048576"),
            ("pods/p1/pids.max", "64"),
        ] {
            assert_eq!(fixture.content(file), content, "{file}");
        }
        assert!(cgroup.children().expect("children").is_empty());
    }

    #[test]
    fn on_v1_each_hierarchy_gets_what_it_controls() {
        let kind = |names: &[&str]| Kind::V1 { controllers: names.iter().map(|&name| name.to_owned()).collect() };
        let cpu = Fixture::new(&[("p/cpu.shares", ""), ("p/cpu.cfs_quota_us", ""), ("p/cpu.cfs_period_us", "")]);
        let memory = Fixture::new(&[("p/memory.limit_in_bytes", ""), ("p/child/x", "")]);
        let pids = Fixture::new(&[("p/pids.max", "")]);
        let open = |mounts: &[(&[&str], &Fixture)]| {
            let mounts = mounts.iter().map(|(names, fixture)| (kind(names), fixture.dir.path().to_owned()));
            Layout::fixture(mounts.collect()).expect("a layout")
        };
        let layout = open(&[(&["cpu", "cpuacct"], &cpu), (&["memory"], &memory), (&["pids"], &pids)]);
        let cgroup = Cgroup::ensure_interior(&layout, "/p", &limits()).expect("a cgroup");
        assert_eq!((cpu.content("p/cpu.shares"), cpu.content("p/cpu.cfs_quota_us")), ("1024".into(), "20000".into()));
        assert_eq!(
            (memory.content("p/memory.limit_in_bytes"), pids.content("p/pids.max")),
            ("1048576".into(), "64".into())
        );
        assert!(cgroup.children().expect("children").contains("child"));

        let without_memory = open(&[(&["cpu", "cpuacct"], &cpu), (&["pids"], &pids)]);
        let error = Cgroup::ensure_interior(&without_memory, "/p", &limits()).expect_err("no memory controller");
        assert!(matches!(error, Error::Missing { .. }), "{error}");
    }
}
