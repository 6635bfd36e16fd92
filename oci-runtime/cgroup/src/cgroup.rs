//! One container's cgroup: its directory in every hierarchy of the host.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollTimeout, poll};

use crate::dir::{Dir, Made};
use crate::error::in_field;
use crate::v2::controllers::Controllers;
use crate::{
    CgroupPath, Error, Hierarchy, Kind, Layout, Mode, Resources, Result, Stats, hugetlb, pressure, rdma, v1, v2,
};

/// How often [`Cgroup::delete`] tries, each time waiting twice as long as before: about half a second in all. A
/// dying process leaves its cgroup a moment before or after its parent can reap it.
const DELETE_TRIES: u32 = 9;

/// How often it tries in all as long as no process is listed: all that is in there has begun to die, and is listed no more. It
/// may wait for a processor, not for long: these are ten seconds.
const DYING_TRIES: u32 = DELETE_TRIES + 38;

/// What a cgroup's owner may write (Linux 4.15), and what is in there on every kernel.
const DELEGATE: &str = "/sys/kernel/cgroup/delegate";
const DELEGATED: &str = "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n";

/// A cgroup, held by an fd in each hierarchy where it exists.
#[derive(Debug)]
pub struct Cgroup {
    path: CgroupPath,
    members: Vec<Member>,
    /// See [`Cgroup::join_self`].
    forbids_forks: bool,
}

/// The cgroup's directory in one hierarchy.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) hierarchy: Arc<Hierarchy>,
    pub(crate) dir: Dir,
    made: Made,
}

impl Cgroup {
    /// Makes the cgroup everywhere and sets its limits. What is missing on the way is made too, and stays.
    ///
    /// One that is there already is taken if it is empty and not frozen. After a failure what was new in the last
    /// place of the path is removed again.
    pub fn create(layout: &Layout, path: &str, resources: &Resources) -> Result<Cgroup> {
        let path = CgroupPath::parse(path)?;
        match layout.mode() {
            Mode::V2 => v2::validate(resources)?,
            Mode::V1 | Mode::Hybrid => v1::validate(layout, resources)?,
        }
        let mut cgroup = Cgroup::new(path, Vec::with_capacity(layout.hierarchies().len()));
        match cgroup.make_and_limit(layout, resources) {
            Ok(()) => Ok(cgroup),
            Err(error) => {
                cgroup.remove_what_is_new();
                Err(error)
            }
        }
    }

    /// Opens a cgroup wherever it exists. One that exists nowhere is empty: nothing to kill, nothing to delete.
    pub fn open(layout: &Layout, path: &str) -> Result<Cgroup> {
        let path = CgroupPath::parse(path)?;
        let mut members = Vec::with_capacity(layout.hierarchies().len());
        for hierarchy in layout.hierarchies() {
            match hierarchy.root.subdir(path.relative()) {
                Ok(dir) => members.push(Member { hierarchy: Arc::clone(hierarchy), dir, made: Made::Found }),
                Err(error) if error.is_gone() => hierarchy.still_there()?,
                Err(error) => return Err(error),
            }
        }
        Ok(Cgroup::new(path, members))
    }

    /// Its path, the same in every hierarchy.
    pub fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// False once it is gone from every hierarchy (or never was in one).
    pub fn exists(&self) -> bool {
        self.members.iter().any(|member| member.hierarchy.root.subdir(self.path.relative()).is_ok())
    }

    /// Whether it takes no process (any more): on a host with v2 alone, one that passes controllers on to cgroups below it,
    /// as a container does that is a node or an engine itself.
    pub fn is_interior(&self) -> Result<bool> {
        self.only_v2().map_or(Ok(false), v2::controllers::is_interior)
    }

    /// The cgroup that a process joins to be with another one where [`Cgroup::is_interior`]: the one that this is in.
    ///
    /// `groups` is its `/proc/<pid>/cgroup` as read in the caller's cgroup namespace. A place outside of this cgroup is
    /// not followed: somebody else has moved the process there.
    pub fn below_with(&self, layout: &Layout, groups: &str) -> Result<Cgroup> {
        let place = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
        match CgroupPath::parse(place) {
            Ok(path) if path.relative().starts_with(self.path.relative()) => Cgroup::open(layout, place),
            _ => Err(Error::Unusable {
                path: self.only_v2().map(|dir| dir.path().to_owned()).unwrap_or_default(),
                reason: format!("takes no processes, and the container's first one is elsewhere: {place:?}"),
            }),
        }
    }

