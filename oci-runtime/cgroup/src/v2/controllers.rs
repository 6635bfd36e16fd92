//! Which controllers a v2 cgroup has: those that every cgroup above it passes on, by `cgroup.subtree_control`.
//!
//! Like runc, all that the host offers are passed down to a container, not only those that its config limits: they count
//! what it uses, and a runtime inside it hands them on. One that cannot be enabled is an error only where a limit needs it;
//! the reason is kept until then.

use std::path::PathBuf;

use nix::errno::Errno;

use crate::dir::{Dir, Made};
use crate::{CgroupPath, Error, Result};

const PASSED_ON: &str = "cgroup.subtree_control";
const AVAILABLE: &str = "cgroup.controllers";

/// The controllers of a cgroup, and why it lacks others.
#[derive(Debug)]
pub(crate) struct Controllers {
    cgroup: PathBuf,
    there: Vec<String>,
    refused: Vec<Refused>,
}

/// A controller that could not be enabled.
#[derive(Debug)]
struct Refused {
    controller: String,
    cgroup: PathBuf,
    errno: Errno,
}

impl Controllers {
    /// What a cgroup has now.
    pub(crate) fn of(dir: &Dir) -> Result<Controllers> {
        Ok(Controllers { cgroup: dir.path().to_owned(), there: words(dir, AVAILABLE)?, refused: Vec::new() })
    }

    /// Enables from the root down to the parent of `leaf`, which is at `path`, what that lacks.
    pub(crate) fn pass_down(root: &Dir, path: &CgroupPath, leaf: &Dir) -> Result<Controllers> {
        let mut controllers = Controllers::of(leaf)?;
        let mut missing = words(root, AVAILABLE)?;
        missing.retain(|name| !controllers.there.contains(name));
        if missing.is_empty() {
            return Ok(controllers);
        }
        let mut above = PathBuf::from(".");
        for component in path.components() {
            controllers.refused.extend(enable(&root.subdir(&above)?, &mut missing)?);
            above.push(component);
        }
        controllers.there = words(leaf, AVAILABLE)?;
        Ok(controllers)
    }

    /// Fails unless the controller is there, in the name of the field that needs it.
    pub(crate) fn require(&self, controller: &str, field: &'static str) -> Result<()> {
        if self.there.iter().any(|name| name == controller) {
            return Ok(());
        }
        let why = self.refused.iter().find(|refused| refused.controller == controller);
        let why = why.map_or_else(|| "this host does not have it below its root".to_owned(), Refused::reason);
        let missing = format!("cgroup {} has no {controller} controller: {why}", self.cgroup.display());
        Err(Error::Missing { field, missing })
    }
}

impl Refused {
    fn reason(&self) -> String {
        let cgroup = self.cgroup.display();
        let why = match self.errno {
            Errno::EBUSY => "it has processes of its own, and only a cgroup without any passes controllers on",
            Errno::EOPNOTSUPP => "it is threaded, which this controller is not",
            Errno::EACCES | Errno::EPERM | Errno::EROFS => "it was not delegated to us",
            errno => errno.desc(),
        };
        format!("{cgroup} can't pass it on: {why} ({:?})", self.errno)
    }
}

/// All in one write; if the kernel refuses that, one after the other. What is refused can't be had further down either.
///
/// Not so in a cgroup with processes: there the kernel takes controllers that know threads, one by one, but makes of the
/// cgroup a threaded one, below which no container can be.
fn enable(dir: &Dir, missing: &mut Vec<String>) -> Result<Vec<Refused>> {
    let enabled = words(dir, PASSED_ON)?;
    let wanted: Vec<String> = missing.iter().filter(|name| !enabled.contains(name)).cloned().collect();
    let refused = enable_all(dir, &wanted)?;
    missing.retain(|name| !refused.iter().any(|refused| refused.controller == *name));
    Ok(refused)
}

fn enable_all(dir: &Dir, wanted: &[String]) -> Result<Vec<Refused>> {
    let plus: Vec<String> = wanted.iter().map(|name| format!("+{name}")).collect();
    let refused = |name: &String, errno| Refused { controller: name.clone(), cgroup: dir.path().to_owned(), errno };
    let errno = |error: Error| error.errno().ok_or(error);
    let together = match plus.is_empty() {
        true => Ok(()),
        false => dir.write(PASSED_ON, &plus.join(" ")),
    };
    match together.map_err(errno) {
        Ok(()) => Ok(Vec::new()),
        Err(Ok(errno @ (Errno::EBUSY | Errno::EOPNOTSUPP))) => {
            Ok(wanted.iter().map(|name| refused(name, errno)).collect())
        }
        Err(Ok(_)) => {
            let mut list = Vec::new();
            for (name, plus) in wanted.iter().zip(&plus) {
                if let Err(error) = dir.write(PASSED_ON, plus) {
                    list.push(refused(name, errno(error)?));
                }
            }
            Ok(list)
        }
        Err(Err(error)) => Err(error),
    }
}

/// Has a cgroup pass on those of the controllers that it has. One that can't be enabled is left out: setting a limit of it
/// is what tells.
pub(crate) fn pass_on(dir: &Dir, controllers: &[&str]) -> Result<()> {
    let mut wanted = words(dir, AVAILABLE)?;
    wanted.retain(|name| controllers.contains(&name.as_str()));
    enable(dir, &mut wanted).map(drop)
}

