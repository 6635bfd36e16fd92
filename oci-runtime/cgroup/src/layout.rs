//! What the host has mounted.
//!
//! Found in mountinfo and nowhere else: a path below `/sys/fs/cgroup` is a custom, not a rule. Nothing is held open.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC};
use sys::mountinfo::MountInfo;

use crate::dir::Dir;
use crate::{CgroupPath, Error, Result, Stats, v1, v2};

/// How the host mounts its controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// v1 hierarchies only.
    V1,
    /// v1 hierarchies, and v2 beside them.
    Hybrid,
    /// v2 only.
    V2,
}

/// One mounted hierarchy.
#[derive(Debug)]
pub struct Hierarchy {
    /// v1 or v2, and what it controls.
    pub kind: Kind,
    /// Its root as we see it.
    pub root: Dir,
    /// False for a fixture of a test.
    pub(crate) is_mounted: bool,
}

impl Hierarchy {
    /// To be asked where a cgroup is not there: it is gone, unless it is the hierarchy that was unmounted or covered since it was
    /// found.
    pub(crate) fn still_there(&self) -> Result<()> {
        if !self.is_mounted {
            return Ok(());
        }
        let path = self.root.path().to_owned();
        match nix::sys::statfs::statfs(&path) {
            Ok(fs) if [CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC].contains(&fs.filesystem_type()) => Ok(()),
            Ok(_) => Err(Error::Unusable { path, reason: "is no hierarchy of cgroups any more".to_owned() }),
            Err(source) => Err(Error::Open { path, source }),
        }
    }
}

/// What a hierarchy controls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// v1: controllers, or a name (`name=systemd`), or both.
    V1 {
        /// Controllers as in `/proc/cgroups`, the name as `name=…`.
        controllers: Vec<String>,
    },
    /// v2.
    V2,
}

impl Kind {
    /// True for the v1 hierarchy that has this controller.
    pub fn controls(&self, controller: &str) -> bool {
        matches!(self, Kind::V1 { controllers } if controllers.iter().any(|name| name == controller))
    }
}

/// The hierarchies of the host, by their mount points. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Layout {
    hierarchies: Arc<[Arc<Hierarchy>]>,
    mode: Mode,
}

impl Layout {
    /// Reads `/proc/self/mountinfo`.
    pub fn detect() -> Result<Layout> {
        let mounts = sys::mountinfo::read().map_err(|source| Error::Detect { source })?;
        Layout::of(hierarchies(&mounts), true)
    }

    /// Directories that stand in for hierarchies in a test.
    pub fn fixture(mounts: Vec<(Kind, PathBuf)>) -> Result<Layout> {
        Layout::of(mounts, false)
    }

    fn of(mounts: Vec<(Kind, PathBuf)>, is_mounted: bool) -> Result<Layout> {
        let hierarchies: Vec<_> = mounts
            .into_iter()
            .map(|(kind, mountpoint)| Arc::new(Hierarchy { kind, root: Dir::at(mountpoint), is_mounted }))
            .collect();
        let v1 = hierarchies.iter().any(|hierarchy| hierarchy.kind != Kind::V2);
        let v2 = hierarchies.iter().any(|hierarchy| hierarchy.kind == Kind::V2);
        let mode = match (v1, v2) {
            (false, false) => return Err(Error::NothingMounted),
            (true, false) => Mode::V1,
            (true, true) => Mode::Hybrid,
            (false, true) => Mode::V2,
        };
        Ok(Layout { hierarchies: hierarchies.into(), mode })
    }

    /// v1, hybrid or v2.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// All hierarchies, in the order in which they were mounted.
    pub fn hierarchies(&self) -> &[Arc<Hierarchy>] {
        &self.hierarchies
    }

    /// Where a path is: a relative one, on a host with v2 alone, below the cgroup that is above our own, as runc has it (our
    /// own has a process in it, us, and so could pass no controller on). On v1, where our own cgroup may be another one in
    /// each hierarchy, it is below the root of each.
    pub fn locate(&self, path: &CgroupPath) -> Result<CgroupPath> {
        if self.mode != Mode::V2 || !path.is_relative() {
            return path.below("");
        }
        const OWN: &str = "/proc/self/cgroup";
        let text = std::fs::read_to_string(OWN)
            .map_err(|error| Error::Detect { source: sys::Error::from_io("read", &error, OWN) })?;
        path.below(above_own(&text))
    }

    /// What everything on the machine uses together: the root cgroups, which have fewer files than others. Memory is
    /// `None` on a host with v2 only.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        for Hierarchy { kind, root, .. } in self.hierarchies.iter().map(AsRef::as_ref) {
            if kind.controls("cpuacct") {
                stats.cpu.get_or_insert_default().usage_ns = v1::cpuacct::usage_ns(root)?;
            }
            if kind.controls("memory") {
                stats.memory = Some(v1::memory::read(root)?);
            }
        }
        if let (Mode::V2, Some(unified)) = (self.mode, self.hierarchies.first()) {
            v2::read(&unified.root, &mut stats)?;
        }
        Ok(stats)
    }

    /// True where a v1 hierarchy has this controller, or the v2 one could enable it.
    pub fn has(&self, controller: &str) -> bool {
        self.hierarchies.iter().any(|hierarchy| match hierarchy.kind {
            Kind::V1 { .. } => hierarchy.kind.controls(controller),
            Kind::V2 => hierarchy
                .root
                .read_if_there("cgroup.controllers")
                .ok()
                .flatten()
                .is_some_and(|list| list.split_whitespace().any(|name| name == controller)),
        })
    }
}