    /// Gives a v2 cgroup to a user, who may then divide it further: the directory and the files that the kernel names in
    /// `/sys/kernel/cgroup/delegate`, no others, since those set what this cgroup itself may use
    /// (Documentation/admin-guide/cgroup-v2.rst, "Delegation"). Does nothing where v1 holds the controllers.
    pub fn delegate(&self, user: u32) -> Result<()> {
        let Some(dir) = self.only_v2() else { return Ok(()) };
        let list = std::fs::read_to_string(DELEGATE).unwrap_or_else(|_| DELEGATED.to_owned());
        dir.give_to(user, ".")?;
        list.lines().try_for_each(|file| match dir.give_to(user, file) {
            // The list is the kernel's, of all controllers; this cgroup may lack some.
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
            result => result,
        })
    }

    /// The v2 directory, to be given to `clone3` with `CLONE_INTO_CGROUP`.
    pub fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified_dir().and_then(|dir| dir.opened().ok())
    }

    /// Puts the calling thread, which has to be the only one of its process, into the v1 side of the cgroup; on a host
    /// with v2 alone there is none. v1's `tasks` takes "0" for the writer itself without waiting for an RCU grace period.
    ///
    /// Where no process may be forked at all, v2 would not let this one be born in the cgroup either: there the limit is
    /// 1 until now.
    pub fn join_self(&self) -> Result<()> {
        if let (true, Some(dir)) = (self.forbids_forks, self.only_v2()) {
            dir.write("pids.max", "0")?;
        }
        self.v1().try_for_each(|member| member.dir.write("tasks", "0"))
    }

    /// Sets limits again. Device rules are not touched: see [`Resources::devices`].
    pub fn update(&self, resources: &Resources) -> Result<()> {
        if let Some(dir) = self.only_v2() {
            return v2::apply(dir, resources, v2::Weights::Containers);
        }
        let left_over = |controller: &str| controller == "rdma" && self.unified_dir().is_some();
        v1::validate_limits(&|name| self.controller(name).is_some() || left_over(name), resources)?;
        self.v1().try_for_each(|member| v1::apply(&member.hierarchy.kind, &member.dir, resources))?;
        self.apply_left_over(resources)
    }

    /// All processes in the cgroup and in those below it.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let Some(member) = self.census() else { return Ok(Vec::new()) };
        let mut pids = Vec::new();
        collect_processes(&member.dir, &mut pids)?;
        Ok(pids)
    }

    /// What is used now.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        for member in self.v1() {
            v1::read(&member.hierarchy.kind, &member.dir, &mut stats)?;
        }
        if let Some(dir) = self.hugetlb_dir() {
            stats.hugetlb = hugetlb::read(&dir)?;
        }
        if let Some(dir) = self.unified_dir() {
            v2::read(dir, &mut stats)?;
            pressure::read(dir, &mut stats)?;
        }
        Ok(stats)
    }

    /// Removes the cgroup and all below it. What is gone already is fine; every hierarchy is tried, and the first
    /// failure returned.
    pub fn delete(&self) -> Result<()> {
        let failures: Vec<Error> = self
            .members
            .iter()
            .filter_map(|member| remove_tree(&member.hierarchy, self.path.relative()).err())
            .collect();
        failures.into_iter().next().map_or(Ok(()), Err)
    }

    /// [`Cgroup::delete`] of the one at a path, without a look at it.
    pub fn delete_at(layout: &Layout, path: &str) -> Result<()> {
        let path = CgroupPath::parse(path)?;
        let removed = layout.hierarchies().iter().map(|hierarchy| remove_tree(hierarchy, path.relative()));
        let failures: Vec<Error> = removed.filter_map(Result::err).collect();
        failures.into_iter().next().map_or(Ok(()), Err)
    }

    fn make_and_limit(&mut self, layout: &Layout, resources: &Resources) -> Result<()> {
        for hierarchy in layout.hierarchies() {
            let member = make(hierarchy, &self.path)?;
            self.members.push(member);
            let member = self.members.last().expect("just pushed");
            refuse_used(member)?;
            if layout.mode() == Mode::V2 {
                let pids = if resources.pids == Some(0) { Some(1) } else { resources.pids };
                self.forbids_forks = resources.pids == Some(0);
                let resources = Resources { pids, ..resources.clone() };
                return v2::limit_container(&hierarchy.root, &self.path, &member.dir, &resources);
            }
            v1::apply(&hierarchy.kind, &member.dir, resources)?;
            v1::apply_at_creation(&hierarchy.kind, &member.dir, resources)?;
        }
        if let Some(unified) = self.members.iter().find(|member| member.hierarchy.kind == Kind::V2) {
            hugetlb::enable(&unified.hierarchy.root, &self.path, &resources.hugetlb)?;
            if !resources.rdma.is_empty() && self.controller("rdma").is_none() {
                Controllers::pass_down(&unified.hierarchy.root, &self.path, &unified.dir)?.require("rdma", "rdma")?;
            }
        }
        self.apply_left_over(resources)
    }

    /// Beside v1 hierarchies, the limits of those controllers that v2 may hold.
    fn apply_left_over(&self, resources: &Resources) -> Result<()> {
        hugetlb::apply(self.hugetlb_dir(), &resources.hugetlb).map_err(in_field("hugepageLimits"))?;
        match (self.controller("rdma"), self.unified_dir()) {
            (None, Some(dir)) => rdma::apply(dir, &resources.rdma).map_err(in_field("rdma")),
            _ => Ok(()),
        }
    }

    /// Best effort: the error that led here is the one to tell.
    fn remove_what_is_new(&self) {
        for member in self.members.iter().filter(|member| member.made == Made::New) {
            let _ = member.hierarchy.root.remove(self.path.relative());
        }
    }

    pub(crate) fn new(path: CgroupPath, members: Vec<Member>) -> Cgroup {
        Cgroup { path, members, forbids_forks: false }
    }

    pub(crate) fn members_mut(&mut self) -> &mut [Member] {
        &mut self.members
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(crate) fn v1(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.hierarchy.kind != Kind::V2)
    }

    pub(crate) fn controller(&self, controller: &str) -> Option<&Dir> {
        self.members.iter().find(|member| member.hierarchy.kind.controls(controller)).map(|member| &member.dir)
    }

    pub(crate) fn unified_dir(&self) -> Option<&Dir> {
        self.members.iter().find(|member| member.hierarchy.kind == Kind::V2).map(|member| &member.dir)
    }

    /// The directory of a cgroup that is on v2 alone.
    pub(crate) fn only_v2(&self) -> Option<&Dir> {
        match self.members.as_slice() {
            [only] if only.hierarchy.kind == Kind::V2 => Some(&only.dir),
            _ => None,
        }
    }

    /// Where the hugetlb files are, on v1 or below `unified`.
    fn hugetlb_dir(&self) -> Option<hugetlb::At<'_>> {
        let v1 = self.controller("hugetlb").map(hugetlb::At::V1);
        v1.or_else(|| self.unified_dir().map(hugetlb::At::V2))
    }

    /// The hierarchy whose process list is taken as the truth: the freezer's, since it is what stops them.
    fn census(&self) -> Option<&Member> {
        let freezer = self.members.iter().find(|member| member.hierarchy.kind.controls("freezer"));
        freezer.or(self.members.first())
    }
}