/// Refuses a cgroup that no container can be put in: threaded ones take threads of their own domain only, and one that
/// passes controllers on takes no process at all.
pub(crate) fn refuse_unusable(dir: &Dir) -> Result<()> {
    let refuse = |reason: String| Err(Error::Unusable { path: dir.path().to_owned(), reason });
    match dir.read_if_there("cgroup.type")?.as_deref().map(str::trim_end) {
        None | Some("domain") => {}
        Some(kind @ ("threaded" | "domain threaded")) => {
            return refuse(format!("is in {kind} mode; a container needs a domain of its own"));
        }
        Some(kind) => {
            return refuse(format!("is {kind}, below a threaded one; a container needs a domain of its own"));
        }
    }
    match words(dir, PASSED_ON)?.as_slice() {
        [] => Ok(()),
        passed_on => {
            let list = passed_on.join(" ");
            refuse(format!("passes controllers on to cgroups below it ({list}) and so takes no processes"))
        }
    }
}

/// Whether `dir` passes controllers on and therefore takes no process.
pub(crate) fn is_interior(dir: &Dir) -> Result<bool> {
    Ok(!words(dir, PASSED_ON)?.is_empty())
}

/// Whether what is put there would not run: the cgroup is frozen, or one above it.
pub(crate) fn is_frozen(dir: &Dir, made: Made) -> Result<bool> {
    let events = dir.read_if_there("cgroup.events")?.unwrap_or_default();
    if events.lines().any(|line| line == "frozen 1") {
        return Ok(true);
    }
    // One that is still being frozen. Nobody has asked that of a new one, which has no process that would keep it waiting.
    Ok(made == Made::Found && dir.read_if_there("cgroup.freeze")?.is_some_and(|asked| asked.trim_end() == "1"))
}

fn words(dir: &Dir, file: &str) -> Result<Vec<String>> {
    Ok(dir.read_if_there(file)?.unwrap_or_default().split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;

    fn path() -> CgroupPath {
        CgroupPath::parse("/pods/c1").expect("a path")
    }

    #[test]
    fn what_the_host_offers_is_enabled_in_every_cgroup_above_the_containers() {
        let root = Fixture::new(&[
            ("cgroup.controllers", "cpu memory pids\n"),
            ("cgroup.subtree_control", "pids\n"),
            ("pods/cgroup.controllers", "pids\n"),
            ("pods/cgroup.subtree_control", ""),
            ("pods/c1/cgroup.controllers", ""),
            ("pods/c1/cgroup.subtree_control", ""),
        ]);
        let leaf = root.dir.subdir(path().relative()).expect("the container's");
        Controllers::pass_down(&root.dir, &path(), &leaf).expect("enabled");
        assert_eq!(root.content("cgroup.subtree_control"), "+cpu +memory");
        assert_eq!(root.content("pods/cgroup.subtree_control"), "+cpu +memory +pids");
        assert_eq!(root.content("pods/c1/cgroup.subtree_control"), "");
    }

    #[test]
    fn a_cgroup_that_has_everything_is_not_worked_for() {
        let root = Fixture::new(&[("cgroup.controllers", "pids"), ("pods/c1/cgroup.controllers", "pids")]);
        let leaf = root.dir.subdir(path().relative()).expect("the container's");
        let controllers = Controllers::pass_down(&root.dir, &path(), &leaf).expect("nothing to do");
        controllers.require("pids", "pids.limit").expect("it is there");
        let error = controllers.require("rdma", "rdma").expect_err("it is not");
        let text = error.to_string();
        assert!(text.starts_with("linux.resources.rdma: cgroup ") && text.contains("no rdma controller"), "{text}");
    }

    #[test]
    fn a_refusal_of_the_kernel_is_explained_where_a_limit_needs_the_controller() {
        let refused = |errno| {
            let refused = Refused { controller: "memory".into(), cgroup: "/sys/fs/cgroup/pods".into(), errno };
            let controllers = Controllers { cgroup: "/x".into(), there: Vec::new(), refused: vec![refused] };
            controllers.require("memory", "memory").expect_err("refused").to_string()
        };
        assert_eq!(
            refused(Errno::EBUSY),
            "linux.resources.memory: cgroup /x has no memory controller: /sys/fs/cgroup/pods can't pass it on: it has \
             processes of its own, and only a cgroup without any passes controllers on (EBUSY)"
        );
        assert!(refused(Errno::EOPNOTSUPP).contains("threaded"));
        assert!(refused(Errno::EROFS).contains("not delegated"));
    }

    #[test]
    fn a_cgroup_that_takes_no_container_is_refused() {
        let check = |kind: &str, passed_on: &str, expected: Option<&str>| {
            let fixture = Fixture::new(&[("cgroup.type", kind), ("cgroup.subtree_control", passed_on)]);
            let refused = refuse_unusable(&fixture.dir).err().map(|error| error.to_string());
            match (refused, expected) {
                (None, None) => {}
                (Some(text), Some(part)) => assert!(text.contains(part), "{text}"),
                other => panic!("{kind}, {passed_on}: {other:?}"),
            }
        };
        check("domain\n", "", None);
        check("threaded\n", "", Some("is in threaded mode"));
        check("domain threaded\n", "", Some("is in domain threaded mode"));
        check("domain invalid\n", "", Some("is domain invalid"));
        check("domain\n", "cpu memory\n", Some("passes controllers on to cgroups below it (cpu memory)"));
    }

    #[test]
    fn a_cgroup_below_a_frozen_one_is_frozen() {
        let frozen = |events, freeze| {
            is_frozen(&Fixture::new(&[("cgroup.events", events), ("cgroup.freeze", freeze)]).dir, Made::Found)
                .expect("a state")
        };
        assert!(!frozen("populated 0\nfrozen 0\n", "0\n"));
        assert!(frozen("populated 0\nfrozen 1\n", "0\n"));
        assert!(frozen("populated 0\nfrozen 0\n", "1\n"));
    }
}