/// The parent of the v2 cgroup in `/proc/self/cgroup`.
fn above_own(groups: &str) -> &str {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    own.rsplit_once('/').map_or("", |(above, _)| above)
}

/// The cgroup hierarchies among the mounts. One mounted more than once counts once: the first mount of its root wins,
/// then the first of any other directory of it (as inside a container).
fn hierarchies(mounts: &[MountInfo]) -> Vec<(Kind, PathBuf)> {
    let mut found: Vec<(Kind, &MountInfo)> = Vec::new();
    let is_whole = |mount: &MountInfo| mount.root == Path::new("/");
    for mount in mounts {
        let kind = match mount.fstype.as_str() {
            "cgroup2" => Kind::V2,
            "cgroup" => Kind::V1 { controllers: v1_controllers(&mount.super_options) },
            _ => continue,
        };
        match found.iter_mut().find(|(known, _)| *known == kind) {
            None => found.push((kind, mount)),
            Some((_, known)) if is_whole(mount) && !is_whole(known) => *known = mount,
            Some(_) => {}
        }
    }
    found.into_iter().map(|(kind, mount)| (kind, mount.mount_point.clone())).collect()
}

/// The controllers among a v1 mount's super options, which also hold mount flags.
fn v1_controllers(options: &str) -> Vec<String> {
    const FLAGS: [&str; 6] = ["rw", "ro", "clone_children", "cpuset_v2_mode", "noprefix", "xattr"];
    options
        .split(',')
        .filter(|option| !FLAGS.contains(option) && !option.starts_with("release_agent="))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cgroup;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

    fn parse(mountinfo: &str) -> Vec<(Kind, PathBuf)> {
        hierarchies(&sys::mountinfo::parse(mountinfo.as_bytes()).expect("lines of mountinfo"))
    }

    #[test]
    fn a_hierarchy_that_was_unmounted_is_not_one_without_the_cgroup() {
        // What an unmounted hierarchy leaves: an empty directory, or nothing.
        let left = tempfile::tempdir().expect("a directory");
        for place in [left.path().to_owned(), left.path().join("gone")] {
            for kind in [v1(&["freezer"]), Kind::V2] {
                let layout = Layout::of(vec![(kind, place.clone())], true).expect("a layout");
                assert!(Cgroup::open(&layout, "/pod").is_err(), "{layout:?}");
                assert!(Cgroup::delete_at(&layout, "/pod").is_err(), "{layout:?}");
                assert!(Cgroup::is_frozen_at(&layout, "/pod").is_err(), "{layout:?}");
                assert!(Cgroup::thaw_at(&layout, "/pod").is_err(), "{layout:?}");
            }
        }
        let fixture = Layout::fixture(vec![(Kind::V2, left.path().to_owned())]).expect("a layout");
        assert!(!Cgroup::is_frozen_at(&fixture, "/pod").expect("a state"));
    }

    fn v1(controllers: &[&str]) -> Kind {
        Kind::V1 { controllers: controllers.iter().map(|&name| name.to_owned()).collect() }
    }

    #[test]
    fn every_hierarchy_of_a_hybrid_host_is_found_with_its_controllers() {
        assert_eq!(
            parse(HYBRID),
            [
                (v1(&["cpu", "cpuacct"]), PathBuf::from("/sys/fs/cgroup/cpu,cpuacct")),
                (v1(&["memory"]), PathBuf::from("/sys/fs/cgroup/memory")),
                (v1(&["name=systemd"]), PathBuf::from("/sys/fs/cgroup/systemd")),
                (Kind::V2, PathBuf::from("/sys/fs/cgroup/unified")),
            ]
        );
    }

    #[test]
    fn a_hierarchy_that_is_mounted_twice_counts_once_and_its_root_wins() {
        let text = "\
1 0 0:1 /docker/x /inside rw - cgroup cgroup rw,memory
2 0 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
3 0 0:1 / /again rw - cgroup cgroup rw,memory
";
        assert_eq!(parse(text), [(v1(&["memory"]), PathBuf::from("/sys/fs/cgroup/memory"))]);
    }

    #[test]
    fn a_host_without_any_hierarchy_is_refused() {
        assert!(matches!(Layout::fixture(parse("1 0 0:1 / / rw - ext4 /dev/vda rw\n")), Err(Error::NothingMounted)));
    }

    #[test]
    fn a_relative_path_is_beside_our_own_cgroup_on_v2() {
        assert_eq!(above_own("1:name=systemd:/x\n0::/user.slice/session-1.scope\n"), "/user.slice");
        assert_eq!((above_own("0::/init\n"), above_own("0::/\n"), above_own("")), ("", "", ""));
        let temp = tempfile::tempdir().expect("a temporary directory");
        let path = CgroupPath::parse("box").expect("a path");
        let memory = Layout::fixture(vec![(v1(&["memory"]), temp.path().to_owned())]).expect("a layout");
        assert_eq!(memory.locate(&path).expect("a place").to_string(), "/box");
    }

    #[test]
    fn a_host_with_v2_alone_is_told_apart_from_a_hybrid_one() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let v2 = (Kind::V2, temp.path().to_owned());
        let memory = (v1(&["memory"]), temp.path().to_owned());
        let mode = |mounts: Vec<_>| Layout::fixture(mounts).expect("a layout").mode();
        assert_eq!(mode(vec![v2.clone()]), Mode::V2);
        assert_eq!(mode(vec![memory.clone()]), Mode::V1);
        assert_eq!(mode(vec![memory, v2]), Mode::Hybrid);
    }
}