/// Makes a directory and what is missing above it; after a failure none of that is left.
fn make_all(root: &Dir, path: &CgroupPath) -> Result<Made> {
    let mut above = PathBuf::new();
    let mut new: Vec<PathBuf> = Vec::new();
    let mut made = Made::Found;
    for component in path.components() {
        above.push(component);
        match root.make(&above) {
            Ok(done) => made = done,
            Err(error) => {
                for path in new.iter().rev() {
                    // Somebody else may use one by now.
                    let _ = root.remove(path);
                }
                return Err(error);
            }
        }
        if made == Made::New {
            new.push(above.clone());
        }
    }
    Ok(made)
}

/// Makes the cgroup in one hierarchy; its parents only if they turn out to be missing. After a failure it is not there, unless it
/// was before.
pub(crate) fn make(hierarchy: &Arc<Hierarchy>, path: &CgroupPath) -> Result<Member> {
    let made = match hierarchy.root.make(path.relative()) {
        Err(error) if error.errno() == Some(Errno::ENOENT) => make_all(&hierarchy.root, path)?,
        done => done?,
    };
    let made_usable = hierarchy.root.subdir(path.relative()).and_then(|dir| {
        if hierarchy.kind.controls("cpuset") {
            v1::cpuset::inherit(&hierarchy.root, path)?;
        }
        Ok(dir)
    });
    match made_usable {
        Ok(dir) => Ok(Member { hierarchy: Arc::clone(hierarchy), dir, made }),
        Err(error) => {
            if made == Made::New {
                // The error that led here is the one to tell.
                let _ = hierarchy.root.remove(path.relative());
            }
            Err(error)
        }
    }
}

/// A cgroup that somebody else's processes are in is not ours to limit, let alone to kill; in a frozen one, or below one,
/// the container would not run.
fn refuse_used(member: &Member) -> Result<()> {
    let dir = &member.dir;
    if member.made == Made::Found {
        let mut pids = Vec::new();
        collect_processes(dir, &mut pids)?;
        if !pids.is_empty() {
            return Err(Error::NotEmpty { count: pids.len() });
        }
    }
    let is_frozen = match &member.hierarchy.kind {
        Kind::V2 => v2::controllers::is_frozen(dir, member.made)?,
        kind if kind.controls("freezer") => dir.read("freezer.state")?.trim_end() != "THAWED",
        Kind::V1 { .. } => false,
    };
    if is_frozen { Err(Error::Frozen) } else { Ok(()) }
}

/// A cgroup that goes away meanwhile has no processes.
fn collect_processes(dir: &Dir, pids: &mut Vec<i32>) -> Result<()> {
    let text = match dir.read_list("cgroup.procs") {
        Err(error) if error.is_gone() => return Ok(()),
        // A threaded cgroup of v2: its processes are listed where their domain is, above it.
        Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => String::new(),
        text => text?,
    };
    for line in text.lines() {
        pids.push(line.parse().map_err(|_| dir.malformed("cgroup.procs", line, "a list of process ids"))?);
    }
    for child in dir.children()? {
        match dir.subdir(Path::new(&child)) {
            Ok(child) => collect_processes(&child, pids)?,
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes a cgroup, from the leaves up, with patience for processes that are on their way out.
fn remove_tree(hierarchy: &Hierarchy, path: &Path) -> Result<()> {
    let root = &hierarchy.root;
    for attempt in 0..DYING_TRIES {
        match root.remove(path) {
            Ok(()) => return Ok(()),
            Err(Errno::ENOENT | Errno::ENODEV) => return hierarchy.still_there(),
            Err(Errno::EBUSY) => {}
            Err(source) => return Err(Error::Remove { path: root.path().join(path), source }),
        }
        // EBUSY is a child cgroup or a process. Children first; then wait.
        remove_children(root, path);
        if root.remove(path).is_ok() {
            return Ok(());
        }
        if attempt >= DELETE_TRIES && is_populated(root, path) {
            break;
        }
        pause(Duration::from_millis(1 << attempt.min(DELETE_TRIES - 1)));
    }
    Err(Error::Remove { path: root.path().join(path), source: Errno::EBUSY })
}

/// Whether a process is listed in a cgroup or below it, or nobody knows.
fn is_populated(root: &Dir, path: &Path) -> bool {
    let mut pids = Vec::new();
    match root.subdir(path).and_then(|dir| collect_processes(&dir, &mut pids)) {
        Ok(()) => !pids.is_empty(),
        Err(error) => !error.is_gone(),
    }
}

/// Best effort: what cannot be removed makes the parent's own removal fail.
fn remove_children(root: &Dir, path: &Path) {
    let names = root.subdir(path).and_then(|dir| dir.children()).unwrap_or_default();
    for child in names.iter().map(|name| path.join(name)) {
        remove_children(root, &child);
        let _ = root.remove(&child);
    }
}

/// Waits where the kernel offers nothing to wait for.
pub(crate) fn pause(time: Duration) {
    let _ = poll(&mut [], PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;

    #[test]
    fn a_new_cgroup_that_can_not_be_made_usable_is_removed() {
        // Without the files that a new cpuset gets its CPUs from.
        let fixture = Fixture::new(&[("pods/tasks", "")]);
        let there = |path: &str| fixture.dir.subdir(Path::new(path)).is_ok();
        let root = Dir::at(fixture.dir.path().to_owned());
        let kind = Kind::V1 { controllers: vec!["cpuset".to_owned()] };
        let hierarchy = Arc::new(Hierarchy { kind, root, is_mounted: false });
        for path in ["/new", "/pods/new", "/pods"] {
            let path = CgroupPath::parse(path).expect("a path");
            let error = make(&hierarchy, &path).expect_err("a cpuset without CPUs").to_string();
            assert!(error.contains("cpuset.cpus"), "{error}");
        }
        assert_eq!(["new", "pods/new", "pods"].map(there), [false, false, true]);
    }
}
